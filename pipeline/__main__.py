"""The command line, `python -m pipeline COMMAND`: from a prompt to a picture, and to a model.

Nothing heavy is imported before a command needs it. Bad input ends with exit code 2 and one
sentence, never a traceback.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import time
from pathlib import Path

from .errors import InputError
from .tasks import TASKS

HEADINGS = {
    "lora": "LoRAs, in a prompt <lora:name:1>",
    "embedding": "Textual inversions, by name in a prompt",
    "vae": "Autoencoders (--vae)",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def draw(args: argparse.Namespace) -> None:
    from . import tasks
    from .cli import task_flags

    options = tasks.options(args.command, **task_flags.fields(args, args.command))
    from .metadata.save import check_writable

    out = Path(args.output)
    check_writable(out)
    began = time.perf_counter()
    models = _load(args)
    loaded = time.perf_counter()
    from tqdm import tqdm

    from .events import Step

    with tqdm(unit="step", dynamic_ncols=True, leave=False) as bar:
        for event in tasks.stream(models, args.command, options, _shelf(models, args)):
            if isinstance(event, Step):
                bar.total = event.total * event.count
                bar.n = event.image * event.total + event.index
                bar.refresh()
    for path, text in zip(event.save(out), event.parameters, strict=True):
        print(f"{path}\n{text}")
    for warning in event.warnings:
        print(f"Note: {warning}", file=sys.stderr)
    ran = event.metadata
    print(
        f"Loaded in {loaded - began:.1f} s, drawn in {event.seconds:.1f} s on {ran['device']} "
        f"({ran['dtype']}, attention {ran['attention']}, GroupNorm {ran['group_norm']})."
    )


def _load(args: argparse.Namespace):
    from .loading.load import load

    return load(args.model, vae=args.vae, **_machine(args))


def _shelf(models, args: argparse.Namespace):
    """For a grid over several models."""
    from .model_cache import Shelf

    return Shelf(models, **_machine(args))


def _machine(args: argparse.Namespace) -> dict:
    return {
        "device": args.device,
        "dtype": args.dtype,
        "attention": args.attention or "auto",
        "group_norm": args.group_norm or "auto",
        "low_memory": args.low_memory,
    }


def info(args: argparse.Namespace) -> None:
    from .metadata.infotext import read

    text = read(args.picture)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whatever letters the terminal has
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text)


def verify(args: argparse.Namespace) -> int:
    """Exit code 0 where the picture came out again to the bit, 1 for any other verdict."""
    from . import verify as verifying

    case = verifying.opened(args.picture, picture=args.given, mask=args.mask)
    models = _made_with(case.receipt, args) if case.receipt.whole else None
    backends = {"attention": args.attention, "group_norm": args.group_norm}
    from tqdm import tqdm

    with tqdm(unit="step", total=case.total, dynamic_ncols=True, leave=False) as bar:
        for event in verifying.check(models, case, **backends):
            if isinstance(event, verifying.Checked):
                bar.n = event.step
                bar.set_description("so far identical" if event.same else "departed")
    print("\n".join(event.sentences))
    return 0 if event.kind == "identical" else 1


def _made_with(receipt, args: argparse.Namespace):
    """The model that a receipt names, or --model, on the machine that is nearest to the receipt's;
    of a receipt's names only those of the library count."""
    import torch

    from . import verify
    from .loading.load import load
    from .model_files import library

    there, vaes = library.named("checkpoint"), library.named("vae")
    if args.model is None:
        name, vae = verify.chosen(receipt, there, vaes)
        model = there[name].path
    else:
        model, vae = args.model, args.vae
    near = verify.machine_flags(receipt)
    given = {k: v for k in ("device", "dtype") if (v := getattr(args, k)) != "auto"}
    threads = receipt.ran.get("threads", "")
    if re.fullmatch("[1-9][0-9]{0,2}", threads, re.ASCII):
        torch.set_num_threads(int(threads))
    loaded = load(model, vae=vae, low_memory=args.low_memory, **(near | given))
    if args.model is None:
        loaded.name = name
    return loaded


def samplers(args: argparse.Namespace) -> None:
    from .samplers import SAMPLERS, SCHEDULES, unsupported

    print("Samplers (--sampler), their model calls a step, and the schedules they take:")
    for key, sampler in SAMPLERS.items():
        takes = "all" if len(sampler.schedules) == len(SCHEDULES) else ", ".join(sampler.schedules)
        print(f"  {key:18} {sampler.label:18} {sampler.order}  {sampler.note} ({takes})")
        reason = unsupported(key)
        if reason:
            print(f"  {'':18} {'':18}    not here: {reason}")
    print("Schedules (--schedule):")
    for key, schedule in SCHEDULES.items():
        print(f"  {key:18} {schedule.label:18}    {schedule.note}")


