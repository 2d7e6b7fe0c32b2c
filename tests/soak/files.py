"""Open very many damaged files in worker processes with a limit of memory and time.

python tests/soak/files.py [--count N] [--seed S]: N pictures, as many headers of safetensors, a
fifth of whole loads and a tenth of trees. Prints a table; exit status 1 where a worker crashed, a
file took more than 5 seconds of the processor or more than 500 MB, or an opened tree failed when it
was used.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import multiprocessing
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.model import Models

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SECONDS, MEMORY = 5.0, 500_000_000  # of the processor, and bytes above a worker's own
ADDRESS_SPACE = 6 << 30  # of a worker, which has imported torch
BATCH = 5_000  # files of one worker process
PARTS = {"pictures": 1.0, "headers": 1.0, "loads": 0.2, "trees": 0.1}  # share of --count


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Return `data` with a few bytes changed, cut out, doubled or replaced by extreme numbers."""
    hurt = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        if len(hurt) < 16:
            break
        at = dice.randrange(min(len(hurt) - 8, dice.choice((64, 400, 10**9))))
        kind = dice.randrange(6)
        if kind == 0:
            hurt[at] = dice.randrange(256)
        elif kind == 1:
            hurt[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            size = dice.choice((2, 4, 8))
            number = dice.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**63, 2**64 - 1, 65535))
            hurt[at : at + size] = (number % 256**size).to_bytes(
                size, dice.choice(("big", "little"))
            )
        elif kind == 3:
            del hurt[at : at + dice.randint(1, 40)]
        elif kind == 4:
            hurt[at:at] = hurt[at : at + dice.randint(1, 200)] * dice.choice((1, 1, 50))
        else:
            del hurt[at:]
    return bytes(hurt)


