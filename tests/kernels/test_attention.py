"""Attention against fp64, over shapes, strides and types; interpreted where there is no GPU."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
from kernels import attention as A
from kernels import launch
from kernels.attention import forward, tiling
from kernels.group_norm import group_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TYPES = [torch.float32, torch.float16, torch.bfloat16]

quick = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=False,
)


def draw(shape, dtype, seed, layout="plain"):
    """A random tensor (B, T, H, D) that lies in memory as `layout` says."""
    g = torch.Generator().manual_seed(seed)
    b, t, h, d = shape
    if layout == "heads":  # (B, H, T, D), as PyTorch's attention has it
        x = torch.randn(b, h, t, d, generator=g).transpose(1, 2)
    elif layout == "packed":  # q of one tensor (B, T, H, 3, D)
        x = torch.randn(b, t, h, 3, d, generator=g)[:, :, :, 1]
    elif layout == "sliced":
        x = torch.randn(b, t + 3, h + 1, d + 8, generator=g)[:, 2:-1, 1:, 3:-5]
    elif layout == "backwards":  # channels far apart, tokens side by side
        x = torch.randn(d, h, b, t, generator=g).permute(2, 3, 1, 0)
    elif layout == "shared":  # one head for all: stride 0
        x = torch.randn(b, t, 1, d, generator=g).expand(b, t, h, d)
    else:
        x = torch.randn(b, t, h, d, generator=g)
    return (
        x.to(DEVICE, dtype) if layout != "shared" else x[:, :, :1].to(DEVICE, dtype).expand(shape)
    )


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


LAYOUTS = ["plain", "heads", "packed", "sliced", "backwards", "shared"]


@quick
@given(
    b=st.integers(1, 2),
    tq=st.sampled_from([1, 2, 15, 16, 33, 64, 77, 130]),
    tk=st.sampled_from([1, 7, 16, 63, 64, 65, 77]),
    h=st.integers(1, 3),
    d=st.sampled_from(range(8, 257, 8)),
    dtype=st.sampled_from(TYPES),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    seed=st.integers(0, 10**6),
)
def test_forward_is_as_exact_as_pytorch(judge, b, tq, tk, h, d, dtype, layouts, seed):
    q, k, v = (
        draw((b, t, h, d), dtype, seed + i, how)
        for i, (t, how) in enumerate(zip((tq, tk, tk), layouts, strict=True))
    )
    exact = A.reference(q.double(), k.double(), v.double())
    judge(A.attention(q, k, v), sdpa(q, k, v), exact, "o")


@settings(quick, max_examples=60)
@given(
    b=st.integers(1, 2),
    tq=st.sampled_from([1, 5, 32, 33, 70]),
    tk=st.sampled_from([1, 16, 31, 64, 77]),
    h=st.integers(1, 2),
    d=st.sampled_from([8, 40, 64, 80, 104, 160, 256]),
    dtype=st.sampled_from(TYPES),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 4),
    seed=st.integers(0, 10**6),
)
def test_gradients_are_as_exact_as_pytorchs(judge, b, tq, tk, h, d, dtype, layouts, seed):
    q, k, v, do = (
        draw((b, t, h, d), dtype, seed + i, how)
        for i, (t, how) in enumerate(zip((tq, tk, tk, tq), layouts, strict=True))
    )

    def gradients(fn, *inputs):
        inputs = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(fn(*inputs), inputs, do.to(inputs[0].dtype))

    ours = gradients(A.attention, q, k, v)
    theirs = gradients(sdpa, q, k, v)
    exact = gradients(A.reference, q.double(), k.double(), v.double())
    for name, *three in zip(("dq", "dk", "dv"), ours, theirs, exact, strict=True):
        judge(*three, name, size=max(tq, tk) ** 0.5)  # with one key its gradient cancels to 0


@pytest.mark.parametrize("dtype", TYPES)
def test_large_scores_neither_overflow_nor_vanish(judge, dtype):
    q, k, v = (30 * draw((1, 40, 2, 40), dtype, i) for i in range(3))
    out = A.attention(q, k, v)
    assert out.isfinite().all()
    judge(out, sdpa(q, k, v), A.reference(q.double(), k.double(), v.double()), "o")


@pytest.mark.parametrize("shape", [(0, 4, 2, 16), (2, 0, 2, 16), (2, 4, 0, 16)])
def test_empty_in_empty_out(shape):
    q = torch.zeros(shape, device=DEVICE, requires_grad=True)
    out = A.attention(q, q, q)
    assert out.shape == shape
    out.sum().backward()
    assert q.grad.shape == shape


def test_no_keys_is_zero_with_zero_gradients():
    q = torch.randn(2, 4, 2, 16, device=DEVICE, requires_grad=True)
    k = torch.zeros(2, 0, 2, 16, device=DEVICE)
    out = A.attention(q, k, k)
    out.sum().backward()
    assert (out == 0).all() and (q.grad == 0).all()


@pytest.mark.quick
def test_the_same_bits_every_time():
    q, k, v = (draw((2, 70, 2, 40), torch.float16, i).requires_grad_() for i in range(3))
    runs = []
    for _ in range(2):
        out = A.attention(q, k, v)
        runs.append((out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))))
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_nothing_outside_the_tensors_is_read_or_written():
    """The tensors are windows in memory full of NaN."""
    frame = torch.full((4, 2, 40, 4, 56), float("nan"), device=DEVICE)
    inner = frame[:, :, 3:36, 1:3, 8:48]
    inner.copy_(torch.randn(inner.shape))
    q, k, v, do = inner
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    out = A.attention(*inputs)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out, inputs, do))


def test_nothing_outside_the_results_is_written(monkeypatch):
    """Every tensor that is made lies in a frame of sevens, which stay."""
    empty, frames = torch.empty, []

    def framed(shape, **options):
        count = torch.Size(shape).numel()
        frames.append((empty(count + 512, **options).fill_(7), count))
        return frames[-1][0][256 : 256 + count].view(shape)

    q, k, do = (draw((2, t, 2, 40), torch.float16, i) for i, t in enumerate((33, 77, 33)))
    monkeypatch.setattr(torch, "empty", framed)
    o, lse2 = A.attention_op._init_fn(q, k, k)
    A.attention_backward_op._init_fn(q, k, k, o, lse2, do)
    assert len(frames) == 5
    for frame, count in frames:
        assert (frame[:256] == 7).all() and (frame[256 + count :] == 7).all()
        assert (frame != 7).any()


@pytest.mark.skipif(DEVICE == "cuda", reason="Four gigabytes that are never touched: CPU only.")
def test_rows_beyond_two_to_the_31_elements_are_found(monkeypatch):
    """Two heads and two samples so far apart that 32 bit offsets would overflow."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    memory = torch.empty(2**32 + 2**20, dtype=torch.float16)  # pages that nobody touches cost none
    far = memory.as_strided((2, 20, 2, 40), (2**31 + 8, 2**15, 2**30, 1))
    near = draw((2, 20, 2, 40), torch.float16, 3)
    far.copy_(near)
    inputs = far.detach().requires_grad_()
    out = A.attention(inputs, inputs, inputs)
    assert torch.equal(out, A.attention(near, near, near))
    (grad,) = torch.autograd.grad(out.float().square().sum(), inputs)
    assert grad.isfinite().all() and grad.abs().sum() > 0


