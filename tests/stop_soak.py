"""Press Stop many times, at each moment of a run, at each button of the page, in a real browser.

    python tests/stop_soak.py --times 20

A server with a tiny model runs in this process. A Gate pauses the run at a chosen moment, so that
Stop is pressed exactly then. A press is right if the run ends in the state that MOMENTS gives for
the moment, and the page shows this state, no other, and does not change it later. Prints a table of
right / wrong presses.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PATIENCE = 120  # seconds before a wait fails
SETTLE = 400  # milliseconds in which a late event could still overwrite the state
# The moment at which Stop is pressed: the state in which the run must end.
MOMENTS = {
    "queue": "stopped",  # it waits for the device, which another visitor has
    "before": "stopped",  # it has the device; no step is done
    "middle": "stopped",
    "last": "stopped",  # all steps are done, the result has not arrived
    "result": "done",  # the page shows the result
    "together": None,  # Stop and the result cross on their way: either state, but only one
}


class Gate:
    """Pauses a run at a chosen moment until it is released.

    moment: a key of MOMENTS, "" for none. run: the run that began since `arm`. reached, released:
    events that the run is paused, and that it may go on.
    """

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self.moment, self.run = "", None

    def arm(self, moment: str) -> None:
        """Pause the next run at `moment`."""
        self.reached.clear()
        self.released.clear()
        self.moment, self.run = moment, None

    def release(self) -> None:
        """Let the paused run go on, and pause no other."""
        self.moment = ""
        self.released.set()

    def hold(self, *moments: str) -> None:
        """Pause the calling run until `release`, if the chosen moment is one of `moments`."""
        if self.moment in moments:
            self.reached.set()
            assert self.released.wait(PATIENCE), "the gate was never opened"

    def wrap(self, make_updates: Callable) -> Callable:
        """Return `make_updates` (see demo/ui/stop.py) with pauses at the moments of MOMENTS."""
        from demo.ui.stop import Final

        def gated(run: Any, language: str, *values: Any):
            self.run = run
            self.hold("before")
            updates, stepped = make_updates(run, language, *values), False
            try:
                for update in updates:
                    if isinstance(update, Final):
                        self.hold("last", "together")
                    yield update
                    if run.progress is not None and not stepped:
                        stepped = True
                        self.hold("middle")
            finally:
                updates.close()

        return gated

    def install(self) -> None:
        """Make every StopButton that is built from now on pause its runs at this gate."""
        from demo.ui.stop import StopButton

        add = StopButton.add

        def gated_add(button: Any, event: Any, make_updates: Callable, *rest: Any, **more: Any):
            return add(button, event, self.wrap(make_updates), *rest, **more)

        StopButton.add = gated_add  # type: ignore[method-assign]  # of this process alone


@dataclass(frozen=True)
class Place:
    """A button of the page that starts runs.

    tab: the title of its tab. go, stop, status: CSS selectors of the button, its Stop button and
    its status line. ready: called with the page before each run, to fill in fields. uses_device:
    whether the run waits while another visitor's run uses the device.
    """

    tab: str
    go: str
    stop: str
    status: str
    ready: Callable[[Any], None] = lambda page: None
    uses_device: bool = True


def fill(**fields: str) -> Callable[[Any], None]:
    """Return a function that fills text boxes of a page: fill(arena_seed="5") fills #arena-seed."""

    def ready(page: Any) -> None:
        for name, value in fields.items():
            page.fill(f"#{name.replace('_', '-')} :is(input, textarea)", value)

    return ready


def _branch(page: Any) -> None:
    """Prepare the tab Look inside, which needs an open picture to branch from."""
    page.wait_for_selector("#tab-inside")
    if page.is_visible("#inside-example"):
        page.click("#inside-example")
        page.wait_for_selector("#inside-status .gb-done")
    page.fill("#inside-at input", "1")


def _chapter(key: str) -> Callable[[Any], None]:
    """Return a function that opens the chapter `key` of the tab From zero."""

    def ready(page: Any) -> None:
        page.click(f"#zero-{key}-button")
        page.wait_for_selector(f"#zero-{key}:visible")

    return ready


_names = iter(range(10**9))


def _character(page: Any) -> None:
    """Fill the tab Character, each time with a new name: that of a finished training is taken."""
    from PIL import Image

    if not page.locator("#character-images [aria-label='0.png']").count():
        folder = Path(tempfile.mkdtemp())
        for i, colour in enumerate(("navy", "purple", "green")):
            Image.new("RGB", (80, 80), colour).save(folder / f"{i}.png")
        files = [str(path) for path in sorted(folder.glob("*.png"))]
        page.set_input_files("#character-images input[type=file]", files)
        page.wait_for_selector("#character-images [aria-label='2.png']")
    name = f"soak{next(_names)}"
    fill(character_name=name, character_prompt="zog", character_steps="2", character_rank="2")(page)


