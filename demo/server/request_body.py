"""Check the JSON bodies that clients send, before Gradio reads them.

Gradio trusts the shape of a body: an unknown endpoint, a number where a list belongs or lists that
are nested a thousand deep end there in a traceback and an answer without a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr
    from gradio.blocks import BlockFunction

MAX_DEPTH = 32  # of lists and objects in each other
MAX_VALUES = 50_000  # commas and brackets of a body, about its number of values
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
Parts = Mapping[str, str]


class Refused(Exception):
    """A request that is answered with one sentence. status: of the HTTP answer."""

    def __init__(self, sentence: str, status: int = 400):
        super().__init__(sentence)
        self.sentence, self.status = sentence, status


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises Refused if it is none, or one of more than MAX_VALUES values or MAX_DEPTH levels.
    """
    if sum(body.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise Refused(f"The request has more than {MAX_VALUES:,} values.", 413)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("The request's body must be JSON.") from None
    if not isinstance(value, dict):
        raise Refused("The request's body must be a JSON object.")
    if _depth(value) > MAX_DEPTH:
        raise Refused(f"The request's values are nested more than {MAX_DEPTH} deep.")
    if has_surrogates({name: inner for name, inner in value.items() if name != "data"}):
        raise Refused("The request must be whole Unicode characters.")
    return value


def _depth(value: Any) -> int:
    """Return how many lists and objects lie in each other, counted without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list)]
    return depth


def has_surrogates(value: Any) -> bool:
    """Return whether a JSON value has half of a UTF-16 pair in a text, which no UTF-8 can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def check_id(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise Refused unless `value` is an id: 1 to 64 letters, digits, "-" or "_".

    name: of the value, for the sentence. optional: whether None is as good.
    """
    if value is None and optional:
        return
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise Refused(f"`{name}` must be 1 to 64 letters, digits, - or _.")


def check_any(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Take every JSON object, for a route that does nothing with it."""


def check_join(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Check a request of the page for a listener: `fn_index`, `data`, `session_hash`.

    Raises Refused.
    """
    check_id("session_hash", body.get("session_hash"))
    _listener(blocks, body)
    _check_values(body)


def check_run(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Check a request for a listener that needs no queue; raise Refused."""
    check_id("session_hash", body.get("session_hash"), optional=True)
    named = body.get("fn_index") is None
    listener = _endpoint(blocks, parts["api_name"]) if named else _listener(blocks, body)
    if listener.queue:
        raise Refused(
            "This endpoint is reached through the queue: POST to call/ or queue/join.", 404
        )
    _check_values(body)


def check_call(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Check a client's request for a named endpoint: `data`, a list in the order of its fields.

    Raises Refused.
    """
    check_id("session_hash", body.get("session_hash"), optional=True)
    _endpoint(blocks, parts["api_name"])
    _check_values(body)


def check_call_by_name(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Check a client's request that gives the fields of a named endpoint by name; raise Refused."""
    listener = _endpoint(blocks, parts["api_name"])
    info = blocks.get_api_info()["named_endpoints"][f"/{listener.api_name}"]
    fields = {field["parameter_name"]: field for field in info["parameters"]}
    unknown = [name for name in body if name not in fields and name != "oauth_token"]
    if unknown:
        raise Refused(f"This endpoint has no field {unknown[0][:64]!r}.", 422)
    missing = [n for n, f in fields.items() if n not in body and not f["parameter_has_default"]]
    if missing:
        raise Refused(f"The request needs the field `{missing[0]}`.", 422)


def check_cancel(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Check the request to stop a request: ids of the session and the event; raise Refused."""
    check_id("session_hash", body.get("session_hash"))
    check_id("event_id", body.get("event_id"))
    _check_integer("fn_index", body.get("fn_index"))


def check_component_server(blocks: gr.Blocks, body: dict[str, Any], parts: Parts) -> None:
    """Check the call of a component's server function, such as a frame of Look inside.

    Raises Refused.
    """
    check_id("session_hash", body.get("session_hash"))
    _check_integer("component_id", body.get("component_id"))
    component = blocks.blocks.get(body["component_id"])
    name = body.get("fn_name")
    function = getattr(component, name, None) if isinstance(name, str) else None
    if not getattr(function, "_is_server_fn", False):
        raise Refused("There is no such function.", 404)
    if "data" not in body:
        raise Refused("The request needs `data`.")


CHECKS: dict[str, Callable[[gr.Blocks, dict[str, Any], Parts], None]] = {
    "any": check_any,
    "join": check_join,
    "run": check_run,
    "call": check_call,
    "call_by_name": check_call_by_name,
    "cancel": check_cancel,
    "component_server": check_component_server,
}


def _endpoint(blocks: gr.Blocks, name: str) -> BlockFunction:
    """Return the listener of a public endpoint; raise Refused for an unknown name."""
    for listener in blocks.fns.values():
        if listener.api_name == name and listener.api_visibility == "public":
            return listener
    raise Refused("There is no endpoint of that name.", 404)


def _listener(blocks: gr.Blocks, body: dict[str, Any]) -> BlockFunction:
    """Return the listener that `fn_index` names; raise Refused if there is none."""
    index = body.get("fn_index")
    _check_integer("fn_index", index)
    found = blocks.fns.get(index) if isinstance(index, int) else None
    if found is None or found.fn is None:
        raise Refused("There is no listener of that number.", 404)
    return found


def _check_integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"`{name}` must be a whole number.")


def _check_values(body: dict[str, Any]) -> None:
    """Raise Refused unless `data` is a list and `trigger_id`, where given, a whole number."""
    if not isinstance(body.get("data"), list):
        raise Refused("The request needs `data`, a list of the fields' values.", 422)
    if body.get("trigger_id") is not None:
        _check_integer("trigger_id", body["trigger_id"])
    for name in ("event_id", "oauth_token"):
        if body.get(name) is not None and not isinstance(body[name], str):
            raise Refused(f"`{name}` must be text.")
    for name in ("simple_format", "batched"):
        if body.get(name) not in (None, False, True):
            raise Refused(f"`{name}` must be true or false.")
