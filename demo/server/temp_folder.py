"""The server's temporary folder: visitors' files and pictures, bounded in bytes and age.

There is one for each process, glassbox-server-* in the system's temporary folder (or in
GRADIO_TEMP_DIR, if that is set):

    files/   uploads and Gradio's copies of pictures, which browsers load from there
    work/    a folder for each request that is running
    .lock    locked as long as the process lives

It is deleted when the process ends. Where that was not possible (it was killed), the next server
deletes it.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted
    fcntl = None  # type: ignore[assignment]

PREFIX = "glassbox-server-"
VARIABLE = "GRADIO_TEMP_DIR"  # where Gradio puts uploads and copies
FILE_SECONDS = 3600  # a file is deleted so long after it was written or last given out
SWEEP_SECONDS = 30
log = logging.getLogger("glassbox")


class TempFolder:
    """A folder for the temporary files of this process, which deletes those of ended ones.

    parent: where it is made; None for GRADIO_TEMP_DIR, or else the system's temporary folder
    path: the folder. files, work: see the module
    """

    def __init__(self, parent: Path | None = None):
        parent = parent or _default_parent()
        parent.mkdir(parents=True, exist_ok=True)
        delete_abandoned(parent)
        self._process = os.getpid()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
        self.files, self.work = self.path / "files", self.path / "work"
        self._lock = _lock(self.path)
        self.make_folders()

    def make_folders(self) -> None:
        """Make `files` and `work` where they are missing, as where another program deleted them."""
        for folder in (self.files, self.work):
            folder.mkdir(parents=True, exist_ok=True)

    def delete(self) -> None:
        """Delete the folder with all that is in it; do nothing if it is gone.

        A fork of the process that made it does nothing either.
        """
        if os.getpid() != self._process:
            return
        for _ in range(3):  # a thread that still draws may write meanwhile
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)
            self._lock = None
            shutil.rmtree(self.path, ignore_errors=True)  # Windows keeps a file that is open

    def has(self, path: str) -> bool:
        """Return whether a file lies in the folder, or is one that does not belong to it."""
        return os.path.exists(path) or not Path(path).is_relative_to(self.path)

    def sweep(
        self, max_bytes: int = 0, kept: Iterable[str] = (), now: float | None = None
    ) -> list[Path]:
        """Delete files that are too old, then the oldest ones until `max_bytes` are left.

        Empty folders older than FILE_SECONDS are deleted too. max_bytes: 0 for no limit. kept:
        paths of files that stay. now: the time in seconds since 1970; None for the present. Returns
        the paths of the deleted files.
        """
        now = time.time() if now is None else now
        stay = {os.path.realpath(path) for path in kept}
        found, folders = [], []
        for folder, _, names in os.walk(self.files):
            folders.append(folder)
            for name in names:
                path = os.path.join(folder, name)
                with suppress(OSError):
                    state = os.lstat(path)
                    written = max(state.st_mtime, state.st_ctime)
                    if path not in stay:
                        found.append((written, state.st_size, path))
        found.sort()
        total, deleted = sum(size for _, size, _ in found), []
        for written, size, path in found:
            if now - written <= FILE_SECONDS and (not max_bytes or total <= max_bytes):
                break
            with suppress(OSError):
                os.unlink(path)
                deleted.append(Path(path))
            total -= size
        for folder in reversed(folders[1:]):  # the innermost first
            with suppress(OSError):
                if now - os.lstat(folder).st_mtime > FILE_SECONDS:
                    os.rmdir(folder)  # fails unless it is empty
        return deleted


def current() -> TempFolder:
    """Return the temporary folder of this process, which is made at the first call.

    GRADIO_TEMP_DIR is then set to its `files`, and it is deleted when the process ends.
    """
    global _current
    with _making:
        if _current is None:
            _current = TempFolder()
            atexit.register(_current.delete)
        _current.make_folders()
        os.environ[VARIABLE] = str(_current.files)
        return _current


_current: TempFolder | None = None
_making = threading.Lock()


@contextmanager
def request_folder() -> Iterator[str]:
    """Make a folder for one request, deleted when the `with` block ends; yield its path."""
    with tempfile.TemporaryDirectory(
        prefix="glassbox-", dir=current().work, ignore_cleanup_errors=True
    ) as folder:
        yield folder


def delete_abandoned(parent: Path) -> list[Path]:
    """Delete the temporary folders in `parent` whose processes have ended; return their paths.

    Those of other users stay.
    """
    deleted = []
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            state = os.lstat(path)
            own = not hasattr(os, "geteuid") or state.st_uid == os.geteuid()
            if path.is_symlink() or not path.is_dir() or not own or _is_locked(path):
                continue
            if not (path / ".lock").exists() and time.time() - state.st_mtime < SWEEP_SECONDS:
                continue  # another process is making it at this moment
            shutil.rmtree(path, ignore_errors=True)
            deleted.append(path)
    return deleted


def _default_parent() -> Path:
    """Return where the folder is made; never inside that of another server, which may end first."""
    given = os.environ.get(VARIABLE)
    parent = Path(given) if given else Path(tempfile.gettempdir())
    for folder in (parent, *parent.parents):
        if folder.name.startswith(PREFIX):
            return folder.parent
    return parent


def _lock(folder: Path) -> int | None:
    """Lock a new folder for this process; return the file descriptor that holds the lock."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _is_locked(folder: Path) -> bool:
    """Return whether the process that made a folder is alive."""
    path = folder / ".lock"
    if not path.exists():
        return False
    if fcntl is None:
        try:
            path.unlink()
        except OSError:
            return True
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
