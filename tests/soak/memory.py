"""Visit a server many times, and compare what it keeps then with what it kept after 200 visits.

    python tests/soak/memory.py [--count 2000] [--seed 0]

A server with a tiny model runs in a process of its own. A visit opens a session, uploads a picture,
draws with the page's button Generate (which records all steps) and with the web API; then it closes
its page, or leaves it open, or was a client that fetches no result. At the end the server's clocks
go two hours on, and it cleans up. Prints a table of what the server keeps; exit status 1 if its
memory has grown by more than 100 MB since the first 200 visits, or anything is left over.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
FIRST = 200  # visits before the memory is measured for the first time
GROWTH_MB = 100
HOURS, STEPS = 2, 6  # of cleaning up, and in how many steps they go by
AT_ONCE = 4  # visitors
PATIENCE = 300  # seconds for one answer
# How often a visit ends so. Requests whose result nobody fetches wait for a minute, so a crowd of
# them fills the queue; that is what crowd.py tests.
LEAVES = {"closes its page": 10, "leaves its page open": 9, "fetches no result": 1}


# ---- the server's process ------------------------------------------------------------------------


class Clock:
    """The functions of the module `time` that the server's caches use, which can be set forward."""

    sleep, offset = staticmethod(time.sleep), 0.0

    def monotonic(self) -> float:
        """Return the seconds of a clock that goes on by `offset`."""
        return time.monotonic() + self.offset

    def time(self) -> float:
        """Return the seconds since 1970, with `offset`."""
        return time.time() + self.offset


def serve(folder: Path) -> None:
    """Serve the tiny model; answer each line on stdin with a line of JSON.

    The first line printed holds the address and the button Generate. A line with a number sets the
    clocks so many seconds on; the server then cleans up and tells what it keeps.
    """
    import demo
    from demo.limits import LIMITS, Limits
    from demo.server import queueing, temp_folder
    from pipeline import load, lru
    from pipeline.model_cache import ModelCache
    from tests.conftest import write_tiny_model

    os.chdir(folder)
    clock = Clock()
    temp_folder.time = queueing.time = clock  # type: ignore[assignment]
    page = demo.build(
        ModelCache(load(str(write_tiny_model(folder / "tiny")), device="cpu")),
        limits=Limits(max_sessions=LIMITS["max_sessions"].public),
    )
    _, url, _ = demo.serve(page)
    page.upkeep.sessions.clock = clock.monotonic
    for cache in lru._with_age:
        cache._clock = clock.monotonic
    print(json.dumps({"url": url, "generate": find_generate(page)}), flush=True)
    for line in sys.stdin:
        clock.offset += float(line)
        time.sleep(1)  # the queue drops requests that nobody reads
        sessions, swept = page.upkeep.sessions, page.upkeep.sessions.swept
        sessions.sweep_at = 0.0
        page.upkeep.sweep()
        while sessions.swept == swept:  # Gradio's task sweeps the sessions
            time.sleep(0.1)
        print(json.dumps(describe(page)), flush=True)


def find_generate(page: Any) -> list[dict[str, Any]]:
    """Return the two listeners of the button Generate: their index and their inputs' values."""
    button = next(b for b in page.blocks.values() if getattr(b, "elem_id", "") == "generate")
    opened = next(f for f in page.fns.values() if (button._id, "click") in f.targets)
    drawn = next(f for f in page.fns.values() if f.trigger_after == opened._id)
    components = {c["id"]: c["props"].get("value") for c in page.config["components"]}
    return [
        {"index": fn._id, "values": [components.get(block._id) for block in fn.inputs]}
        for fn in (opened, drawn)
    ]


def describe(page: Any) -> dict[str, float]:
    """Return what the server keeps: its memory in MB, and numbers of each of its states."""
    import gc

    import psutil

    from demo.server import temp_folder

    gc.collect()
    folder, queue = temp_folder.current(), page._queue
    paths = list(folder.files.rglob("*"))
    return {
        "memory (MB)": psutil.Process().memory_info().rss / 1e6,
        "sessions": len(page.state_holder.session_data),
        "closed sessions": sum(s.is_closed for s in page.state_holder.session_data.values()),
        "their states (MB)": sum(s.nbytes for s in page.state_holder.session_data.values()) / 1e6,
        "unread messages": len(queue.pending_messages_per_session),
        "requests": len(queue.event_ids_to_events) + len(queue.pending_event_ids_session),
        "recordings (MB)": page.upkeep.runner.recordings.nbytes / 1e6,
        "files": sum(p.is_file() for p in paths),
        "folders": sum(p.is_dir() for p in paths) + len(list(folder.work.iterdir())),
        "notes of files": sum(map(len, page.temp_file_sets)),
        "threads": threading.active_count(),
    }


# ---- the visitors --------------------------------------------------------------------------------


