"""Commands of `python -m pipeline train` that train, export and evaluate the embedded emoji model.

They are clip, vae, decoder, unet, all, compare, export, evaluate and evaluate-colorize. Each is a
function of the parsed command line `args`. An argument `minutes` of a function replaces --minutes;
`train all` uses it to divide its minutes among the stages.
"""

from __future__ import annotations

import argparse
import json
import shutil

import torch
from diffusers import AutoencoderKL

from ...disk import write_folder, write_text
from ...errors import InputError
from .. import hardware
from ..loop import load_ema, newest_checkpoint
from ..sheet import save_sheet
from ..stage import loop_options, run_trainer
from . import card, clip, compare, evaluate, export, tokenizer, unet, vae
from .latent_pool import LatentCache, LatentPool
from .run_folder import RunFolder, encoder_digest
from .scenes import SIZE, Composer

# Stage, side of the UNet's pictures in pixels, share (0 to 1) of the minutes of `train all`. A step
# on small pictures teaches the words at a quarter of the cost; see docs/training.md.
SHARES = (
    ("clip", None, 0.2),
    ("vae", None, 0.25),
    ("unet", 64, 0.25),
    ("unet", SIZE, 0.3),
)


def train_clip(args: argparse.Namespace, minutes: float | None = None) -> bool:
    """Train the emoji model's CLIP, both towers: the stage "clip" of `python -m pipeline train`.

    If the run's folder has no tokenizer, it is trained first, or copied from the model folder
    `args.base`, from which CLIP's initial weights then come too. minutes: how long to train; None
    takes `args.minutes`. Returns False if a signal has ended the training before.
    """
    run = RunFolder(args)
    folder = args.folder / "tokenizer"
    if not (folder / "vocab.json").exists():
        if args.base is None:
            tokenizer.train(run.vocabulary, folder)
        else:
            base = args.base / "tokenizer"
            write_folder(folder, lambda part: shutil.copytree(base, part, dirs_exist_ok=True))
    encoder = tokenizer.load(folder)
    torch.manual_seed(args.seed)
    trainer = clip.make_trainer(
        clip.build(encoder) if args.base is None else run.load_clip(),
        encoder,
        clip.PairSource(args.data, run.vocabulary),
        args.folder / "clip",
        device=run.device,
        **loop_options(args),
    )
    return run_trainer(args, trainer, minutes or args.minutes)


def train_vae(args: argparse.Namespace, minutes: float | None = None) -> bool:
    """Train the emoji model's autoencoder: the stage "vae" of `python -m pipeline train`.

    Afterwards its weights are changed so that its latents have mean 0 and deviation 1 in each
    channel, and written to `args.folder`/vae/final. minutes: how long to train; None takes
    `args.minutes`. Returns False if a signal has ended the training before.
    """
    run = RunFolder(args)
    torch.manual_seed(args.seed)
    model = vae.build()
    if args.base is not None:
        base = AutoencoderKL.from_pretrained(args.base / "vae", dtype=torch.float32)
        model.load_state_dict(base.state_dict())
    pictures = vae.PictureSource(args.data, run.vocabulary)
    held_out = pictures(16, torch.Generator().manual_seed(2**40))
    folder = args.folder / "vae"

    def save_samples(step: int) -> None:
        pairs = vae.pair_with_reconstructions(model, held_out)
        save_sheet(pairs, folder / "sample.png", columns=8)

    trainer = vae.make_trainer(
        model,
        pictures,
        folder,
        device=run.device,
        attention=args.attention,
        group_norm=args.group_norm,
        sample_fn=save_samples,
        **loop_options(args),
    )
    finished = run_trainer(args, trainer, minutes or args.minutes)
    load_ema(model, folder)
    hardware.restore_group_norm(model)
    model.cpu().eval()
    vae.normalise(model, pictures(96, torch.Generator().manual_seed(2**41)))
    write_folder(folder / "final", model.save_pretrained)
    print(f"PSNR {vae.psnr(model, held_out):.2f} dB on held-out scenes.")
    return finished