_race = fill(arena_prompt="a cat", arena_steps="2", arena_seed="5")
PLACES = {
    "generate": Place("Generate", "#generate", "#stop", "#status"),
    "hires": Place("High-res fix", "#hires", "#stop", "#status"),
    "inside": Place("Look inside", "#inside-go", "#inside-stop", "#inside-status", _branch),
    "arena": Place("Arena", "#arena-go", "#arena-stop", "#arena-status", _race),
    "backends": Place("Arena", "#arena-backends", "#arena-stop", "#arena-status", _race),
    "character": Place(
        "Character", "#character-go", "#character-stop", "#character-status", _character, False
    ),
    "trace": Place("From zero", "#whole-draw", "#whole-stop", "#whole-status", _chapter("whole")),
    "training": Place(
        "From zero",
        "#zero-train",
        "#zero-train-stop",
        "#zero-train-status",
        _chapter("unet"),
        uses_device=False,
    ),
}


def start_server(folder: Path, gate: Gate) -> tuple[Any, str]:
    """Start the page with a tiny model in this process; return the gradio app and its URL."""
    from tests.conftest import write_tiny_model

    gate.install()
    import demo
    from demo.tabs.from_zero import training
    from pipeline import load
    from pipeline.model_cache import ModelCache

    training.SECONDS = 1
    os.chdir(folder)  # where trained files go
    models = load(str(write_tiny_model(folder / "tiny")), device="cpu")
    models.defaults.update(steps=3)
    page = demo.build(ModelCache(models))
    return page, demo.serve(page)[1]


@contextmanager
def hold_device(other: Any, gate: Gate) -> Iterator[None]:
    """Let another visitor's run use the device inside the `with`. other: that visitor's page."""
    gate.arm("before")
    other.click("#generate")
    _wait_until(gate.reached.is_set, other)
    gate.moment = ""
    yield
    gate.release()
    other.wait_for_selector("#status .gb-done")


def press(page: Any, gate: Gate, place: Place, moment: str, other: Any) -> str:
    """Start a run and press Stop at `moment`; return "" if all is right, else what is wrong.

    other: another visitor's page, whose run uses the device at the moment "queue".
    """
    place.ready(page)
    if moment == "queue":
        with hold_device(other, gate):
            page.click(place.go)
            page.wait_for_selector(f"{place.status} .gb-running")
            page.click(place.stop)
            page.wait_for_selector(f"{place.status} .gb-stopped")
        page.wait_for_timeout(SETTLE)
        return _judge(page, place, "stopped")
    gate.arm(moment)
    page.click(place.go)
    _wait_until(lambda: gate.run is not None, page)  # the page shows it as running by then
    if moment == "result":
        page.wait_for_selector(f"{place.status} .gb-done")
        page.click(place.stop)
    else:
        _wait_until(gate.reached.is_set, page)
        page.click(place.stop)
        if moment != "together":
            _wait_until(lambda: gate.run.state == "stopped", page)
    gate.release()
    page.wait_for_selector(f"{place.status} :is(.gb-done, .gb-stopped, .gb-error)")
    page.wait_for_timeout(SETTLE)
    wanted = MOMENTS[moment] or gate.run.state
    if gate.run.state != wanted:
        return f"the server says {gate.run.state}, not {wanted}"
    return _judge(page, place, wanted)


def _judge(page: Any, place: Place, wanted: str) -> str:
    """Return "" if the page shows the state `wanted` and no other, else what it shows."""
    kinds = page.get_attribute(f"{place.status} .gb-status", "class")
    if f"gb-{wanted}" not in kinds.split() or "gb-stopping" in kinds.split():
        return f"the page says {kinds}, not {wanted}"
    return ""


def _wait_until(condition: Callable[[], bool], page: Any) -> None:
    """Wait until `condition` returns true; the browser's events are handled meanwhile."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        page.wait_for_timeout(10)


def main(argv: list[str] | None = None) -> int:
    """Press Stop --times times at each moment of each button; return 1 if any press was wrong."""
    import shutil

    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--places", nargs="*", choices=PLACES, default=[*PLACES])
    parser.add_argument("--moments", nargs="*", choices=MOMENTS, default=[*MOMENTS])
    args = parser.parse_args(argv)
    gate, began = Gate(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server, url = start_server(Path(folder), gate)
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )

        def visit() -> Any:
            page = browser.new_page(locale="en-US")
            page.set_default_timeout(PATIENCE * 1000)
            page.goto(url)
            page.wait_for_selector("#generate:has-text('Generate')")
            return page

        other = visit()
        other.fill("#steps input", "3")

        print(f"{'':12}" + "".join(f"{moment:>12}" for moment in args.moments), flush=True)
        wrong = 0
        for name in args.places:
            place, counts = PLACES[name], []
            page = visit()
            page.get_by_role("tab", name=place.tab, exact=True).click()
            for moment in args.moments:
                if moment == "queue" and not place.uses_device:
                    counts.append("-")
                    continue
                problems = []
                for _ in range(args.times):
                    problem = press(page, gate, place, moment, other)
                    if problem:
                        problems.append(problem)
                counts.append(f"{args.times - len(problems)} / {len(problems)}")
                wrong += len(problems)
                for problem in sorted(set(problems)):
                    print(f"  {name}, {moment}: {problem}", flush=True)
            page.close()
            print(f"{name:12}" + "".join(f"{count:>12}" for count in counts), flush=True)
        browser.close()
        os.chdir(ROOT)
        server.close(verbose=False)
    print(f"{wrong} wrong in {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
