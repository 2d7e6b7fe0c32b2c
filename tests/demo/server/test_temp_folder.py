"""The server's temporary folder: what is deleted when, and what stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.server import temp_folder
from demo.server.temp_folder import FILE_SECONDS, PREFIX, TempFolder

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    made = TempFolder(tmp_path)
    yield made
    made.delete()


def write(folder, name, size=10, age=0.0):
    """Write a file into `files`, as old as that by its time of writing."""
    path = folder.files / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_old_files_go_and_then_their_empty_folders(folder):
    old, kept = write(folder, "a/b/old.png"), write(folder, "c/kept.png")
    work = folder.work / "glassbox-x"
    work.mkdir()
    now = time.time()
    assert folder.sweep(kept=[str(kept)], now=now + FILE_SECONDS - 60) == []
    assert folder.sweep(kept=[str(kept)], now=now + FILE_SECONDS + 60) == [old]
    folder.sweep(kept=[str(kept)], now=now + 3 * FILE_SECONDS)
    assert [p.name for p in folder.files.iterdir()] == ["c"] and kept.exists()
    assert work.exists()  # a request that runs deletes its own


def test_a_folder_that_was_just_made_stays_although_it_is_empty(folder):
    (folder.files / "new").mkdir()
    folder.sweep()
    assert (folder.files / "new").is_dir()


def test_the_oldest_files_go_where_there_are_too_many_bytes(folder):
    paths = []
    for name in ("1", "2", "3"):
        paths.append(write(folder, f"{name}/x.png", 100))
        time.sleep(0.01)
    assert folder.sweep(max_bytes=250) == paths[:1]
    assert folder.sweep(max_bytes=0) == []
    assert folder.sweep(max_bytes=99) == paths[1:]


def test_a_link_is_deleted_and_what_it_points_to_stays(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (folder.files / "link").symlink_to(tmp_path / "mine.txt")
    folder.sweep(now=time.time() + 2 * FILE_SECONDS)
    assert not (folder.files / "link").is_symlink() and (tmp_path / "mine.txt").exists()


MAKE = (
    "import sys, time; from pathlib import Path; from demo.server.temp_folder import TempFolder;"
    "made = TempFolder(Path(sys.argv[1])); (made.files / 'x.png').write_bytes(b'x');"
    "print(made.path, flush=True); time.sleep(60)"
)


def test_a_killed_server_leaves_nothing_to_the_next_one(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        path = Path(other.stdout.readline().strip())
        (tmp_path / f"{PREFIX}not-a-folder").write_text("")
        assert temp_folder.delete_abandoned(tmp_path) == []  # its process is alive
        assert (path / "files" / "x.png").exists()
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    made = TempFolder(tmp_path)
    assert not path.exists() and made.path.exists()
    made.delete()


def test_a_server_started_by_another_does_not_lie_in_its_folder(folder, monkeypatch):
    monkeypatch.setenv(temp_folder.VARIABLE, str(folder.files))
    inner = TempFolder()
    assert inner.path.parent == folder.path.parent
    inner.delete()


def test_a_request_folder_is_gone_after_an_error(monkeypatch):
    with pytest.raises(RuntimeError), temp_folder.request_folder() as path:
        (Path(path) / "x.png").write_bytes(b"x")
        raise RuntimeError
    assert not os.path.exists(path)
    assert Path(path).parent == temp_folder.current().work
