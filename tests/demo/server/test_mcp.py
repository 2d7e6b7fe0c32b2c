"""`python app.py --mcp`: every task is a tool whose fields are explained."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import tasks


@pytest.fixture(scope="module")
def tools(tiny_model, tmp_path_factory, server_of):
    """Name: description of what a client of the protocol is offered."""
    pytest.importorskip("mcp")
    running = server_of(tiny_model, tmp_path_factory.mktemp("mcp"), "--mcp").wait()

    async def ask():
        from mcp import ClientSession
        from mcp.client.streamable_http import streamablehttp_client

        async with (
            streamablehttp_client(f"{running.url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return {t.name: t for t in (await session.list_tools()).tools}

    try:
        # In a thread of its own: a browser's loop may be running in this one.
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(asyncio.run, ask()).result()
    finally:
        running.stop()


@pytest.mark.slow
def test_each_task_is_a_tool(tools):
    assert set(tools) == {*tasks.TASKS, "train_lora", "race", "verify"}
    for key, task in tasks.TASKS.items():
        assert task.note[1:] in tools[key].description


def test_its_fields_are_explained(tools):
    fields = tools["inpaint"].inputSchema["properties"]
    there = tasks.module("inpaint").Options.model_fields
    for name in ("picture", "mask", "strength", "padding", "prompt"):
        assert there[name].description[:30] in fields[name]["description"]
