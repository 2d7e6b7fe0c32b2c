"""The figures of README.md and docs/kernels.md are those of the files that were measured."""

import json

import pytest

from kernels.bench import report, results

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", report.DOCUMENTS)
def test_the_documents_have_the_figures_of_todays_files(name):
    """`python -m kernels.bench.report` writes them anew."""
    text = (report.ROOT / name).read_text(encoding="utf-8")
    assert report.fill(text) == text


def test_every_block_is_in_a_document():
    texts = [(report.ROOT / name).read_text(encoding="utf-8") for name in report.DOCUMENTS]
    shown = [mark[1] for text in texts for mark in report.MARKED.findall(text)]
    assert sorted(shown) == sorted(report.BLOCKS)


ROW = {
    "kernel": "attention", "mode": "forward", "metric": "TFLOP/s", "rate": 4.0, "share": 0.5,
    "ceilings": {"TFLOP/s": 8.0, "GB/s": 9.0}, "dtype": "float16", "gpu": "a card",
    "driver": None, "versions": {"torch": "1", "triton": "2"}, "timed": "graph", "note": "",
}  # fmt: skip


@pytest.fixture
def card(monkeypatch, tmp_path):
    """Results of "a card": ours is 4 and 1 times as fast as the best other, and alone once."""
    times = {
        "s": {"ours": 1, "sdpa": 4, "xformers": 5},
        "t": {"ours": 2, "sdpa": 2},
        "u": {"ours": 3},
    }
    rows = [
        ROW | {"shape": shape, "provider": provider, "p50": float(ms)}
        for shape, here in times.items()
        for provider, ms in here.items()
    ]
    rows.append(ROW | {"shape": "u", "provider": "sdpa", "p50": None})
    call = {"model": "SD 1.5", "size": 512, "batch": 2, "layout": "NHWC", "note": "first call 1s"}
    call |= {"attention": "ours", "group_norm": "ours", "run": "CUDA graph", "ms": 10.0}
    kernels = [{"kernel": name, "us": us} for name, us in (("forward_kernel", 500), ("add", 250))]
    surroundings = {"surroundings": {"gpu": "a card"}}
    files = {
        "a.json": rows,
        "end_to_end/a.json": surroundings | {"rows": [call, call | {"ms": None}]},
        "profiles/a.json": surroundings | {"calls": {"a call": kernels}},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.load_results.cache_clear()
    yield
    results.load_results.cache_clear()


def test_each_shape_is_compared_with_the_fastest_other(card):
    text = report.shapes()
    assert text.startswith("a card, torch 1, triton 2, float16, timed by replays of a CUDA graph.")
    assert "2.00x as fast as the fastest other that was timed there (mean of 2 shapes" in text
    assert [line for line in text.splitlines() if line.startswith("| ")][1:] == [
        "| s | 1 | 4 | 50% | sdpa | 4 | 4.00 |",
        "| t | 2 | 4 | 50% | sdpa | 2 | 1.00 |",
        "| u | 3 | 4 | 50% | not timed |  |  |",
    ]


def test_calls_of_a_unet_are_listed_and_their_time_is_split(card):
    text = report.unet()
    assert (
        "| SD 1.5 512x512, batch 2 | CUDA graph, NHWC | ours | ours | 10.0 | 100.0 | 1s |" in text
    )
    assert "| attention | 0.50 |" in text and "| all | 0.75 |" in text
    assert "| elementwise operations and copies | 0.25 |" in text


def test_only_what_stands_between_the_marks_is_replaced(monkeypatch):
    monkeypatch.setattr(report, "BLOCKS", {"a": lambda: "new", "b": lambda: "more"})
    text = "x\n<!-- measured: a -->\n<!-- end -->\ny\n<!-- measured: b -->\nold\n<!-- end -->\nz\n"
    filled = report.fill(text)
    assert filled == text.replace("a -->\n", "a -->\nnew\n").replace("old", "more")
    assert report.fill(filled) == filled
