"""Send hostile requests to every endpoint and every route of a real server.

    python tests/soak/routes.py --count 500

Starts `python app.py` with a tiny model. Each endpoint of the page, private ones too, gets --count
requests with values that no page would send; each route of the running app, open or closed, gets as
many with broken paths, queries, headers and bodies. A request is handled if the answer is a result
or a refusal with a sentence: no `error: null`, no sentence that the server failed, no HTTP 500, no
closed connection, no traceback in the log. Prints a table; exit status 1 if a target was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from urllib.parse import quote, urlparse

import httpx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from demo.server.routes import CLOSED, MB, ROUTES  # noqa: E402

PATIENCE = 60  # seconds for one answer
MEMORY_MB = 200  # the server may have so much more after all requests
FAILED = ("Something went wrong", "服务器")  # of the sentence that says that the server failed
TEXTS = [
    "",
    "nan",
    "inf",
    "-1",
    "1e999",
    "NULL",
    "../../etc/passwd",
    "/etc/passwd",
    "\0",
    "a\0b",
    "\ud800",
    "💥" * 200,
    "x" * 20_000,
    "<script>alert(1)</script>",
    "'; DROP TABLE x;--",
    "((((" * 500,
    "{}",
    "[]",
    "%s%n%x",
    "con",
    "a" * 300,
    "\r\nSet-Cookie: a=b",
    "true",
    "0x10",
    "１２",
]
NUMBERS = [0, -1, 1, 3.5, 1e308, -1e308, float("nan"), float("inf"), 2**63, 10**100, -(10**30)]
OTHERS = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None] * 50,
    {"a": 1},
    {"__type__": "update"},
    [[1, 2], "x"],
]


def file_value(path: str) -> dict:
    """Return the value with which a client names an uploaded file."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


