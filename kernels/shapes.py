"""The shapes of Stable Diffusion at which the kernels are compiled, checked, measured and tuned.

Attention shapes come from the UNets only: the autoencoder has one attention head of size 512, and
the attention kernel takes head sizes up to 256. A batch of 2 is one image with classifier-free
guidance.
"""

from __future__ import annotations

from typing import NamedTuple

GROUPS = 32  # groups of every GroupNorm in Stable Diffusion


class AttentionShape(NamedTuple):
    """The shape of one attention layer of a model, and the commands that use it.

    q is (batch, queries, heads, head_size); k and v are (batch, keys, heads, head_size).

      model      the model that has the layer ("SD 1.5"), for titles; "odd" and "small" are no model
      size       side of the generated image in pixels; 0 if no model has this shape
      measured   whether `python -m kernels.bench` times it
      compiled   whether `python -m kernels.compile` compiles it
      quick      whether `python -m kernels.check --quick` runs it; without --quick all shapes run
    """

    model: str
    size: int
    batch: int
    queries: int
    keys: int
    heads: int
    head_size: int
    measured: bool = True
    compiled: bool = True
    quick: bool = False

    @property
    def title(self) -> str:
        """Short name, for a table: "SD 1.5 4096x77 d40" (queries x keys, head size)."""
        return f"{self.model} {self.queries}x{self.keys} d{self.head_size}"

    @property
    def full_title(self) -> str:
        """Long name, with image size, batch and heads: "SD 1.5 512 B2 4096x77 H8 D40"."""
        return (
            f"{self.model} {self.size} B{self.batch} {self.queries}x{self.keys} "
            f"H{self.heads} D{self.head_size}"
        )


class Norm(NamedTuple):
    """One GroupNorm layer of a network, with input x (N, channels, side, side), N being the batch.

    shift   whether the timestep embedding (N, channels) is added to x before normalizing
    silu    whether SiLU follows
    times   how many identical layers the network has
    """

    channels: int
    side: int
    shift: bool
    silu: bool
    times: int = 1


class GroupNormShape(NamedTuple):
    """GroupNorm layers of a model that are measured together, and the commands that use them.

    model           the model that has the layers ("SD 1.5"), for titles
    size            side of the generated image in pixels; 0 if no model has this shape
    batch           N of every layer
    norms           one layer, or all layers of a network
    measured        whether `python -m kernels.bench` times it
    compiled        whether `python -m kernels.compile` compiles it
    quick           whether `python -m kernels.check --quick` runs it
    channels_last   memory layout of x: NHWC if true, NCHW if false
    """

    model: str
    size: int
    batch: int
    norms: tuple[Norm, ...]
    measured: bool = True
    compiled: bool = True
    quick: bool = False
    channels_last: bool = False

    @property
    def layout(self) -> str:
        """Memory layout of the layers' input: "NCHW" (contiguous) or "NHWC" (channels last)."""
        return "NHWC" if self.channels_last else "NCHW"

    @property
    def title(self) -> str:
        """Short name, for a table: "SD 1.5 320x64x64 NCHW" (channels x height x width)."""
        return f"{self.model} {self._norms} {self.layout}"

    @property
    def full_title(self) -> str:
        """Long name, with image size and batch: "SD 1.5 512 B2 320x64x64 NCHW"."""
        return f"{self.model} {self.size} B{self.batch} {self._norms} {self.layout}"

    @property
    def _norms(self) -> str:
        count, first = sum(norm.times for norm in self.norms), self.norms[0]
        return f"{first.channels}x{first.side}x{first.side}" if count == 1 else f"all {count} norms"


Shape = AttentionShape | GroupNormShape

ATTENTION = (
    AttentionShape("SD 1.5", 512, 2, 4096, 4096, 8, 40, quick=True),
    AttentionShape("SD 1.5", 512, 2, 1024, 1024, 8, 80, quick=True),
    AttentionShape("SD 1.5", 512, 2, 256, 256, 8, 160, quick=True),
    AttentionShape("SD 1.5", 512, 2, 64, 64, 8, 160, quick=True),
    AttentionShape("SD 1.5", 512, 2, 4096, 77, 8, 40, quick=True),
    AttentionShape("SD 1.5", 512, 2, 1024, 77, 8, 80, quick=True),
    AttentionShape("SD 1.5", 512, 2, 256, 77, 8, 160, quick=True),
    AttentionShape("SD 1.5", 512, 2, 64, 77, 8, 160, measured=False, quick=True),
    AttentionShape("SD 1.5", 512, 8, 4096, 4096, 8, 40, compiled=False),
    AttentionShape("SD 1.5", 768, 2, 9216, 9216, 8, 40, compiled=False),
    AttentionShape("SD 2.1", 768, 2, 9216, 9216, 5, 64),
    AttentionShape("SD 2.1", 768, 2, 2304, 2304, 10, 64, compiled=False),
    AttentionShape("SD 2.1", 768, 2, 576, 576, 20, 64, measured=False),
    AttentionShape("SD 2.1", 768, 2, 9216, 77, 5, 64),
    AttentionShape("SD 2.1", 768, 2, 576, 77, 20, 64, measured=False),
    AttentionShape("SDXL", 1024, 2, 4096, 4096, 10, 64, quick=True),
    AttentionShape("SDXL", 1024, 2, 1024, 1024, 20, 64, quick=True),
    AttentionShape("SDXL", 1024, 2, 4096, 77, 10, 64, quick=True),
    AttentionShape("SDXL", 1024, 2, 1024, 77, 20, 64, quick=True),
    AttentionShape("SDXL", 1024, 8, 4096, 4096, 10, 64, compiled=False),
    AttentionShape("emoji", 128, 2, 64, 64, 4, 32, compiled=False, quick=True),
    AttentionShape("emoji", 128, 2, 64, 77, 4, 32, compiled=False, quick=True),
    # Shapes of no model: lengths that leave the last block partly empty, and the widest head.
    AttentionShape("odd", 0, 2, 333, 333, 3, 96, measured=False),
    AttentionShape("odd", 0, 2, 333, 77, 3, 96, measured=False),
    AttentionShape("odd", 0, 2, 100, 100, 1, 256, measured=False),
    AttentionShape("odd", 0, 2, 100, 77, 1, 256, measured=False),
    # The models' head sizes with such blocks: `kernels.check` tries every configuration there.
    *(
        AttentionShape("odd", 0, 1, 333, keys, 2, head_size, measured=False, compiled=False)
        for head_size in (32, 40, 64, 80, 160)
        for keys in (333, 77)
    ),
)
WORD_ATTENTION = tuple(shape for shape in ATTENTION if shape.keys == 77)

