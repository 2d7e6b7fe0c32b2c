"""Record every UNet block in a call: output shape, skip connections and mean activation."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..events import Result, Step
    from ..model import Models


@dataclass(frozen=True)
class Block:
    """The shape and a map of one UNet block's output in one UNet call, to show it to a user.

    It describes a single sample of the batch.

    name     its path in the UNet module, such as "down_blocks.1"
    side     "in", "down", "mid", "up" or "out"
    shape    (C, h, w) of its output
    map      (h, w) fp32 on the CPU: mean over the channels of the output's absolute values
    skips    shapes (C, h, w) of the skip connections that leave a down block or enter an up block
    attends  shapes (Tq, C) and (Tk, C) of the queries and keys of its cross attention; None without
             cross attention
    layers   number of ResNet layers and of attention layers
    """

    name: str
    side: str
    shape: tuple[int, int, int]
    map: torch.Tensor = field(repr=False)
    skips: tuple[tuple[int, int, int], ...] = ()
    attends: tuple[tuple[int, int], tuple[int, int]] | None = None
    layers: tuple[int, int] = (0, 0)


class Activations:
    """A context manager that records the outputs of a UNet's blocks in its last call, to show them.

    It uses forward hooks, which change no values. After each UNet call, `blocks` (a Block for each
    block of the UNet) and the two attributes below describe that call, for the last sample of its
    batch, which is the conditional one. The caller must hold the model's lock, or calls of other
    requests are recorded.

    time_proj       the sinusoidal timestep embedding (W,); None before the first call
    time_embedding  the output (T,) of the two linear layers after it; None before the first call
    """

    def __init__(self, unet: Any):
        self.unet = unet
        self.time_proj: torch.Tensor | None = None
        self.time_embedding: torch.Tensor | None = None
        self._blocks: dict[str, Block] = {}
        self._attends: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}

    def __enter__(self) -> Activations:
        unet, hook = self.unet, torch.nn.Module.register_forward_hook
        self._handles = [
            unet.register_forward_pre_hook(lambda _, __: self._blocks.clear()),
            hook(unet.time_proj, lambda _, __, out: setattr(self, "time_proj", _last(out))),
            hook(
                unet.time_embedding, lambda _, __, out: setattr(self, "time_embedding", _last(out))
            ),
        ]
        for name, side, block in unet_blocks(unet):
            self._handles.append(hook(block, self._record_block(name, side), with_kwargs=True))
            for attention in _cross_attentions(block):
                self._handles.append(
                    hook(attention, self._record_attention(name), with_kwargs=True)
                )
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def blocks(self) -> list[Block]:
        """The outputs of the UNet's blocks in its last call, in the order of the forward pass."""
        return list(self._blocks.values())

    def _record_attention(self, name: str) -> Callable[..., None]:
        def record(attention: Any, inputs: Any, kwargs: dict[str, Any], _: Any) -> None:
            context, width = kwargs.get("encoder_hidden_states"), attention.inner_dim
            if context is not None:
                self._attends[name] = (inputs[0].shape[1], width), (context.shape[1], width)

        return record

    def _record_block(self, name: str, side: str) -> Callable[..., None]:
        def record(block: Any, _: Any, kwargs: dict[str, Any], out: Any) -> None:
            hidden, skips = out, kwargs.get("res_hidden_states_tuple", ())
            if side == "down":
                hidden, skips = out
            resnets, attentions = (
                len(getattr(block, part, None) or ()) for part in ("resnets", "attentions")
            )
            self._blocks[name] = Block(
                name,
                side,
                tuple(hidden.shape[1:]),
                _last(hidden).abs().mean(0),
                tuple(tuple(skip.shape[1:]) for skip in skips),
                self._attends.get(name),
                (resnets, attentions),
            )

        return record


def unet_blocks(unet: Any) -> list[tuple[str, str, torch.nn.Module]]:
    """Return (name, side, module) of each block of a UNet2DConditionModel, in forward order.

    name: the block's path, such as "down_blocks.1". side: "in", "down", "mid", "up" or "out".
    """
    middle = [] if unet.mid_block is None else [("mid_block", "mid", unet.mid_block)]
    return [
        ("conv_in", "in", unet.conv_in),
        *((f"down_blocks.{i}", "down", block) for i, block in enumerate(unet.down_blocks)),
        *middle,
        *((f"up_blocks.{i}", "up", block) for i, block in enumerate(unet.up_blocks)),
        ("conv_out", "out", unet.conv_out),
    ]


def _cross_attentions(block: Any) -> list[torch.nn.Module]:
    """Return the cross attention layers of a UNet block, in order; [] if it has none."""
    return [
        layer.attn2
        for attention in getattr(block, "attentions", None) or ()
        for layer in getattr(attention, "transformer_blocks", ())
        if layer.attn2 is not None
    ]


def record_activations(
    models: Models, events: Generator[Step | Result]
) -> Generator[tuple[Step | Result, Activations]]:
    """Draw pictures and yield each event together with the UNet's activations of its model call.

    events: the generator of a request, which yields a Step after each UNet call and at last the
    Result with the pictures. The Result comes with Activations without blocks. The model's lock is
    held while an event is computed, so that calls of other requests are not recorded. Closing the
    generator closes `events`.
    """
    try:
        while True:
            with models.lock, Activations(models.unet) as activations:
                event = next(events, None)
            if event is None:
                return
            yield event, activations
    finally:
        events.close()


def _last(out: torch.Tensor) -> torch.Tensor:
    """Return the last sample of a batch (B, ...) of UNet outputs, on the CPU in fp32.

    With guidance the batch is (unconditional, conditional), so it is the conditional one.
    """
    return out[-1].detach().float().cpu()
