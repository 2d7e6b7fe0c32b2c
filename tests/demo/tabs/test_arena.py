"""The tab Arena in headless Chromium and over the web API: its numbers are the pipeline's."""

import re
import threading
import time

import numpy as np
import pytest
from gradio_client import Client
from PIL import Image

from demo.events import Broken
from demo.server.runner import Runner
from demo.tabs.arena.api import SAMPLERS
from demo.tabs.arena.charts import DISTANCE_RANGE, format_number
from demo.ui.plots import HEIGHT, LEFT, TOP, WIDTH, Curve, Frame, plot
from pipeline import GenerateOptions, load
from pipeline.errors import InputError
from pipeline.introspection import arena

STEPS = 3


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def raced(models):
    """Events of the race that the page is to show."""
    options = GenerateOptions(prompt="a red apple", seed=5, steps=STEPS, cfg=2.0)
    return list(arena.race(models, options, arena.parse_entries([*SAMPLERS, "Heun Karras"])))


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def open_tab(page, name="Arena"):
    page.get_by_role("tab", name=name).click()
    page.fill("#arena-prompt textarea", "a red apple")
    for field, value in (("steps", str(STEPS)), ("cfg", "2"), ("seed", "5")):
        page.fill(f"#arena-{field} :is(input, textarea)", value)


def choose(page, name):
    page.fill("#arena-lanes input", name)
    page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def rows(page):
    """The table's cells, row by row."""
    return [
        [cell.inner_text() for cell in row.locator("th, td").all()]
        for row in page.locator(".gb-results tbody tr").all()
    ]


def curve(page, figure, lane):
    points = page.get_attribute(
        f".gb-plots figure:nth-of-type({figure}) .gb-lane-{lane} polyline", "points"
    )
    return [tuple(map(float, pair.split(","))) for pair in points.split()]


def test_a_race_on_the_page_shows_the_pipeline_s_numbers(visit, raced):
    page = visit()
    open_tab(page)
    choose(page, "Heun Karras")
    page.click("#arena-go")
    page.wait_for_selector("#arena-status .gb-done")
    page.click("#arena-stop")  # too late: what is done stays said
    page.wait_for_timeout(800)
    assert page.locator("#arena-status .gb-done").count() == 1
    finishes = {e.entry: e for e in of(arena.EntryDone, raced)}
    measured = of(arena.Distances, raced)
    shown = rows(page)
    assert len(shown) == len(measured) == 5
    for i, (row, told) in enumerate(zip(shown, measured, strict=True)):
        assert row[1].split()[0] == format_number(told.last)
        assert row[2] == str(finishes[i].calls) and row[4] == str(STEPS)
        assert ("by design" in row[1]) == (row[0] == "Euler a")
    assert [row[0] for row in shown] == [*SAMPLERS, "Heun"]
    assert shown[4][2] == "5" and shown[4][5] == "Karras"
    nearest = min(told.last for told in measured[1:])
    assert page.inner_text(".gb-nearest") == format_number(nearest)
    calls = sum(e.calls for e in finishes.values()) + arena.REFERENCE_STEPS
    assert f"{calls} model calls" in page.inner_text("#arena-status")
    for lane in range(5):
        frame = Frame(2 * STEPS, *DISTANCE_RANGE)
        frame = frame.around([Curve([*enumerate(t.distances, 1)], 0) for t in measured])
        places = [frame.place(i, d) for i, d in enumerate(measured[lane].distances, 1)]
        assert np.allclose(curve(page, 2, lane), places, atol=0.06)
        assert len(curve(page, 1, lane)) == STEPS
    assert page.locator("#arena-view img").count() == 6
    # Each picture can be had, and is the one that its options give alone.
    for i, link in enumerate(page.locator("#arena-files a[download]").all()):
        with page.expect_download() as download:
            link.click()
        image = Image.open(download.value.path())
        made = finishes[i].result
        assert np.array_equal(np.asarray(image), np.asarray(made.images[0]))
        assert image.info["parameters"] == made.parameters[0]
    assert i == 4
    # The same again knows its reference.
    page.click("#arena-go")
    page.wait_for_selector(".gb-lane[data-lane='-1'] >> text=known from before")
    page.wait_for_selector(
        f"#arena-status .gb-done >> text={calls - arena.REFERENCE_STEPS} model calls"
    )
    assert [row[1] for row in rows(page)] == [row[1] for row in shown]
    assert page.foreign == []


def test_backends_on_the_page(visit, models):
    page = visit("zh")
    open_tab(page, "竞技场")
    assert page.inner_text("#arena-backends") == "比较计算后端"
    page.click("#arena-backends")
    page.wait_for_selector("#arena-status .gb-done")
    options = GenerateOptions(prompt="a red apple", seed=5, steps=STEPS, cfg=2.0)
    rivals = arena.backend_pairs(models)
    told = of(arena.BackendComparison, arena.race_backends(models, options, rivals))
    shown = rows(page)
    assert [tuple(row[:2]) for row in shown] == [(r.attention, r.group_norm) for r in rivals]
    assert shown[0][4] == shown[0][5] == "以此为准"
    for row, compared in zip(shown[1:], told[1:], strict=True):
        assert row[4] == f"{compared.pixels}（满值 255）" and row[5] == f"{compared.latents:.2g}"
        assert float(row[2].split()[0]) > 0
    notes = page.inner_text("#arena-notes")
    assert all(name in notes and why in notes for _, name, why in arena.missing_backends(models))