class Attack:
    """Hostile requests to one server, and what came of them.

    url: the server's address, ending with "/". seed: of the random choices.
    handled: number of requests by kind that were answered as they should; unhandled: a line for
    each that was not
    """

    def __init__(self, url: str, seed: int):
        self.url, self.seed = url, seed
        self.handled: Counter[str] = Counter()
        self.unhandled: list[str] = []
        self._lock = threading.Lock()
        self._client = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_connections=32))
        config = self._client.get(f"{url}config").json()
        self.components = {c["id"]: c for c in config["components"]}
        self.endpoints = [d for d in config["dependencies"] if d.get("backend_fn")]
        self.ids = {}
        for name, kind in ((b"EDITOR", "imageeditor"), (b"VIEWER", "html")):
            found = [c["id"] for c in config["components"] if c["type"] == kind]
            served = [i for i in found if self.components[i].get("props", {}).get("server_fns")]
            self.ids[name] = str((served or found)[0]).encode()
        self.files = self._upload()

    def _upload(self) -> list[str]:
        """Upload a text, a broken picture and a picture; return their paths on the server."""
        from io import BytesIO

        from PIL import Image

        picture = BytesIO()
        Image.new("RGB", (64, 64), "red").save(picture, "PNG")
        whole = picture.getvalue()
        files = [
            ("files", (name, data))
            for name, data in (("a.txt", b"text"), ("b.png", whole[:60]), ("c.png", whole))
        ]
        return self._client.post(f"{self.url}gradio_api/upload", files=files).json()

    def note(self, kind: str, name: str, problem: str | None, sent: object = "") -> None:
        """Count a request; `problem` says why it was not handled, None that it was."""
        with self._lock:
            if problem is None:
                self.handled[kind] += 1
            else:
                self.unhandled.append(f"{kind} {name}: {problem} | {str(sent)[:300]}")

    def draw_with(self, model: str) -> None:
        """Draw one picture, so that the server has loaded the model."""
        address = f"{self.url}gradio_api/call/v2/generate"
        body = {"prompt": "a", "steps": 1, "width": 64, "height": 64, "model": model}
        event = self._client.post(address, json=body).json()["event_id"]
        assert "event: complete" in self._client.get(f"{address}/{event}").text

    # Endpoints

    def attack_endpoint(self, endpoint: dict, count: int) -> None:
        """Send `count` hostile requests to one endpoint."""
        rng = random.Random(f"{self.seed} {count} {endpoint['id']}")
        name = f"{endpoint['id']} {endpoint['api_name']}"
        for _ in range(count):
            values = self._values(endpoint, rng)
            try:
                problem = self._send(endpoint, values, rng)
            except httpx.HTTPError as error:
                problem = repr(error)
            self.note("endpoint", name, problem, values)

    def _values(self, endpoint: dict, rng: random.Random) -> list:
        """Return values for an endpoint's fields, at least one of them hostile."""
        components = [self.components.get(i, {}) for i in endpoint["inputs"]]
        values = [(c.get("props") or {}).get("value") for c in components]
        for i, component in enumerate(components):
            label = str((component.get("props") or {}).get("label", "")).lower()
            small = {"steps": 1, "width": 64, "height": 64, "count": 1, "prompt": "a"}.get(label)
            values[i] = values[i] if small is None else small
        for _ in range(rng.randint(1, 3)):
            if values:
                values[rng.randrange(len(values))] = self._hostile(rng)
        if rng.random() < 0.1:
            values = values[: rng.randint(0, len(values))]
        if rng.random() < 0.05:
            values += [self._hostile(rng) for _ in range(rng.randint(1, 5))]
        return values

    def _hostile(self, rng: random.Random):
        """Return one value that no page would send."""
        files = [
            *map(file_value, self.files),
            file_value("/etc/passwd"),
            file_value("http://127.0.0.1:1/a.png"),
            file_value("file:///etc/passwd"),
            file_value("\0"),
            file_value("a" * 5000),
            {"path": self.files[0]},
            {"url": "http://127.0.0.1:1/a"},
            [file_value(self.files[1])] * 3,
            {
                "background": file_value(self.files[1]),
                "layers": [file_value(self.files[0])],
                "composite": None,
            },
            {"layers": [1], "id": "x"},
            file_value(""),
            {"path": 7},
            [{"image": file_value(self.files[2]), "caption": "x"}],
            {**file_value(self.files[2]), "size": "x"},
            str(self.files[2]),
            "data:image/png;base64,AAAA",
            [[]] * 100,
        ]
        return rng.choice(rng.choice([TEXTS, NUMBERS, OTHERS, files]))

    def _send(self, endpoint: dict, values: list, rng: random.Random) -> str | None:
        """Send one request on a random way and return what was wrong with the answer."""
        session, way = f"{rng.getrandbits(64):x}", rng.choice(("join", "call"))
        if endpoint["api_visibility"] != "public":
            way = "run" if not endpoint["queue"] and rng.random() < 0.5 else "join"
        body: dict = {"data": values, "session_hash": session}
        base = f"{self.url}gradio_api/"
        if way == "call":
            path = f"{base}call/{endpoint['api_name']}"
        else:
            path = f"{base}run/predict" if way == "run" else f"{base}queue/join"
            body |= {"fn_index": endpoint["id"], "trigger_id": rng.choice([None, -1, 10**6])}
            target = endpoint["targets"][0][0] if endpoint["targets"] else None
            body["trigger_id"] = target if rng.random() < 0.5 else body["trigger_id"]
            body["event_data"] = rng.choice(
                [None, {}, {"index": 0, "value": "x"}, [1], "x", {"index": "nan"}]
            )
        content = json.dumps(body).encode()
        head = {"content-type": "application/json"}
        for _ in range(100):
            answer = self._client.post(path, content=content, headers=head)
            if answer.status_code != 503:
                break
            time.sleep(0.1)  # the queue is full, as it says
        if answer.status_code != 200:
            return self._wrong(answer)
        if way == "run":
            return None
        event = answer.json()["event_id"]
        if way == "call":
            return self._read(f"{path}/{event}", "event: error", "event: complete")
        return self._read(f"{base}queue/data?session_hash={session}", '"process_completed"', "")

    def _read(self, address: str, bad: str, good: str) -> str | None:
        """Read a request's event stream to its end; return what is wrong with it."""
        text = ""
        with self._client.stream("GET", address) as answer:
            for line in answer.iter_lines():
                text += line + "\n"
                done = '"process_completed"' in line or "unexpected_error" in line
                if done or (
                    ("\nevent: complete\n" in "\n" + text or "event: error\n" in text)
                    and (line.startswith("data:"))
                ):
                    break
        last = [x[5:] for x in text.splitlines() if x.startswith("data:")][-1]
        try:
            value = json.loads(last)
        except ValueError:
            return f"no JSON: {last[:200]}"
        if good and good in text:
            return None
        if isinstance(value, dict) and value.get("msg") == "process_completed":
            if value["success"]:
                return None
            value = value["output"]
        if isinstance(value, dict) and value.get("msg") == "unexpected_error":
            return f"the stream broke: {value['message']}"
        sentence = value.get("error") if isinstance(value, dict) else value
        return self._sentence(sentence)

    def _sentence(self, sentence: object) -> str | None:
        """Return what is wrong with an error sentence."""
        if not isinstance(sentence, str) or not sentence.strip():
            return f"no sentence: {sentence!r}"
        if sentence.startswith(FAILED):
            return f"the server failed: {sentence}"
        folder = str(Path(self.files[0]).parents[1])  # of paths that the client has sent itself
        sentence = sentence.replace(folder, "").replace(folder[:20], "")
        if any(sign in sentence for sign in ("\n", "Traceback", "/tmp/", str(ROOT))):
            return f"no clean sentence: {sentence[:200]!r}"
        return None

    def _wrong(self, answer: httpx.Response) -> str | None:
        """Return what is wrong with an answer that is no success."""
        if answer.status_code < 400:
            return None
        try:
            value = answer.json()
            sentence = value.get("error") or value.get("detail")
        except (ValueError, AttributeError):
            sentence = answer.text
        if answer.status_code == 500 and "gradio_api/run/" in str(answer.url):
            return self._sentence(sentence)  # Gradio's way of refusing a listener without a queue
        if answer.status_code >= 500 and answer.status_code not in (503, 507):
            return f"HTTP {answer.status_code}: {answer.text[:200]}"
        if answer.request.method == "HEAD":
            return None
        return self._sentence(sentence)

    # Routes

    def attack_route(self, path: str, count: int) -> None:
        """Send `count` broken requests to one route."""
        rng = random.Random(f"{self.seed} {count} {path}")
        for _ in range(count):
            request = self._broken(path, rng)
            try:
                problem = self._raw(request)
            except OSError as error:
                problem = repr(error)
            self.note("route", path, problem, request[:200])

    def _broken(self, path: str, rng: random.Random) -> bytes:
        """Return the bytes of one HTTP request whose parts are broken at random."""
        import re

        def part(_):
            return quote(
                rng.choice(
                    [
                        "predict",
                        "generate",
                        "verify",
                        "x",
                        "..",
                        "../../etc/passwd",
                        "\0",
                        "a" * 300,
                        "%00",
                        "💥",
                        "1",
                        "-1",
                        "http://127.0.0.1:1/",
                        "//evil",
                        "null",
                        self.files[1],
                        "",
                    ]
                ),
                safe=rng.choice(["", "/", "%"]),
            )

        target = re.sub(r"\{[^}]+\}", part, path) or "/"
        if rng.random() < 0.3:
            target += rng.choice(["/", "?", "%2e%2e", ";", "/../x", "?session_hash=" + "z" * 70])
        if rng.random() < 0.5:
            target += "?" + rng.choice(
                [
                    "session_hash=abc",
                    "upload_id=abc",
                    "session_hash=&upload_id=%00",
                    "deep_link=x",
                    "page=x",
                    "deep_link=" + "../" * 9,
                    "&" * 100,
                    "a=" + "b" * 3000,
                    "__theme=dark",
                    "all_endpoints=1",
                ]
            )
        open_row = ROUTES.get(path)
        methods = [
            *(open_row.methods if open_row else ("GET", "POST")),
            "GET",
            "POST",
            "PUT",
            "OPTIONS",
        ]
        body, kind = rng.choice(BODIES)
        for name, number in self.ids.items():
            body = body.replace(name, number)
        method = rng.choice(methods)
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {rng.choice(HOSTS)}",
            f"Content-Type: {kind}",
        ]
        lines += [
            rng.choice(
                [
                    "X-A: b",
                    "Range: bytes=x",
                    "Range: bytes=" + "0-0," * 99,
                    "Cookie: a=b",
                    "X-Forwarded-Host: evil.example",
                    "Origin: http://evil.example",
                    "Accept-Encoding: br",
                    "If-None-Match: x",
                ]
            )
        ]
        if rng.random() < 0.2:
            lines += ["Transfer-Encoding: chunked"]
            chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            body = chunks
        else:
            lines += [f"Content-Length: {len(body)}"]
        head = "\r\n".join([*lines, "Connection: close", "", ""])
        return head.encode("latin-1", "replace") + body

    def _raw(self, request: bytes) -> str | None:
        """Send bytes on a connection of its own; return what is wrong with the answer."""
        parsed = urlparse(self.url)
        host = parsed.hostname, parsed.port
        with socket.create_connection(host, PATIENCE) as wire:
            with contextlib.suppress(ConnectionError):
                wire.sendall(request)
            answer = b""
            began = time.monotonic()
            while chunk := wire.recv(65536):
                answer += chunk
                if b"text/event-stream" in answer or len(answer) > 4 * MB:
                    break  # a stream that stays open
                if time.monotonic() - began > PATIENCE:
                    return "no end"
        if not answer:
            return "closed without an answer"
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status == 400 and b"Invalid HTTP request" in body:
            return None  # no HTTP; the server's parser says so
        if status < 400 or request.startswith(b"HEAD"):
            return None
        text = body.decode("utf-8", "replace")
        if b"gradio_api/run/" in request and status == 500:
            return self._sentence(
                json.loads(text[text.find("{") : text.rfind("}") + 1]).get("error")
            )
        if status >= 500 and status not in (503, 507):
            return f"HTTP {status}: {text[:200]}"
        return None if text.strip() else f"HTTP {status} without a sentence"

    # Bounds

    def check_bounds(self) -> None:
        """Send each open route a body one byte too large, by its length and in chunks."""
        for path, route in ROUTES.items():
            if "POST" not in route.methods or "mcp" in path:
                continue
            target = path.replace("{api_name}", "generate")
            for chunked in (False, True):
                if chunked and route.body > 20 * MB:
                    continue
                problem = self._too_large(target, route.body + 1, chunked)
                self.note("bound", path, problem, f"{route.body + 1} bytes, chunked: {chunked}")

    def _too_large(self, target: str, size: int, chunked: bool) -> str | None:
        def pieces():
            for at in range(0, size, 65536):
                yield b" " * min(65536, size - at)

        kind = "multipart/form-data; boundary=x" if "upload" in target else "application/json"
        head = (
            {"content-type": kind}
            if chunked
            else {"content-type": kind, "content-length": str(size)}
        )
        try:
            answer = self._client.post(
                self.url.rstrip("/") + target, content=pieces(), headers=head
            )
        except httpx.WriteError:
            return None  # the server has closed the connection: it reads no more
        return None if answer.status_code == 413 else f"HTTP {answer.status_code}"


