"""GroupNorm + shift + SiLU against fp64, over shapes, layouts and types."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
from kernels import group_norm as G
from kernels import shapes
from kernels.bench import results
from kernels.group_norm import backward, forward, tiling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TYPES = [torch.float32, torch.float16, torch.bfloat16]
EPS = 1e-5
quick = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LAYOUTS = ["plain", "last", "sliced", "tokens", "flipped"]


def draw(n, c, spatial, dtype, layout="plain", seed=0, mean=0.0, deviation=1.0):
    """A random tensor (N, C, *spatial) that lies in memory as `layout` says."""
    g = torch.Generator().manual_seed(seed)
    if layout == "sliced":  # a window of a larger picture: no single stride reaches all positions
        x = torch.randn(n + 1, c + 2, *(p + 1 for p in spatial), generator=g)
        x = x[1:, 1:-1][(slice(None), slice(None), *(slice(0, p) for p in spatial))]
    elif layout == "tokens":  # (N, T, C) seen as (N, C, T), what attention blocks have
        x = torch.randn(n, *spatial, c, generator=g).movedim(-1, 1)
    elif layout == "flipped":  # channels outermost
        x = torch.randn(c, n, *spatial, generator=g).transpose(0, 1)
    else:
        x = torch.randn(n, c, *spatial, generator=g)
    x = (x.to(DEVICE) * deviation + mean).to(dtype)
    if layout == "last" and len(spatial) == 2:
        x = x.to(memory_format=torch.channels_last)
    return x


def parameters(n, c, shift, dtype, seed=1):
    g = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(c, generator=g).to(DEVICE) for _ in range(2))
    moved = torch.randn(n, c, generator=g).to(DEVICE, dtype) if shift else None
    return weight, bias, moved


def theirs(x, groups, weight, bias, eps, *, silu, shift):
    """PyTorch's own op in the type of x."""
    weight, bias = (None if t is None else t.to(x.dtype) for t in (weight, bias))
    return G.reference(x, groups, weight, bias, eps, silu=silu, shift=shift)


def double(*tensors):
    """In fp64 and contiguous: PyTorch's channels-last GroupNorm on a CPU loses a large mean."""
    return [None if t is None else t.detach().double().contiguous() for t in tensors]


@quick
@given(
    n=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 3, 5]),
    of=st.sampled_from([1, 2, 3, 4, 8, 10, 20, 30]),
    spatial=st.sampled_from([(), (1,), (7,), (4, 4), (5, 7), (16, 16), (2, 3, 4), (33, 31)]),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(TYPES),
    affine=st.booleans(),
    silu=st.booleans(),
    shift=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_forward_is_as_exact_as_pytorch(
    judge, n, groups, of, spatial, layout, dtype, affine, silu, shift, seed
):
    c = groups * of
    x = draw(n, c, spatial, dtype, layout, seed, mean=2.0)
    weight, bias, moved = parameters(n, c, shift, dtype, seed)
    if not affine:
        weight = bias = None
    out = G.group_norm(x, groups, weight, bias, EPS, silu=silu, shift=moved)
    assert out.dtype == dtype
    if of * max(1, x[0, 0].numel()) == 1:  # one value: its deviation is 0, and so is the result
        return
    exact_x, w, b, s = double(x, weight, bias, moved)
    exact = G.reference(exact_x, groups, w, b, EPS, silu=silu, shift=s)
    other = theirs(x, groups, weight, bias, EPS, silu=silu, shift=moved)
    judge(out, other, exact, "y", size=1)


