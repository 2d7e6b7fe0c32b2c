"""The bounds of the guard, in front of a small app and in front of a real server."""

import asyncio
import errno
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from demo.server import guard
from demo.server.guard import RouteGuard, UploadBudget, hosts_of
from demo.server.routes import KB, MB, ROUTES, size

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}


def run_alone(coroutine):
    """Run a coroutine in a thread of its own: a browser's loop may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="module")
def page():
    with gr.Blocks() as blocks:
        gr.Button().click(lambda x: x, gr.Textbox(), api_name="echo", queue=False)
        gr.Button().click(lambda x: x, gr.Textbox(), api_name="draw")
        gr.Button().click(lambda x: x, gr.Textbox(), api_visibility="private")
    return blocks


async def echo(scope, receive, send):
    """Answer with the number of bytes of the body."""
    number, more = 0, True
    while more:
        message = await receive()
        number, more = number + len(message.get("body", b"")), message.get("more_body", False)
    await PlainTextResponse(str(number))(scope, receive, send)


def client(page, app=echo, **limits):
    return TestClient(RouteGuard(app, page, **limits), base_url="http://localhost")


def refused(answer, status, words):
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert words in sentence and sentence == answer.json()["detail"] and "\n" not in sentence


def test_a_body_is_bounded_by_its_length_and_by_what_arrives(page):
    there = client(page)
    path = "/gradio_api/reset"
    whole = b"{" + b" " * (ROUTES[path].body - 2) + b"}"
    assert there.post(path, content=whole, headers=JSON).text == str(len(whole))
    refused(there.post(path, content=whole + b" ", headers=JSON), 413, "larger than 16 KB")
    refused(there.post(path, content=iter([whole, b" "]), headers=JSON), 413, "larger than 16 KB")
    refused(there.request("GET", "/config", content=b"x"), 413, "takes no body")


def test_an_upload_that_is_too_large_ends_the_parser_in_a_way_it_cleans_up_after(page):
    seen = []

    async def parser(scope, receive, send):
        try:
            while (await receive()).get("more_body"):
                pass
        except MultiPartException as error:
            seen.append(str(error))
            await PlainTextResponse("gradio's own words", 400)(scope, receive, send)

    there = client(page, parser, upload_mb=1)
    pieces = iter([b"x" * KB] * 1025)
    refused(there.post(UPLOAD, content=pieces, headers=FORM), 503, "in a minute")
    assert len(seen) == 1


def test_uploads_between_two_sweeps_are_counted_together(monkeypatch):
    now = SimpleNamespace(t=0.0)
    monkeypatch.setattr(guard.time, "monotonic", lambda: now.t)
    budget = UploadBudget(100)
    assert budget.take(60) and not budget.take(41) and budget.take(40)
    now.t = guard.UPLOAD_WINDOW - 1
    assert not budget.take(1)
    now.t = guard.UPLOAD_WINDOW + 1
    assert budget.take(100) and not budget.take(1)
    assert all(UploadBudget(0).take(MB) for _ in range(3))


def test_a_body_that_comes_too_slowly_is_not_waited_for(page, monkeypatch):
    monkeypatch.setitem(ROUTES, JOIN, guard.Route(("POST",), "", body=MB, seconds=0, check="join"))
    answers = []

    async def ask():
        async def never():
            await asyncio.sleep(30)

        async def keep(message):
            answers.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": JOIN, "query_string": b""}
        scope["headers"] = headers
        monkeypatch.setattr(guard, "DRAIN_SECONDS", 0)
        await RouteGuard(echo, page)(scope, never, keep)

    run_alone(ask())
    assert answers[0]["status"] == 408
    assert "did not arrive" in json.loads(answers[1]["body"])["error"]


def test_a_route_serves_so_many_at_once_and_no_more(page):
    there = RouteGuard(echo, page)
    there.served["/config"] = ROUTES["/config"].at_once
    answer = TestClient(there, base_url="http://localhost").get("/config")
    refused(answer, 503, "busy")
    assert answer.headers["retry-after"] == "5"
    assert there.served["/config"] == ROUTES["/config"].at_once
    assert TestClient(there, base_url="http://localhost").get("/config/").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (JOIN, b"", "must be JSON"),
        (JOIN, b"[1]", "JSON object"),
        (JOIN, b"[" * 40_000, "must be JSON"),
        (JOIN, b"[" * 60_000, "more than 50,000 values"),
        (JOIN, b'{"data":' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32"),
        (JOIN, {"data": [], "fn_index": 0}, "session_hash"),
        (JOIN, {"data": [], "fn_index": 0, "session_hash": "a" * 65}, "session_hash"),
        (JOIN, {"data": [], "fn_index": 99, "session_hash": "a"}, "no listener"),
        (JOIN, {"data": [], "fn_index": "0", "session_hash": "a"}, "whole number"),
        (JOIN, {"data": {}, "fn_index": 0, "session_hash": "a"}, "a list"),
        (JOIN, {"data": [], "fn_index": 0, "session_hash": "a", "trigger_id": "x"}, "trigger_id"),
        (JOIN, b'{"data": [], "fn_index": 0, "session_hash": "a", "event_data": "\\ud800"}', "Uni"),
        ("/gradio_api/call/nothing", {"data": []}, "no endpoint"),
        ("/gradio_api/call/draw", {"data": 3}, "a list"),
        ("/gradio_api/call/v2/draw", {"y": 3}, "no field 'y'"),
        ("/gradio_api/call/v2/draw", {}, "needs the field `x`"),
        ("/gradio_api/run/draw", {"data": []}, "through the queue"),
        ("/gradio_api/run/nothing", {"data": []}, "no endpoint"),
        ("/gradio_api/cancel", {"session_hash": "a", "event_id": 1, "fn_index": 0}, "event_id"),
        (
            "/gradio_api/component_server",
            {"session_hash": "a", "component_id": 1, "fn_name": "__class__", "data": 1},
            "no such function",
        ),
    ],
)
def test_bodies_that_gradio_would_fail_at_get_a_sentence(page, path, body, words):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client(page, None).post(path, content=content, headers=JSON)
    assert 400 <= answer.status_code < 500
    refused(answer, answer.status_code, words)


def test_a_page_of_another_site_can_send_no_json(page):
    for kind in ("text/plain", FORM["content-type"], "application/x-www-form-urlencoded"):
        answer = client(page, None).post(JOIN, content=b"{}", headers={"content-type": kind})
        refused(answer, 415, "application/json")


def test_bodies_that_are_right_pass(page):
    there = client(page)
    ids = {"session_hash": "a", "trigger_id": None, "event_data": {"index": 1}}
    for path, body in (
        (JOIN, {"data": ["x"], "fn_index": 2} | ids),
        ("/gradio_api/run/predict", {"data": ["x"], "fn_index": 0} | ids),
        ("/gradio_api/run/echo", {"data": ["x"]}),
        ("/gradio_api/call/draw", {"data": ["x" * 1_000_000]}),
        ("/gradio_api/call/v2/draw", {"x": "y" * 9}),
    ):
        assert int(there.post(path, json=body).text) > 10


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gradio_api/file=http://example.com/a.png", 403),
        ("/gradio_api/file=HTTPS://example.com/a.png", 403),
        ("/gradio_api/file=//example.com/a.png", 403),
        ("/gradio_api/file=a%00b", 400),
        ("/gradio_api/queue/data", 400),
        ("/gradio_api/queue/data?session_hash=a%20b", 400),
        ("/gradio_api/heartbeat/" + "a" * 65, 400),
        ("/static/" + "a" * 3000, 414),
        ("/?" + "a=b&" * 1000, 414),
        ("/monitoring/summary", 404),
    ],
)
def test_addresses_that_are_refused(page, path, status):
    refused(client(page, None).get(path), status, "")


def test_methods_and_long_ranges_are_refused(page):
    refused(client(page, None).put("/config"), 405, "takes GET")
    many = {"range": "bytes=" + "0-0," * 50}
    refused(client(page, None).get("/gradio_api/file=/a", headers=many), 400, "Range")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "full"), 507, "disk is full"),
        (AttributeError("'NoneType'"), 400, "cannot be read"),
        (RecursionError(), 400, "cannot be read"),
    ],
)
def test_what_gradio_raises_becomes_a_sentence_without_a_traceback(
    page, error, status, words, caplog
):
    async def fails(scope, receive, send):
        raise error

    refused(client(page, fails).get("/config"), status, words)
    assert "Traceback" not in caplog.text and "/config" in caplog.text


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", ""])
@pytest.mark.parametrize("header", ["host", "x-forwarded-host"])
def test_a_server_of_its_own_machine_answers_under_its_names_alone(page, host, header):
    own = client(page, hosts=hosts_of("127.0.0.1", (), public=False))
    for name in ("localhost", "127.0.0.1:7860", "[::1]:1", "x.localhost", "LOCALHOST"):
        assert own.get("/config", headers={header: name}).status_code == 200
    answer = own.get("/config", headers={header: host})
    assert answer.status_code in (400, 421)
    if host:
        refused(answer, 421, f"--allowed-host {host}")


def test_which_hosts_a_server_answers_under():
    assert hosts_of(None, (), public=True) is None
    assert hosts_of("0.0.0.0", ("a.example",), public=True) == ("0.0.0.0", "a.example")
    assert hosts_of("::1", (), public=False) == ("[::1]",)
    assert hosts_of(None, ("a.example",), public=False) == ("a.example",)


def test_a_public_server_answers_under_any_name_that_is_one(page):
    anyone = client(page, hosts=None)
    assert anyone.get("/config", headers={"host": "some.name:80"}).status_code == 200
    for name in ("a b", "a/b", "<x>", "a" * 300):
        assert anyone.get("/config", headers={"host": name}).status_code == 400


def test_every_answer_has_the_headers(page):
    for path in ("/config", "/nothing"):
        headers = client(page).get(path).headers
        policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'self'" and policy["object-src"] == "'none'"
        assert "https://huggingface.co" in policy["frame-ancestors"]
        assert "https://*.hf.space" in policy["frame-ancestors"]
        assert "*" not in policy["frame-ancestors"].split()
        assert headers["x-content-type-options"] == "nosniff"
        assert "x-frame-options" not in headers
    files = client(page).get("/gradio_api/file=/a.svg").headers["content-security-policy"]
    assert "sandbox" in files and "default-src 'none'" in files


def test_a_public_link_may_load_what_gradio_serves(page):
    assert guard.GRADIO_FILES in guard.page_policy(True)
    assert guard.GRADIO_FILES not in guard.page_policy(False)


def test_sizes_are_said_as_people_say_them():
    assert [size(n) for n in (16 * KB, 1_500_000, 256 * MB)] == ["16 KB", "1.4 MB", "256 MB"]


# A real server


def raw(server, request: bytes, wait=30) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), wait) as wire:
        wire.sendall(request)
        answer = b""
        while chunk := wire.recv(65536):
            answer += chunk
    return answer


def test_blobs_of_the_mask_editor_are_no_way_in(server):
    config = httpx.get(f"{server.url}config").json()
    editors = [c["id"] for c in config["components"] if c["type"] == "imageeditor"]
    assert editors and not any(c.get("server_fns") for c in config["components"]
                               if c["id"] in editors)  # fmt: skip
    data = {"component_id": str(editors[0]), "session_hash": "a", "fn_name": "accept_blobs",
            "index": "50000000", "id": "x", "type": "layer"}  # fmt: skip
    url = f"{server.url}gradio_api/component_server"
    answer = httpx.post(url, data=data, files={"file": ("a", b"x")})
    assert 400 <= answer.status_code < 500
    answer = httpx.post(url, json={"data": {}, **data, "component_id": editors[0]})
    refused(answer, 404, "no such function")


def test_an_upload_that_breaks_off_leaves_nothing(server):
    from pathlib import Path

    whole = httpx.post(f"{server.url}gradio_api/upload", files={"files": ("a.txt", b"x")}).json()
    folder = Path(whole[0]).parents[1]
    before = {p for p in folder.iterdir() if p.is_file()}
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"y" * 99999
    )
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        wire.sendall(head + part)
        deadline = time.monotonic() + 30
        while {p for p in folder.iterdir() if p.is_file()} == before:
            assert time.monotonic() < deadline, "nothing was written"
            time.sleep(0.02)
    while {p for p in folder.iterdir() if p.is_file()} - before:
        assert time.monotonic() < deadline, "a part of the upload stayed"
        time.sleep(0.02)


def test_a_stream_of_no_session_ends_without_a_traceback(server):
    answer = httpx.get(f"{server.url}gradio_api/queue/data?session_hash=nobody", timeout=60)
    assert "session_not_found" in answer.text
    assert httpx.get(f"{server.url}gradio_api/upload_progress?upload_id=nobody").status_code == 404


def test_files_of_other_servers_are_not_handed_on(server):
    head = b"GET /gradio_api/file=http://127.0.0.1:1/x HTTP/1.1\r\nHost: localhost\r\n"
    answer = raw(server, head + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403")


def test_monitoring_is_closed_and_a_foreign_host_is_not_answered(server):
    assert httpx.get(f"{server.url}monitoring/summary").status_code == 404
    foreign = httpx.get(f"{server.url}config", headers={"host": "rebind.example"})
    refused(foreign, 421, "rebind.example")


def test_a_refusal_reaches_a_client_that_is_still_sending(server):
    answer = httpx.post(f"{server.url}gradio_api/reset", content=b" " * 900_000, headers=JSON)
    refused(answer, 413, "16 KB")