HOSTS = [
    "127.0.0.1",
    "localhost",
    "localhost",
    "127.0.0.1:7860",
    "evil.example",
    "",
    "a b",
    "[::1]:80",
]
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="files"'
END = b"\r\n\r\nhello\r\n--x--\r\n"
BODIES = [  # (bytes, Content-Type); EDITOR and VIEWER become the ids of components
    (b"", JSON),
    (b"{", JSON),
    (b"[" * 100_000, JSON),
    (b'{"a":' * 5000, JSON),
    (b"[" + b"1," * 100_000 + b"1]", JSON),
    (b'{"data": [], "fn_index": 10000000000000000000000, "session_hash": "a"}', JSON),
    (b'{"data": null, "fn_index": 0, "session_hash": "a"}', JSON),
    (b'{"data": [], "session_hash": ["a"]}', JSON),
    (
        b'{"data": {"index": 50000000, "id": "a", "type": "layer"}, "component_id": EDITOR,'
        b' "fn_name": "accept_blobs", "session_hash": "a"}',
        JSON,
    ),
    (b'{"data": {}, "component_id": VIEWER, "fn_name": "frame", "session_hash": "a"}', JSON),
    (b'{"data": 1, "component_id": VIEWER, "fn_name": "maps", "session_hash": "a"}', JSON),
    (b'{"data": {}, "component_id": VIEWER, "fn_name": "__class__", "session_hash": "a"}', JSON),
    (b'{"event_id": "a", "fn_index": 1, "session_hash": "a"}', JSON),
    (b"\xff\xfe\x00", JSON),
    (b'{"data": ["' + b"x" * 300_000 + b'"]}', JSON),
    (PART + b'; filename="../../a"' + END, FORM),
    (PART + b'; filename="' + b"a" * 500 + b'"' + END, FORM),
    (PART + END, FORM),
    (b"--x\r\nContent-Disposition: form-data\r\n\r\nhello", FORM),
    (b"--x\r\n" * 1000, FORM),
    (b"hello", "multipart/form-data"),
    (b"a=b", "application/x-www-form-urlencoded"),
    (b"hello", "text/plain"),
]