@pytest.mark.quick
def test_too_long_is_one_sentence():
    x = torch.empty(1, device=DEVICE).as_strided((1, 2**31, 1, 16), (0, 0, 0, 0))
    with pytest.raises(ValueError, match="q has 2147483648 tokens; at most 2147482624"):
        A.attention(x, x, x)


def test_opcheck_and_compile():
    q, k, v = (draw((1, 20, 2, 40), torch.float32, i).requires_grad_() for i in range(3))
    torch.library.opcheck(A.attention_op, (q, k, v))
    out, lse2 = A.attention_op(q, k, v)
    torch.library.opcheck(
        A.attention_backward_op, tuple(x.detach() for x in (q, k, v, out, lse2, out))
    )

    def fn(q, k, v):
        return A.attention(q * 2, k, v).sin()

    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(q, k, v), fn(q, k, v), atol=1e-6)
    wanted = torch.autograd.grad(fn(q, k, v).sum(), (q, k, v))
    for a, b in zip(torch.autograd.grad(compiled(q, k, v).sum(), (q, k, v)), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_inductor_compiles_a_block_with_both_kernels():
    """Whatever strides the compiler gives them, in one graph, backward too."""
    conv = torch.nn.Conv2d(8, 16, 3, padding=1, device=DEVICE)
    weight = torch.randn(16, device=DEVICE, requires_grad=True)

    def block(x):
        h = conv(x * 2)
        h = group_norm(h, 2, weight, None, silu=True, shift=h.mean((2, 3)))
        q = h.flatten(2).transpose(1, 2).unflatten(-1, (2, 8))
        return (A.attention(q, q.sin(), q).flatten(2) + 1).sum(-1)

    x = torch.randn(2, 8, 4, 6, device=DEVICE).to(memory_format=torch.channels_last)
    x.requires_grad_()
    ours, plain = torch.compile(block, fullgraph=True)(x), block(x)
    assert torch.allclose(ours, plain, atol=1e-4)
    grads = (torch.autograd.grad(y.square().sum(), (x, weight)) for y in (ours, plain))
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-4)


def test_autocast_takes_its_type_and_keeps_the_gradients():
    low = torch.bfloat16
    q = draw((1, 20, 2, 40), torch.float32, 1).requires_grad_()
    with torch.autocast(DEVICE, low):
        out = A.attention(q, q.to(low), q)
    assert out.dtype == low
    out.float().sum().backward()
    assert q.grad.dtype == torch.float32