@settings(quick, max_examples=60)
@given(
    n=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 3]),
    of=st.sampled_from([2, 4, 10, 20]),
    spatial=st.sampled_from([(3,), (4, 4), (5, 7), (33, 31)]),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(TYPES),
    silu=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_gradients_are_as_exact_as_pytorchs(
    judge, n, groups, of, spatial, layout, dtype, silu, seed
):
    c = groups * of
    x = draw(n, c, spatial, dtype, layout, seed, mean=1.0)
    weight, bias, moved = parameters(n, c, True, dtype, seed)
    dy = draw(n, c, spatial, dtype, LAYOUTS[seed % len(LAYOUTS)], seed + 7)

    def gradients(fn, *inputs):
        inputs = [t.detach().requires_grad_() for t in inputs]
        x, weight, bias, moved = inputs
        y = fn(x, groups, weight, bias, EPS, silu=silu, shift=moved)
        return torch.autograd.grad(y, inputs, dy.to(y.dtype))

    ours = gradients(G.group_norm, x, weight, bias, moved)
    other = gradients(theirs, x, weight, bias, moved)
    exact = gradients(G.reference, *double(x, weight, bias, moved))
    # a sum over all positions cancels; its terms do not
    sizes = (1, n * x[0, 0].numel() ** 0.5, n * x[0, 0].numel() ** 0.5, x[0, 0].numel() ** 0.5)
    for name, size, *three in zip(
        ("dx", "dweight", "dbias", "dshift"), sizes, ours, other, exact, strict=True
    ):
        judge(*three, name, size=size)


