"""Attention backends: the same answer, and refusals that say why."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from pipeline import InputError, backends, load

CPU, FP32 = torch.device("cpu"), torch.float32
USABLE = [n for n, b in backends.ATTENTION.items() if b.unsupported(CPU, FP32) is None]


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


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("keys", [77, 154])
def test_word_maps_are_the_mean_softmax(name, keys):
    from pipeline.backends.attention import run_with_words

    q, k, v = (torch.randn(2, t, 3, 8) for t in (20, keys, keys))
    out, maps = run_with_words(backends.ATTENTION[name], q, k, v)
    weights = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double()).div(8**0.5).softmax(-1)
    assert (maps.double() - weights.mean(1)).abs().max() < 1e-5
    assert (out.double() - _exact(q, k, v)).abs().max() < 1e-5


@pytest.mark.parametrize("name", USABLE)
def test_a_listener_hears_every_cross_attention_and_changes_nothing(name, tiny_model):
    models = load(str(tiny_model), device="cpu", dtype="fp32", attention=name)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, models.unet.config.cross_attention_dim)
    heard = []
    with torch.no_grad():
        without = models.unet(x, 500, context).sample
        models.processor.listener = heard.append
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


@pytest.mark.parametrize("training", [False, True])
def test_fused_group_norm_is_diffusers_own_and_comes_out_again(tiny_model, training):
    pytest.importorskip("triton")
    models = load(str(tiny_model), device="cpu", dtype="fp32", group_norm="triton")
    assert models.group_norm == "triton"
    unet, vae = models.unet, models.vae
    kinds = {type(m).__name__ for m in unet.modules()}
    assert "FusedResnetBlock" in kinds and "ResnetBlock2D" not in kinds and "GroupNorm" not in kinds
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, unet.config.cross_attention_dim)
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
            return out.detach(), vae.decode(x[:1]).sample, grads

    ours = run()
    backends.install_group_norm(unet, vae, "torch")
    assert not any(type(m).__name__.startswith("Fused") for m in [*unet.modules(), *vae.modules()])
    theirs = run()
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert (a - b).abs().max() < 1e-4
    for a, b in zip(ours[2] or (), theirs[2] or (), strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)


def test_a_kernel_that_fails_gives_way_with_a_warning_under_auto_only(caplog, monkeypatch):
    from pipeline.backends import attention

    def broken(q, k, v):
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setattr(attention.TritonAttention, "run", staticmethod(broken))
    q = torch.randn(1, 4, 2, 8)
    processor = backends.AttentionProcessor("triton", "sdpa", "math")
    assert torch.allclose(processor.attend(q, q, q).double(), _exact(q, q, q), atol=1e-5)
    assert processor.name == "sdpa"  # what the result's metadata names
    assert "goes on with sdpa" in caplog.text and "out of resource: shared memory" in caplog.text
    with pytest.raises(InputError, match="triton failed at head size 8") as error:
        backends.AttentionProcessor("triton").attend(q, q, q)
    assert "\n" not in str(error.value)


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


def test_auto_takes_what_can_run():
    assert backends.choose_attention("auto", CPU, FP32) in USABLE
    assert backends.choose_group_norm("auto", CPU, FP32) == "torch"
    assert backends.choose_attention("auto", CPU, FP32) != "triton"  # here it is interpreted


def test_head_sizes_are_asked_for(tiny_model):
    assert backends.head_sizes(load(str(tiny_model), device="cpu").unet) == {8, 16}
    assert backends.choose_attention("sdpa", CPU, FP32, frozenset({2, 512})) == "sdpa"
    with pytest.raises(InputError, match="multiples of 8 up to 256, not 2"):
        backends.choose_attention("triton", CPU, FP32, frozenset({2, 8}))


def test_xformers_by_name_on_a_cpu_is_refused_with_its_reason(capfd):
    with pytest.raises(InputError, match="xformers cannot run here: xformers") as error:
        backends.choose_attention("xformers", CPU, FP32)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_unknown_backends_list_what_there_is():
    with pytest.raises(InputError, match="no attention backend 'spda'; there is sdpa"):
        backends.choose_attention("spda", CPU, FP32)
    with pytest.raises(InputError, match="no GroupNorm backend"):
        backends.choose_group_norm("tritn", CPU, FP32)