# The 61 GroupNorms of SD 1.5's UNet at 512x512.
UNET = (
    Norm(320, 64, False, False, 5), Norm(320, 64, False, True, 3), Norm(320, 64, True, True, 5),
    Norm(640, 64, False, True, 2), Norm(960, 64, False, True), Norm(320, 32, False, True),
    Norm(640, 32, False, False, 5), Norm(640, 32, False, True), Norm(640, 32, True, True, 5),
    Norm(960, 32, False, True), Norm(1280, 32, False, True), Norm(1920, 32, False, True),
    Norm(640, 16, False, True), Norm(1280, 16, False, False, 5), Norm(1280, 16, False, True),
    Norm(1280, 16, True, True, 5), Norm(1920, 16, False, True), Norm(2560, 16, False, True, 2),
    Norm(1280, 8, False, False), Norm(1280, 8, False, True, 4), Norm(1280, 8, True, True, 7),
    Norm(2560, 8, False, True, 3),
)  # fmt: skip


def both_layouts(shapes: tuple[GroupNormShape, ...]) -> tuple[GroupNormShape, ...]:
    """Return each shape twice: first contiguous (NCHW), then channels last (NHWC)."""
    return tuple(s._replace(channels_last=last) for s in shapes for last in (False, True))


GROUP_NORM = both_layouts(
    (
        GroupNormShape("SD 1.5", 512, 2, (Norm(320, 64, True, True),), quick=True),
        GroupNormShape("SD 1.5", 512, 2, (Norm(640, 32, True, True),)),
        GroupNormShape("SD 1.5", 512, 2, (Norm(960, 64, False, True),)),
        GroupNormShape("SD 1.5", 512, 2, (Norm(1280, 16, True, True),)),
        GroupNormShape("SD 1.5", 512, 2, (Norm(1920, 32, False, True),)),
        GroupNormShape("SD 1.5", 512, 2, (Norm(2560, 8, False, True),), quick=True),
        GroupNormShape("SD 1.5", 512, 8, (Norm(320, 64, True, True),), compiled=False),
        GroupNormShape("SD 1.5", 512, 2, UNET, compiled=False),
        GroupNormShape("SD 1.5", 768, 2, (Norm(320, 96, True, True),), compiled=False),
        GroupNormShape("SDXL", 1024, 2, (Norm(320, 128, True, True),)),
        GroupNormShape("SDXL", 1024, 2, (Norm(640, 64, True, True),), compiled=False),
        GroupNormShape("SDXL", 1024, 2, (Norm(1280, 32, True, True),), compiled=False),
        GroupNormShape("VAE", 512, 1, (Norm(512, 64, False, True),), quick=True),
        GroupNormShape("VAE", 512, 1, (Norm(256, 256, False, True),), measured=False),
        GroupNormShape("VAE", 512, 1, (Norm(512, 256, False, True),), compiled=False),
        GroupNormShape("VAE", 512, 1, (Norm(256, 512, False, True),), compiled=False),
        GroupNormShape("VAE", 512, 1, (Norm(128, 512, False, True),), quick=True),
        GroupNormShape("VAE", 1024, 1, (Norm(128, 1024, False, True),), compiled=False),
    )
)

# For Triton's interpreter on a CPU, which takes seconds for each block.
SMALL_ATTENTION = (
    AttentionShape("small", 0, 2, 70, 70, 2, 40),
    AttentionShape("small", 0, 1, 33, 77, 1, 64),
)
SMALL_WORD_ATTENTION = SMALL_ATTENTION[1:]
SMALL_GROUP_NORM = both_layouts(
    (
        GroupNormShape("small", 0, 2, (Norm(64, 8, True, True),)),
        GroupNormShape("small", 0, 1, (Norm(64, 9, False, False),)),
    )
)
