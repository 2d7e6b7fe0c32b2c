"""`python -m pipeline train STAGE`: its flags. The training itself is in pipeline/training."""

from __future__ import annotations

import argparse
from pathlib import Path

STAGES = (
    *("clip", "vae", "decoder", "unet", "all", "compare", "export", "evaluate"),
    *("upscaler", "export-upscaler", "evaluate-upscaler", "lora"),
    "evaluate-colorize",
)


def run(args: argparse.Namespace) -> None:
    """Run one stage of training, that of `python -m pipeline train STAGE`."""
    from ..loading.silence import silence_libraries

    with silence_libraries():
        from ..training import cli as training

        training.run(args)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `python -m pipeline train`, for all its stages, to `parser`.

    The stage, such as "unet", is positional. The flags that only the stage "lora" takes are a
    separate group in the help.
    """
    parser.add_argument(
        "stage",
        choices=STAGES,
        help="decoder: sharpen the autoencoder's decoder alone; compare: choices of the UNet's "
        "training at equal budgets; export: write the model folder; lora: teach a model a "
        "character",
    )
    parser.add_argument("--minutes", type=float, help="train for this long")
    parser.add_argument("--steps", type=int, help="train up to this step in all")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument(
        "--data", type=Path, help="folder of the npm archives; fetched if not there"
    )
    parser.add_argument(
        "--run", dest="folder", type=Path, help="default: runs/emoji, of a LoRA runs/lora/NAME"
    )
    parser.add_argument("--base", type=Path, help="model folder to take what this run lacks from")
    parser.add_argument(
        "--model", type=Path, help="model folder; of a LoRA also a name, a file or a hub id"
    )
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="captions that evaluate asks for")
    parser.add_argument("--sheet", type=Path, help="PNG of the first pictures that evaluate draws")
    parser.add_argument("--only", help="compare: these choices, with commas between them")
    parser.add_argument("--pool", type=int, default=16000, help="scenes whose latents are kept")
    parser.add_argument(
        "--side", type=int, choices=(64, 128), default=128, help="unet: of the pictures, in pixels"
    )
    parser.add_argument(
        "--pairs", type=float, help="unet: share of scenes with two objects, 0 to 1"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--attention", default="auto", help="of UNet and autoencoder; see `backends`"
    )
    parser.add_argument("--group-norm", default="auto", help="of UNet and autoencoder")
    parser.add_argument("--compile", action="store_true", help="unet: compile first, two minutes")
    parser.add_argument("--checkpoint-steps", type=int, help="default: every three minutes")
    _add_lora_flags(parser)


def _add_lora_flags(parser: argparse.ArgumentParser) -> None:
    """Add to `parser` the flags that only `train lora` takes.

    Their values default to None; training then chooses one that suits the model.
    """
    lora = parser.add_argument_group("lora")
    lora.add_argument("--images", type=Path, help="folder of pictures of the character")
    lora.add_argument("--name", help="of the LoRA, in a prompt <lora:NAME:1>")
    lora.add_argument("--prompt", help="what the character is called, such as 'zog the creature'")
    lora.add_argument("--rank", type=int, help="size of the matrices that learn")
    lora.add_argument("--alpha", type=float, help="default: the rank")
    lora.add_argument("--layers", help="attention, blocks or all")
    lora.add_argument("--size", type=int, help="side of the pictures that are learned, in pixels")
    lora.add_argument("--flip", action="store_true", help="learn each picture mirrored as well")
    lora.add_argument("--prior-prompt", help="what it is one of: keep the model's own idea of it")
    lora.add_argument("--prior-count", type=int, help="pictures of that drawn before; default 16")
    lora.add_argument("--previews", type=int, help="pictures drawn on the way; default none")
    lora.add_argument("--preview-prompt", help="of the previews; default: --prompt")
    lora.add_argument("--naming", help="of the tensors: peft (diffusers) or kohya (A1111, ComfyUI)")
