"""Plant faults in copies of this checkout and see whether the test suite finds them.

    python tests/soak/mutation.py
    python tests/soak/mutation.py --only stop_too_early
    python tests/soak/mutation.py --reserve

Each row of FAULTS changes one place of the code in the way a tired engineer would; a user or
another module notices each. They were chosen without looking at the tests. For each, the checkout's
files are copied to a temporary folder and changed there; then the tests that mirror the changed
file run, and, where these pass, the quick part of the suite. A fault is found if a test fails, then
fails again alone, and passes on an unchanged copy.

Prints for each fault the test that found it and the seconds. Exit status: 0 if the tests found at
least 90% of the faults, so 18 of 20; 1 if they did not; 2 for a fault that no longer applies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 3600  # seconds after which a run of the tests is ended
SHARE = 0.9  # of the faults that the tests must find
MAX_OTHERS = 5  # tests that fail for another reason than the fault, before it is given up


@dataclass(frozen=True)
class Fault:
    """A fault to plant in the code.

    file: path from the checkout's root. old: text that is in the file exactly once. new: what
    stands in its place. notice: what a user notices.
    """

    file: str
    old: str
    new: str
    notice: str


FAULTS = {
    "mask_of_padded_keys": Fault(
        "kernels/attention/forward.py",
        'b_s = tl.where(o_k[None, :] < Tk, b_s, -float("inf"))',
        'b_s = tl.where(o_k[None, :] <= Tk, b_s, -float("inf"))',
        "cross attention looks at a 78th key that does not exist: paler pictures",
    ),
    "count_of_last_tile": Fault(
        "kernels/group_norm/blocks.py",
        "spatial = tl.minimum(SB, S - (tile % spatial_blocks) * SB)",
        "spatial = tl.minimum(SB, S)",
        "wrong colours at sizes that the tiles of GroupNorm do not divide",
    ),
    "right_at_one_shape": Fault(
        "kernels/verdict.py",
        "if r.place == place and r.right and r.config not in failed",
        "if r.place == place and r.right",
        "a kernel that was wrong at one shape is used if it was right at another",
    ),
    "stale_context": Fault(
        "pipeline/denoising/denoiser.py",
        "same = len(contexts) == len(self._contexts) and all(",
        "same = len(contexts) == len(self._contexts) and any(",
        "[from:to:when] in the prompt changes nothing while the negative prompt stays the same",
    ),
    "noise_of_restart": Fault(
        "pipeline/samplers/restart.py",
        "x = x + (s**2 - reached**2) ** 0.5 * model.noise(x)",
        "x = x + (s - reached) * model.noise(x)",
        "the sampler Restart adds too little noise: other pictures than A1111's",
    ),
    "seed_of_variation": Fault(
        "pipeline/latents/noise.py",
        "return options.seed, options.variation_seed + image",
        "return options.seed, options.variation_seed",
        "all pictures of a batch of variations are the same",
    ),
    "tiling_stays_on": Fault(
        "pipeline/latents/vae.py",
        "    before = vae.use_tiling\n    vae.enable_tiling()\n",
        "    vae.enable_tiling()\n    before = vae.use_tiling\n",
        "after one large picture every picture is decoded in tiles, to other pixels than before",
    ),
    "share_of_steps": Fault(
        "pipeline/prompt/schedule.py",
        "return min(steps, max(0, int(number)))",
        "return min(steps, max(0, round(number)))",
        "[from:to:0.33] changes a step later than A1111's",
    ),
    "exif_orientation": Fault(
        "pipeline/images/open.py",
        '6: "ROTATE_270",',
        '6: "ROTATE_90",',
        "photos taken upright with a phone stand on their heads",
    ),
    "receipt_without_branches": Fault(
        "pipeline/metadata/receipt.py",
        'if key != "digest"}',
        'if key not in ("digest", "branches")}',
        "a receipt whose branches were edited counts as untouched",
    ),
    "answers_of_another_sampler": Fault(
        "pipeline/introspection/recording.py",
        "if self.sampler_start <= call.step < step]",
        "if call.step < step]",
        "a branch of a branch with another sampler goes on from a wrong step",
    ),
    "two_load_at_once": Fault(
        "pipeline/model_cache.py",
        "with self._loading:  #",
        "if True:  #",
        "two visitors who choose the same model load it twice at the same time",
    ),
    "trained_again": Fault(
        "pipeline/lora/adapters.py",
        "key = os.path.abspath(path), state.st_size, state.st_mtime_ns",
        "key = os.path.abspath(path), state.st_size",
        "a LoRA that was trained again, to a file of the same size, draws as before",
    ),
    "resume_without_optimizer": Fault(
        "pipeline/training/loop.py",
        'self.optimizer.load_state_dict({"state": state, "param_groups": groups})',
        'self.optimizer.load_state_dict({"state": {}, "param_groups": groups})',
        "a resumed training ends with other weights than an uninterrupted one",
    ),
    "forged_text": Fault(
        "pipeline/verify.py",
        "!= original.text or not texts_agree(",
        "!= original.text and not texts_agree(",
        "a picture whose text was changed to name another model counts as untouched",
    ),
    "stop_too_early": Fault(
        "demo/server/runs.py",
        "run = self._runs.get(key) or Run()\n            self._runs.put(key, run)\n"
        "            self._of_button",
        "run = Run()\n            self._runs.put(key, run)\n            self._of_button",
        "a Stop that reaches the server before the press it stops is ignored",
    ),
    "second_language": Fault(
        "demo/texts/__init__.py",
        'if wanted.strip().lower().startswith("zh") else',
        'if "zh" in wanted.lower() else',
        "visitors who prefer English and also read Chinese get Chinese sentences",
    ),
    "rescale_stays": Fault(
        "demo/workspace/fill_form.py",
        '"negative": "", "cfg_rescale": 0, "variation_strength": 0',
        '"negative": "", "variation_strength": 0',
        "a picture's settings keep the CFG rescale that was in the form before",
    ),
    "open_to_the_network": Fault(
        "demo/limits.py",
        "not ipaddress.ip_address(name).is_loopback",
        "not ipaddress.ip_address(name).is_private",
        "--host 0.0.0.0 counts as the owner's own machine: strangers have no limits",
    ),
    "level_of_each_call": Fault(
        "demo/tabs/arena/race_events.py",
        "if event.step > self.step:",
        "if event.step >= self.step:",
        "samplers with two calls a step have two noise levels for each step",
    ),
}
# Used in place of faults whose code is gone.
RESERVE = {
    "thin_strokes": Fault(
        "pipeline/images/masks.py",
        "return edges[:-1] // scaled, -(-edges[1:] // scaled)",
        "return edges[:-1] // scaled, edges[1:] // scaled",
        "a thin stroke of the mask is not repainted where the picture is drawn larger",
    ),
    "odd_chunks": Fault(
        "pipeline/metadata/containers.py",
        "file.seek(length + length % 2, 1)",
        "file.seek(length, 1)",
        "every other WebP file seems to have no parameters",
    ),
    "class_pictures": Fault(
        "pipeline/training/lora/data.py",
        "class_rows = own + torch.randint(",
        "class_rows = torch.randint(",
        "class pictures are not trained on: every dog becomes my dog",
    ),
    "reference_of_another_vae": Fault(
        "pipeline/introspection/arena.py",
        "str(models.path), models.vae_name, str(",
        "str(models.path), str(",
        "a race shows the reference picture that another autoencoder decoded",
    ),
    "aspect_of_masked_area": Fault(
        "pipeline/tasks/inpaint.py",
        "options.padding, options.width / options.height)",
        "options.padding, options.height / options.width)",
        "the painted part of wide pictures is drawn stretched",
    ),
}


class DoesNotApply(Exception):
    """Raised for a fault whose old text is not in its file exactly once."""


def plant(fault: Fault, root: Path) -> str:
    """Return the text of the fault's file in the checkout `root`, with the fault in it.

    Raises DoesNotApply if the old text is not there exactly once.
    """
    text = (root / fault.file).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise DoesNotApply(
            f"{fault.file} has {text.count(fault.old)} times the text {fault.old!r}; it must be"
            " there once: choose another place."
        )
    return text.replace(fault.old, fault.new)


def mirrored_tests(file: str, root: Path) -> str | None:
    """Return the test file or folder, from `root`, that mirrors a source file; None if none does.

    For a/b/c.py it is the first that exists of tests/a/b/test_c.py, tests/a/test_b.py and the
    folder tests/a/b. A package's own folder, such as tests/pipeline, counts as none.
    """
    path = Path(file)
    folder = path.parent
    names = folder / f"test_{path.stem}.py", folder.parent / f"test_{folder.name}.py"
    for name in names:
        if (root / "tests" / name).is_file():
            return f"tests/{name.as_posix()}"
    is_mirrored = len(path.parts) > 2 and (root / "tests" / folder).is_dir()
    return f"tests/{folder.as_posix()}" if is_mirrored else None


def copy_checkout(target: Path) -> None:
    """Copy the files of this checkout that git tracks to the folder `target`, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def run_tests(root: Path, *arguments: str) -> list[str]:
    """Run pytest in the checkout `root`, in one process; return the ids of the tests that failed.

    Raises RuntimeError if pytest did not come to run the tests, and for a run that takes longer
    than LIMIT.
    """
    # Without this script's own test, which fails wherever a fault is planted.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--cache-clear"]
    command += ["--ignore=tests/soak/test_mutation.py", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=root,
            # Without bytecode: a change within the same second and of the same length is seen.
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the servers and browsers of the tests end with it
        )
        try:
            status = process.wait(LIMIT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"the tests did not end in {LIMIT} s") from None
            raise
        output.seek(0)
        said = output.read()[-4000:]
    if status in (0, 5):  # 5: none was selected
        return []
    if status != 1:
        raise RuntimeError(f"pytest ended with status {status}:\n{said}")
    last = root / ".pytest_cache/v/cache/lastfailed"
    return [name for name in json.loads(last.read_text()) if "::" in name]


