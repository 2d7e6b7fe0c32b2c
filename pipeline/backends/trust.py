"""Whether this project's kernels may run on a GPU, and the checks that find it out.

On a GPU our kernels run only where `kernels.verdict` says that they were right there. Where nothing
is known yet, `python -m kernels.check --quick` finds out, always in a process of its own, because a
wrong kernel can take its process down:

- a server draws with PyTorch's backends and runs the check in the background (`check_in_background`
  is True); a later request may then use our kernels
- a single command draws with PyTorch's backends and says how to run the check
- a request that names our backend waits for the check
- on ZeroGPU, where requests run in forks, only verdicts that are shipped count
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from .failures import ON_ZERO_GPU

log = logging.getLogger(__name__)
LIMIT = 600.0  # seconds after which a check is ended
check_in_background = False  # set by a server
_lock = threading.Lock()
_checks: dict[tuple[str, str], Check] = {}  # by device and dtype
_said: set[str] = set()


@dataclass
class Check:
    """A run of `python -m kernels.check` in a process of its own; `done` is set when it has ended.

    problem: in one sentence why it gave no results, or None.
    """

    done: threading.Event
    problem: str | None = None


def problem(device: torch.device, places: Iterable[str]) -> str | None:
    """Return in one sentence why our kernels must not run on `device`, or None if they may.

    places: names of the kernels that are needed, such as "attention/forward/d40/float16"; each must
    be one that `python -m kernels.check` found right on this GPU. None for devices that are no GPU.
    The caller has made sure that triton can be imported.
    """
    if device.type != "cuda":
        return None
    from kernels import verdict

    return verdict.problem(device, places)


def is_unchecked(reason: str | None) -> bool:
    """Return whether `reason` says that a backend cannot run as its kernels were never checked.

    reason: the sentence that explains why the backend cannot run; None if it can. If it
    says so, `python -m kernels.check` on this GPU may make the backend available.
    """
    if reason is None:
        return False
    try:
        from kernels import verdict
    except ImportError:
        return False
    return verdict.is_unchecked(reason)


def command(device: torch.device, dtype: torch.dtype, heads: Iterable[int]) -> list[str]:
    """Return the command that checks our kernels as far as drawing on `device` in `dtype` needs it.

    It is `python -m kernels.check --quick` with options. heads: the head sizes of the UNet's
    attention.
    """
    out = [sys.executable, "-m", "kernels.check", "--quick", "--device", str(device)]
    out += ["--dtype", str(dtype).removeprefix("torch.")]
    for head_size in sorted(heads):
        out += ["--head-size", str(head_size)]
    return out


def run_check(
    device: torch.device,
    dtype: torch.dtype,
    heads: Iterable[int],
    progress: Callable[[int], None] = lambda cases: None,
) -> str | None:
    """Check our kernels on `device` in a process of its own and wait for it.

    There is one check for each device and dtype; a second call waits for the first or returns what
    it gave. heads: the head sizes of the UNet's attention. progress: called with the number of
    cases done. Returns None if there are results now, else one sentence that says why not; a check
    that takes longer than ten minutes is ended.
    """
    key = str(device), str(dtype)
    with _lock:
        check = _checks.get(key)
        if mine := check is None:
            check = _checks[key] = Check(threading.Event())
    assert check
    if not mine:
        check.done.wait(LIMIT + 60)
        return check.problem
    try:
        check.problem = _run(command(device, dtype, heads), progress)
    finally:
        from kernels import verdict

        verdict.forget()
        check.done.set()
    return check.problem


def _run(argv: list[str], progress: Callable[[int], None]) -> str | None:
    """Run a check of our kernels as a command; return None if it ended with results, else why not.

    argv: the command. progress: called with the number of cases done. The command is ended after
    ten minutes.
    """
    import kernels

    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    try:
        process = subprocess.Popen(
            argv, cwd=Path(kernels.__file__).parents[1], env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        return f"the check of our kernels can't be started: {error}."
    ended = threading.Timer(LIMIT, process.kill)
    ended.start()
    lines: list[str] = []
    assert process.stdout
    with process:
        for line in process.stdout:
            lines.append(line.strip())
            progress(max(0, len(lines) - 2))  # after the seed and the heading
    ended.cancel()
    if process.returncode in (0, 1):  # 1: something was wrong, which the verdict says
        return None
    if process.returncode < 0:
        return f"the check of our kernels took more than {LIMIT:g} s, or was ended."
    return f"the check of our kernels failed: {lines[-1] if lines else 'it printed nothing'}"


def state(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return the state of our kernels on a GPU: "checked", "checking", "failed" or "unchecked".

    "checked": results for `dtype` are known, right or wrong. "failed": the check itself gave no
    results. None for a device that is no GPU and where triton is not installed.
    """
    try:
        from kernels import verdict
    except ImportError:
        return None
    if device.type != "cuda":
        return None

    check = _checks.get((str(device), str(dtype)))
    if check and not check.done.is_set():
        return "checking"
    name = str(dtype).removeprefix("torch.")
    if not verdict.is_unchecked(verdict.problem(device, [f"*/{name}"])):
        return "checked"  # what failed is refused by name
    return "failed" if check and check.problem else "unchecked"


STATES = {
    "checked": "checked on this GPU",
    "checking": "being checked on this GPU now; PyTorch's are used until then",
    "failed": "not checked on this GPU, because the check itself failed; PyTorch's are used",
    "unchecked": "not checked on this GPU yet; PyTorch's are used until then",
}


def notice(device: torch.device, dtype: torch.dtype, heads: Iterable[int]) -> None:
    """Start or suggest a check of our kernels, which "auto" cannot choose before they are checked.

    Called for a request when one of our backends was left out for this reason. A server starts the
    check in the background, once for each device and dtype; a command prints how to run it. On
    ZeroGPU nothing is done. heads: the head sizes of the UNet's attention.
    """
    if ON_ZERO_GPU:
        return
    if not check_in_background:
        if str(device) not in _said:
            _said.add(str(device))
            name = torch.cuda.get_device_name(device)
            print(
                f"Drawing with PyTorch's kernels: ours were not checked on this {name} yet. "
                "`python -m kernels.check --quick` does it.",
                file=sys.stderr,
            )
        return
    if (str(device), str(dtype)) in _checks:
        return

    def work() -> None:
        log.info("Checking our kernels on %s in the background.", device)
        if reason := run_check(device, dtype, heads):
            log.warning("Our kernels are not used on %s: %s", device, reason)

    threading.Thread(target=work, name="kernels.check", daemon=True).start()


def check_by_name(device: torch.device, dtype: torch.dtype, heads: Iterable[int]) -> str | None:
    """Check our kernels for a request that names them as its backend; show a line of progress.

    heads: the head sizes of the UNet's attention. Returns None if there are results now, else one
    sentence that says why not.
    """
    if ON_ZERO_GPU:
        return "our kernels were not checked on this GPU."
    live = sys.stderr.isatty()
    start = f"Checking our kernels on {torch.cuda.get_device_name(device)}, once"
    print(start, end="" if live else "\n", file=sys.stderr, flush=True)

    def progress(cases: int) -> None:
        if live:
            print(f"\r{start}: {cases} cases", end="", file=sys.stderr, flush=True)

    reason = run_check(device, dtype, heads, progress)
    if live:
        print(file=sys.stderr)
    return reason
