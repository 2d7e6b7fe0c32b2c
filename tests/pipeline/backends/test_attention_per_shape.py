"""The fastest backend for each shape: by the measured rows, and by what can run."""

import pytest
import torch

pytest.importorskip("triton")
from kernels.attention import tiling
from kernels.bench import results
from pipeline import GenerateOptions, InputError, backends, load
from pipeline.backends import (
    ATTENTION,
    attention_per_shape,
    attention_processor,
    attention_triton,
    failures,
)
from pipeline.latents import preview
from pipeline.training import hardware

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
HALF, FP32 = torch.float16, torch.float32


@pytest.fixture(autouse=True)
def fresh():
    attention_per_shape.ranking.cache_clear()
    yield
    attention_per_shape.ranking.cache_clear()


@pytest.fixture
def h200(monkeypatch):
    """The device CARD is an H200, or says so."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)


def rank(head_size, queries, keys, dtype=HALF):
    """The backends for a shape on CARD, the fastest first."""
    ranges = tiling.length_class(queries), tiling.length_class(keys)
    return attention_per_shape.ranking(CARD, dtype, head_size, *ranges)


def committed():
    rows = results.load_results()["nvidia-h200"]
    return [r for r in rows if (r["kernel"], r["mode"]) == ("attention", "forward")]


def test_on_an_h200_each_measured_shape_gets_the_fastest_backend(h200):
    """Within 6 percent, as lengths are grouped; ours and PyTorch's are both chosen."""
    shapes, chosen = {}, set()
    for row in committed():
        shapes.setdefault(row["shape"], {})[row["provider"]] = row["p50"]
    assert len(shapes) == 19
    for title, times in shapes.items():
        sizes = results.attention_sizes(title)
        ranking = rank(sizes.head_size, sizes.queries, sizes.keys)
        assert sorted(ranking) == sorted(set(ATTENTION) - {"per_shape"})
        assert ranking[-1] == "math"
        theirs = {name: times.get(ATTENTION[name].provider or name) for name in ranking}
        least = min(ms for ms in theirs.values() if ms)
        assert theirs[ranking[0]] <= 1.06 * least, title
        chosen.add(ranking[0])
    assert chosen == {"triton", "sdpa"}


def test_lengths_and_types_of_16_bits_share_what_was_measured(h200):
    assert rank(40, 5000, 5000)[0] == rank(40, 9216, 9216)[0] == "sdpa"
    assert rank(40, 64, 64, torch.bfloat16)[0] == rank(160, 128, 20)[0] == "triton"
    assert rank(40, 4096, 16)[0] == "triton"  # the mean over all shapes


ROW = {
    "kernel": "attention", "mode": "forward", "shape": "a B1 64x64 H1 D64", "dtype": "float16",
    "note": "", "gpu": "NVIDIA H200", "capability": [9, 0],
}  # fmt: skip


def use_rows(monkeypatch, times, **changes):
    rows = [ROW | changes | {"provider": p, "p50": ms} for p, ms in times.items()]
    monkeypatch.setattr(results, "load_results", lambda: {"a": rows})
    return rows


def test_a_head_size_that_was_not_measured_takes_the_nearest_that_was(h200, monkeypatch):
    rows = use_rows(monkeypatch, {"ours": 1.0, "sdpa": 2.0})
    wide = "a B1 100x100 H1 D160"
    rows += [row | {"shape": wide, "p50": 9 - row["p50"]} for row in rows]
    first = [rank(size, 64, 64)[0] for size in (8, 64, 112, 120, 512)]
    assert first == ["triton", "triton", "triton", "sdpa", "sdpa"]


def test_equal_times_go_by_rank_and_wrong_answers_are_left_out(h200, monkeypatch):
    times = {"ours": 1.0, "sdpa": 1.02, "sdpa cudnn": 0.5, "xformers": 3.0}
    rows = use_rows(monkeypatch, times)
    rows[2] |= {"note": "wrong answer: off by 3", "p50": None}
    assert rank(64, 64, 64) == (
        "sdpa", "triton", "xformers", "math",
    )  # fmt: skip