def find_fault(clean: Path, broken: Path, selected: tuple[str, ...]) -> str | None:
    """Return the id of a test that fails in the checkout `broken` and passes in `clean`, or None.

    selected: pytest's arguments that select the tests. A test that fails in both, or that fails in
    `broken` only once, as on a busy machine, is left out, and the others run again. Raises
    RuntimeError if pytest itself fails, or for more than MAX_OTHERS such tests.
    """
    others: list[str] = []
    for most in (1, MAX_OTHERS):
        left_out = (f"--deselect={name}" for name in others)
        failed = run_tests(broken, f"--maxfail={most}", *selected, *left_out)
        for name in failed:
            if run_tests(broken, name) and not run_tests(clean, name):
                return name
        if len(failed) < most:
            return None
        others += failed
    raise RuntimeError(f"these do not fail for the fault: {', '.join(others)}")


def check(names: Iterable[str], quick: bool = True) -> dict[str, str | None]:
    """Plant the faults one after the other; return by name the test that found it, None for none.

    quick: whether the quick part of the suite runs if the mirrored tests pass. Prints a line for
    each fault. Raises DoesNotApply before anything runs, if a fault's old text is not there once.
    """
    table = FAULTS | RESERVE
    found: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory(prefix="glassbox-mutation-") as folder:
        clean, broken = Path(folder) / "clean", Path(folder) / "broken"
        copy_checkout(clean)
        shutil.copytree(clean, broken)
        changed = {name: plant(table[name], clean) for name in names}
        for name, text in changed.items():
            fault, began = table[name], time.monotonic()
            (broken / fault.file).write_text(text, encoding="utf-8")
            mirrored = mirrored_tests(fault.file, broken)
            places = [(mirrored,)] if mirrored else []
            places += [()] if quick else []
            problem = ""
            try:
                found[name] = next(
                    (test for place in places if (test := find_fault(clean, broken, place))), None
                )
            except RuntimeError as error:
                found[name], problem = None, f": {error}"
            shutil.copy2(clean / fault.file, broken / fault.file)
            seconds = time.monotonic() - began
            print(f"{name:28} {seconds:6.0f} s  {found[name] or 'NOT FOUND'}{problem}", flush=True)
    return found


def main() -> int:
    """Plant the faults, print which test finds each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", action="append", choices=[*FAULTS, *RESERVE], metavar="NAME")
    parser.add_argument("--count", type=int, help="only so many faults, the first of the table")
    parser.add_argument("--reserve", action="store_true", help="the faults in reserve, too")
    args = parser.parse_args()
    names = args.only or [*FAULTS, *(RESERVE if args.reserve else ())][: args.count]
    try:
        found = check(names)
    except DoesNotApply as error:
        print(error, file=sys.stderr)
        return 2
    missed = [name for name, test in found.items() if test is None]
    print(f"\nThe tests found {len(found) - len(missed)} of {len(found)} planted faults.")
    for name in missed:
        fault = (FAULTS | RESERVE)[name]
        print(f"Not found: {name} in {fault.file}: {fault.notice}.")
    return 0 if len(missed) <= (1 - SHARE) * len(found) + 1e-9 else 1


if __name__ == "__main__":
    sys.exit(main())
