"""The benchmark measures what can run, gives a wrong answer no time, and reports honestly."""

import json

import pytest
import torch
from PIL import Image

pytest.importorskip("triton")
from kernels.bench import __main__ as command
from kernels.bench import attention, group_norm, measure, plot, word_attention
from kernels.bench.measure import Provider, Row

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(attention, "SHAPES", [("tiny", 1, 32, 77, 2, 8), ("big", 8, 64, 64, 2, 8)])
    monkeypatch.setattr(word_attention, "SHAPES", [("tiny", 1, 32, 77, 2, 8)])
    monkeypatch.setattr(group_norm, "SHAPES", [("tiny", 1, 64, 8, True), ("big", 8, 64, 8, True)])
    monkeypatch.delitem(attention.RUNS, "torch.compile")  # a minute of compiling
    monkeypatch.delitem(group_norm.RUNS, "torch.compile")


def test_on_a_cpu_peers_are_measured_and_ours_has_no_time(small, capsys, tmp_path):
    file, plots = tmp_path / "rows.json", tmp_path / "plots"
    argv = ["--device", "cpu", "--seconds", "0.01", "--json", str(file), "--plot", str(plots)]
    assert command.main(argv) == 0
    out = capsys.readouterr().out
    assert "No GPU: our kernels have no time here" in out
    rows = json.loads(file.read_text())
    assert {r["kernel"] for r in rows} == {"attention", "word_attention", "group_norm"}
    assert {r["mode"] for r in rows} == {"forward", "backward"}
    for r in rows:
        assert "big" not in r["shape"]
        if r["provider"].startswith("ours"):
            assert r["p50"] is None and r["note"].startswith("not here:")
    timed = [r for r in rows if r["p50"]]
    assert {"sdpa math", "torch eager", "plain, with maps"} <= {r["provider"] for r in timed}
    for r in timed:
        assert 0 < r["p20"] <= r["p50"] <= r["p80"] and r["rate"] > 0 and r["ceiling"] > 0
        assert r["surroundings"]["torch"] == torch.__version__ and r["surroundings"]["cpu"]
    pictures = sorted(plots.iterdir())
    assert len(pictures) == 5 and all(Image.open(p).size[0] > 1000 for p in pictures)


def test_a_wrong_answer_gets_no_time():
    x = torch.randn(64, 64)
    providers = [
        Provider("right", lambda x: lambda: x * 2),
        Provider("wrong", lambda x: lambda: x * 2.1),
        Provider("not a number", lambda x: lambda: x * float("nan")),
        Provider("absent", lambda x: (_ for _ in ()).throw(RuntimeError("no card\nno time"))),
    ]
    args = "op", "forward", "s", torch.float32, providers, (x,), x * 2, 1.0, "GB/s", "cpu", 0.01
    right, wrong, nan, absent = measure.compare(*args)
    assert right.p50 and not right.note
    assert wrong.p50 is None and wrong.note.startswith("wrong answer: off by")
    assert nan.p50 is None and nan.note.startswith("wrong answer")
    assert absent.p50 is None and absent.note == "not here: no card"


def row(provider, p50, shape="s", mode="forward"):
    rate = None if p50 is None else 1 / p50
    return Row("op", provider, mode, shape, "fp16", p50, p50, p50, "GB/s", rate, 10.0)


def test_the_summary_compares_with_the_best_peer_of_each_shape():
    rows = [
        row("ours", 1.0), row("a", 2.0), row("b", 4.0),
        row("ours", 1.0, "t"), row("a", 0.5, "t"), row("b", 8.0, "t"),
        row("ours", None, "u"), row("a", 1.0, "u"),
    ]  # fmt: skip
    assert command.summary(rows) == [
        "op forward: 1.00x the best peer (geometric mean of 2 shapes), least 0.50x at t."
    ]
    assert command.summary(rows[6:]) == []


def test_a_plot_has_a_bar_in_proportion():
    rows = [r.as_dict() for r in (row("ours", 0.125), row("a", 0.25))]
    for r in rows:
        r["surroundings"] = {"gpu": "a card"}
    picture = plot.bars(rows, "op")
    width = [sum(picture.getpixel((x, y)) == c for x in range(plot.LEFT, plot.LEFT + plot.WIDTH))
             for y, c in ((89, plot.OURS), (107, plot.PEERS[0]))]  # fmt: skip
    assert abs(width[0] / width[1] - 2) < 0.05


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["atention"], "no benchmark 'atention'; there is attention,"),
        (["--seconds", "nan"], "--seconds must be above 0"),
        (["--device", "cuda:9"], "The device cuda:9 can't be used here"),
        (["--device", "tpu"], "The device tpu can't be used here"),
        (["--tune", "--device", "cpu"], "--tune needs a GPU"),
    ],
)
def test_bad_input_is_one_sentence(capsys, argv, sentence):
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1
