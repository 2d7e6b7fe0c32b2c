"""Who a request is from, and the room on the disk that a visitor's trainings have."""

import asyncio
import os
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from demo.limits import Limits
from demo.server.visitors import COOKIE, MB, DiskQuotaExceeded, VisitorCookie, Visitors, identify
from pipeline.errors import InputError

TOKEN = "a" * 43


def request(session="s1", cookie=None, **headers):
    """A gr.Request as a listener gets it."""
    if cookie is not None:
        headers["cookie"] = cookie
    rows = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return SimpleNamespace(request=Request({"type": "http", "headers": rows}), session_hash=session)


def test_a_browser_is_its_cookie_and_a_client_its_session():
    cookie = f"x=1; {COOKIE}={TOKEN}"
    assert identify(request("s1", cookie)) == identify(request("s2", cookie))
    assert identify(request("s1")) == identify(request("s1"))
    assert identify(request("s1")) != identify(request("s2"))
    other = identify(request("s1", f"{COOKIE}={'b' * 43}"))
    assert len({identify(request("s1", cookie)), other, identify(request("s1"))}) == 3


@pytest.mark.parametrize("value", ["", "s1", "a" * 42, "a" * 44, "../" * 14 + "a", "é" * 43])
def test_a_cookie_that_the_server_did_not_make_counts_as_none(value):
    assert identify(request("s1", f"{COOKIE}={value.encode().decode('latin-1')}")) == identify(
        request("s1")
    )


def test_nobody_takes_a_session_for_a_browser():
    """A session's hash, which stands in addresses, does not open a browser's folder."""
    visitors = Visitors()
    assert visitors.home(identify(request(TOKEN))) != visitors.home(
        identify(request("s1", f"{COOKIE}={TOKEN}"))
    )


def test_without_a_session_and_through_mcp_each_request_is_another_visitor():
    for make in (
        lambda: None,
        lambda: request(None),
        lambda: request("shared by all MCP clients", x_gradio_user="mcp"),
    ):
        assert identify(make()) != identify(make())
    named = request("shared", f"{COOKIE}={TOKEN}", x_gradio_user="mcp")
    assert identify(named) == identify(request("s1", f"{COOKIE}={TOKEN}"))


