"""Every route of the running app: open with its bounds (ROUTES) or closed (CLOSED).

Gradio opens more than seventy routes beside the page. demo/server/guard.py answers 404 for all that
ROUTES does not name, before Gradio sees the request, and holds the bounds of the others. A test
compares both tables with the routes of the running app.
"""

from __future__ import annotations

from dataclasses import dataclass
from re import Pattern

from starlette.routing import compile_path

KB, MB = 1 << 10, 1 << 20
API = "/gradio_api"
JSON_BYTES = 1_500_000  # of a JSON body: a prompt that is far too long still gets its own sentence
STREAMS = 400  # open event streams; each takes a connection, and a process has 1,024 as a rule


@dataclass(frozen=True)
class Route:
    """A row of ROUTES: a route that is answered, and what one request may use.

    methods: HTTP methods that are answered
    serves: what it is for
    keeps: what stays on the server after the answer, and for how long
    body: bytes of a request's body
    seconds: time in which the body must have arrived
    at_once: requests that are served at a time, of all visitors; a further one is told to wait
    check: the function of demo/server/request_body.py that a JSON body must pass; None for none
    query: names that the query must have, each of the characters of an id
    """

    methods: tuple[str, ...]
    serves: str
    keeps: str = "nothing"
    body: int = 0
    seconds: int = 30
    at_once: int = 64
    check: str | None = None
    query: tuple[str, ...] = ()


GET, READ, POST = ("GET",), ("GET", "HEAD"), ("POST",)
_FILES = Route(GET, "files of the page")
_CONFIG = Route(GET, "the page's components, for clients", at_once=16)
_INFO = Route(GET, "the web API's description", at_once=16)
_JOIN = Route(
    POST,
    "a request of a client",
    "the request until it is drawn, at most the queue's length of them",
    JSON_BYTES,
    check="call",
)
_EVENTS = Route(GET, "the answers to a client's request", at_once=STREAMS)
_RUN = Route(
    POST, "a listener of the page that needs no queue", body=JSON_BYTES, check="run", at_once=32
)
_SERVER = Route(
    POST,
    "frames and word maps of the tab Look inside",
    "decoded frames, in a cache with a bound",
    16 * KB,
    check="component_server",
    at_once=32,
)
_RESET = Route(POST, "does nothing, for old clients", body=16 * KB, check="any")

ROUTES: dict[str, Route] = {  # Starlette's path patterns; the first that fits counts
    "/": Route(READ, "the page", at_once=32),
    "/config": _CONFIG,
    "/config/": _CONFIG,
    "/static/{path:path}": _FILES,
    "/assets/{path:path}": _FILES,
    "/favicon.ico": _FILES,
    "/theme.css": _FILES,
    "/manifest.json": _FILES,
    "/robots.txt": _FILES,
    f"{API}/theme.css": _FILES,
    f"{API}/app_id": Route(GET, "whether the server was started anew"),
    f"{API}/app_id/": Route(GET, "whether the server was started anew"),
    f"{API}/startup-events": Route(GET, "tells the server at its start that it is reached"),
    f"{API}/info": _INFO,
    f"{API}/info/": _INFO,
    f"{API}/openapi.json": _INFO,
    f"{API}/queue/join": Route(
        POST,
        "a request of the page or of gradio_client",
        "the request until it is drawn, at most the queue's length of them",
        JSON_BYTES,
        check="join",
    ),
    f"{API}/queue/data": Route(
        GET, "the answers to a visitor's requests", at_once=STREAMS, query=("session_hash",)
    ),
    f"{API}/queue/status": Route(GET, "how many requests wait"),
    f"{API}/call/v2/{{api_name}}": Route(
        POST, _JOIN.serves, _JOIN.keeps, JSON_BYTES, check="call_by_name"
    ),
    f"{API}/call/v2/{{api_name}}/": Route(
        POST, _JOIN.serves, _JOIN.keeps, JSON_BYTES, check="call_by_name"
    ),
    f"{API}/call/v2/{{api_name}}/{{event_id}}": _EVENTS,
    f"{API}/call/{{api_name}}": _JOIN,
    f"{API}/call/{{api_name}}/": _JOIN,
    f"{API}/call/{{api_name}}/{{event_id}}": _EVENTS,
    f"{API}/run/{{api_name}}": _RUN,
    f"{API}/run/{{api_name}}/": _RUN,
    f"{API}/cancel": Route(POST, "stops a visitor's own request", body=16 * KB, check="cancel"),
    f"{API}/reset": _RESET,
    f"{API}/reset/": _RESET,
    f"{API}/heartbeat/{{session_hash}}": Route(
        GET, "tells the server that a page is open", at_once=STREAMS
    ),
    f"{API}/component_server": _SERVER,
    f"{API}/component_server/": _SERVER,
    f"{API}/upload": Route(
        POST,
        "files of a visitor",
        "the files for an hour, up to `--temp-disk-mb`",
        256 * MB,
        600,
        at_once=8,
    ),
    f"{API}/upload_progress": Route(GET, "how much of an upload has arrived", query=("upload_id",)),
    f"{API}/file={{path_or_url:path}}": Route(READ, "pictures and files that a visitor was given"),
    f"{API}/mcp{{path:path}}": Route(
        ("GET", "POST", "DELETE"),
        "tasks for MCP clients, with `--mcp` alone",
        body=16 * MB,
        at_once=32,
    ),
}