def train_decoder(args: argparse.Namespace, minutes: float | None = None) -> None:
    """Train only the decoder of the emoji model's trained autoencoder further: the stage "decoder".

    The encoder is frozen, so the latents stay the same and a UNet trained on them remains valid.
    minutes: how long to train; None takes `args.minutes`.
    """
    run = RunFolder(args)
    pictures = vae.PictureSource(args.data, run.vocabulary)
    held_out = pictures(16, torch.Generator().manual_seed(2**40))
    model = run.load_vae(decoder=False)
    folder = args.folder / "decoder"

    def save_samples(step: int) -> None:
        pairs = vae.pair_with_reconstructions(model, held_out)
        save_sheet(pairs, folder / "sample.png", columns=8)

    trainer = vae.make_trainer(
        model,
        pictures,
        folder,
        decoder_only=True,
        device=run.device,
        attention=args.attention,
        group_norm=args.group_norm,
        sample_fn=save_samples,
        **loop_options(args),
    )
    run_trainer(args, trainer, minutes or args.minutes)
    print(f"PSNR {vae.psnr(run.load_vae(), held_out):.2f} dB on held-out scenes.")


def train_unet(
    args: argparse.Namespace, minutes: float | None = None, side: int | None = None
) -> bool:
    """Train the emoji model's UNet: the stage "unet" of `python -m pipeline train`.

    The autoencoder and CLIP, which give latents and text embeddings, must be trained before, in
    this run or in the model folder `args.base`. minutes: how long to train, None takes
    `args.minutes`; side: width and height of the training pictures in pixels, None takes
    `args.side`. Raises InputError if an earlier stage is missing, or if --pairs, the share of
    pictures with two emoji, is not in [0, 1]. Returns False if a signal has ended the training
    before.
    """
    pairs = unet.PAIRS if args.pairs is None else args.pairs
    if not 0 <= pairs <= 1:
        raise InputError(f"--pairs must be from 0 to 1, not {pairs}.")
    run = RunFolder(args)
    encoder = tokenizer.load(run.tokenizer_folder())
    text, _ = export.split_towers(run.load_clip())
    composer = Composer(args.data, run.vocabulary)
    autoencoder = run.load_vae().to(run.device, memory_format=torch.channels_last)
    torch.manual_seed(args.seed)
    model = unet.build(text.config.hidden_size)
    if not newest_checkpoint(args.folder / "unet") and args.base is not None:
        model.load_state_dict(run.load_unet().state_dict())
    captions = unet.sample_captions(run.vocabulary)
    folder = args.folder / "unet"
    trainer = unet.make_trainer(
        model,
        LatentPool(composer, autoencoder, args.pool, pairs, side or args.side),
        run.vocabulary,
        encoder,
        text,
        folder,
        device=run.device,
        attention=args.attention,
        group_norm=args.group_norm,
        latents=encoder_digest(autoencoder),
        compiled=args.compile,
        **loop_options(args),
    )

    def save_samples(step: int) -> None:
        pictures = unet.draw_samples(trainer, autoencoder, encoder, text, captions)
        save_sheet(pictures, folder / "sample.png", columns=8)

    trainer.sample_fn = save_samples
    return run_trainer(args, trainer, minutes or args.minutes)