def opened(headers=(), path="/", method="GET", scheme="http", **options):
    """The Set-Cookie headers of the answer to a request."""

    async def page(_):
        return PlainTextResponse("page", headers={"set-cookie": "own=1"})

    app = VisitorCookie(Starlette(routes=[Route(path, page, methods=["GET", "POST"])]), **options)
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {
        "type": "http", "method": method, "path": path, "headers": list(headers),
        "scheme": scheme, "query_string": b"", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    with ThreadPoolExecutor(1) as pool:  # this thread may have a loop already
        pool.submit(lambda: asyncio.run(app(scope, receive, send))).result()
    rows = [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]
    assert rows.pop(0) == "own=1"
    return rows


def test_the_page_brings_a_cookie_that_no_script_reads():
    first, second = opened()[0], opened()[0]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; Path=/; .*HttpOnly; SameSite=Lax", first)
    assert first.split(";")[0] != second.split(";")[0]
    assert "Secure" in opened(scheme="https")[0]
    assert "Secure" in opened([(b"x-forwarded-proto", b"https")])[0]
    in_space = opened(in_space=True)[0]
    assert "SameSite=None; Partitioned; Secure" in in_space


def test_only_the_page_brings_it_and_only_once():
    assert not opened([(b"cookie", f"{COOKIE}={TOKEN}".encode())])
    assert opened([(b"cookie", f"{COOKIE}=forged".encode())])
    assert not opened(path="/gradio_api/info") and not opened(method="POST")


def write(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


@pytest.fixture
def visitors(tmp_path):
    def make(**limits):
        return Visitors(Limits(**limits), tmp_path / "visitors")

    return make


def test_each_visitor_has_folders_of_their_own(visitors):
    both = visitors()
    a, b = both.folders("browser x", "zog"), both.folders("browser y", "zog")
    assert a.run != b.run and a.out != b.out and a.run.is_relative_to(a.home)
    assert "browser x" not in str(a.home) and not a.home.is_relative_to(b.home)
    assert both.lora_folder("browser x") is None
    write(a.out / "zog.safetensors", 1)
    assert both.lora_folder("browser x") == a.out and both.lora_folder("browser y") is None
    assert a.hide(f"{a.run} holds a run") == f"runs{os.sep}zog holds a run"
    shared = visitors(shared_training=True)
    assert shared.folders("browser x", "zog").run is None
    assert shared.lora_folder("browser x") is None  # all are in ./models


def test_room_for_one_visitor_and_for_all(visitors):
    these = visitors(training_disk_mb=10, training_disk_visitor_mb=4)
    write(these.folders("browser x", "old").run / "checkpoint", 3 * MB)
    with pytest.raises(DiskQuotaExceeded) as refused, these.training("browser x", "zog", 2 * MB):
        pass
    assert refused.value.left == 1 * MB
    with (
        these.training("browser x", "zog", MB),  # what runs counts with what it may still write
        these.training("browser y", "zog", 4 * MB),
        pytest.raises(DiskQuotaExceeded) as refused,
        these.training("browser z", "zog", 3 * MB),
    ):
        pass
    assert refused.value.left == 2 * MB
    with these.training("browser z", "zog", 3 * MB):  # the others are done, and wrote nothing
        pass


def test_a_stopped_training_goes_on_in_the_room_that_it_has(visitors):
    these = visitors(training_disk_visitor_mb=4)
    write(these.folders("browser x", "zog").run / "checkpoint", 3 * MB)
    with these.training("browser x", "zog", 4 * MB):
        pass
    with pytest.raises(DiskQuotaExceeded) as refused, these.training("browser x", "zog", 5 * MB):
        pass
    assert refused.value.left == 4 * MB


def test_shared_trainings_have_the_limit_of_all(visitors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    these = visitors(training_disk_mb=4, training_disk_visitor_mb=1, shared_training=True)
    write(tmp_path / "runs/lora/old/checkpoint", 3 * MB)
    with these.training("browser x", "zog", MB):
        pass
    with pytest.raises(DiskQuotaExceeded), these.training("browser y", "zog", 2 * MB):
        pass


def test_no_limit_is_no_limit(visitors):
    these = visitors(training_disk_mb=0, training_disk_visitor_mb=0)
    with these.training("browser x", "zog", 10**15):
        pass


def test_one_name_is_trained_once_at_a_time(visitors):
    these = visitors()
    with these.training("browser x", "zog", 1):
        again = these.training("browser x", "zog", 1)
        with pytest.raises(InputError, match="is being trained already"), again:
            pass
        with these.training("browser y", "zog", 1), these.training("browser x", "zig", 1):
            pass
    with these.training("browser x", "zog", 1):
        pass


def age(home, hours):
    """Make a folder and all in it older."""
    for path in (*home.rglob("*"), home):
        then = path.stat().st_mtime - hours * 3600
        os.utime(path, (then, then))


def test_what_is_not_used_is_deleted_after_its_time(visitors):
    these = visitors(training_hours=24)
    homes = {}
    for visitor in ("browser old", "browser drawn with", "browser trains", "session old"):
        folders = homes[visitor] = these.folders(visitor, "zog")
        write(folders.out / "zog.safetensors", 10)
        write(folders.run / "log.csv", 10)
        age(folders.home, 25)
    write(these.folders("browser new", "zog").run / "log.csv", 10)
    these.lora_folder("browser drawn with")  # a use
    with these.training("browser trains", "zog", 1):
        age(homes["browser trains"].home, 25)
        these.sweep()
    left = {path.name for path in these.root.iterdir()}
    kept = ("browser drawn with", "browser trains", "browser new")
    assert left == {these.home(visitor).name for visitor in kept}


def test_without_a_limit_only_sessions_that_ended_are_deleted(visitors):
    these = visitors(training_hours=0)
    for visitor in ("browser old", "session old", "session new"):
        write(these.folders(visitor, "zog").run / "log.csv", 10)
        age(these.home(visitor), 0 if "new" in visitor else 1000)
    assert these.sweep() == [these.home("session old")]
    assert these.home("browser old").exists() and these.home("session new").exists()


def test_no_link_leads_the_clean_up_out_of_its_folder(visitors, tmp_path):
    these = visitors(training_hours=1)
    write(tmp_path / "elsewhere/precious", 10)
    home = these.home("browser x")
    write(home / "runs/zog/log.csv", 10)
    age(home, 2)
    (home / "runs/link").symlink_to(tmp_path / "elsewhere")
    (these.root / "session-link").symlink_to(tmp_path / "elsewhere")
    os.utime(home, (0, 0))
    os.utime(home / "runs/zog/log.csv", (0, 0))
    assert these.sweep() == [home]
    assert (tmp_path / "elsewhere/precious").exists()
