"""The benchmark measures what can run, gives a wrong answer no time, and reports honestly."""

import json
import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

pytest.importorskip("triton")
from kernels.bench import __main__ as command
from kernels.bench import attention, group_norm, measure, plot, results, word_attention
from kernels.bench.measure import Call, Provider, Row, Work
from kernels.shapes import AttentionShape, GroupNormShape, Norm, both_layouts

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    tiny = AttentionShape("tiny", 64, 1, 32, 77, 2, 8)
    monkeypatch.setattr(attention, "SHAPES", [tiny, AttentionShape("big", 512, 8, 64, 64, 2, 8)])
    monkeypatch.setattr(word_attention, "SHAPES", [tiny])
    norms = (Norm(64, 8, True, True), Norm(32, 4, False, False, 2))
    shapes = (
        GroupNormShape("tiny", 64, 1, norms[:1]),
        GroupNormShape("tiny", 64, 1, norms),
        GroupNormShape("big", 512, 8, norms),
    )
    monkeypatch.setattr(group_norm, "SHAPES", both_layouts(shapes))
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
    assert {"sdpa", "torch eager", "plain, with maps"} <= {r["provider"] for r in timed}
    for r in timed:
        assert 0 < r["p20"] <= r["p50"] <= r["p80"] and r["rate"] > 0 and not r["note"]
        assert r["timed"] is None  # by the clock
        amount = r["flop"] / 1e9 if r["metric"] == "TFLOP/s" else r["bytes"] / 1e6
        assert r["rate"] == pytest.approx(amount / r["p50"], rel=2e-3)
        assert r["share"] == pytest.approx(r["rate"] / r["ceilings"][r["metric"]], rel=2e-3)
        assert r["versions"]["torch"] == torch.__version__ and r["cpu"] and r["gpu"] is None
    assert {r["shape"] for r in rows if "norms" in r["shape"]} == {
        "tiny 64 B1 all 3 norms NCHW", "tiny 64 B1 all 3 norms NHWC",
    }  # fmt: skip
    names = {p.stem for p in plots.iterdir()}
    assert names == {
        "attention-forward", "attention-backward", "word_attention-forward", "group_norm-forward",
        "group_norm-backward", "roofline-forward", "roofline-backward",
    }  # fmt: skip
    assert all(Image.open(p).size[0] > 800 for p in plots.iterdir())


def test_a_wrong_answer_gets_no_time():
    x = torch.randn(64, 64)
    providers = [
        Provider("right", lambda x: Call(lambda: x * 2)),
        Provider("wrong", lambda x: Call(lambda: x * 2.1)),
        Provider("not a number", lambda x: Call(lambda: x * float("nan"))),
        Provider("absent", lambda x: (_ for _ in ()).throw(RuntimeError("no card\nno time"))),
    ]
    work = Work(1e6, 1e6, "GB/s")
    args = "op", "forward", "s", torch.float32, providers, (x,), x * 2, work, "cpu", 0.01
    right, wrong, nan, absent = measure.compare(*args)
    nothing = torch.full((2,), float("nan"))
    assert math.isnan(measure.relative_error((x, nothing), (x, nothing * 0)))
    assert math.isnan(measure.relative_error((x, nothing), (x, torch.ones(2))))
    assert right.p50 and not right.note
    assert wrong.p50 is None and wrong.note.startswith("wrong answer: off by")
    assert nan.p50 is None and nan.note.startswith("wrong answer")
    assert absent.p50 is None and absent.note == "not here: no card"


@pytest.mark.quick
def test_torch_compile_has_a_row_wherever_groupnorm_is_measured(small, monkeypatch):
    def fail(function):
        raise RuntimeError("backend='inductor' raised:\nValueError: no compiler\nat line 3")

    monkeypatch.setattr(group_norm, "compile_for_shapes", fail)
    monkeypatch.setattr(group_norm, "RUNS", {"ours": group_norm._ours, "torch.compile": None})
    monkeypatch.setattr(measure, "ceilings", lambda *_: TOPS)
    rows = list(group_norm.rows("cpu", torch.float32, ("forward", "backward"), 0.01))
    where = {(r.shape, r.mode) for r in rows}
    compiled = [r for r in rows if r.provider == "torch.compile"]
    assert {(r.shape, r.mode) for r in compiled} == where and len(where) == 8
    assert {r.note for r in compiled} == {
        "not here: backend='inductor' raised: ValueError: no compiler"
    }


