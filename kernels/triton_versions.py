"""Find or install other versions of Triton, which `python -m kernels.compile --triton` runs.

A version lies in a folder of its own, where `pip install --no-deps --target` puts it, and is
imported by processes that have this folder first on PYTHONPATH. The installed Triton stays as it
is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The one place that says which Triton is the oldest supported.
REQUIREMENTS = ROOT / "requirements.txt"
VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*")
NAMES = ("oldest", "newest")  # the oldest supported version, the installed one


class VersionError(Exception):
    """A version of Triton cannot be used; the message says why in one sentence."""


def oldest() -> str:
    """Return the oldest version of Triton that the project supports, "3.6".

    It is the lower bound in requirements.txt. Raises VersionError if there is none.
    """
    try:
        text = REQUIREMENTS.read_text(encoding="utf-8")
    except OSError:
        text = ""
    bound = re.search(r"(?m)^triton\s*>=\s*([\d.]+)", text)
    if not bound:
        raise VersionError(f"{REQUIREMENTS} has no line triton>=VERSION.")
    return bound.group(1)


def installed() -> str:
    """Return the version of the Triton that this process imports."""
    import triton

    return triton.__version__


def shortest(version: str) -> str:
    """Return a version without zeros at its end: "3.6" for "3.6.0"."""
    return re.sub(r"(\.0)+$", "", version)


def cache_folder(version: str) -> Path:
    """Return the folder in the user's cache for a version of Triton and this Python."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    python = sys.implementation.cache_tag  # Triton's binaries fit one version of Python
    return Path(root) / "glassbox" / "triton" / f"{shortest(version)}-{python}"


def find(name: str) -> Path | None:
    """Return the folder of a Triton, or None for the installed one; install it where needed.

    name: "oldest", "newest", a version such as "3.6", or a folder that pip installed Triton into.
    Raises VersionError if it is none of these or cannot be installed.
    """
    if name == "newest":
        return None
    if name == "oldest":
        name = oldest()
    elif name and Path(name).is_dir():
        if not (Path(name) / "triton" / "__init__.py").is_file():
            raise VersionError(f"The folder {name} holds no Triton.")
        return Path(name).resolve()
    if not VERSION.fullmatch(name):
        raise VersionError(
            f"{name} is neither a version of Triton, such as 3.6, nor a folder that holds one."
        )
    return None if shortest(name) == shortest(installed()) else install(name)


def install(version: str) -> Path:
    """Return the folder of a version in the user's cache; install it there if it is missing.

    Raises VersionError if pip is missing or fails.
    """
    folder = cache_folder(version)
    if (folder / "triton" / "__init__.py").is_file():
        return folder
    command = [
        sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--quiet",
        "--no-input", "--disable-pip-version-check", "--retries", "1", f"triton=={version}",
    ]  # fmt: skip
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Installed beside its place and then renamed, so that a folder there is always whole.
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            whole = Path(place) / "whole"
            done = subprocess.run([*command, "--target", whole], capture_output=True, text=True)
            if done.returncode:
                raise VersionError(f"Triton {version} cannot be installed: {_reason(done.stderr)}")
            try:
                whole.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
    except OSError as error:
        raise VersionError(f"Triton {version} cannot be installed: {error}.") from None
    return folder


def _reason(output: str) -> str:
    """Return why a process failed, from its error output, as the end of a sentence."""
    if "after connection broken by" in output:  # pip goes on to say that there is no such version
        return "the package index cannot be reached."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "no reason is given"
    return reason.rstrip(".") + "."


def environment(folder: Path | None) -> dict[str, str]:
    """Return the environment of a process that imports the Triton in `folder`; None: installed."""
    paths = [str(folder)] if folder else []
    paths += [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def version_in(folder: Path) -> str:
    """Return the version of the Triton in `folder`; raise VersionError if it can't be imported."""
    done = subprocess.run(
        [sys.executable, "-c", "import triton; print(triton.__version__)"],
        capture_output=True, text=True, env=environment(folder),
    )  # fmt: skip
    if done.returncode:
        raise VersionError(f"The Triton in {folder} cannot be imported: {_reason(done.stderr)}")
    return done.stdout.split()[-1]