@pytest.mark.parametrize("layout", ["plain", "last"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_large_mean_takes_no_digits(monkeypatch, layout, split, shifted):
    """Mean 10,000, deviation 0.1: a mean rounded to fp32 alone would be off by 0.005 deviations."""
    monkeypatch.setattr(tiling, "fits_one_launch", lambda *_: not split)
    x = draw(2, 8, (70, 70), torch.float32, layout, mean=10_000, deviation=0.1).requires_grad_()
    shift = 0.03 * draw(2, 8, (), torch.float32, seed=5) if shifted else None
    out = G.group_norm(x, 2, None, None, EPS, shift=shift)
    far, moved = double(x, shift)
    far.requires_grad_()
    exact = G.reference(far, 2, None, None, EPS, shift=moved)
    assert (out.double() - exact).abs().max() < 2e-5
    dy = draw(2, 8, (70, 70), torch.float32, layout, seed=9)
    (dx,), (exact,) = torch.autograd.grad(out, x, dy), torch.autograd.grad(exact, far, dy.double())
    assert (dx.double() - exact).abs().max() < 2e-5 * exact.abs().max()


def test_an_outlier_as_pivot_does_no_harm():
    x = draw(1, 4, (64, 64), torch.float32, mean=100.0)
    x[0, 0, 0, 0] = -1e6
    out = G.group_norm(x, 1, None, None, EPS)
    exact = G.reference(*double(x), 1, None, None, EPS)
    # what is left of the others are differences of 1e-6 deviations
    assert (out.double() - exact).abs().max() < 2e-5


def test_a_shift_of_another_type_keeps_its_gradient():
    """Sums over all positions pass what fp16 holds."""
    x = draw(1, 4, (16, 16), torch.float16)
    dy = torch.zeros_like(x)
    dy[:, 0] = 3000
    shift = torch.zeros(1, 4, device=DEVICE, requires_grad=True)
    (grad,) = torch.autograd.grad(G.group_norm(x, 1, shift=shift), shift, dy)
    (far,) = double(shift)
    far.requires_grad_()
    exact = G.reference(*double(x), 1, None, None, EPS, shift=far)
    (exact,) = torch.autograd.grad(exact, far, dy.double())
    assert grad.dtype == torch.float32 and exact.abs().max() > 65504
    assert torch.allclose(grad.double(), exact, rtol=1e-4)


@pytest.mark.skipif(DEVICE == "cuda", reason="Gigabytes that are never touched: CPU only.")
@pytest.mark.parametrize("strides", [(2**31 + 8, 2**20, 1), (64, 2**27, 1), (32, 1, 2**26)])
def test_rows_beyond_two_to_the_31_elements_are_found(monkeypatch, strides):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    memory = torch.empty(2**32 + 2**20, dtype=torch.float16)  # pages that nobody touches cost none
    near = draw(2, 20, (49,), torch.float16)
    far = memory.as_strided((2, 20, 49), strides, 4096)
    far.copy_(near)
    shift = memory.as_strided((2, 20), (1, 2**27 + 2))
    shift.copy_(draw(2, 20, (), torch.float16, seed=4))
    out = G.group_norm(far, 2, silu=True, shift=shift)
    assert torch.allclose(out, G.group_norm(near, 2, silu=True, shift=shift.clone()), atol=2e-3)


def test_thousands_of_channels_a_group(judge):
    """No tile grows with the channels of a group beyond what registers hold."""
    x = draw(1, 8192, (6, 6), torch.float32, "last").requires_grad_()
    out = G.group_norm(x, 1)
    (far,) = double(x)
    exact = G.reference(far.requires_grad_(), 1, None, None, EPS)
    judge(out, G.reference(x, 1, None, None, EPS), exact, "y")
    (dx,), (exact,) = (
        torch.autograd.grad(y.square().sum(), v) for y, v in ((out, x), (exact, far))
    )
    assert torch.allclose(dx.double(), exact, atol=1e-4)


@pytest.mark.parametrize("layout", ["plain", "last"])
@pytest.mark.parametrize("spatial", [(16, 16), (70, 70)])
def test_the_split_of_the_work_changes_no_bit(monkeypatch, layout, spatial):
    x = draw(2, 20, spatial, torch.float16, layout, mean=3.0)
    weight, bias, moved = parameters(2, 20, True, torch.float16)
    seen = set()
    whole = None
    for one, each in ((True, 1), (False, 1), (False, 3), (False, 1000)):
        monkeypatch.setattr(tiling, "fits_one_launch", lambda *_, one=one: one)
        monkeypatch.setattr(tiling, "partials_per_program", lambda *_, each=each: each)
        out = G.group_norm(x, 2, weight, bias, EPS, silu=True, shift=moved)
        whole = out if whole is None else whole
        assert torch.equal(out, whole), (one, each)
        seen.add(tiling.Plan.of(x, 2).grid)
    assert len(seen) > 1 or tiling.Plan.of(x, 2).tiles.partials == 1  # the work really was split


def test_more_partials_than_lanes_are_merged_in_turn(monkeypatch):
    monkeypatch.setattr(tiling, "TILE", 64)
    monkeypatch.setattr(tiling, "LANES", 8)
    monkeypatch.setattr(forward, "LANES", 8)
    x = draw(1, 6, (40, 40), torch.float32, mean=5.0)
    assert tiling.Plan.of(x, 2).tiles.partials > 8 * 8
    out = G.group_norm(x, 2, None, None, EPS)
    assert torch.allclose(out, G.reference(x, 2, None, None, EPS), atol=1e-5)


@pytest.mark.parametrize("layout", ["plain", "last"])
def test_many_blocks_of_sums_are_added_up_in_turn(judge, monkeypatch, layout):
    """The gradients of weight, bias and shift are sums of more blocks than are read at a time."""
    monkeypatch.setattr(tiling, "TILE", 32)
    monkeypatch.setattr(backward, "TILE", 32)
    n, c, spatial = 1, 4, (17, 17)
    x = draw(n, c, spatial, torch.float32, layout, mean=1.0)
    assert tiling.Plan.of(x, 1).tiles.spatial_blocks > 32 // 4
    inputs = [x, *parameters(n, c, True, torch.float32)]
    dy = draw(n, c, spatial, torch.float32, seed=7)

    def gradients(fn, *inputs):
        x, weight, bias, moved = inputs = [t.requires_grad_() for t in inputs]
        y = fn(x, 1, weight, bias, EPS, silu=True, shift=moved)
        return torch.autograd.grad(y, inputs, dy.to(y.dtype))

    ours = gradients(G.group_norm, *inputs)
    other = gradients(theirs, *inputs)
    exact = gradients(G.reference, *double(*inputs))
    for name, *three in zip(("dx", "dweight", "dbias", "dshift"), ours, other, exact, strict=True):
        judge(*three, name, size=1 if name == "dx" else 17)
    for first, again in zip(ours, gradients(G.group_norm, *inputs), strict=True):
        assert torch.equal(first, again)


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (2, 0, 3, 3)])
def test_empty_in_empty_out(shape):
    x = torch.zeros(shape, device=DEVICE, requires_grad=True)
    weight = torch.ones(shape[1], device=DEVICE, requires_grad=True)
    out = G.group_norm(x, 2, weight, weight)
    assert out.shape == shape
    out.sum().backward()
    assert x.grad.shape == shape and (weight.grad == 0).all()