def backends(args: argparse.Namespace) -> None:
    from .loading.silence import quiet

    with quiet():
        import torch

    from .backends import KINDS, choose, why_not
    from .loading.load import choose_device, choose_dtype

    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    print(f"On {device} in {str(dtype).removeprefix('torch.')} (torch {torch.__version__}):")
    for key, kind in KINDS.items():
        title = kind.name[:1].upper() + kind.name[1:]
        print(f"{title} ({kind.flag}), auto takes {choose(key, 'auto', device, dtype)}:")
        for name, backend in kind.table.items():
            reason = why_not(key, name, device, dtype)
            print(f"  {name:10} {'not here: ' + reason if reason else backend.note}")


def models(args: argparse.Namespace) -> None:
    from .model_files.diffusers_folder import short
    from .model_files.identify import KINDS
    from .model_files.library import OWN, scan

    print(
        "Models (--model), beside any folder in diffusers' format, any .safetensors file and any"
        f" hub id owner/name; your own belong into the folder {OWN}, sorted as you like:"
    )
    entries = scan()
    for kind in KINDS:
        rows = [e for e in entries if e.kind == kind]
        if kind != "checkpoint" and rows:
            print(f"{HEADINGS[kind]}:")
        for e in rows:
            unusable = f"; not usable: {e.reason}" if e.reason else ""
            print(f"  {short(e.name):14} {short(e.path)}  {e.note}{unusable}")


def bench(args: argparse.Namespace) -> None:
    from .cli.bench import run
    from .loading.silence import quiet

    with quiet():
        run(
            args.model, steps=args.steps, repeats=args.repeats, device=args.device, dtype=args.dtype
        )


def train(args: argparse.Namespace) -> None:
    from .loading.silence import quiet

    with quiet():
        from .training.cli import run

        run(args)


def _machine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="auto, fp32, fp16, bf16")


def _spellings(key: str) -> list[str]:
    """image_to_image may be written image-to-image."""
    return [key.replace("_", "-")] if "_" in key else []


def _task_flags(sub: argparse.ArgumentParser, key: str) -> None:
    from .cli import task_flags

    task_flags.add(sub, key)
    sub.add_argument(
        "--model", default="emoji", help="see `models`; a folder, .safetensors file or hub id too"
    )
    sub.add_argument("--vae", help="another autoencoder: see `models`, or a path")
    sub.add_argument(
        "--low-memory",
        action="store_true",
        help="weights visit the GPU layer by layer, pictures are decoded in tiles",
    )
    _machine_flags(sub)
    sub.add_argument(
        "-o",
        "--output",
        default="out.png",
        help="file, .png, .jpg or .webp, all with the parameters text; several get -1, -2, ...",
    )


