"""Read the files of one model, each at most once: JSON files whole, weights files header and hash.

What was read is kept while the reader is open, so that every check sees the same bytes. Weights
files stay open until the reader is closed: the hash goes on where the header ended.
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
MAX_DIGESTS = 256


@dataclass(frozen=True)
class FileStamp:
    """What tells one state of a file from the next: size, inode and times in nanoseconds."""

    size: int
    inode: int
    modified: int
    changed: int

    @classmethod
    def of(cls, state: os.stat_result) -> FileStamp:
        """Return the stamp of a file whose `os.stat` is `state`."""
        return cls(state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A safetensors file whose header has been checked, and the state it was in."""

    path: Path
    stamp: FileStamp
    header: SafetensorsHeader

    def check_unchanged(self) -> None:
        """Raise InputError where the file is no longer the one whose header was read."""
        try:
            same = FileStamp.of(os.stat(self.path)) == self.stamp
        except OSError:
            same = False
        if not same:
            raise InputError(f"{short(self.path)} was changed while it was loaded; try again.")


# SHA-256 by the files' paths and stamps: a second load of the same files hashes nothing.
_digests: dict[tuple[tuple[Path, FileStamp], ...], str] = {}


class FileReader:
    """Reads each file of a model once. A context manager: it closes the weights files."""

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
        """Return the bytes of a small file; InputError for more than 16 MB."""
        if path not in self._contents:
            self._contents[path] = read_small_file(path)
        return self._contents[path]

    def json(self, path: Path) -> Any:
        """Return the value of a JSON file; InputError where it is damaged."""
        if path not in self._values:
            self._values[path] = parse_json(self.content(path), short(path), "")
        return self._values[path]

    def weights(self, path: Path) -> WeightsFile:
        """Return the weights file `path` with its header; InputError where that is damaged."""
        if path not in self._weights:
            file, header = open_safetensors(path)
            stamp = FileStamp.of(os.fstat(file.fileno()))
            self._weights[path] = WeightsFile(path, stamp, header), file
        return self._weights[path][0]

    def sha256(self, files: tuple[WeightsFile, ...]) -> str:
        """Return the SHA-256 of the files' bytes, one after the other, in hex digits."""
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