class Card:
    """A GPU with a clock of its own, in place of torch.cuda: a call takes 5 us, clearing 30."""

    def __init__(self, monkeypatch, capturable=True):
        self.now, self.calls, self.captured, self.capturable = 0.0, 0, None, capturable
        card, cuda = self, torch.cuda
        self.current = self.default = SimpleNamespace(name="default")

        class Graph:
            def replay(self):
                card.now += 0.02 + 0.001 * (card.now % 3) + sum(self.costs)  # the host's share

        class Event:
            def record(self):
                self.at = card.now

            def elapsed_time(self, end):
                return end.at - self.at

        @contextmanager
        def capture(graph, stream):
            assert stream is card.current is not card.default
            graph.costs = card.captured = []
            yield
            card.captured = None

        @contextmanager
        def use(stream):
            before, card.current = card.current, stream
            yield
            card.current = before

        def empty(size, dtype, device):
            assert size == 100 << 20
            return SimpleNamespace(zero_=lambda: card.take(0.03))

        for name, value in {
            "CUDAGraph": Graph, "Event": lambda enable_timing: Event(), "graph": capture,
            "stream": use, "synchronize": lambda: None, "Stream": SimpleNamespace,
            "current_stream": lambda: card.current, "default_stream": lambda: card.default,
            "set_stream": lambda stream: setattr(card, "current", stream),
            "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=50 << 20),
        }.items():  # fmt: skip
            monkeypatch.setattr(cuda, name, value)
        monkeypatch.setattr(torch, "empty", empty)

    def take(self, ms):
        self.now += ms
        if self.captured is not None:
            self.captured.append(ms)

    def call(self):
        self.calls += 1
        if self.captured is not None and not self.capturable:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.take(0.005)


@pytest.mark.quick
def test_replays_measure_neither_the_host_nor_the_clearing_of_the_cache(monkeypatch):
    card = Card(monkeypatch)
    timing = measure.time_call(card.call, "cuda", 0.05)
    assert timing.timed == "graph"
    assert timing.p20 <= timing.p50 <= timing.p80
    assert timing.p50 == pytest.approx(0.005, abs=1e-4)
    assert card.calls > 30  # in one graph, so that a replay is long enough for events
    assert card.current is card.default


@pytest.mark.quick
def test_what_cannot_be_captured_is_timed_by_events(monkeypatch):
    import triton.testing

    card = Card(monkeypatch, capturable=False)
    monkeypatch.setattr(triton.testing, "do_bench", lambda call, **_: (2.0, 1.0, 3.0))
    assert measure.time_call(card.call, "cuda", 0.05) == measure.Timing(2.0, 1.0, 3.0, "events")


@pytest.mark.quick
def test_a_gpu_gets_a_stream_that_can_be_captured(monkeypatch):
    card, chosen = Card(monkeypatch), []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    measure.select_device("cpu")
    assert card.current is card.default
    measure.select_device("cuda")  # without a number: the current one
    assert card.current is not card.default and not chosen
    stream = card.current
    measure.select_device("cuda:1")
    assert card.current is stream and chosen == [1]


TOPS = {"TFLOP/s": 2.0, "GB/s": 100.0}


def row(provider, p50, shape="s", mode="forward"):
    rate = None if p50 is None else 1 / p50
    timed = None if p50 is None else "graph"
    fields = "attention", provider, mode, shape, "fp16", "TFLOP/s", 1e9, 1e7, TOPS
    return Row(*fields, p50, p50, p50, rate, gpu="a card", versions={"torch": "2"}, timed=timed)