@pytest.mark.parametrize("layout", ["plain", "last", "tokens", "flipped"])
def test_the_layout_stays(layout):
    x = draw(2, 8, (4, 6), torch.float16, layout).requires_grad_()
    out = G.group_norm(x, 2)
    assert out.stride() == x.stride()
    (dx,) = torch.autograd.grad(out.float().square().sum(), x)
    assert dx.stride() == x.stride()


def test_no_conversion_for_either_layout(monkeypatch):
    """Both layouts reach the kernel as they lie: nothing is copied."""
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda *_, **__: pytest.fail("a copy"))
    for layout in ("plain", "last", "tokens"):
        G.group_norm(draw(1, 8, (4, 6), torch.float16, layout), 2)


@pytest.mark.quick
def test_the_same_bits_every_time():
    x = draw(2, 20, (33, 31), torch.float16).requires_grad_()
    weight, bias, moved = parameters(2, 20, True, torch.float16)
    weight.requires_grad_()
    runs = []
    for _ in range(2):
        out = G.group_norm(x, 2, weight, bias, EPS, silu=True, shift=moved)
        runs.append((out, *torch.autograd.grad(out.float().square().sum(), (x, weight))))
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_opcheck_and_compile():
    x = draw(2, 8, (4, 6), torch.float32, "last").requires_grad_()
    weight, bias, moved = parameters(2, 8, True, torch.float32)
    weight.requires_grad_()
    torch.library.opcheck(G.group_norm_op, (x, 2, weight, bias, EPS, True, moved))
    torch.library.opcheck(G.group_norm_op, (x, 2, None, None, EPS, False, None))
    still, fixed = x.detach(), weight.detach()
    y, stats = G.group_norm_op(still, 2, fixed, bias, EPS, True, moved)
    torch.library.opcheck(G.group_norm_backward_op, (still, 2, fixed, bias, True, moved, stats, y))

    def fn(x, weight):
        return G.group_norm(x * 2, 2, weight, bias, EPS, silu=True, shift=moved).sin()

    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, weight), fn(x, weight), atol=1e-6)
    wanted = torch.autograd.grad(fn(x, weight).sum(), (x, weight))
    for a, b in zip(
        torch.autograd.grad(compiled(x, weight).sum(), (x, weight)), wanted, strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("of", [1, 4, 10, 20, 30, 60, 80])
def test_tiles_cover_every_value_once(last, of):
    for spatial in (1, 7, 64, 256, 1024, 4096, 9216, 262_144):
        cut = tiling.choose_tiles(of, 32, spatial, last, 2)
        assert cut.spatial * cut.channels * cut.groups <= max(tiling.TILE, 128 * cut.groups)
        assert cut.channel_blocks * cut.channels >= of > (cut.channel_blocks - 1) * cut.channels
        assert cut.spatial_blocks * cut.spatial >= spatial > (cut.spatial_blocks - 1) * cut.spatial
        if last:  # whole sectors of memory are read
            assert cut.channel_blocks == 1 and cut.groups * of * 2 >= 64
        for processors in (1, 68, 132):
            each = tiling.partials_per_program(cut, 64, processors)
            assert 1 <= each <= cut.partials


def test_small_groups_take_one_launch_and_large_ones_are_split():
    small = tiling.choose_tiles(20, 32, 256, False, 2)  # 640 channels at 16x16
    vae = tiling.choose_tiles(4, 32, 512 * 512, False, 2)  # 128 channels at 512x512
    assert tiling.fits_one_launch(small) and not tiling.fits_one_launch(vae)
    chunks = -(-vae.partials // tiling.partials_per_program(vae, 32, 132))
    assert 32 * chunks >= 3 * 132  # every multiprocessor is busy


def test_the_choice_between_one_launch_and_three_is_the_faster_as_measured():
    """On an H200, at every measured size and layout: the choice takes at most 1.1 of the least."""
    path = results.FOLDER / "candidates" / "nvidia-h200.json"
    times = {
        row["key"]: {config["one_launch"]: ms for ms, config in row["candidates"]}
        for row in json.loads(path.read_text())["keys"]
        if row["key"].startswith("group_norm/")
    }
    seen, faster = set(), set()
    for shape in shapes.GROUP_NORM:
        for norm in shape.norms if shape.measured else ():
            x = torch.empty(
                (shape.batch, norm.channels, norm.side, norm.side),
                dtype=torch.float16,
                device="meta",
                memory_format=torch.channels_last if shape.channels_last else None,
            )
            plan = tiling.Plan.of(x, shapes.GROUPS)
            key = tiling.key(plan)
            if plan.tiles.partials > tiling.LANES:  # never one launch
                continue
            ms = times[key]
            chosen = tiling.fits_one_launch(plan.tiles)
            assert ms[chosen] <= 1.1 * min(ms.values()), key
            seen.add(key)
            faster.add((shape.layout, ms[True] < ms[False]))
    assert seen == {key for key in times if int(key.split("/parts")[1]) <= tiling.LANES}
    assert len(faster) == 4  # both answers occur in both layouts


BAD = {
    "rank": (lambda x: {"x": x[0, 0, 0]}, r"x has shape \(4,\); it must be \(N, C, \*\)"),
    "no tensor": (lambda x: {"x": [1]}, "x must be a tensor, not list"),
    "type": (lambda x: {"x": x.double()}, "x has type float64; allowed are"),
    "groups": (lambda x: {"groups": 3}, "groups is 3; it must divide x's 8 channels"),
    "no groups": (lambda x: {"groups": 0}, "groups is 0"),
    "weight": (lambda x: {"weight": torch.ones(4)}, r"weight has shape \(4,\).*must be \(8,\)"),
    "shift": (lambda x: {"shift": torch.ones(8)}, r"shift has shape \(8,\).*must be \(2, 8\)"),
    "bias type": (lambda x: {"bias": torch.ones(8).int().to(DEVICE)}, "bias has type int32"),
    "bias device": (lambda x: {"bias": torch.ones(8, device="meta")}, "bias is on meta, but x"),
    "eps": (lambda x: {"eps": float("nan")}, "eps is nan"),
    "wide groups": (
        lambda x: {"x": x[:1, :1, :1].expand(1, 1 << 17, 1, 4), "groups": 1},
        "131072 channels a group",
    ),
    "spatial": (
        lambda x: {"x": x[:1, :1].as_strided((1, 8, 2**31), (0, 0, 0))},
        "2147483648 spatial positions; at most",
    ),
    "device": (lambda x: {"x": x.to("meta")}, "x is on meta: Triton kernels need a CUDA"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_sentence(name):
    make, sentence = BAD[name]
    x = torch.randn(2, 8, 4, 4, device=DEVICE)
    with pytest.raises(ValueError, match=sentence) as error:
        G.group_norm(**({"x": x, "groups": 2} | make(x)))
    assert "\n" not in str(error.value)


def test_unsupported_speaks_in_sentences():
    assert G.unsupported(torch.device(DEVICE), torch.float16) is None
    assert "float64" in G.unsupported(torch.device(DEVICE), torch.float64)
    assert "mps" in G.unsupported(torch.device("mps"), torch.float16)
