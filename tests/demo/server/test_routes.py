"""Every route of the running app is a row of ROUTES, with its bounds, or closed."""

import inspect

import gradio as gr
import pytest
from starlette.testclient import TestClient

from demo.server import request_body, routes
from demo.server.guard import RouteGuard
from demo.server.routes import CLOSED, ROUTES, find_route


def route_paths(app):
    """{path: methods} of an app's routes, those of included routers and mounts too."""
    found: dict[str, set] = {}
    for route in app.routes:
        router = getattr(route, "original_router", None)
        for one in [route] if router is None else router.routes:
            methods = getattr(one, "methods", None) or set()
            path = one.path if methods else one.path + "{path:path}"
            found.setdefault(path, set()).update(methods)
    return found


@pytest.fixture(scope="module")
def app():
    """Gradio's app of a small page with everything that opens routes, MCP too."""
    pytest.importorskip("mcp")
    from gradio.routes import App

    with gr.Blocks() as blocks:
        gr.Button().click(lambda: None, api_name="generate")
    blocks.run_history = False
    return App.create_app(blocks, mcp_server=True)


def test_the_tables_name_every_route_and_no_other(app):
    there = set(route_paths(app))
    assert there == {*ROUTES, *CLOSED}
    assert not {*ROUTES} & {*CLOSED}


def test_open_routes_are_answered_by_the_methods_that_gradio_has(app):
    there = route_paths(app)
    for path, route in ROUTES.items():
        if there[path]:
            assert set(route.methods) <= there[path] | {"HEAD"}, path


@pytest.mark.parametrize("path", ROUTES)
def test_every_open_route_has_bounds_and_is_found_by_its_own_row(path):
    route = ROUTES[path]
    assert 0 < route.at_once <= routes.STREAMS and 0 < route.seconds <= 600
    assert route.body > 0 or "POST" not in route.methods
    assert route.check is None or route.check in request_body.CHECKS
    sample = path.replace("{path:path}", "/a").replace("{path_or_url:path}", "/a/b.png")
    for name in ("api_name", "event_id", "session_hash"):
        sample = sample.replace("{" + name + "}", "a1")
    assert find_route(sample)[0] == path


def test_every_json_route_is_checked():
    for path, route in ROUTES.items():
        if "POST" in route.methods and not path.endswith(("/upload", "mcp{path:path}")):
            assert route.check, path
    for check in request_body.CHECKS.values():
        assert len(inspect.signature(check).parameters) == 3


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_closed_routes_are_answered_before_gradio_sees_them(path, method):
    async def gradio(scope, receive, send):
        raise AssertionError("was asked")

    page = gr.Blocks()
    client = TestClient(RouteGuard(gradio, page), base_url="http://localhost")
    answer = client.request(method, path.replace("{", "").replace("}", ""))
    assert answer.status_code == 404
    assert answer.json()["error"] == "There is no such page."
