"""Attention backends: the same answer, and refusals that say why."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from pipeline import GenerateOptions, InputError, backends, load
from pipeline.backends import (
    attention_math,
    attention_processor,
    attention_triton,
    failures,
    group_norm_triton,
)
from pipeline.backends.order import order
from pipeline.latents import preview

CPU, FP32 = torch.device("cpu"), torch.float32
USUAL = {"attention": "sdpa", "group_norm": "torch"}
USABLE = [n for n, b in backends.ATTENTION.items() if b.unsupported(CPU, FP32) is None]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Interpreted kernels are slow: previews are fitted on one small picture."""
    fields = preview._colour_fields
    monkeypatch.setattr(preview, "_colour_fields", lambda *_: fields(1, 16))


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("shape", [(2, 3, 64, 77, 8), (1, 1, 17, 5, 40), (2, 8, 1, 1, 24)])
def test_against_fp64(name, shape):
    b, h, tq, tk, d = shape
    q, k, v = (torch.randn(b, t, h, d) for t in (tq, tk, tk))
    exact = _exact(q, k, v)
    assert (backends.ATTENTION[name].run(q, k, v).double() - exact).abs().max() < 1e-5


def _exact(q, k, v):
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2)


def test_math_neither_overflows_in_fp16_nor_fills_the_memory(monkeypatch):
    q, k, v = (torch.randn(1, 40, 2, 40) for _ in range(3))
    whole = attention_math.run(q, k, v)
    monkeypatch.setattr(attention_math, "MAX_BYTES", 4 * 2 * 40 * 7)  # seven queries at once
    assert torch.allclose(attention_math.run(q, k, v), whole, atol=1e-6)
    large = (100 * q).half()
    assert attention_math.run(large, large, v.half()).isfinite().all()


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("keys", [77, 154])
def test_word_maps_are_the_mean_softmax(name, keys):
    from pipeline.backends.attention_processor import run_with_maps

    q, k, v = (torch.randn(2, t, 3, 8) for t in (20, keys, keys))
    out, maps = run_with_maps(backends.ATTENTION[name], q, k, v)
    weights = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double()).div(8**0.5).softmax(-1)
    assert (maps.double() - weights.mean(1)).abs().max() < 1e-5
    assert (out.double() - _exact(q, k, v)).abs().max() < 1e-5


def test_maps_of_a_large_picture_are_made_in_parts(monkeypatch):

    q, k = torch.randn(2, 50, 3, 8), torch.randn(2, 9, 3, 8)
    whole = attention_processor.run_with_maps(backends.ATTENTION["sdpa"], q, k, k)[1]
    monkeypatch.setattr(attention_processor, "MAPS_BYTES", 4 * 2 * 3 * 9 * 7)  # seven rows at once
    parts = attention_processor.run_with_maps(backends.ATTENTION["sdpa"], q, k, k)[1]
    assert parts.shape == whole.shape == (2, 50, 9) and (parts - whole).abs().max() < 1e-6
    last = attention_processor.run_with_maps(backends.ATTENTION["sdpa"], q, k, k, last=True)[1]
    torch.testing.assert_close(last, whole[-1:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", USABLE)
def test_a_listener_hears_every_cross_attention_and_changes_nothing(name, tiny_model):
    models = load(str(tiny_model), device="cpu", dtype="fp32", attention=name)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, models.unet.config.cross_attention_dim)
    heard = []
    with torch.no_grad():
        without = models.unet(x, 500, context).sample
        models.backends.processor.attention_hook = heard.append
        with_maps = models.unet(x, 500, context).sample
    if name == "triton":  # another kernel
        assert (without - with_maps).abs().max() < 1e-5
    else:
        assert torch.equal(without, with_maps)
    cross = [n for n, _ in models.unet.named_modules() if n.endswith("attn2")]
    assert len(heard) == len(cross)
    for maps in heard:
        assert maps.shape[0] == 2 and maps.shape[2] == 77
        assert (maps.sum(-1) - 1).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_fused_group_norm_is_diffusers_own_and_comes_out_again(triton_runs, tiny_model, training):
    models = load(str(tiny_model), device="cpu", dtype="fp32", group_norm="triton")
    assert models.group_norm == "triton"
    unet, vae = models.unet, models.vae
    kinds = {type(m).__name__ for m in unet.modules()}
    assert "FusedResnetBlock" in kinds and "ResnetBlock2D" not in kinds and "GroupNorm" not in kinds
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, unet.config.cross_attention_dim)
    unet.train(training).requires_grad_(training)
    if training:
        unet.enable_gradient_checkpointing()

    def run():
        out = unet(x, 500, context).sample
        grads = None
        if training:
            parameters = dict(unet.named_parameters())
            grads = torch.autograd.grad(out.square().mean(), parameters.values())
        with torch.no_grad():
            return out.detach(), vae.decode(x[:1, :, :4, :4]).sample, grads

    ours = run()
    models.backends.install(models.attention, "torch")
    assert not any(type(m).__name__.startswith("Fused") for m in [*unet.modules(), *vae.modules()])
    theirs = run()
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert (a - b).abs().max() < 1e-4
    for a, b in zip(ours[2] or (), theirs[2] or (), strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)


