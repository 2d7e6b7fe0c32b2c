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
    q, k, v = (torch.randn(b, h, t, d) for t in (tq, tk, tk))
    exact = (q.double() @ k.double().mT / d**0.5).softmax(-1) @ v.double()
    assert (backends.ATTENTION[name].run(q, k, v).double() - exact).abs().max() < 1e-5


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


def test_xformers_by_name_on_a_cpu_is_refused_with_its_reason(capfd):
    with pytest.raises(InputError, match="xformers cannot run here: xformers") as error:
        backends.choose_attention("xformers", CPU, FP32)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_unknown_backends_list_what_there_is():
    with pytest.raises(InputError, match="no attention backend 'spda'; there is sdpa,"):
        backends.choose_attention("spda", CPU, FP32)
    with pytest.raises(InputError, match="no GroupNorm backend"):
        backends.choose_group_norm("tritn", CPU, FP32)