def start(place: Path) -> tuple[subprocess.Popen, str, Path]:
    """Start app.py with a tiny model; return the process, its address and its log."""
    spec = importlib.util.spec_from_file_location("suite", ROOT / "tests/conftest.py")
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    model = suite.write_tiny_model(place / "tiny")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = place / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--model", str(model), "--port", str(port)],
            cwd=place,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(place / "gradio")},
        )
    url = f"http://127.0.0.1:{port}/"
    while url not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    return process, url, log


def memory_mb(pid: int) -> int:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(x for x in status.splitlines() if x.startswith("VmRSS")).split()[1]) >> 10


def main(argv: list[str] | None = None) -> int:
    """Run the soak; return 0, or 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--count", type=int, default=500, help="requests of each endpoint and route"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", help="endpoints and routes that contain this text alone")
    parser.add_argument("--log", action="store_true", help="print the server's log at the end")
    args = parser.parse_args(argv)
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        process, url, log = start(Path(folder))
        try:
            attack, began = Attack(url, args.seed), time.monotonic()
            routes = [r for r in (*ROUTES, *CLOSED) if args.only is None or args.only in r]
            endpoints = [e for e in attack.endpoints if args.only is None or args.only in str(e)]
            before = 0
            attack.draw_with("emoji")
            # The first tenth loads what the server keeps anyway: libraries, models, caches.
            for count in (args.count - args.count * 9 // 10, args.count * 9 // 10):
                with ThreadPoolExecutor(6) as pool:
                    list(pool.map(attack.attack_endpoint, endpoints, repeat(count)))
                    list(pool.map(attack.attack_route, routes, repeat(count)))
                before = before or memory_mb(process.pid)
            attack.check_bounds()
            seconds, grown = time.monotonic() - began, memory_mb(process.pid) - before
        finally:
            process.terminate()
            process.wait(30)
        text = log.read_text()
    tracebacks = text.count("Traceback")
    for line in attack.unhandled[:40]:
        print(line)
    if args.log:
        print(text)
    print(f"{'':10} {'handled':>8} {'not':>5}")
    for kind in ("endpoint", "route", "bound"):
        wrong = sum(line.startswith(kind) for line in attack.unhandled)
        print(f"{kind:10} {attack.handled[kind]:8,} {wrong:5,}")
    print(f"tracebacks {tracebacks}, memory +{grown} MB, {seconds:.0f} s")
    return int(bool(attack.unhandled or tracebacks or grown > MEMORY_MB))


if __name__ == "__main__":
    sys.exit(main())