class Visitor:
    """One visit: a Gradio session of its own.

    url: the server's. generate: of `find_generate`. seed: makes its choices.
    """

    def __init__(self, url: str, generate: list[dict[str, Any]], seed: int):
        import httpx

        self.url, self.generate, self.random = url, generate, random.Random(seed)
        self.session = f"soak{seed:08d}"
        self.http = httpx.Client(timeout=PATIENCE)

    def visit(self) -> str:
        """Do what a visitor does; return how it leaves, one of LEAVES."""
        ending = self.random.choices([*LEAVES], [*LEAVES.values()])[0]
        path = self._upload()
        if ending == "fetches no result":
            picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
            self._post("call/image_to_image", {"data": [picture, "red", "", 0.5, None, None, 1]})
            return ending
        if ending == "leaves its page open":  # its connection broke, so the server hears no end
            self._draw()
            return ending
        with self.http.stream("GET", f"{self.url}gradio_api/heartbeat/{self.session}") as beat:
            lines = beat.iter_lines()  # the connection is closed when it is collected
            next(lines)
            self._draw()
        return ending

    def _draw(self) -> None:
        """Press the page's button Generate."""
        opened, drawn = self.generate
        run = f"{self.session}run"
        self._run(opened, [run])
        self._run(drawn, [run, *drawn["values"][1:]])

    def _upload(self) -> str:
        from PIL import Image

        data = io.BytesIO()
        color = tuple(self.random.randrange(256) for _ in range(3))
        Image.new("RGB", (256, 256), color).save(data, "PNG")
        files = {"files": (f"{self.session}.png", data.getvalue())}
        return self.http.post(f"{self.url}gradio_api/upload", files=files).json()[0]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.post(f"{self.url}gradio_api/{path}", json=body)
        return answer.json()

    def _run(self, listener: dict[str, Any], values: list[Any]) -> None:
        """Run a listener of the page through the queue, until it is done."""
        body = {"fn_index": listener["index"], "data": values, "session_hash": self.session}
        while True:
            joined = self._post("queue/join", body)
            if "event_id" in joined:
                break
            time.sleep(0.2)  # the queue is full
        data = f"{self.url}gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", data) as answer:
            for line in answer.iter_lines():
                if '"process_completed"' in line:
                    assert '"success":true' in line, line[:500]
                if '"close_stream"' in line:
                    return


def soak(count: int, seed: int, first: int = FIRST, hours: float = HOURS) -> list[dict[str, float]]:
    """Visit a server `count` times; return what it keeps at three moments.

    They are after the `first` visits, after all, and `hours` later.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment.pop("GRADIO_TEMP_DIR", None)
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert server.stdin is not None and server.stdout is not None

        def ask(seconds: float) -> dict[str, float]:
            print(seconds, file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())

        try:
            hello = json.loads(server.stdout.readline())

            def visit(index: int) -> str:
                return Visitor(hello["url"], hello["generate"], seed * 1_000_000 + index).visit()

            rows, done = [], 0
            with ThreadPoolExecutor(AT_ONCE) as visitors:
                for upto in (first, count):
                    for _ in visitors.map(visit, range(done, upto)):
                        pass
                    done = upto
                    rows.append(ask(0))
            for _ in range(STEPS):
                last = ask(hours * 3600 / STEPS)
            rows.append(last)
        finally:
            server.kill()
            server.wait()
    return rows


def judge(rows: list[dict[str, float]], limit: int, growth: float = GROWTH_MB) -> list[str]:
    """Return a sentence for each target that was missed. rows: of `soak`. limit: of sessions."""
    before, full, after = rows
    grown = after["memory (MB)"] - before["memory (MB)"]
    missed = []
    if grown > growth:
        missed.append(f"The memory has grown by {grown:.0f} MB; at most {growth:.0f} were allowed.")
    if max(before["sessions"], full["sessions"]) > limit:
        missed.append(f"{full['sessions']:.0f} sessions were kept; at most {limit} were allowed.")
    for name in ("unread messages", "requests", "recordings (MB)", "files", "folders"):
        if after[name]:
            missed.append(f"{name}: {after[name]:.0f} are left.")
    return missed


def table(rows: list[dict[str, float]], titles: list[str]) -> str:
    """Return the rows of `soak` as a table, one column each."""
    lines = [f"{'':24}" + "".join(f"{title:>20}" for title in titles)]
    for name in rows[0]:
        lines.append(f"{name:24}" + "".join(f"{row[name]:20,.1f}" for row in rows))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the soak test, print its table, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="visits (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        serve(args.serve)
        return 0
    from demo.limits import LIMITS

    began, first = time.monotonic(), min(FIRST, max(args.count // 2, 1))
    rows = soak(args.count, args.seed, first)
    print(f"seed {args.seed}, {time.monotonic() - began:.0f} s")
    print(table(rows, [f"after {first}", f"after {args.count}", f"{HOURS} h later"]))
    missed = judge(rows, LIMITS["max_sessions"].public)
    print("\n".join(missed) or "All targets are met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