def test_where_nothing_was_measured_it_says_so(h200, monkeypatch):
    reason = attention_per_shape.unsupported
    assert "the device is cpu" in reason(CPU, FP32)
    assert reason(CARD, HALF) is None and reason(CARD, torch.bfloat16, 512) is None
    assert "attention in float32 on a NVIDIA H200 or another GPU" in reason(CARD, FP32)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    assert reason(CARD, HALF) is None  # of the same compute capability
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert "on a NVIDIA H100 or another GPU" in reason(CARD, HALF)
    with pytest.raises(InputError, match="per_shape cannot run here: per_shape goes by"):
        backends.choose("attention", "per_shape", CPU, FP32)


@pytest.fixture
def here(triton_runs, monkeypatch):
    """Make per_shape usable on this CPU: our kernels (a little off) at 77 keys and less, else sdpa.

    What fails is forgotten afterwards.
    """
    monkeypatch.setattr(failures, "BLACKLIST", {})
    monkeypatch.setattr(backends, "BLACKLIST", failures.BLACKLIST)
    fields = preview._colour_fields
    monkeypatch.setattr(preview, "_colour_fields", lambda *_: fields(1, 16))
    monkeypatch.setattr(attention_per_shape, "unsupported", lambda *_: None)
    ours, theirs = ("triton", "sdpa", "math"), ("sdpa", "triton", "math")
    monkeypatch.setattr(
        attention_per_shape, "ranking", lambda *shape: ours if shape[4] == "128" else theirs
    )
    monkeypatch.setattr(attention_triton, "run", lambda q, k, v: sdpa(q, k, v) * 1.0001)
    monkeypatch.setattr(
        backends,
        "order",
        lambda kind, _: ("per_shape", "sdpa") if kind == "attention" else ("torch",),
    )
    monkeypatch.delattr(attention_triton, "run_with_maps")  # another test's


def sdpa(q, k, v):
    return ATTENTION["sdpa"].run(q, k, v)


FIELDS = {"prompt": "a", "steps": 2, "seed": 1}


def test_a_picture_takes_several_backends_and_its_record_names_per_shape(here, tiny_model):
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    assert models.attention == "per_shape"
    result = models.generate(**FIELDS)
    assert result.metadata["attention"] == "per_shape"
    plain = models.generate(**FIELDS, attention="sdpa").latents[0]
    difference = (result.latents[0] - plain).abs().max()
    assert 0 < difference < 1e-2
    again = models.generate(**FIELDS, attention="per_shape")
    assert torch.equal(again.latents[0], result.latents[0])


@pytest.mark.parametrize("asked", ["auto", "per_shape"])
def test_where_one_fails_the_next_goes_on_and_per_shape_stays(
    here, tiny_model, monkeypatch, caplog, asked
):
    def broken(*_):
        raise RuntimeError("out of resource\nmore")

    models = load(str(tiny_model), device="cpu", dtype="fp32")
    wanted = models.generate(**FIELDS, attention="sdpa").latents[0]
    monkeypatch.setattr(attention_triton, "run", broken)
    result = models.generate(**FIELDS, attention=asked)
    assert result.metadata["attention"] == "per_shape"
    assert torch.equal(result.latents[0], wanted)
    assert list(failures.BLACKLIST) == [("attention", "triton")]
    assert caplog.text.count("is not used again") == 1
    assert models.backends.candidates("attention", "auto") == ("per_shape", "sdpa")
    q, k = torch.randn(1, 4, 1, 8), torch.randn(1, 77, 1, 8)
    assert torch.equal(attention_per_shape.run(q, k, k), sdpa(q, k, k))


def test_the_failure_names_the_backend_inside(here, monkeypatch):
    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(attention_triton, "run", broken)
    q, k = torch.randn(1, 4, 1, 8), torch.randn(1, 77, 1, 8)
    for call in (
        lambda: attention_per_shape.run(q, k, k),
        lambda: attention_processor.AttentionProcessor("per_shape").attend(q, k, k),
    ):
        with pytest.raises(failures.KernelFailed, match="backend triton failed at"):
            call()
        with (
            pytest.raises(failures.KernelFailed) as error,
            failures.wrap_kernel_errors("attention", "per_shape", q),
        ):
            call()
        assert error.value.backend == "triton"


