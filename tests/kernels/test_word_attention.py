"""Word attention: the same as attention, and the maps that the plain softmax averages to."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
from kernels import word_attention as W
from kernels.attention import reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TYPES = [torch.float32, torch.float16, torch.bfloat16]
quick = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def draw(shape, dtype, seed, heads_first=False):
    g = torch.Generator().manual_seed(seed)
    b, t, h, d = shape
    if heads_first:
        return torch.randn(b, h, t, d, generator=g).transpose(1, 2).to(DEVICE, dtype)
    return torch.randn(shape, generator=g).to(DEVICE, dtype)


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


@quick
@given(
    b=st.integers(1, 3),
    tq=st.sampled_from([1, 15, 16, 33, 64, 130]),
    tk=st.sampled_from([1, 2, 16, 63, 77, 128]),
    h=st.integers(1, 4),
    d=st.sampled_from([8, 32, 40, 64, 80, 160]),
    dtype=st.sampled_from(TYPES),
    heads_first=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_result_and_maps_are_as_exact_as_pytorchs(judge, b, tq, tk, h, d, dtype, heads_first, seed):
    q, k, v = (draw((b, t, h, d), dtype, seed + i, heads_first) for i, t in enumerate((tq, tk, tk)))
    o, maps = W.word_attention(q, k, v)
    exact = reference(q.double(), k.double(), v.double())
    judge(o, sdpa(q, k, v), exact, "o")
    wanted = W.reference(q.double(), k.double(), v.double())[1].double()
    assert maps.dtype == torch.float32 and maps.shape == (b, tq, tk)
    # the same inputs, products exact in fp32: the maps are fp32's whatever the type
    assert (maps.double() - wanted).abs().max() < 2e-6
    assert (maps.sum(-1) - 1).abs().max() < 1e-5 and maps.min() >= 0


@pytest.mark.parametrize("d, tk", [(40, 33), (64, 77), (160, 128)])
def test_gradients_are_those_of_attention(d, tk):
    q, k, v = (
        draw((2, t, 2, d), torch.float32, i).requires_grad_() for i, t in enumerate((33, tk, tk))
    )
    do = draw((2, 33, 2, d), torch.float32, 9)
    ours = torch.autograd.grad(W.word_attention(q, k, v)[0], (q, k, v), do)
    exact = torch.autograd.grad(reference(q, k, v), (q, k, v), do)
    for a, b in zip(ours, exact, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not W.word_attention(q, k, v)[1].requires_grad


def test_no_tensor_of_all_heads_is_made():
    """What is allocated: o, maps and one number a row and head; never (B, H, Tq, Tk)."""
    made = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.numel() and "empty" in str(func):
                made.append(tuple(out.shape))  # the interpreter makes some without content
            return out

    q, k = draw((2, 64, 4, 16), torch.float16, 0), draw((2, 77, 4, 16), torch.float16, 1)
    with Recorder():
        W.word_attention_op._init_fn(q, k, k)
    assert sorted(made) == sorted([(2, 64, 4, 16), (2, 64, 77), (2, 4, 64)])


@pytest.mark.quick
def test_the_same_bits_every_time():
    q, k, v = (draw((2, 70, 3, 40), torch.float16, i) for i in range(3))
    for a, b in zip(W.word_attention(q, k, v), W.word_attention(q, k, v), strict=True):
        assert torch.equal(a, b)


def test_empty_in_empty_out_and_no_keys_is_zero():
    q, k = torch.zeros(2, 0, 2, 16, device=DEVICE), torch.zeros(2, 5, 2, 16, device=DEVICE)
    o, maps = W.word_attention(q, k, k)
    assert o.shape == (2, 0, 2, 16) and maps.shape == (2, 0, 5)
    q, none = torch.randn(2, 3, 2, 16, device=DEVICE), torch.zeros(2, 0, 2, 16, device=DEVICE)
    o, maps = W.word_attention(q, none, none)
    assert (o == 0).all() and maps.shape == (2, 3, 0)


def test_opcheck_and_compile():
    q, k, v = (draw((1, 20, 2, 40), torch.float32, i).requires_grad_() for i in range(3))
    torch.library.opcheck(W.word_attention_op, (q, k, v))

    def fn(q, k, v):
        o, maps = W.word_attention(q, k, v)
        return o.sin() + maps.sum()

    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(q, k, v), fn(q, k, v), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_heuristic_keeps_most_multiprocessors_busy(dtype):
    for b, tq in ((2, 4096), (2, 1024), (2, 256), (2, 64), (1, 1)):
        for d in (40, 64, 80, 160):
            c = W.heuristic(b, d, tq, 77, dtype, 132)
            assert c["M"] in (16, 32, 64) and c["SPLIT"] == (c["M"] == 64)
            assert c["M"] == 16 or 2 * b * -(-tq // c["M"]) >= 132


def test_bad_input_is_one_sentence():
    q = torch.randn(1, 4, 2, 16, device=DEVICE)
    with pytest.raises(ValueError, match="k has 129 keys; word attention takes at most 128"):
        W.word_attention(q, *(torch.randn(1, 129, 2, 16, device=DEVICE),) * 2)
    with pytest.raises(ValueError, match="v has shape"):
        W.word_attention(q, q, q[:, :2])
    assert "at most 128" in W.unsupported(torch.device(DEVICE), torch.float16, 40, 154)
    assert W.unsupported(torch.device(DEVICE), torch.float16, 40, 77) is None
