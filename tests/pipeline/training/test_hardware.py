"""Training on the kernels, forward and backward, and number types that the device is good at."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline import InputError, backends
from pipeline.backends import failures
from pipeline.training import hardware


@pytest.mark.quick
def test_a_processor_without_bf16_trains_in_fp32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not hardware.bf16_is_fast("cpu") and hardware.bf16_is_fast("cuda")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert hardware.bf16_is_fast("cpu")


def test_the_kernels_train_as_pytorch_does(triton_runs, tiny_model):
    """A step of the UNet on the kernels gives the loss and the gradients of PyTorch's own."""
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32)
    seen = {}
    for attention, group_norm in (("math", "torch"), ("triton", "triton")):
        unet = UNet2DConditionModel.from_pretrained(tiny_model / "unet").train()
        unet.enable_gradient_checkpointing()
        hardware.install_backends(unet, "cpu", attention, group_norm)
        loss = unet(x, torch.tensor([300]), context).sample.square().mean()
        loss.backward()
        seen[attention] = loss.item(), {n: p.grad for n, p in unet.named_parameters()}
    assert seen["triton"][0] == pytest.approx(seen["math"][0], rel=1e-5)
    for name, grad in seen["math"][1].items():
        scale = grad.abs().max().clamp(min=1e-6)
        assert (seen["triton"][1][name] - grad).abs().max() < 1e-3 * scale, name


def test_a_backend_that_cannot_train_here_is_refused(tiny_model):
    unet = UNet2DConditionModel.from_pretrained(tiny_model / "unet")
    with pytest.raises(InputError, match="attention backend xformers cannot run here"):
        hardware.install_backends(unet, "cpu", "xformers", "auto")
    with pytest.raises(InputError, match="no GroupNorm backend 'tritn'"):
        hardware.install_backends(unet, "cpu", "auto", "tritn")


def test_a_kernel_that_fails_backward_is_found_before_the_training(
    triton_runs, tiny_model, monkeypatch, caplog
):
    from kernels import attention

    def broken(*_):
        raise RuntimeError("misaligned address\nmore")

    monkeypatch.setattr(failures, "BLACKLIST", {})
    monkeypatch.setattr(backends, "BLACKLIST", failures.BLACKLIST)
    monkeypatch.setattr(attention, "launch_backward", broken)
    monkeypatch.setattr(backends, "order", lambda *_: ("triton", "math"))
    unet = UNet2DConditionModel.from_pretrained(tiny_model / "unet")
    with pytest.raises(InputError, match=r"backend triton failed at .* misaligned address"):
        hardware.install_backends(unet, "cpu", "triton", "torch")
    failures.BLACKLIST.clear()
    found = hardware.find_trainable(
        "attention", "auto", torch.device("cpu"), torch.float32, None, hardware._try_attention
    )
    assert found == "math" and "is not used again" in caplog.text