def parser(command: str | None = None) -> Parser:
    """`command`: the one whose flags are needed in full."""
    root = Parser(prog="python -m pipeline", description="Stable Diffusion, open to look into.")
    commands = root.add_subparsers(dest="command", required=True, parser_class=Parser)

    for key, task in TASKS.items():
        sub = commands.add_parser(key, help=task.note, aliases=_spellings(key))
        sub.set_defaults(run=draw, command=key)
        if command in (key, *_spellings(key)):  # its fields take a moment to import
            _task_flags(sub, key)

    sub = commands.add_parser("info", help="the parameters text of a PNG, JPEG or WebP")
    sub.set_defaults(run=info)
    sub.add_argument("picture")

    sub = commands.add_parser(
        "verify",
        help="make a picture again and compare it step by step",
        description="Exit code 0: identical; 1: it departs, was tampered with, or the model is "
        "another; 2: it cannot be verified.",
    )
    sub.set_defaults(run=verify)
    sub.add_argument("picture", help="a PNG with its receipt")
    sub.add_argument("--picture", dest="given", help="the picture that it began from, if it did")
    sub.add_argument("--mask", help="the mask that it was repainted with")
    sub.add_argument("--model", help="default: the model of its name, see `models`")
    sub.add_argument("--vae", help="with --model: its autoencoder")
    sub.add_argument("--attention", help="see `backends`; default: what ran, where it can")
    sub.add_argument("--group-norm", help="likewise")
    sub.add_argument("--low-memory", action="store_true")
    _machine_flags(sub)

    sub = commands.add_parser("samplers", help="the samplers and noise schedules there are")
    sub.set_defaults(run=samplers)

    sub = commands.add_parser("backends", help="who runs attention and GroupNorm here, or why not")
    sub.set_defaults(run=backends)
    _machine_flags(sub)

    sub = commands.add_parser("models", help="the models, LoRAs and the like that are here")
    sub.set_defaults(run=models)

    sub = commands.add_parser("bench", help="whole pictures against diffusers, as ratios")
    sub.set_defaults(run=bench)
    sub.add_argument("--model", default="emoji")
    sub.add_argument("--steps", type=int, default=20)
    sub.add_argument("--repeats", type=int, default=5)
    _machine_flags(sub)

    sub = commands.add_parser("train", help="train each part from zero, and measure the model")
    sub.set_defaults(run=train)
    sub.add_argument(
        "stage",
        choices=(
            *("clip", "vae", "decoder", "unet", "all", "compare", "export", "evaluate"),
            *("upscaler", "export-upscaler", "evaluate-upscaler", "lora"),
            "evaluate-colorize",
        ),
        help="decoder: sharpen the autoencoder's decoder alone; compare: choices of the UNet's "
        "training at equal budgets; export: write the model folder; lora: teach a model a "
        "character",
    )
    sub.add_argument("--minutes", type=float, help="train for this long")
    sub.add_argument("--steps", type=int, help="train up to this step in all")
    sub.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    sub.add_argument("--data", type=Path, help="folder of the npm archives; fetched if not there")
    sub.add_argument(
        "--run", dest="folder", type=Path, help="default: runs/emoji, of a LoRA runs/lora/NAME"
    )
    sub.add_argument("--base", type=Path, help="model folder to take what this run lacks from")
    sub.add_argument(
        "--model", type=Path, help="model folder; of a LoRA also a name, a file or a hub id"
    )
    sub.add_argument("--batch", type=int)
    sub.add_argument("--rate", type=float, help="learning rate")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--count", type=int, default=200, help="captions that evaluate asks for")
    sub.add_argument("--sheet", type=Path, help="PNG of the first pictures that evaluate draws")
    sub.add_argument("--only", help="compare: these choices, with commas between them")
    sub.add_argument("--pool", type=int, default=16000, help="scenes whose latents are kept")
    sub.add_argument(
        "--side", type=int, choices=(64, 128), default=128, help="unet: of the pictures, in pixels"
    )
    sub.add_argument("--pairs", type=float, help="unet: share of scenes with two objects, 0 to 1")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda")
    sub.add_argument("--attention", default="auto", help="of UNet and autoencoder; see `backends`")
    sub.add_argument("--group-norm", default="auto", help="of UNet and autoencoder")
    sub.add_argument("--compile", action="store_true", help="unet: compile first, two minutes")
    sub.add_argument("--checkpoint-steps", type=int, help="default: every three minutes")
    _lora_flags(sub)
    return root


def _lora_flags(parser: argparse.ArgumentParser) -> None:
    """Those of `train lora` alone; where one is not given, what suits the model is taken."""
    sub = parser.add_argument_group("lora")
    sub.add_argument("--images", type=Path, help="folder of pictures of the character")
    sub.add_argument("--name", help="of the LoRA, in a prompt <lora:NAME:1>")
    sub.add_argument("--prompt", help="what the character is called, such as 'zog the creature'")
    sub.add_argument("--rank", type=int, help="size of the matrices that learn")
    sub.add_argument("--alpha", type=float, help="default: the rank")
    sub.add_argument("--layers", help="attention, blocks or all")
    sub.add_argument("--size", type=int, help="side of the pictures that are learned, in pixels")
    sub.add_argument("--flip", action="store_true", help="learn each picture mirrored as well")
    sub.add_argument("--prior-prompt", help="what it is one of: keep the model's own idea of it")
    sub.add_argument("--prior-count", type=int, help="pictures of that drawn before; default 16")
    sub.add_argument("--previews", type=int, help="pictures drawn on the way; default none")
    sub.add_argument("--preview-prompt", help="of the previews; default: --prompt")
    sub.add_argument("--naming", help="of the tensors: peft (diffusers) or kohya (A1111, ComfyUI)")


def main(argv: list[str] | None = None) -> int:
    try:
        argv = sys.argv[1:] if argv is None else argv
        args = parser(argv[0] if argv else None).parse_args(argv)
        return args.run(args) or 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