_VIBE = "edits the app's source; for developers"
_STREAM = "streamed sound and video, which no tab has"
_LOGIN = "there are no accounts"
CLOSED: dict[str, str] = {  # a route that Gradio opens: why it is closed here
    "/login": _LOGIN,
    "/login/": _LOGIN,
    "/logout": _LOGIN,
    f"{API}/user": _LOGIN,
    f"{API}/user/": _LOGIN,
    f"{API}/login_check": _LOGIN,
    f"{API}/login_check/": _LOGIN,
    f"{API}/token": _LOGIN,
    f"{API}/token/": _LOGIN,
    "/openapi.json": "FastAPI's own description; Gradio's is open",
    "/svelte/{path:path}": "parts of custom components, which no tab has",
    f"{API}/custom_component/{{id}}/{{environment}}/{{type}}/{{file_name}}": "custom components,"
    " which no tab has",
    f"{API}/deep_link": "writes a session's whole state to the disk",
    "/pwa_icon": "there is no icon",
    "/pwa_icon/{size}": "resizes an icon to any size",
    "/monitoring": "who used what, for the owner",
    "/monitoring/summary": "who used what, for the owner",
    "/monitoring/{key}": "who used what, for the owner",
    f"{API}/dev/reload": "reloads the page; for developers",
    f"{API}/runs": "a history that Gradio keeps at huggingface.co",
    f"{API}/runs/": "a history that Gradio keeps at huggingface.co",
    f"{API}/proxy={{url_path:path}}": "fetches from other servers",
    f"{API}/stream/{{event_id}}": _STREAM,
    f"{API}/stream/{{event_id}}/close": _STREAM,
    f"{API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist.m3u8": _STREAM,
    f"{API}/stream/{{session_hash}}/{{run}}/{{component_id}}/{{segment_id}}.{{ext}}": _STREAM,
    f"{API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist-file": _STREAM,
    f"{API}/file/{{path:path}}": "the former name of file=",
    f"{API}/api/{{api_name}}": "the former name of run",
    f"{API}/api/{{api_name}}/": "the former name of run",
    f"{API}/process_recording": "takes a video and runs ffmpeg",
    f"{API}/vibe-edit": _VIBE,
    f"{API}/vibe-edit/": _VIBE,
    f"{API}/undo-vibe-edit": _VIBE,
    f"{API}/undo-vibe-edit/": _VIBE,
    f"{API}/vibe-code": _VIBE,
    f"{API}/vibe-code/": _VIBE,
    f"{API}/vibe-starter-queries": _VIBE,
    f"{API}/vibe-starter-queries/": _VIBE,
}

_PATTERNS: list[tuple[str, Pattern[str]]] = [(path, compile_path(path)[0]) for path in ROUTES]


def find_route(path: str) -> tuple[str, dict[str, str]] | None:
    """Return the key of ROUTES that a request's path fits, and the parts of the path by name.

    None where the path is closed or unknown. path: percent-decoded, without the root path.
    """
    for key, pattern in _PATTERNS:
        found = pattern.match(path)
        if found:
            return key, found.groupdict()
    return None


def size(number: int) -> str:
    """Return a number of bytes with its unit, such as "16 KB" or "256 MB"."""
    if number < MB:
        return f"{round(number / KB)} KB"
    return f"{number / MB:.1f}".removesuffix(".0") + " MB"


def table() -> str:
    """Return ROUTES as a table in Markdown, which docs/operations.md holds."""
    rows = ["| route | serves | body | at once | stays |", "|---|---|---|---|---|"]
    for path, route in ROUTES.items():
        if path.endswith("/") and path != "/":
            continue  # the same route with a slash
        body = size(route.body) if route.body else "none"
        cells = [f"`{'|'.join(route.methods)} {path}`", route.serves, body]
        cells[0] = cells[0].replace("|", " ")
        rows.append("| " + " | ".join([*cells, str(route.at_once), route.keeps]) + " |")
    return "\n".join(rows)