def picture_seeds() -> list[bytes]:
    """Return small pictures of every format, mode and compression that is opened."""
    import numpy as np
    from PIL import Image, features

    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (24, 40, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cat"
    plans = [("PNG", mode, {"exif": exif}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I")]
    plans += [
        ("JPEG", m, {"exif": exif, "progressive": p}) for m in ("L", "RGB", "CMYK") for p in (0, 1)
    ]
    plans += [("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "P", {})]
    for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        plans += [("TIFF", mode, {"compression": how}) for mode in ("L", "RGB", "RGBA", "CMYK")]
    if features.check("webp"):
        plans += [("WEBP", "RGBA", {"lossless": x, "exif": exif}) for x in (False, True)]
    if features.check("avif"):
        plans += [("AVIF", "RGB", {"speed": 10}), ("AVIF", "RGBA", {"speed": 10})]
    seeds = []
    for kind, mode, flags in plans:
        data = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rgba.convert(mode).save(data, kind, **flags)
        except (OSError, ValueError):
            continue  # a pair that Pillow does not write
        seeds.append(data.getvalue())
    frames = [rgba.rotate(90 * i) for i in range(3)]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        data = io.BytesIO()
        frames[0].save(data, kind, save_all=True, append_images=frames[1:])
        seeds.append(data.getvalue())
    return seeds


def weight_seeds() -> list[bytes]:
    """Return small safetensors files: weights of several types, and an empty one."""
    import torch
    from safetensors.torch import save

    weights = {f"a.{i}.weight": torch.zeros(3, i + 1) for i in range(6)}
    weights["half"] = torch.ones(4, dtype=torch.float16)
    return [save(weights, {"format": "pt", "note": "x" * 40}), save({}), save({"b": torch.ones(2)})]


@functools.cache
def tiny_models() -> Models:
    """Return a tiny model with random weights, which draws the trees."""
    from pipeline import load
    from tests.conftest import write_tiny_model

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return load(str(write_tiny_model(Path(folder) / "tiny")), device="cpu", dtype="fp32")


def tree_seeds() -> list[bytes]:
    """Return exported trees: pictures with branches of the same and of another sampler."""
    from pipeline import GenerateOptions
    from pipeline.introspection.branch import BranchRun
    from pipeline.introspection.recording import Recorder
    from pipeline.introspection.recording_file import save

    models, seeds = tiny_models(), []
    for sampler, other in (("euler_a", "dpmpp_2m"), ("heun", "ddim")):
        asked = GenerateOptions(prompt="a red apple", seed=4, steps=4, cfg=3.0, sampler=sampler)
        recorder: Recorder = Recorder(models, models.stream(asked, words=True))
        tree = []
        for at, change in ((1, {"noise_seed": 8, "cfg": 1.0}), (2, {"sampler": other}), (0, {})):
            list(recorder)
            tree += [recording for recording in recorder.recordings if recording]
            recorder = BranchRun(models, tree[-1], max(at, tree[-1].sampler_start), change)
        recorder.close()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            seeds.append(save(tree, Path(folder) / "tree.safetensors").read_bytes())
    return seeds


def mutate_tree(data: bytes, dice: random.Random) -> bytes:
    """Return an exported tree with fields of its JSON, or tensors, exchanged for others."""
    from safetensors.torch import load, save

    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tree"])
    tensors = load(data)
    values = [
        0,
        1,
        -1,
        2,
        3,
        7,
        10**9,
        2**40,
        0.5,
        1e300,
        None,
        True,
        "",
        "x",
        "euler",
        [],
        [1],
        {},
    ]
    for _ in range(dice.randint(1, 3)):
        if dice.random() < 0.25:
            _mutate_tensor(tensors, dice)
            continue
        node: object = header["recordings"]
        while isinstance(node, (list, dict)) and node:
            key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
            inner = node[key]  # type: ignore[call-overload,index]
            if isinstance(inner, (list, dict)) and inner and dice.random() < 0.85:
                node = inner
                continue
            kind = dice.randrange(4)
            if kind == 0 and isinstance(inner, (int, float)):
                node[key] = inner + dice.choice((-1, 1, 2))  # type: ignore[index]
            elif kind == 1:
                del node[key]  # type: ignore[attr-defined]
            elif kind == 2 and isinstance(node, list):
                node.insert(int(key), inner)
            else:
                node[key] = dice.choice(values)  # type: ignore[index]
            break
    return save(tensors, {"tree": json.dumps(header)})


def _mutate_tensor(tensors: dict, dice: random.Random) -> None:
    import torch

    name = dice.choice(list(tensors))
    kind = dice.randrange(5)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[name] = tensors[name].clone().reshape(-1)
    elif kind == 2:
        tensors[name] = tensors[dice.choice(list(tensors))].clone()
    elif kind == 3 and tensors[name].is_floating_point():
        tensors[name] = torch.full_like(tensors[name], dice.choice((float("nan"), 6e4, -1.0)))
    elif tensors[name].dtype == torch.uint8:
        pixels = mutate(tensors[name].numpy().tobytes(), dice) or b"0"
        tensors[name] = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)


def use_tree(path: Path, dice: random.Random) -> bool:
    """Open an exported tree and do with it whatever the tab Look inside does.

    Frames are decoded and one branch is drawn where `dice` says. Returns whether it was opened. An
    InputError is an answer only where the tab shows it: while opening, and for a branch of a
    picture that cannot be continued.
    """
    from demo.tabs.inside.frame_server import encode_frame, pack_maps
    from demo.tabs.inside.tree import describe_change, make_node
    from demo.tabs.inside.view import describe_picture
    from pipeline.errors import InputError
    from pipeline.introspection.branch import BranchRun, resolve_changes
    from pipeline.introspection.decoded_views import KINDS, decode_view, has_guidance
    from pipeline.introspection.recording import RecordingStore
    from pipeline.introspection.recording_file import open_tree, save
    from pipeline.introspection.word_maps import average_word_maps
    from pipeline.options import GenerateOptions

    try:
        recordings = open_tree(path)
    except InputError:
        return False
    RecordingStore().put(recordings)
    tree = {recording.key: make_node(recording) for recording in recordings}
    for recording in recordings:
        for language in ("en", "zh"):
            json.loads(describe_picture(recording, tree, language), parse_constant=_refuse)
            describe_change(tree[recording.key].change, language)
        for call in range(-1, len(recording.calls)):
            maps = [pack_maps(m) for m in average_word_maps(recording, call)]
            json.dumps(maps, allow_nan=False)
        for step in range(recording.sampler_start, recording.steps):
            recording.first_call(step)
            recording.replayed_answers(step, 5)
        resolve_changes(recording, {"cfg": 2.0, "noise_seed": 3})
        if tree[recording.key].lineage:
            GenerateOptions(**tree[recording.key].lineage[0])
    recording, models = dice.choice(recordings), tiny_models()
    if recording.model == (models.name, models.hash, models.vae_name):
        call = dice.choice(recording.calls)
        kinds = KINDS if has_guidance(call) else KINDS[:3]
        encode_frame(decode_view(models, call, dice.choice(kinds), recording.origin.prediction))
        if recording.origin.initial_state.start_step >= 0:
            step = dice.randrange(recording.sampler_start, recording.steps)
            list(BranchRun(models, recording, step, {"cfg": 2.0, "noise_seed": 3}))
    again = save(recordings, path.with_name("again.safetensors"))
    assert len(open_tree(again)) == len(recordings)
    return True


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def open_one(part: str, path: Path, dice: random.Random) -> bool:
    """Open a file as `part` does; return whether it was opened.

    An InputError is an answer, any other exception is a fault.
    """
    from pipeline.errors import InputError
    from pipeline.images.open import open_picture
    from pipeline.metadata.containers import read_texts
    from pipeline.model_files.safetensors_header import open_safetensors, read_header

    if part == "trees":
        return use_tree(path, dice)
    try:
        if part == "pictures":
            with contextlib.suppress(InputError):
                read_texts(path)
            open_picture(path)
        elif part == "headers":
            read_header(path)
        else:
            from safetensors.torch import load_file

            file, _ = open_safetensors(path)
            file.close()
            load_file(path)
    except InputError:
        return False
    return True


def work(part: str, seed: int, count: int, results: multiprocessing.Queue) -> None:
    """Open `count` mutated files; put (seed, opened, fault or None) into `results` for each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        path = Path(folder) / "file.safetensors"
        make = {"pictures": picture_seeds, "headers": weight_seeds, "loads": weight_seeds}
        seeds = (make | {"trees": tree_seeds})[part]()
        path.write_bytes(seeds[0])
        with contextlib.suppress(Exception):
            open_one(part, path, random.Random(0))  # imports what it needs
        for number in range(seed, seed + count):
            dice = random.Random(f"{part} {number}")
            hurt = mutate_tree if part == "trees" and dice.random() < 0.9 else mutate
            path.write_bytes(hurt(dice.choice(seeds), dice))
            before, began, opened, fault = _peak(), time.process_time(), False, None
            try:
                opened = open_one(part, path, dice)
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"[:200]
            if time.process_time() - began > SECONDS:
                fault = f"took {time.process_time() - began:.1f} s"
            elif _peak() - before > MEMORY:
                fault = f"took {(_peak() - before) / 1e6:.0f} MB"
            results.put((number, opened, fault))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(part: str, seed: int, count: int) -> tuple[int, list[str]]:
    """Open `count` mutated files of a part in worker processes.

    Returns how many of them were opened, the others having been refused, and a line for each fault.
    """
    import demo.tabs.inside.frame_server  # noqa: F401 - once for all workers, which are forked

    context = multiprocessing.get_context("fork")
    faults, done, whole = [], 0, 0
    while done < count:
        size = min(BATCH, count - done)
        results = context.Queue()
        worker = context.Process(target=work, args=(part, seed + done, size, results))
        worker.start()
        heard, waited = 0, time.monotonic()
        while heard < size:
            try:
                number, opened, fault = results.get(timeout=1)
            except Exception:
                if worker.is_alive() and time.monotonic() - waited < 30 * SECONDS:
                    continue
                how = "hangs" if worker.is_alive() else f"exit status {worker.exitcode}"
                faults.append(f"{part} {seed + done + heard}: {how}")
                worker.kill()
                heard += 1
                break
            heard, waited, whole = heard + 1, time.monotonic(), whole + opened
            if fault:
                faults.append(f"{part} {number}: {fault}")
        worker.join()
        done += heard
    return whole, faults


def main(words: list[str] | None = None) -> int:
    """Run all parts, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, action="append")
    args = parser.parse_args(words)
    print(f"seed {args.seed}\n| files | tried | opened | faults | seconds |\n|---|---|---|---|---|")
    failed = []
    for part in args.part or PARTS:
        began, count = time.monotonic(), max(1, int(args.count * PARTS[part]))
        whole, faults = run(part, args.seed, count)
        seconds = time.monotonic() - began
        row = (part, f"{count:,}", f"{whole:,}", len(faults), f"{seconds:.0f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        failed += faults
    print("\n".join(failed[:50]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