def test_a_request_stays_with_its_choices(here, tiny_model, monkeypatch):
    """Ours becomes usable while a picture is drawn: that picture does not change, the next does."""
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    ours = models.generate(**FIELDS).latents[0]
    monkeypatch.setattr(attention_triton, "unsupported", lambda *_: "it is being checked.")
    without = models.generate(**FIELDS).latents[0]
    stream = models.stream(GenerateOptions(**FIELDS))
    next(stream)
    monkeypatch.setattr(attention_triton, "unsupported", lambda *_: None)
    assert torch.equal(list(stream)[-1].latents[0], without)
    assert torch.equal(models.generate(**FIELDS).latents[0], ours)
    assert not torch.equal(ours, without)


def test_word_maps_come_from_our_kernel_where_it_is_chosen(here, monkeypatch):
    asked = []

    def word_attention(q, k, v):
        asked.append(k.shape[1])
        return sdpa(q, k, v), torch.full((q.shape[0], q.shape[1], k.shape[1]), 1 / k.shape[1])

    monkeypatch.setattr(attention_triton, "run_with_maps", word_attention, raising=False)
    processor = attention_processor.AttentionProcessor("per_shape")
    maps = []
    q = torch.randn(1, 4, 1, 8)
    for keys in (77, 9):  # ours, then sdpa
        k = torch.randn(1, keys, 1, 8)
        out = processor.attend(q, k, k, maps.append)
        assert torch.equal(out, sdpa(q, k, k)) and maps[-1].shape == (1, 4, keys)
    assert asked == [77]
    monkeypatch.setattr(attention_triton, "unsupported", lambda *_: "it is being checked.")
    k = torch.randn(1, 77, 1, 8)
    processor.attend(q, k, k, maps.append)
    assert asked == [77] and torch.allclose(maps[-1].sum(-1), torch.ones(1, 4))


def test_torch_compile_takes_the_choice_as_a_constant(here):
    processor = attention_processor.AttentionProcessor("per_shape")

    def attend(q, k):
        return processor.attend(q, k, k) + attention_per_shape.run(q, k, k)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    q = torch.randn(1, 4, 1, 8)
    for keys, factor in ((9, 2), (77, 2.0002)):  # sdpa, then ours
        k = torch.randn(1, keys, 1, 8)
        assert torch.allclose(compiled(q, k), factor * sdpa(q, k, k), rtol=1e-6)


def test_it_does_not_train(here, tiny_model):
    with pytest.raises(InputError, match="per_shape cannot train: it goes by the speeds of"):
        hardware.find_trainable("attention", "per_shape", CPU, FP32, None, hardware._try_attention)
    found = hardware.find_trainable("attention", "auto", CPU, FP32, None, hardware._try_attention)
    assert found == "sdpa"


def test_launched_by_the_host_ours_waits_until_a_unet_is_faster_with_it(h200, monkeypatch):
    """On an H200 a UNet call took three times as long with ours, launched one by one."""
    order = backends.order.__wrapped__
    monkeypatch.setattr(attention_triton, "unsupported", lambda *_: None)
    monkeypatch.setattr(failures, "BLACKLIST", {})
    shape = CARD, HALF, 40, "long", "128"  # where ours is 1.30 times as fast on the GPU
    assert attention_per_shape._choose(*shape, False) == "triton"
    assert attention_per_shape._choose(*shape, True) == "sdpa"
    assert order("attention", CARD)[0] == "per_shape"
    assert order("attention", CARD).index("triton") > order("attention", CARD).index("sdpa")
    assert order("group_norm", CARD) == ("torch", "triton")

    measured = results.load_further("end_to_end", "nvidia-h200")
    faster = [
        row | ({"ms": 20.0} if row["group_norm"] == "ours" else {}) for row in measured["rows"]
    ]
    monkeypatch.setattr(results, "load_further", lambda *_: {"rows": faster})
    assert attention_per_shape._choose(*shape, True) == "triton"
    assert order("group_norm", CARD) == ("triton", "torch")
    monkeypatch.setattr(results, "load_further", lambda *_: None)  # nobody measured it
    assert order("group_norm", CARD) == ("triton", "torch")


def test_capture_and_compilation_are_not_launched_by_the_host(monkeypatch):
    launched = attention_per_shape.launched_by_host
    assert not launched(CPU)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert launched(CARD)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not launched(CARD)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not launched(CARD)
