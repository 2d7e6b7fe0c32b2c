"""LoHa and LoKr: every form of them, against the product written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.lora import lora_family, read_lora
from pipeline.model_files.safetensors_header import read_header

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # 16 to 16
CONV = "down_blocks.1.resnets.0.conv1"  # 3x3, 16 to 32


def loha(rows: int, columns: int) -> tuple[dict, Tensor, int]:
    a, b, c, d = (torch.randn(s) for s in ((rows, 3), (3, columns), (rows, 2), (2, columns)))
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    return dict(zip(names, (a, b, c, d), strict=True)), (a @ b) * (c @ d), 3


def loha_conv(rows: int, columns: int) -> tuple[dict, Tensor, int]:
    tensors, sides = {}, []
    for i in (1, 2):
        t, a, b = torch.randn(2, 4, 3, 3), torch.randn(2, rows), torch.randn(4, columns // 9)
        tensors |= {f"hada_t{i}": t, f"hada_w{i}_a": a, f"hada_w{i}_b": b}
        sides.append(
            sum(
                a[i, :, None, None, None] * t[i, j] * b[j, None, :, None, None]
                for i in (0, 1)
                for j in range(4)
            )
        )
    return tensors, sides[0] * sides[1], 4


def lokr(rows: int, columns: int) -> tuple[dict, Tensor, None]:
    w1, w2 = torch.randn(4, 2), torch.randn(rows // 4, columns // 2)
    return {"lokr_w1": w1, "lokr_w2": w2}, torch.kron(w1, w2), None


def lokr_low(rows: int, columns: int) -> tuple[dict, Tensor, int]:
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    c, d = torch.randn(rows // 2, 3), torch.randn(3, columns // 4)
    names = ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b")
    return dict(zip(names, (a, b, c, d), strict=True)), torch.kron(a @ b, c @ d), 3


def lokr_kernel(rows: int, columns: int) -> tuple[dict, Tensor, None]:
    w1, w2 = torch.randn(4, 2), torch.randn(rows // 4, columns // 18, 3, 3)
    return {"lokr_w1": w1, "lokr_w2": w2}, torch.kron(w1[..., None, None], w2), None


def lokr_conv(rows: int, columns: int) -> tuple[dict, Tensor, int]:
    w1, t = torch.randn(4, 2), torch.randn(3, 3, 3, 3)
    a, b = torch.randn(3, rows // 4), torch.randn(3, columns // 18)
    w2 = torch.einsum("ijkl,ip,jr->prkl", t, a, b).contiguous()
    tensors = {"lokr_w1": w1, "lokr_t2": t, "lokr_w2_a": a, "lokr_w2_b": b}
    return tensors, torch.kron(w1[..., None, None], w2), 3


@pytest.mark.parametrize(
    "make, path",
    [
        *((make, path) for make in (loha, lokr, lokr_low) for path in (LINEAR, CONV)),
        *((make, CONV) for make in (loha_conv, lokr_kernel, lokr_conv)),
    ],
)
def test_it_is_what_its_product_in_the_weights_would_be(networks, adapters, files, make, path):
    layer = networks["unet"].get_submodule(path)
    tensors, product, rank = make(len(layer.weight), layer.weight[0].numel())
    base = "lora_unet_" + path.replace(".", "_")
    file = {f"{base}.{k}": v for k, v in tensors.items()} | {f"{base}.alpha": torch.tensor(1.5)}
    adapters.install(((adapters.load(files.raw(file)), 0.7, 0.0),))
    scale = 0.7 * (1.5 / rank if rank else 1)
    weight = (layer.weight + scale * product.reshape(layer.weight.shape)).double()
    x = torch.randn(2, 5, 16) if isinstance(layer, nn.Linear) else torch.randn(2, 16, 6, 6)
    if isinstance(layer, nn.Linear):
        wanted = nn.functional.linear(x.double(), weight)
    else:
        wanted = nn.functional.conv2d(x.double(), weight, layer.bias.double(), padding=1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(layer.forward(x).double(), wanted, rtol=1e-2, atol=1e-2)
        adapters.install(())
        assert torch.equal(layer(x), layer.forward(x))


@pytest.mark.parametrize("make", [loha, loha_conv, lokr_low, lokr_conv])
def test_a_matrix_that_is_missing_or_of_another_rank(files, make):
    tensors, _, _ = make(16, 144)
    other_forms = {("lokr_t2", None), ("lokr_w1", (7, 7))}  # whole, of another size
    for name in tensors:
        for shape in (None, (7, 7), (5,), (0, 0)):
            if (name, shape) in other_forms:
                continue
            changed = dict(tensors)
            del changed[name]
            if shape is not None:
                changed[name] = torch.ones(shape)
            with pytest.raises(InputError, match="do not agree"):
                read_lora(files.raw({f"lora_unet_x.{k}": v for k, v in changed.items()}))


def test_a_product_too_large_for_the_layer_is_never_multiplied_out(adapters, files):
    """Two small matrices name one of 10^14 values."""
    base = "lora_unet_" + LINEAR.replace(".", "_")
    big = torch.ones(3200, 3200)
    path = files.raw({f"{base}.lokr_w1": big, f"{base}.lokr_w2": big})
    with pytest.raises(InputError, match="0 of its 1 parts fit"):
        adapters.load(path)


def test_a_loha_tells_its_family(files):
    tensors, _, _ = loha(16, 1024)
    base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    path = files.raw({f"{base}.{k}": v for k, v in tensors.items()})
    assert lora_family(read_header(path).tensors) == "SD 2.x"
