"""Record the output of every UNet block in a call: shapes, skip connections, activation maps."""

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
    """One block of the UNet in one call.

    name: as in the UNet, such as "down_blocks.1". side: in, down, mid, up or out. shape (C, h, w):
    of its output. map (h, w): mean of the output's absolute values over the channels. skips: shapes
    (C, h, w) of the skip connections that leave a down block or enter an up block. attends: shapes
    (Tq, C) and (Tk, C) of its cross attention's queries and keys; None without cross attention.
    layers: number of ResNet and of attention layers.
    """

    name: str
    side: str
    shape: tuple[int, int, int]
    map: torch.Tensor = field(repr=False)
    skips: tuple[tuple[int, int, int], ...] = ()
    attends: tuple[tuple[int, int], tuple[int, int]] | None = None
    layers: tuple[int, int] = (0, 0)


class Activations:
    """Record the blocks of a UNet with forward hooks, while used as a context manager.

    The hooks change no value. Each call replaces what the call before left; of a batch the last
    sample is kept, which is the conditional one. The caller holds the model's lock, so that no
    other request's call is recorded. time_proj (W,): the sinusoidal timestep embedding;
    time_embedding (T,): the output of the two linear layers after it.
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
        """The blocks, in the order of the forward pass."""
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
    """Return (name, side, module) of each block of a Stable Diffusion UNet, in forward order."""
    middle = [] if unet.mid_block is None else [("mid_block", "mid", unet.mid_block)]
    return [
        ("conv_in", "in", unet.conv_in),
        *((f"down_blocks.{i}", "down", block) for i, block in enumerate(unet.down_blocks)),
        *middle,
        *((f"up_blocks.{i}", "up", block) for i, block in enumerate(unet.up_blocks)),
        ("conv_out", "out", unet.conv_out),
    ]


def _cross_attentions(block: Any) -> list[torch.nn.Module]:
    """Return the cross attention layers of a block."""
    return [
        layer.attn2
        for attention in getattr(block, "attentions", None) or ()
        for layer in getattr(attention, "transformer_blocks", ())
        if layer.attn2 is not None
    ]


def record_activations(
    models: Models, events: Generator[Step | Result]
) -> Generator[tuple[Step | Result, Activations]]:
    """Yield each event of an engine's stream with the UNet's activations of its call.

    The model's lock is held during the whole step, so that no other request's call is recorded.
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
    """Return the last sample of a batch, the conditional one, on the CPU in float32."""
    return out[-1].detach().float().cpu()