@pytest.fixture
def stand_in(triton_runs, monkeypatch):
    """For the GroupNorm kernel, whose numbers others test: the reference, a little off."""
    from kernels.group_norm import reference

    monkeypatch.setattr(group_norm_triton, "run", lambda *a, **n: reference(*a, **n) * 1.0001)


@pytest.fixture
def clean(monkeypatch):
    """Nothing has failed yet, and what fails here is forgotten."""
    monkeypatch.setattr(failures, "BLACKLIST", {})
    monkeypatch.setattr(backends, "BLACKLIST", failures.BLACKLIST)


@pytest.mark.parametrize("kind", ["attention", "group_norm"])
def test_a_kernel_that_fails_gives_way_for_good(
    tiny_model, caplog, monkeypatch, clean, stand_in, kind
):
    """Under auto the next one goes on, with one warning; asked for by name it is an error."""

    def broken(*_, **__):
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setattr(backends, "order", lambda kind, _: ("triton", USUAL[kind]))
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    assert models.attention == models.group_norm == "triton"
    wanted = models.generate(prompt="a", steps=2, seed=1, **USUAL).latents[0]
    module = attention_triton if kind == "attention" else group_norm_triton
    monkeypatch.setattr(module, "run", broken)
    with pytest.raises(InputError, match=r"backend triton failed at .*: out of resource") as error:
        models.generate(prompt="a", steps=2, seed=1, **{kind: "triton"})
    assert "\n" not in str(error.value)
    failures.BLACKLIST.clear()
    caplog.clear()
    result = models.generate(prompt="a", steps=2, seed=1)
    assert result.metadata[kind] == USUAL[kind]  # what really ran
    assert (result.latents[0] - wanted).abs().max() < 1e-2
    assert caplog.text.count("is not used again") == 1 and "shared memory" in caplog.text
    assert models.generate(prompt="a", steps=1, seed=1).metadata[kind] == USUAL[kind]
    assert caplog.text.count("is not used again") == 1
    with pytest.raises(InputError, match="triton cannot run here: it failed at"):
        models.generate(prompt="a", steps=1, **{kind: "triton"})


def test_a_request_has_its_own_backends(tiny_model, stand_in):
    """Two at once, step by step in turns, each on its own; and the model's own stay."""
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    fields = {"prompt": "a cat", "seed": 3, "steps": 3}
    both = [{"attention": "math"}, {"attention": "triton", "group_norm": "triton"}]
    alone = [models.generate(**fields, **own) for own in both]
    streams = [models.stream(GenerateOptions(**fields, **own)) for own in both]
    for _ in range(3):
        for stream in streams:
            next(stream)
    together = [next(stream) for stream in streams]
    for own, a, b in zip(both, alone, together, strict=True):
        assert torch.equal(a.latents[0], b.latents[0])
        assert own.items() <= b.metadata.items()
    assert not torch.equal(alone[0].latents[0], alone[1].latents[0])
    assert models.generate(**fields).metadata["group_norm"] == "torch"


def test_an_autoencoder_with_one_wide_head_stays_on_sdpa(triton_runs, tiny_model):
    """Every real Stable Diffusion has one head of 512 channels there."""
    unet = load(str(tiny_model), device="cpu", dtype="fp32").unet
    vae = AutoencoderKL(block_out_channels=(512,), norm_num_groups=32, layers_per_block=1)
    used = backends.Backends(unet, vae, CPU, FP32)
    for name, wide in (("triton", "sdpa"), ("math", "math")):
        running = used.open_session(name)
        picture = running.call(lambda: vae.decode(torch.zeros(1, 4, 2, 2)).sample)
        assert picture.isfinite().all()
        assert (running.attention, running.vae_attention) == (name, wide)


def test_memory_that_ran_out_strikes_no_kernel_off(clean):
    with (
        pytest.raises(torch.OutOfMemoryError),
        failures.wrap_kernel_errors("attention", "triton", torch.ones(1)),
    ):
        raise RuntimeError("Triton Error [CUDA]: out of memory")


def test_a_mask_is_not_ignored(tiny_model):
    unet = load(str(tiny_model), device="cpu", dtype="fp32").unet
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, unet.config.cross_attention_dim)
    with pytest.raises(NotImplementedError, match="no attention with a mask"):
        unet(x, 5, context, encoder_attention_mask=torch.ones(1, 77))


