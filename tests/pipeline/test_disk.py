"""Files and folders are written whole or not at all, and a sentence says why one is not."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pipeline import disk
from pipeline.__main__ import main
from pipeline.errors import InputError


def full(part: Path) -> None:
    """Write half a file, or a folder with half its files, on a disk that is then full."""
    if part.is_dir():
        (part / "first").write_text("new")
        part = part / "second"
    part.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = disk.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(InputError, match=r"^Cannot write .*a\.txt: No space left on device\.$"):
        disk.write_file(path, full)
    assert tree(tmp_path) == {"a.txt": "old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, ZeroDivisionError])
def test_whatever_ends_the_writing_nothing_half_written_stays(tmp_path, error):
    def write(part: Path) -> None:
        (part / "first" if part.is_dir() else part).write_bytes(b"half")
        raise error

    disk.write_folder(tmp_path / "model", lambda part: (part / "first").write_text("old"))
    for call, place in ((disk.write_file, "a.txt"), (disk.write_folder, "model")):
        with pytest.raises(error):
            call(tmp_path / place, write)
    assert tree(tmp_path) == {"model/first": "old"}


def test_a_folder_that_cannot_be_written_leaves_the_old_one(tmp_path):
    folder = tmp_path / "model"
    disk.write_folder(folder, lambda part: (part / "first").write_text("old"))
    (folder / "README.md").write_text("mine")
    with pytest.raises(InputError, match="No space left"):
        disk.write_folder(folder, full, keep=True)
    assert tree(tmp_path) == {"model/README.md": "mine", "model/first": "old"}
    disk.write_folder(folder, lambda part: (part / "first").write_text("new"), keep=True)
    assert tree(tmp_path) == {"model/README.md": "mine", "model/first": "new"}
    disk.write_folder(folder, lambda part: (part / "second").write_text("new"))
    assert tree(tmp_path) == {"model/second": "new"}


@pytest.mark.parametrize("at", [1, 2])
def test_a_process_that_ends_between_two_renames_leaves_the_old_folder(tmp_path, monkeypatch, at):
    folder = tmp_path / "model"
    disk.write_folder(folder, lambda part: (part / "first").write_text("old"))
    rename, calls = Path.rename, []

    def end_before(path, to):
        calls.append(path)
        if len(calls) == at:
            raise SystemExit
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", end_before)
    monkeypatch.setattr(disk, "restore_folder", lambda folder: None)  # a killed process runs none
    with pytest.raises(SystemExit):
        disk.write_folder(folder, lambda part: (part / "first").write_text("new"))
    monkeypatch.undo()
    disk.restore_folder(folder)
    assert tree(tmp_path) == {"model/first": "old"}


def test_other_libraries_say_the_systems_reason_too(tmp_path):
    with pytest.raises(SafetensorError) as caught:
        save_file({"a": torch.zeros(4)}, tmp_path / "none" / "x")
    assert disk.reason(caught.value) == "No such file or directory"
    room = SafetensorError("Error while serializing: I/O error: No room (os error 28)")
    assert disk.is_full(room) and disk.reason(room) == os.strerror(errno.ENOSPC)
    assert not disk.is_full(caught.value) and not disk.is_full(SafetensorError("HeaderTooLarge"))
    sentence = r"^Cannot write x: No such file or directory\. Stays\.$"
    with pytest.raises(InputError, match=sentence), disk.explain_failure(Path("x"), " Stays."):
        save_file({"a": torch.zeros(4)}, tmp_path / "none" / "x")


def test_an_error_of_the_program_is_not_taken_for_one_of_the_disk(tmp_path):
    with pytest.raises(RuntimeError, match=r"^a bug$"), disk.explain_failure(tmp_path):
        raise RuntimeError("a bug")


def test_the_command_line_says_that_the_disk_is_full(capsys, monkeypatch):
    from pipeline.cli import parser

    def run(args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/where")

    monkeypatch.setitem(parser.COMMANDS, "models", parser.Command(run, ""))
    assert main(["models"]) == 2
    assert capsys.readouterr().err == "Cannot write /some/where: No space left on device.\n"