def test_the_summary_compares_with_the_best_peer_of_each_shape():
    rows = [
        row("ours", 1.0), row("a", 2.0), row("b", 4.0),
        row("ours", 1.0, "t"), row("a", 0.5, "t"), row("b", 8.0, "t"),
        row("ours", None, "u"), row("a", 1.0, "u"),
    ]  # fmt: skip
    assert command.summary(rows) == [
        "attention forward: 1.00x the best peer (geometric mean of 2 shapes), least 0.50x at t."
    ]
    assert command.summary(rows[6:]) == []


@pytest.mark.quick
def test_the_table_says_how_a_row_was_timed(capsys):
    by_events = row("a", 0.25)
    by_events.timed = "events"
    command.print_group([row("ours", 0.125), by_events, row("b", None)])
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    place = command.HEAD.index("timed by")
    assert [c[place : place + 1] for c in cells] == [["graph"], ["events"], []]


def test_bars_are_in_proportion_and_ours_is_green():
    rows = [r.as_dict() for r in (row("ours", 0.125), row("a", 0.25))]
    (axes,) = plot.bars(rows).axes
    widths = {c.get_label(): c.patches[0].get_width() for c in axes.containers}
    assert widths == {"ours": 8.0, "a": 4.0}
    assert plot.colours(rows)["ours"] == plot.OURS != plot.colours(rows)["a"]
    assert axes.lines[0].get_xdata()[0] == 2.0  # the ceiling
    assert "a card" in axes.get_title()


def test_the_roofline_is_the_lower_of_both_ceilings():
    (axes,) = plot.roofline([row("ours", 1.0).as_dict()]).axes
    point, roof = axes.lines
    assert point.get_xdata()[0] == 100 and point.get_ydata()[0] == 1.0
    for x, y in zip(*roof.get_data(), strict=True):
        assert y == pytest.approx(min(2.0, x * 0.1))


@pytest.mark.quick
def test_slowdowns_are_geometric_means_over_shapes():
    rows = [row("ours", 1.0), row("a", 2.0), row("ours", 8.0, "t"), row("a", 2.0, "t")]
    rows = [r.as_dict() for r in [*rows, row("b", None), row("a", 9.0, "u", "backward")]]
    found = results.slowdown(rows, "attention", "forward")
    assert found == {"ours": pytest.approx(2.0), "a": pytest.approx(2**0.5)}


def test_results_of_a_card_or_of_one_like_it(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.load_results.cache_clear()
    one = row("ours", 1.0).as_dict() | {"gpu": "NVIDIA H200", "capability": [9, 0]}
    (tmp_path / "NVIDIA_H200.json").write_text(json.dumps([one]))
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "cpu.json").write_text(json.dumps([one | {"gpu": None, "cpu": "a"}]))
    assert (
        results.rows_for_gpu("NVIDIA H200", (9, 0))
        == results.rows_for_gpu("NVIDIA H100", (9, 0))
        == [one]
    )
    assert results.rows_for_gpu("NVIDIA A100", (8, 0)) is None
    assert "broken.json can't be used" in caplog.text
    results.load_results.cache_clear()


@pytest.mark.quick
def test_what_is_committed_can_be_read():
    assert results.load_results()
    for rows in results.load_results().values():
        assert {"kernel", "provider", "mode", "shape", "p50", "versions"} <= rows[0].keys()
        assert any(r["p50"] for r in rows)


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["atention"], "no benchmark 'atention'; there is attention,"),
        (["--seconds", "nan"], "--seconds must be above 0"),
        (["--device", "cuda:9"], "The device cuda:9 can't be used here"),
        (["--device", "tpu"], "The device tpu can't be used here"),
        (["--device", "meta"], "on cpu and cuda, not on meta"),
        (["--device", "cpu", "--json", "/proc/x/y.json"], "Cannot write to /proc/x"),
        (["--tune", "--device", "cpu"], "--tune needs a GPU"),
        (["--tune", "--jobs", "0"], "--jobs must be 1 or more"),
    ],
)
def test_bad_input_is_one_sentence(capsys, argv, sentence):
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1