def test_one_lane_is_no_race_and_a_race_can_be_stopped(visit, server):
    page = visit()
    open_tab(page)
    for _ in range(3):
        page.locator("#arena-lanes .token-remove:not(.remove-all)").last.click()
    page.click("#arena-go")
    page.wait_for_selector("#arena-status .gb-error")
    assert "2 to 6 lanes, not 1" in page.inner_text("#arena-status")
    page = visit()  # a page that is reloaded loses what is filled in before its scripts run
    open_tab(page)
    choose(page, "Heun")  # the fifth lane: long enough to be stopped
    page.fill("#arena-steps :is(input, textarea)", "200")
    page.click("#arena-go")
    page.wait_for_selector("#arena-view .gb-lane:has-text('/ 200')")
    page.click("#arena-stop")
    page.wait_for_selector("#arena-status .gb-stopped")
    # The device is free: another's picture is drawn at once.
    Client(server.url, verbose=False).predict(prompt="a cat", steps=1, api_name="/generate")
    assert page.locator("#arena-status .gb-stopped").count() == 1
    assert "200 / 200" not in page.inner_text("#arena-view")


@pytest.mark.slow
def test_two_visitors_at_once_get_their_own(server, models, raced):
    """Over the web API, which shares the page's queue and device."""
    got = {}
    fields = {"prompt": "a red apple", "seed": 5, "cfg": 2}
    asked = {2: "Euler, DDIM", 4: "heun, unipc karras"}  # lanes by steps

    def visitor(steps):
        client = Client(server.url, verbose=False)
        got[steps] = client.predict(**fields, lanes=asked[steps], steps=steps, api_name="/race")

    visitors = [threading.Thread(target=visitor, args=(steps,)) for steps in asked]
    for thread in visitors:
        thread.start()
    for thread in visitors:
        thread.join()
    (known,) = of(arena.Reference, raced)
    for steps, (pictures, told) in got.items():
        options = GenerateOptions(**fields, steps=steps)
        lanes = arena.parse_entries(asked[steps].split(", "))
        events = list(arena.race(models, options, lanes, known))
        finishes = sorted(of(arena.EntryDone, events), key=lambda e: e.entry)
        for lane, measured, finish, picture in zip(
            told, of(arena.Distances, events), finishes, pictures, strict=True
        ):
            assert lane["distances"] == list(measured.distances)
            assert lane["distance"] == measured.last and lane["calls"] == finish.calls
            image = Image.open(picture["image"])
            assert np.array_equal(np.asarray(image), np.asarray(finish.result.images[0]))
    assert {len(told[0]["distances"]) for _, told in got.values()} == {2, 7}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lanes": "euler"}, "2 to 6 lanes, not 1"),
        ({"lanes": "euler, eulr"}, "no sampler 'eulr'"),
        ({"steps": 1000}, "Steps must be a whole number from 1 to 200"),
        ({"model": "nothing"}, "no model 'nothing' to choose"),
    ],
)
def test_what_is_wrong_is_said_to_clients(server, fields, words):
    client = Client(server.url, verbose=False)
    with pytest.raises(Exception, match=words):
        client.predict(prompt="a", **fields, api_name="/race")


def test_a_client_may_leave_out_what_has_a_default_by_null(server):
    client = Client(server.url, verbose=False)
    pictures, _ = client.predict(prompt="a", lanes=None, steps=1, seed=1, api_name="/race")
    assert len(pictures) == len(SAMPLERS)


def test_one_after_the_other_on_the_device():
    """What runs through `on_device` is alone there, and leaves it when it is closed or fails."""
    active, most = 0, 0
    runner = Runner(None)

    @runner.on_device
    def work(count, fails=None):
        nonlocal active, most
        active += 1
        most = max(most, active)
        try:
            for i in range(count):
                if i == 2 and fails:
                    raise fails
                time.sleep(0.001)  # another's turn, if there were one
                yield i
        finally:
            active -= 1

    users = [threading.Thread(target=lambda: [*work(20)]) for _ in range(3)]
    for thread in users:
        thread.start()
    left = work(5)
    assert next(left) == 0
    left.close()
    for thread in users:
        thread.join()
    assert (active, most) == (0, 1)
    for fails, seen in ((RuntimeError("inside"), Broken), (InputError("wrong"), InputError)):
        with pytest.raises(seen):
            list(work(5, fails))
    assert list(work(2)) == [0, 1] and active == 0


def test_heights_are_logarithms():
    frame = Frame(10, 0.01, 100)
    assert frame.place(0, 100) == (LEFT, TOP)
    (_, low), (_, one), (_, high) = (frame.place(0, y) for y in (0.01, 1, 100))
    assert one == pytest.approx((low + high) / 2)
    assert frame.place(5, 1e-9)[1] == frame.place(5, 0)[1] == low  # not below the edge
    assert frame.around([Curve([(20, 1e3), (3, 1e-5)], 0)]) == Frame(20, 0.01, 1e3)
    drawn = plot([Curve([(1, 1), (2, 10)], 2)], frame, x_label="<x>", alt="a & b", empty="none")
    (points,) = re.findall('points="([^"]+)"', drawn)
    expected = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.place(1, 1), frame.place(2, 10)))
    assert points == expected and "&lt;x&gt;" in drawn and "a &amp; b" in drawn
    assert "none" not in drawn and "none" in plot([], frame, x_label="", alt="", empty="none")
    for x, y in (map(float, pair.split(",")) for pair in points.split()):
        assert LEFT <= x <= WIDTH and TOP <= y <= HEIGHT
