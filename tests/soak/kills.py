"""Kill trainings of every stage again and again, and see whether what they left is whole.

    python tests/soak/kills.py --count 500
    python tests/soak/kills.py --count 20 --stages vae lora --seed 7

Each training runs the real command in a process of its own that is ended by SIGKILL, a part of them
while a checkpoint is being written, and is resumed by the next one. After every kill each
checkpoint is read whole. When a training has reached its last step, its checkpoint and its files
are compared, bit by bit, with those of one that nobody has killed, and a new one begins. `export`
kills the command that replaces a model's folder.

Prints a table. Exit status: 0, or 1 where a file was unreadable or mixed, a resumed training ended
with other bits, a half-written file stayed, or of 50 and more kills fewer than a
fifth met a writing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.soak import trainings
from tests.soak.trainings import Trainings, fork, read, run_child

WRITING = 0.3  # share of the kills that are made to meet a writing; a fifth must
LONGEST = 120  # seconds after which a process that should end is taken for one that hangs


@dataclass
class Row:
    """What came of the kills of one stage; `faults` are sentences."""

    stage: str
    kills: int = 0
    writing: int = 0
    ended: int = 0  # trainings that reached their last step
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Kill trainings as the command line says; print a table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="kills of all stages together")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--steps", type=int, default=8, help="of a training, each saved")
    names = [*trainings.STAGES, "export"]
    parser.add_argument("--stages", nargs="+", choices=names, default=names)
    args = parser.parse_args(argv)
    print(f"seed {args.seed}", flush=True)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="glassbox-soak-") as place:
        setup = Trainings(Path(place))
        setup.prepare(args.stages)
        rows = []
        for i, stage in enumerate(args.stages):
            count = args.count * (i + 1) // len(args.stages) - args.count * i // len(args.stages)
            rows.append(Row(stage))
            begin = time.monotonic()
            if stage == "export":
                kill_export(setup, rows[-1], count, rng)
            else:
                kill_stage(setup, rows[-1], count, args.steps, rng)
            rows[-1].seconds = time.monotonic() - begin
            print_row(rows[-1])
    kills, writing = sum(r.kills for r in rows), sum(r.writing for r in rows)
    faults = [fault for row in rows for fault in row.faults]
    ended = sum(r.ended for r in rows)
    print(
        f"{kills} kills, {writing} of them while writing; {ended} trainings compared at their end;"
    )
    print(f"{len(faults)} faults")
    return 1 if faults or 5 * writing < kills >= 50 else 0


def print_row(row: Row) -> None:
    """Print what came of a stage, and each fault on a line of its own."""
    print(
        f"| {row.stage} | {row.kills} kills | {row.writing} while writing | {row.ended} ends | "
        f"{len(row.faults)} faults | {row.seconds:.0f} s |",
        flush=True,
    )
    for fault in row.faults:
        print(f"  {fault}", flush=True)


def kill_stage(setup: Trainings, row: Row, count: int, steps: int, rng: random.Random) -> None:
    """Kill trainings of `steps` steps `count` times, one after the other; note it in `row`."""
    stage, folder = row.stage, setup.folder / row.stage
    setup.start(stage, folder / "whole")
    begin = time.monotonic()
    if run_child(lambda: setup.train(stage, folder / "whole", steps), folder / "log.txt"):
        row.faults.append(f"The training that nobody kills failed: {tail(folder / 'log.txt')}")
        return
    duration = time.monotonic() - begin
    wanted, number = result(setup, stage, folder / "whole"), 0
    while row.kills < count and len(row.faults) < 5:
        number += 1
        run = folder / f"run{number}"
        setup.start(stage, run)
        step = 0
        while row.kills < count:
            child = fork(lambda r=run: setup.train(stage, r, steps), folder / "log.txt")
            while_writing = row.writing < WRITING * (row.kills + 1)
            moment = rng.uniform(0, duration)
            before = stamps(run)
            code = kill(child, run, moment, rng.random(), rng.randrange(4), while_writing)
            if code is not None:
                break
            row.kills += 1
            row.writing += not stamps(run).items() <= before.items()
            step = max(step, check(setup, stage, run, step, row.faults))
        else:
            code = run_child(lambda r=run: setup.train(stage, r, steps), folder / "log.txt")
        if code:
            row.faults.append(f"A resumed training failed with {code}: {tail(folder / 'log.txt')}")
        else:
            row.ended += 1
            if (made := result(setup, stage, run)) != wanted:
                other = [k for k in wanted if made.get(k) != wanted[k]]
                row.faults.append(f"Run {number} ended with other bits: {', '.join(other)[:200]}")
            if left := parts(run):
                row.faults.append(f"Half-written files stayed: {', '.join(map(str, left))}")
        shutil.rmtree(run)


def kill_export(setup: Trainings, row: Row, count: int, rng: random.Random) -> None:
    """Kill the command that writes a model's folder `count` times; note it in `row`.

    The folder must hold the model of one of two runs, whole, beside a file of the user's.
    """
    folder, model = setup.folder / "export", setup.folder / "export" / "model"
    runs, wanted = [], []
    begin = time.monotonic()
    for i in (0, 1):
        runs.append(folder / f"run{i}")
        setup.start("unet", runs[i])
        codes = [run_child(lambda r=runs[i], n=i: setup.train("unet", r, 1 + n))]
        codes.append(run_child(lambda r=runs[i]: setup.export(r, model), folder / "log.txt"))
        if any(codes):
            row.faults.append(f"The export that nobody kills failed: {tail(folder / 'log.txt')}")
            return
        (model / "NOTES.txt").write_text("mine")
        wanted.append(digest(model))
    duration = (time.monotonic() - begin) / 3
    for i in range(2 * count):
        if row.kills == count:
            break
        child = fork(lambda r=runs[i % 2]: setup.export(r, model), folder / "log.txt")
        moment, while_writing = rng.uniform(0, duration), row.writing < WRITING * (row.kills + 1)
        before = stamps(folder)
        code = kill(child, folder, moment, rng.random(), 0, while_writing)
        row.kills += code is None
        row.writing += code is None and not stamps(folder).items() <= before.items()
        old = folder / ".model.old"
        if not model.exists() and old.exists():  # as the next command that writes it does
            old.rename(model)
        if digest(model) not in wanted:
            row.faults.append(f"After kill {i} the model's folder is a mixture.")
            return
    code = run_child(lambda: setup.export(runs[0], model), folder / "log.txt")
    row.ended += 1
    if code or digest(model) != wanted[0] or parts(folder):
        row.faults.append(f"The last export, exit status {code}, did not write the model alone.")


def kill(
    child: int, folder: Path, seconds: float, share: float, skip: int, while_writing: bool
) -> int | None:
    """End a process by SIGKILL; return None, or its exit status where it ended by itself before.

    while_writing: wait until it writes a file in `folder`, with `skip` files let pass, then a
    moment of `share` (0 to 1) times 30 ms; else kill it after `seconds`.
    """
    begin, before, old = time.monotonic(), False, stamps(folder)
    while True:
        done = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        now = time.monotonic() - begin
        if done is not None or now > (LONGEST if while_writing else seconds):
            break
        if while_writing:
            writes = not stamps(folder).items() <= old.items()
            skip -= writes and not before
            before = writes
            if writes and skip < 0:
                time.sleep(0.03 * share)
                break
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)  # not waited for yet, so the id is still its own
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status == -signal.SIGKILL else status


def check(setup: Trainings, stage: str, run: Path, step: int, faults: list[str]) -> int:
    """Read all that a killed training has left; return the step of its newest checkpoint.

    Adds a sentence to `faults` for an unreadable file and where steps before `step` were lost.
    """
    newest = 0
    for path in sorted(run.rglob("*.safetensors")):
        if path.name.startswith("."):
            continue
        try:
            read(path)
        except Exception as error:
            faults.append(f"{path.relative_to(run)} cannot be read: {error}")
            continue
        if path.parent == setup.checkpoints(stage, run) and path.stem.startswith("checkpoint-"):
            newest = max(newest, int(path.stem.split("-")[1]))
    if newest < step:
        faults.append(f"The newest checkpoint was of step {step} before a kill, then of {newest}.")
    return newest


def result(setup: Trainings, stage: str, run: Path) -> dict[str, str]:
    """Return digests of a finished training by name: of its last checkpoint and its files."""
    last = max(setup.checkpoints(stage, run).glob("checkpoint-*.safetensors"))
    found = {name: hashlib.sha256(data).hexdigest() for name, data in read(last).items()}
    found["step"] = last.name
    for folder in (run / "vae" / "final", run / "models" / "lora", run / "class"):
        for path in sorted(folder.rglob("*")) if folder.exists() else ():
            if path.suffix == ".safetensors":  # the order of its metadata is random
                content = b"".join(value for _, value in sorted(read(path).items()))
            else:
                content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(run))] = hashlib.sha256(content).hexdigest()
    return found


def digest(folder: Path) -> str:
    """Return a digest of all files in `folder` but those that tell the time; "" without it."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        if path.is_file() and path.name not in ("training.json", "README.md"):
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest() if folder.exists() else ""


def parts(folder: Path) -> list[Path]:
    """Return the files and folders below `folder` that are half written."""
    return [
        Path(place, name).relative_to(folder)
        for place, folders, files in os.walk(folder)  # no error where something vanishes meanwhile
        for name in (*folders, *files)
        if name.startswith(".") and name.endswith(".part")
    ]


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return by path when what is half written below `folder` was begun and last changed."""
    found = {}
    for path in parts(folder):
        with contextlib.suppress(OSError):
            about = (folder / path).stat()
            found[path] = about.st_ino, about.st_mtime_ns
    return found


def tail(path: Path) -> str:
    """Return the end of a log."""
    return path.read_text(errors="replace")[-600:] if path.exists() else "no log"


if __name__ == "__main__":
    sys.exit(main())
