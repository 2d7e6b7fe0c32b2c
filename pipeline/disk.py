"""Write files and folders whole or not at all, and say in one sentence why one cannot be written.

A file is written under a temporary name beside its place, `.NAME.part`, and then renamed, so that
its place holds the complete old file or the complete new one, whatever happens meanwhile: a full
disk, an exception, the end of the process.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError, short

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over the quota, over the size limit


def reason(error: Exception) -> str:
    """Return why writing failed, such as "No space left on device", on one line, no full stop.

    It is the operating system's message, also where another library has put it into its own.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number := re.search(r"\(os error (\d+)\)", text):  # of safetensors and tokenizers
        text = os.strerror(int(number[1]))
    return short(text).strip().rstrip(".")


def is_full(error: BaseException | None) -> bool:
    """Return whether an exception, or one that caused it, says that the disk has no room left."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if number in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explain_failure(path: Path, more: str = "") -> Iterator[None]:
    """Turn what writing raises in the `with` block into an InputError that names `path`.

    That is: OSError, safetensors' SafetensorError, and the plain Exception of tokenizers where the
    operating system's error is in its text. more: appended to the sentence.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        foreign = type(error).__name__ == "SafetensorError" or "(os error " in str(error)
        if not isinstance(error, OSError) and not foreign:
            raise
        raise InputError(f"Cannot write {short(path)}: {reason(error)}.{more}") from error


def write_file(
    path: str | Path, write: Callable[[Path], object], *, durable: bool = False, more: str = ""
) -> Path:
    """Write the file `path` whole or not at all, and return the path.

    write(part): writes a new file `part`, in the same folder. durable: flush it to the disk before
    it takes its place, so that it also survives the end of the machine. Raises InputError if it
    cannot be written, with `more` after the sentence; an old file at `path` then stays.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with explain_failure(path, more):
            write(part)
            if durable:
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(part, path)
    except BaseException:
        remove(part)
        raise
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` in UTF-8 to the file `path` whole or not at all, and return the path.

    Raises InputError if it cannot be written; an old file at `path` then stays.
    """
    return write_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_folder(folder: Path, write: Callable[[Path], object], *, keep: bool = False) -> Path:
    """Write a folder whole or not at all, and return its path.

    write(part): fills the new, empty folder `part`, beside `folder`. keep: files and folders of the
    old folder stay where `write` made none of the same name. Raises InputError if it cannot be
    written; the old folder then stays as it was.
    """
    part, old = (folder.with_name(f".{folder.name}.{ending}") for ending in ("part", "old"))
    restore_folder(folder)
    remove(part)
    try:
        with explain_failure(folder):
            part.mkdir(parents=True)
            write(part)
            if keep and folder.is_dir():
                for path in folder.iterdir():
                    if not (part / path.name).exists():
                        _copy(path, part / path.name)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
    except BaseException:
        restore_folder(folder)
        remove(part)
        raise
    remove(old)
    return folder


def restore_folder(folder: Path) -> None:
    """Put the old folder back in its place, where a process ended while `write_folder` renamed."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    remove(old)


def make_folder(folder: Path) -> Path:
    """Create `folder` and those above it unless it is there; raise InputError where that fails."""
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove(path: Path) -> None:
    """Delete a file or a folder with all in it; do nothing where it is missing or that fails."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copy2(path, to)