@pytest.mark.parametrize("d", range(8, 257, 8))
def test_a_split_head_covers_it_without_waste(d):
    low, high = tiling.split_head(d)
    whole = max(16, 1 << (d - 1).bit_length())
    for part in (low, high):
        assert part == 0 or (part >= 16 and part & (part - 1) == 0)
    assert d <= low + high <= whole
    assert {40: (32, 16), 64: (64, 0), 80: (64, 16), 160: (128, 32)}.get(d, (low, high)) == (
        low,
        high,
    )


@pytest.mark.parametrize("kind", ["forward", "dkv", "dq"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_heuristics_fit_what_they_are_for(kind, dtype):
    for d in range(8, 257, 8):
        for tq, tk in ((4096, 4096), (4096, 77), (64, 64), (1, 1), (16, 77)):
            c = tiling.heuristic(kind, d, tq, tk, dtype)
            assert c["num_warps"] in (4, 8) and 1 <= c["num_stages"] <= 4
            for side, t in (("M", tq), ("N", tk)):
                size = c[side]
                assert 16 <= size <= 128 and size & (size - 1) == 0
                assert size == 16 or size < 2 * t  # no block is mostly empty
            # accumulators and operands of one program within the registers of its threads
            width = sum(tiling.split_head(d))
            own = c["N"] if kind == "dkv" else c["M"]
            kept = {"forward": 1, "dq": 1, "dkv": 2}[kind]
            assert own * width * kept <= 255 * 32 * c["num_warps"]


def test_a_tuned_configuration_is_used_and_a_bad_one_is_not(monkeypatch):
    usual = tiling.heuristic("forward", 40, 64, 77, torch.float16)
    own = usual | {"N": 16, "num_stages": 2}
    table = {}
    monkeypatch.setattr(launch, "load_table", lambda _: table)
    monkeypatch.setattr(launch, "gpu_name", lambda _: "a card")

    class OnACard:
        shape, dtype, device = (1, 64, 1, 40), torch.float16, torch.device("cuda", 0)

    monkeypatch.setattr(tiling, "multiprocessors", lambda _: 132)

    def used():
        return tiling.configuration("forward", OnACard, 77)

    assert used() == usual
    wrong = [{"M": 24}, {"M": 8}, {"N": "64"}, {"X": 1}, {"num_warps": 0}]
    for bad in ({"M": 64}, [], *(usual | w for w in wrong)):
        table[tiling.key("forward", 40, 64, 77, torch.float16)] = bad
        assert used() == usual, bad
    table[tiling.key("forward", 40, 64, 77, torch.float16)] = own
    assert used() == own
    q, k = draw((1, 64, 1, 40), torch.float16, 1), draw((1, 77, 1, 40), torch.float16, 2)
    monkeypatch.setattr(forward, "configuration", lambda *_: own)
    assert torch.allclose(A.attention(q, k, k).float(), sdpa(q, k, k).float(), atol=2e-3)


def test_few_heads_get_smaller_blocks():
    def rows(heads, tq, processors):
        return tiling.heuristic("forward", 80, tq, tq, torch.float16, heads, processors)["M"]

    assert rows(16, 4096, 132) == rows(16, 1024, 132) == 128
    assert rows(16, 256, 132) == 64 and rows(16, 256, 40) == 128


BAD = {
    "rank": (lambda q: (q[0], q, q), r"q has shape \(4, 2, 16\); it must be \(B, T, H, D\)"),
    "k's shape": (lambda q: (q, q[:, :, :1], q), r"k has shape \(1, 4, 1, 16\)"),
    "v's length": (lambda q: (q, q, q[:, :3]), r"v has shape \(1, 3, 2, 16\)"),
    "type": (lambda q: (q.double(), q, q), "q has type float64; allowed are float16, bfloat16"),
    "mixed types": (lambda q: (q, q.half(), q), "k has type float16, but q has float32"),
    "integers": (lambda q: (q.int(), q, q), "q has type int32"),
    "head size": (lambda q: (q[..., :12],) * 3, "D = 12; it must be a multiple of 8 up to 256"),
    "wide head": (lambda q: (q.repeat(1, 1, 1, 17),) * 3, "D = 272"),
    "no tensor": (lambda q: (q, None, q), "k must be a tensor, not NoneType"),
    "device": (lambda q: (q, q.to("meta"), q), "k is on meta"),
    "all elsewhere": (lambda q: (q.to("meta"),) * 3, "q is on meta: Triton kernels need a CUDA"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_sentence(name):
    make, sentence = BAD[name]
    with pytest.raises(ValueError, match=sentence) as error:
        A.attention(*make(torch.randn(1, 4, 2, 16, device=DEVICE)))
    assert "\n" not in str(error.value)


def test_unsupported_speaks_in_sentences():
    device = torch.device(DEVICE)
    assert A.unsupported(device, torch.float16, 40) is None
    assert "512" in A.unsupported(device, torch.float16, 512)
    assert "mask" in A.unsupported(device, torch.float16, 40, mask=True)
    assert "float64" in A.unsupported(device, torch.float64)
    assert "mps" in A.unsupported(torch.device("mps"), torch.float16)