def train_all(args: argparse.Namespace) -> None:
    """Train the whole emoji model and export it: the stage "all" of `python -m pipeline train`.

    Trains CLIP, the autoencoder, and the UNet on 64-pixel, then on 128-pixel pictures.
    `args.minutes` is divided among these four by SHARES; `args.steps` is the number of steps of
    each network. SIGINT and SIGTERM end it after the current step, with a checkpoint.
    """
    for stage, side, share in SHARES:
        print(f"Stage {stage}" + (f" at {side} pixels" if side else ""))
        stage_args = argparse.Namespace(**vars(args))
        if side == SIZE:  # continues the training on the smaller pictures
            stage_args.resume = True
        elif side and args.steps:
            stage_args.steps = max(1, args.steps // 2)
        minutes = args.minutes * share if args.minutes else None
        if side:
            finished = train_unet(stage_args, minutes, side)
        elif stage == "clip":
            finished = train_clip(stage_args, minutes)
        else:
            finished = train_vae(stage_args, minutes)
        if not finished:  # the later stages would learn from a network that is not trained yet
            print("Stopped; --resume goes on from there.")
            return
    export_model(args)


def compare_choices(args: argparse.Namespace) -> None:
    """Train the UNet in several ways and print a table of results, to choose the best way.

    The ways are those of compare.CHOICES, or those that `args.only` names, joined by commas; each
    trains for `args.minutes`. Raises InputError for an unknown name and if --minutes is missing.
    """
    names = args.only.split(",") if args.only else list(compare.CHOICES)
    for name in names:
        if name not in compare.CHOICES:
            raise InputError(f"There is no choice {name!r}: {', '.join(compare.CHOICES)}.")
    if args.minutes is None:
        raise InputError("Say how long each choice may learn: --minutes N.")
    run = RunFolder(args)
    encoder = tokenizer.load(run.tokenizer_folder())
    text, _ = export.split_towers(run.load_clip())
    composer, autoencoder = Composer(args.data, run.vocabulary), run.load_vae()
    evaluator = compare.Evaluator.build(composer, autoencoder, run.vocabulary, encoder, text)
    pool = LatentCache(composer, autoencoder, args.pool, unet.PAIRS)
    pool.fill(args.seed)
    small = None
    if any(compare.CHOICES[n].first_half == "small" for n in names):
        small = LatentCache(composer, autoencoder, args.pool, unet.PAIRS, side=64)
        small.fill(args.seed)
    needs_base = any(compare.CHOICES[n].from_base for n in names)
    base = run.load_unet() if needs_base else None
    folder = args.folder / "compare"
    print(compare.compare(names, pool, small, evaluator, folder, args.minutes, base))


def export_model(args: argparse.Namespace) -> None:
    """Write the emoji model trained in the run folder `args.folder` to the folder `args.model`.

    The model folder has diffusers' format, with training.json (steps, pictures and minutes of each
    trained network) and a model card. An outdated evaluation.json is deleted.
    """
    run = RunFolder(args)
    history_file = args.model / "training.json"
    before = None
    if args.base and history_file.exists():
        before = json.loads(history_file.read_text(encoding="utf-8"))
    export.write_model(
        args.model,
        unet=run.load_unet(),
        vae=run.load_vae(),
        clip=run.load_clip(),
        tokenizer_folder=run.tokenizer_folder(),
        vocabulary=run.vocabulary,
    )
    (args.model / "evaluation.json").unlink(missing_ok=True)  # of the weights before
    history = card.training_history(args.folder, before)
    write_text(history_file, json.dumps(history, indent=2) + "\n")
    card.write(args.model)
    size = sum(p.stat().st_size for p in args.model.rglob("*") if p.is_file())
    print(f"{args.model}: {size / 2**20:.1f} MB")


def evaluate_model(args: argparse.Namespace) -> None:
    """Measure how well the emoji model in the folder `args.model` draws, and print the results.

    They are also written there as evaluation.json and into the model card, README.md. `args.count`:
    number of captions of one emoji in each language; `args.sheet`: PNG file for the first pictures,
    or None.
    """
    table = evaluate.evaluate(args.model, args.data, count=args.count, sheet=args.sheet)
    evaluate.save(table, args.model / "evaluation.json")
    if (args.model / "training.json").exists():
        card.write(args.model)
    print(evaluate.report(table))


def evaluate_colorize(args: argparse.Namespace) -> None:
    """Measure how well a model colours grey pictures (the task "colorize") and print the errors.

    The pictures are composed of emoji, so their true colours are known. `args.model`: the model,
    None for the emoji model; `args.count`: number of pictures with one emoji, to which half as many
    with two are added; `args.sheet`: PNG file to write, which shows the first pictures, or None.
    """
    from ...loading.load import load
    from . import evaluate_colorize as measure

    models = load(str(args.model or "emoji"), device=args.device)
    table = measure.evaluate(models, args.data, count=args.count, sheet=args.sheet)
    print(measure.to_markdown(table))
