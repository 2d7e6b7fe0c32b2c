"""What every block of the UNet gives in a call: shapes, skip connections, where it is active."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Block:
    """A block of the UNet in one call: its output (C, h, w), where it is strong, what enters it.

    name: as in the UNet, such as "down_blocks.1"; side: in, down, mid, up or out. map (h, w): the
    mean absolute value over the channels. skips: shapes (C, h, w) that a down block also hands
    across, or an up block is handed. attends: queries and keys (Tq, C), (Tk, C) of its cross
    attention; None where no words enter. layers: of ResNet and of attention.
    """

    name: str
    side: str
    shape: tuple[int, int, int]
    map: torch.Tensor = field(repr=False)
    skips: tuple[tuple[int, int, int], ...] = ()
    attends: tuple[tuple[int, int], tuple[int, int]] | None = None
    layers: tuple[int, int] = (0, 0)


class Activations:
    """Notes what the blocks of a UNet give, while it is entered as a context; changes no bit.

    The caller holds the model's lock, so that no other request's call is noted. A call that follows
    replaces what was noted before; of a batch the last, which is the conditional picture, is kept.
    waves (W,): the timestep as sines and cosines, time (T,): what two linear layers make of them.
    """

    def __init__(self, unet):
        self.unet = unet
        self.waves = self.time = None
        self._blocks: dict[str, Block] = {}
        self._attends: dict[str, tuple] = {}

    def __enter__(self) -> Activations:
        unet, hook = self.unet, torch.nn.Module.register_forward_hook
        self._handles = [
            unet.register_forward_pre_hook(lambda _, __: self._blocks.clear()),
            hook(unet.time_proj, lambda _, __, out: setattr(self, "waves", _last(out))),
            hook(unet.time_embedding, lambda _, __, out: setattr(self, "time", _last(out))),
        ]
        for name, side, block in unet_blocks(unet):
            self._handles.append(hook(block, self._noting(name, side), with_kwargs=True))
            for attention in _to_words(block):
                self._handles.append(hook(attention, self._hearing(name), with_kwargs=True))
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def blocks(self) -> list[Block]:
        """In the order in which the picture passes them."""
        return list(self._blocks.values())

    def _hearing(self, name: str):
        def note(attention, inputs, more, _) -> None:
            words, wide = more.get("encoder_hidden_states"), attention.inner_dim
            if words is not None:
                self._attends[name] = (inputs[0].shape[1], wide), (words.shape[1], wide)

        return note

    def _noting(self, name: str, side: str):
        def note(block, _, more, out) -> None:
            kept, handed = out, more.get("res_hidden_states_tuple", ())
            if side == "down":
                kept, handed = out
            self._blocks[name] = Block(
                name,
                side,
                tuple(kept.shape[1:]),
                _last(kept).abs().mean(0),
                tuple(tuple(skip.shape[1:]) for skip in handed),
                self._attends.get(name),
                tuple(len(getattr(block, part, None) or ()) for part in ("resnets", "attentions")),
            )

        return note


def unet_blocks(unet) -> list[tuple[str, str, torch.nn.Module]]:
    """(name, side, module) of the blocks of any UNet of Stable Diffusion, from first to last."""
    middle = [] if unet.mid_block is None else [("mid_block", "mid", unet.mid_block)]
    return [
        ("conv_in", "in", unet.conv_in),
        *((f"down_blocks.{i}", "down", block) for i, block in enumerate(unet.down_blocks)),
        *middle,
        *((f"up_blocks.{i}", "up", block) for i, block in enumerate(unet.up_blocks)),
        ("conv_out", "out", unet.conv_out),
    ]


def _to_words(block) -> list[torch.nn.Module]:
    """The cross attentions of a block."""
    return [
        layer.attn2
        for attention in getattr(block, "attentions", None) or ()
        for layer in getattr(attention, "transformer_blocks", ())
        if layer.attn2 is not None
    ]


def watched(models, events: Iterator) -> Iterator[tuple[Any, Activations]]:
    """Each event of an engine's stream with the UNet's activations in it.

    The model's lock is held for the whole of a step, so that no other request's call comes between.
    """
    try:
        while True:
            with models.lock, Activations(models.unet) as seen:
                event = next(events, None)
            if event is None:
                return
            yield event, seen
    finally:
        events.close()


def _last(out: torch.Tensor) -> torch.Tensor:
    """The conditional picture's of a batch, on the CPU."""
    return out[-1].detach().float().cpu()