@pytest.mark.parametrize("name", USABLE)
def test_the_processor_is_diffusers_own_in_unet_and_vae(name, tiny_model):
    models = load(str(tiny_model), device="cpu", dtype="fp32", attention=name)
    assert models.attention == name
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, models.unet.config.cross_attention_dim)
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        ours = models.unet(x, 500, context).sample, models.vae.decode(latents).sample
        models.unet.set_attn_processor(AttnProcessor())
        models.vae.set_attn_processor(AttnProcessor())
        theirs = models.unet(x, 500, context).sample, models.vae.decode(latents).sample
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-4


SMALL = {
    "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
FAMILIES = {
    "SD 1.x": {"attention_head_dim": 2, "cross_attention_dim": 24},
    "SD 2.x": {
        "attention_head_dim": (2, 4), "cross_attention_dim": 40, "use_linear_projection": True,
    },
    "SDXL": {
        "attention_head_dim": (2, 4), "cross_attention_dim": 64, "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_on_the_kernels_and_comes_back(triton_runs, family, tiny_model):
    """SD 1.x, 2.x and XL: the same numbers as diffusers' own, word maps of every cross attention,
    and diffusers' own modules again afterwards."""
    unet = UNet2DConditionModel(**SMALL, **FAMILIES[family]).eval()
    vae = load(str(tiny_model), device="cpu", dtype="fp32").vae
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, unet.config.cross_attention_dim)
    added = {"text_embeds": torch.randn(1, 32), "time_ids": torch.randn(1, 6)}

    @torch.no_grad()
    def run():
        return unet(x, 500, context, added_cond_kwargs=added).sample

    unet.set_attn_processor(AttnProcessor())
    theirs = run()
    used = backends.Backends(unet, vae, CPU, FP32)
    heard = []
    used.processor.attention_hook = heard.append
    ours = used.open_session("triton", "triton").call(run)
    assert {type(m).__name__ for m in unet.modules()} >= {"FusedResnetBlock", "FusedGroupNorm"}
    assert (ours - theirs).abs().max() < 1e-4
    assert len(heard) == sum(n.endswith("attn2") for n, _ in unet.named_modules()) > 1
    used.processor.attention_hook = None
    again = used.open_session("math", "torch").call(run)
    assert not any(type(m).__name__.startswith("Fused") for m in unet.modules())
    assert (again - theirs).abs().max() < 1e-5


def test_auto_takes_what_can_run():
    assert backends.choose("attention", "auto", CPU, FP32) in USABLE
    assert backends.choose("group_norm", "auto", CPU, FP32) == "torch"
    assert "triton" not in backends.candidates(
        "attention", "auto", CPU, FP32
    )  # here it is interpreted


def test_auto_follows_what_was_measured_on_such_a_card(monkeypatch):
    from kernels.bench import results

    card = torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    row = {"kernel": "attention", "mode": "forward", "dtype": "fp16", "gpu": "NVIDIA H200"}
    row |= {"capability": [9, 0], "note": ""}
    times = {"ours": 1.0, "sdpa": 2.0, "xformers": 1.5, "torch eager": 9.0}
    rows = [row | {"shape": "s", "provider": p, "p50": t} for p, t in times.items()]
    monkeypatch.setattr(results, "load_results", lambda: {"NVIDIA_H200": rows})
    order.cache_clear()
    measured = ("per_shape", "triton", "xformers", "sdpa", "cudnn", "math")
    assert order("attention", card) == measured
    assert order("group_norm", card) == ("torch", "triton")  # not measured
    order.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    by_rank = ("sdpa", "xformers", "triton", "cudnn", "per_shape", "math")
    assert order("attention", card) == by_rank
    order.cache_clear()


def test_head_sizes_are_asked_for(triton_runs, tiny_model):
    assert backends.head_sizes(load(str(tiny_model), device="cpu").unet) == {8, 16}
    assert backends.choose("attention", "sdpa", CPU, FP32, frozenset({2, 512})) == "sdpa"
    with pytest.raises(InputError, match="multiples of 8 up to 256, not 2"):
        backends.choose("attention", "triton", CPU, FP32, frozenset({2, 8}))


def test_xformers_by_name_on_a_cpu_is_refused_with_its_reason(capfd):
    with pytest.raises(InputError, match="xformers cannot run here: xformers") as error:
        backends.choose("attention", "xformers", CPU, FP32)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_unknown_backends_list_what_there_is(tiny_model):
    with pytest.raises(InputError, match="no attention backend 'spda'; there is sdpa"):
        backends.choose("attention", "spda", CPU, FP32)
    with pytest.raises(InputError, match="no GroupNorm backend"):
        backends.choose("group_norm", "tritn", CPU, FP32)
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    with pytest.raises(InputError, match="no attention backend 'spda'"):
        models.generate(prompt="a", steps=1, attention="spda")
    with pytest.raises(InputError, match="Group_norm must be a backend's name, not 7"):
        models.generate(prompt="a", steps=1, group_norm=7)
