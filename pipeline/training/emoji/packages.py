"""Download the npm packages with the training data, and read files in their archives.

`npm pack` writes one .tgz archive per package. The archives are never unpacked.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ...disk import explain_failure, make_folder

PACKAGES = {
    "emoji": "@lobehub/fluent-emoji-3d",
    "names": "cldr-annotations-full",
    "derived": "cldr-annotations-derived-full",
}


def fetch(folder: Path) -> None:
    """Download the training data, npm packages with the pictures and names of emoji, to `folder`.

    Uses `npm pack`, only for packages that are missing there. Raises RuntimeError if npm is not
    installed or fails, and InputError if the folder cannot be written.
    """
    missing = [name for name in PACKAGES.values() if not find_archives(folder, name)]
    if not missing:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"The training data is not in {folder} and npm is not installed: install Node.js, or "
            f"put the packages {', '.join(missing)} there and pass --data {folder}."
        )
    make_folder(folder)
    with explain_failure(folder), tempfile.TemporaryDirectory(dir=folder) as part:
        done = subprocess.run(
            [npm, "pack", "--silent", *missing], cwd=part, capture_output=True, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise RuntimeError(f"npm pack could not fetch {', '.join(missing)}: {reason}")
        for archive in Path(part).glob("*.tgz"):  # each is complete now
            archive.replace(folder / archive.name)


def find_archives(folder: Path, package: str) -> list[Path]:
    """Return the .tgz archives of the npm package `package` in `folder`, sorted by name."""
    stem = package.lstrip("@").replace("/", "-")
    return sorted(p for p in folder.glob(f"{stem}-*.tgz") if p.name[len(stem) + 1].isdigit())


class NpmPackage:
    """A downloaded npm package whose files are read without unpacking it; close it after use.

    package: its npm name; of several .tgz archives of it in `folder`, the last by name is read.
    `members` is a dict from each file's path in the package to its TarInfo. Raises RuntimeError if
    there is no archive.
    """

    def __init__(self, folder: Path, package: str):
        archives = find_archives(folder, package)
        if not archives:
            raise RuntimeError(f"{folder} has no archive of the npm package {package}.")
        self._tar = tarfile.open(archives[-1], "r:gz")  # noqa: SIM115 - closed in close()
        self.members = {
            m.name.removeprefix("package/"): m for m in self._tar.getmembers() if m.isfile()
        }

    def read(self, path: str) -> bytes:
        """Return the content of the file `path` in the package; KeyError if there is none."""
        file = self._tar.extractfile(self.members[path])
        assert file is not None  # `members` holds regular files alone
        return file.read()

    def close(self) -> None:
        """Close the package's archive file."""
        self._tar.close()


def strip_variation_selector(emoji: str) -> str:
    """Return `emoji` without U+FE0F, which some sources write after an emoji and others do not."""
    return emoji.replace("\ufe0f", "")
