"""Read the files of one model, each at most once; of weights files only the header and the hash.

What was read is cached while the reader is open, so that every check sees the same bytes. Weights
files stay open until the reader is closed, so that header and hash are of the same file.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError, short
from .json_file import parse_json, read_small_file
from .safetensors_header import SafetensorsHeader, open_safetensors

BLOCK = 1 << 20  # bytes hashed at once
MAX_DIGESTS = 256  # SHA-256 that are cached


@dataclass(frozen=True)
class FileStamp:
    """The size in bytes, inode number and times of a file, to notice that it was changed."""

    size: int
    inode: int
    modified: int  # st_mtime_ns
    changed: int  # st_ctime_ns

    @classmethod
    def of(cls, state: os.stat_result) -> FileStamp:
        """Return the stamp (size, inode, times) of the file for which os.stat returned `state`."""
        return cls(state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A .safetensors file whose header was read and checked, and whose tensors are loaded later.

    stamp: size, inode and times of the file when its header was read, to notice a later change.
    """

    path: Path
    stamp: FileStamp
    header: SafetensorsHeader

    def check_unchanged(self) -> None:
        """Raise InputError where the file was changed or removed since its header was read."""
        try:
            same = FileStamp.of(os.stat(self.path)) == self.stamp
        except OSError:
            same = False
        if not same:
            raise InputError(f"{short(self.path)} was changed while it was loaded; try again.")


# From the paths and stamps of a network's files to their SHA-256, so that a second load of
# unchanged files hashes nothing.
_digests: dict[tuple[tuple[Path, FileStamp], ...], str] = {}


class FileReader:
    """Reads the files of one model, each once, so that every check sees the same bytes.

    Small files are cached as bytes and parsed JSON; of weights files only the header is read, and
    their bytes are hashed on request. Used as a context manager, which on exit closes the weights
    files.
    """

    def __init__(self) -> None:
        self._contents: dict[Path, bytes] = {}
        self._values: dict[Path, Any] = {}
        self._weights: dict[Path, tuple[WeightsFile, BinaryIO]] = {}

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *failure: object) -> None:
        for _, file in self._weights.values():
            file.close()
        self._weights.clear()

    def content(self, path: Path) -> bytes:
        """Return the bytes of a file; InputError for more than 16 MB or an unreadable file."""
        if path not in self._contents:
            self._contents[path] = read_small_file(path)
        return self._contents[path]

    def json(self, path: Path) -> Any:
        """Return the parsed JSON file `path`; InputError where it cannot be read or is damaged."""
        if path not in self._values:
            self._values[path] = parse_json(self.content(path), short(path), "")
        return self._values[path]

    def weights(self, path: Path) -> WeightsFile:
        """Return the .safetensors file `path` with its checked header; no tensor is read.

        The file stays open until the reader's context ends, for `sha256`. Raises InputError where
        it cannot be read, is damaged or of another format.
        """
        if path not in self._weights:
            file, header = open_safetensors(path)
            stamp = FileStamp.of(os.fstat(file.fileno()))
            self._weights[path] = WeightsFile(path, stamp, header), file
        return self._weights[path][0]

    def sha256(self, files: tuple[WeightsFile, ...]) -> str:
        """Return the SHA-256 (64 hex digits) of the concatenated bytes of weights files.

        files: as this reader's method `weights` returned them. Raises InputError where one was
        changed since. The process remembers the digests of up to 256 (MAX_DIGESTS) sets of
        unchanged files.
        """
        key = tuple((Path(os.path.abspath(f.path)), f.stamp) for f in files)
        if key not in _digests:
            digest = hashlib.sha256()
            for one in files:
                file = self._weights[one.path][1]
                file.seek(0)
                while block := file.read(BLOCK):
                    digest.update(block)
                if FileStamp.of(os.fstat(file.fileno())) != one.stamp:
                    raise InputError(
                        f"{short(one.path)} was changed while it was loaded; try again."
                    )
            while len(_digests) >= MAX_DIGESTS:
                _digests.pop(next(iter(_digests)), None)
            _digests[key] = digest.hexdigest()
        return _digests[key]
