"""`python -m pipeline train STAGE`: clip, vae, decoder, unet, all, compare, export, evaluate, lora,
upscaler, export-upscaler, evaluate-upscaler, evaluate-colorize.

A run is a folder: one sub-folder of checkpoints a stage, the tokenizer, and `vae/final`, the
autoencoder with normalised latents that the UNet is trained on. What a run lacks is taken from
`--base`, a model folder: so a UNet can go on from shipped weights when its checkpoints are gone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from ..backends import KernelFailed
from ..errors import InputError
from ..loading.device import choose_device
from ..model_files.library import EMBEDDED
from . import hardware
from .emoji import card, clip, compare, evaluate, export, tokenizer, unet, vae
from .emoji import scenes as data
from .loop import Trainer, load_ema, newest_checkpoint
from .lora import cli as lora_cli
from .sheet import save_sheet
from .upscaler import evaluate as upscaler_measure
from .upscaler import train as upscaler

# Stage, side of the UNet's pictures, share of the minutes of `train all`. Small pictures teach
# words at a quarter of the cost; see docs/training.md.
SHARES = (
    ("clip", None, 0.2),
    ("vae", None, 0.25),
    ("unet", 64, 0.25),
    ("unet", data.SIZE, 0.3),
)

TRAINED = ("clip", "vae", "decoder", "unet", "all", "upscaler")  # need --minutes or --steps


def run(args: argparse.Namespace) -> None:
    for name in ("minutes", "rate"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} must be a positive number, not {value}.")
    for name in ("steps", "batch", "count", "pool", "checkpoint_steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
    if args.stage in TRAINED and args.minutes is None and args.steps is None:
        raise InputError("Say how long to train: --minutes N or --steps N.")
    try:
        if args.stage != "lora":  # which learns from a person's own pictures, on any model
            args.data = args.data or Path("runs/data")
            name = "upscaler" if args.stage.endswith("upscaler") else "emoji"
            args.folder = args.folder or Path("runs") / name
            args.model = args.model or Path("pipeline/models") / name
            data.fetch(args.data)
        STAGES[args.stage](args)
    except (RuntimeError, FileNotFoundError) as error:
        if isinstance(error, torch.OutOfMemoryError) or type(error) not in (
            RuntimeError,
            FileNotFoundError,
        ):
            raise
        raise InputError(str(error)) from None


class Parts:
    """What a run has, read when asked for."""

    def __init__(self, args: argparse.Namespace):
        self.folder, self.base = args.folder, args.base
        self.data = args.data
        self.vocabulary = data.Vocabulary.from_packages(args.data)
        device = choose_device(args.device)
        self.device = str(device)

    def _place(self, ours: Path, theirs: str) -> Path:
        if ours.exists():
            return ours
        if self.base is not None and (self.base / theirs).exists():
            return self.base / theirs
        raise InputError(f"{ours} is not there: train that stage first, or pass --base FOLDER.")

    def tokenizer_folder(self) -> Path:
        return self._place(self.folder / "tokenizer", "tokenizer")

    def clip(self) -> CLIPModel:
        model = clip.build(tokenizer.load(self.tokenizer_folder()))
        if newest_checkpoint(self.folder / "clip"):
            load_ema(model, self.folder / "clip")
            return model
        if self.base is None:
            raise InputError(f"{self.folder / 'clip'} holds no checkpoint: train clip first.")
        text = CLIPTextModel.from_pretrained(self.base / "text_encoder", dtype=torch.float32)
        model.text_model.load_state_dict(text.state_dict())
        image = CLIPVisionModelWithProjection.from_pretrained(
            self.base / "clip" / "image_encoder", dtype=torch.float32
        )
        model.vision_model.load_state_dict(image.vision_model.state_dict())
        model.visual_projection.load_state_dict(image.visual_projection.state_dict())
        rest = load_file(self.base / "clip" / "text_projection.safetensors")
        model.text_projection.weight.data.copy_(rest["text_projection.weight"])
        model.logit_scale.data.copy_(rest["logit_scale"])
        return model

    def vae(self, *, decoder: bool = True) -> AutoencoderKL:
        """The autoencoder with normalised latents, its decoder sharpened where that was done."""
        place = self._place(self.folder / "vae" / "final", "vae")
        model = AutoencoderKL.from_pretrained(place, dtype=torch.float32)
        if decoder and newest_checkpoint(self.folder / "decoder"):
            load_ema(model, self.folder / "decoder")
        return model.eval()

    def unet(self) -> UNet2DConditionModel:
        if newest_checkpoint(self.folder / "unet"):
            model = unet.build()
            load_ema(model, self.folder / "unet")
            return model
        if self.base is None:
            raise InputError(f"{self.folder / 'unet'} holds no checkpoint: train unet first.")
        return UNet2DConditionModel.from_pretrained(self.base / "unet", dtype=torch.float32)


def _loop(args: argparse.Namespace) -> dict:
    given = {k: getattr(args, k) for k in ("batch", "rate") if getattr(args, k) is not None}
    return given | {"seed": args.seed, "checkpoint_steps": args.checkpoint_steps}


def _go(args: argparse.Namespace, trainer: Trainer, minutes: float | None) -> None:
    if args.resume:
        print(
            f"Going on from step {trainer.step}."
            if _resumed(trainer)
            else f"{trainer.folder} holds no checkpoint: starting afresh."
        )
    elif newest_checkpoint(trainer.folder):
        raise InputError(
            f"{trainer.folder} already holds a run: pass --resume to go on, or another --run."
        )
    card.begin(args.folder, trainer.folder.name, args.base)
    try:
        trainer.train(minutes=minutes, steps=args.steps)
    except KernelFailed as failure:
        flag = "--attention" if failure.kind == "attention" else "--group-norm"
        raise InputError(f"{failure}; {flag} chooses another.") from None
    print(f"{trainer.folder}: step {trainer.step}, {trainer.seconds / 60:.1f} minutes in all.")


def _resumed(trainer: Trainer) -> bool:
    try:
        return trainer.resume()
    except ValueError as error:
        raise InputError(str(error)) from None


def train_clip(args: argparse.Namespace, minutes: float | None = None) -> None:
    parts = Parts(args)
    folder = args.folder / "tokenizer"
    if not (folder / "vocab.json").exists():
        if args.base is None:
            tokenizer.train(parts.vocabulary, folder)
        else:
            shutil.copytree(args.base / "tokenizer", folder)
    words = tokenizer.load(folder)
    torch.manual_seed(args.seed)
    trainer = clip.trainer(
        clip.build(words) if args.base is None else parts.clip(),
        words,
        clip.Pairs(args.data, parts.vocabulary),
        args.folder / "clip",
        device=parts.device,
        **_loop(args),
    )
    _go(args, trainer, minutes or args.minutes)


def train_vae(args: argparse.Namespace, minutes: float | None = None) -> None:
    parts = Parts(args)
    torch.manual_seed(args.seed)
    model = vae.build()
    if args.base is not None:
        base = AutoencoderKL.from_pretrained(args.base / "vae", dtype=torch.float32)
        model.load_state_dict(base.state_dict())
    pictures = vae.Pictures(args.data, parts.vocabulary)
    held = pictures(16, torch.Generator().manual_seed(2**40))
    folder = args.folder / "vae"

    def sample(step: int) -> None:
        save_sheet(vae.before_and_after(model, held), folder / "sample.png", columns=8)

    trainer = vae.trainer(
        model,
        pictures,
        folder,
        device=parts.device,
        attention=args.attention,
        group_norm=args.group_norm,
        sample_fn=sample,
        **_loop(args),
    )
    _go(args, trainer, minutes or args.minutes)
    load_ema(model, folder)
    hardware.restore(model)
    model.cpu().eval()
    vae.normalise(model, pictures(96, torch.Generator().manual_seed(2**41)))
    model.save_pretrained(folder / "final")
    print(f"PSNR {vae.psnr(model, held):.2f} dB on held-out scenes.")


def train_decoder(args: argparse.Namespace, minutes: float | None = None) -> None:
    parts = Parts(args)
    pictures = vae.Pictures(args.data, parts.vocabulary)
    held = pictures(16, torch.Generator().manual_seed(2**40))
    model = parts.vae(decoder=False)
    folder = args.folder / "decoder"

    def sample(step: int) -> None:
        save_sheet(vae.before_and_after(model, held), folder / "sample.png", columns=8)

    trainer = vae.trainer(
        model,
        pictures,
        folder,
        decoder_only=True,
        device=parts.device,
        attention=args.attention,
        group_norm=args.group_norm,
        sample_fn=sample,
        **_loop(args),
    )
    _go(args, trainer, minutes or args.minutes)
    print(f"PSNR {vae.psnr(parts.vae(), held):.2f} dB on held-out scenes.")


def train_unet(
    args: argparse.Namespace, minutes: float | None = None, side: int | None = None
) -> None:
    pairs = unet.PAIRS if args.pairs is None else args.pairs
    if not 0 <= pairs <= 1:
        raise InputError(f"--pairs must be from 0 to 1, not {pairs}.")
    parts = Parts(args)
    words = tokenizer.load(parts.tokenizer_folder())
    text, _ = export.split_towers(parts.clip())
    composer = data.Composer(args.data, parts.vocabulary)
    encoder = parts.vae().to(parts.device, memory_format=torch.channels_last)
    torch.manual_seed(args.seed)
    model = unet.build(text.config.hidden_size)
    if not newest_checkpoint(args.folder / "unet") and args.base is not None:
        model.load_state_dict(parts.unet().state_dict())
    scenes = unet.asked(parts.vocabulary)
    folder = args.folder / "unet"
    trainer = unet.trainer(
        model,
        unet.Pool(composer, encoder, args.pool, pairs, side or args.side),
        parts.vocabulary,
        words,
        text,
        folder,
        device=parts.device,
        attention=args.attention,
        group_norm=args.group_norm,
        latents=_encoder_hash(encoder),
        compiled=args.compile,
        **_loop(args),
    )

    def sample(step: int) -> None:
        drawn = unet.draw(trainer, encoder, words, text, [caption for caption, _ in scenes])
        save_sheet(drawn, folder / "sample.png", columns=8)

    trainer.sample_fn = sample
    _go(args, trainer, minutes or args.minutes)


def compare_choices(args: argparse.Namespace) -> None:
    """Short trainings of the UNet that differ in one thing, measured against each other."""
    names = args.only.split(",") if args.only else list(compare.CHOICES)
    for name in names:
        if name not in compare.CHOICES:
            raise InputError(f"There is no choice {name!r}: {', '.join(compare.CHOICES)}.")
    if args.minutes is None:
        raise InputError("Say how long each choice may learn: --minutes N.")
    parts = Parts(args)
    words = tokenizer.load(parts.tokenizer_folder())
    text, _ = export.split_towers(parts.clip())
    composer, encoder = data.Composer(args.data, parts.vocabulary), parts.vae()
    measure = compare.Measure.build(composer, encoder, parts.vocabulary, words, text)
    pool = compare.Kept(composer, encoder, args.pool, unet.PAIRS)
    pool.fill(args.seed)
    small = None
    if any(compare.CHOICES[n].first == "small" for n in names):
        small = compare.Kept(composer, encoder, args.pool, unet.PAIRS, side=64)
        small.fill(args.seed)
    warm = any(compare.CHOICES[n].warm for n in names)
    base = parts.unet() if warm else None
    folder = args.folder / "compare"
    print(compare.compare(names, pool, small, measure, folder, args.minutes, base))


def _encoder_hash(model: AutoencoderKL) -> str:
    """Names the latents a UNet was trained on; a sharper decoder does not change it."""
    digest = hashlib.sha256()
    for part in (model.encoder, model.quant_conv):
        for tensor in part.state_dict().values():
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:10]


def train_all(args: argparse.Namespace) -> None:
    for stage, side, share in SHARES:
        print(f"Stage {stage}" + (f" at {side} pixels" if side else ""))
        now = argparse.Namespace(**vars(args))
        if side == data.SIZE:  # goes on where the smaller pictures ended
            now.resume = True
        elif side and args.steps:
            now.steps = max(1, args.steps // 2)
        minutes = args.minutes * share if args.minutes else None
        if side:
            train_unet(now, minutes, side)
        else:
            STAGES[stage](now, minutes)
    write(args)


def write(args: argparse.Namespace) -> None:
    parts = Parts(args)
    kept = args.model / "training.json"
    before = json.loads(kept.read_text(encoding="utf-8")) if args.base and kept.exists() else None
    export.export(
        args.model,
        unet=parts.unet(),
        vae=parts.vae(),
        clip=parts.clip(),
        tokenizer_folder=parts.tokenizer_folder(),
        vocabulary=parts.vocabulary,
    )
    (args.model / "evaluation.json").unlink(missing_ok=True)  # it measured other weights
    made = card.history(args.folder, before)
    kept.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    card.write(args.model)
    size = sum(p.stat().st_size for p in args.model.rglob("*") if p.is_file())
    print(f"{args.model}: {size / 2**20:.1f} MB")


def measure(args: argparse.Namespace) -> None:
    table = evaluate.evaluate(args.model, args.data, count=args.count, sheet=args.sheet)
    evaluate.save(table, args.model / "evaluation.json")
    if (args.model / "training.json").exists():
        card.write(args.model)
    print(evaluate.report(table))


def train_upscaler(args: argparse.Namespace) -> None:
    """--base: the model folder whose autoencoder makes some of the pictures soft."""
    base = args.base or EMBEDDED / "emoji"
    soft = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).eval()
    learned, _ = upscaler.split(args.data)
    crops = upscaler.Crops(upscaler.Scenes(upscaler.sprites(args.data, learned)), soft)
    torch.manual_seed(args.seed)
    trainer = upscaler.trainer(
        upscaler.Upscaler(),
        crops,
        args.folder / "upscaler",
        device=str(choose_device(args.device)),
        **_loop(args),
    )
    _go(args, trainer, args.minutes)


def export_upscaler(args: argparse.Namespace) -> None:
    upscaler_measure.export(args.model, args.folder)
    measure_upscaler(args)


def measure_upscaler(args: argparse.Namespace) -> None:
    base = args.base or EMBEDDED / "emoji"
    print(upscaler_measure.measure(args.model, args.data, base, count=args.count, sheet=args.sheet))


def measure_colorize(args: argparse.Namespace) -> None:
    from ..loading.load import load
    from .emoji import evaluate_colorize

    models = load(str(args.model or "emoji"), device=args.device)
    table = evaluate_colorize.evaluate(models, args.data, count=args.count, sheet=args.sheet)
    print(evaluate_colorize.markdown(table))


STAGES = {
    "clip": train_clip,
    "vae": train_vae,
    "decoder": train_decoder,
    "unet": train_unet,
    "all": train_all,
    "compare": compare_choices,
    "export": write,
    "evaluate": measure,
    "lora": lora_cli.run,
    "upscaler": train_upscaler,
    "export-upscaler": export_upscaler,
    "evaluate-upscaler": measure_upscaler,
    "evaluate-colorize": measure_colorize,
}
