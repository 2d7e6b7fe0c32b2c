"""A few commands on a full disk: the short form of disk.py."""

import subprocess
import sys

import pytest

from tests.soak import disk

pytestmark = pytest.mark.training


def can_mount() -> bool:
    """Return whether this process may mount a small file system, in a namespace of its own."""
    try:
        argv = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(argv, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
def test_a_full_disk_gets_a_sentence_and_leaves_nothing_half_written():
    if not can_mount():
        pytest.skip("this process may not mount a small file system")
    argv = ["unshare", "-rm", sys.executable, disk.__file__, "--parts", "commands", "--count", "9"]
    argv += ["--only", "generate .png", "train vae", "export a tree"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "9 trials, 0 faults" in done.stdout


@pytest.mark.quick
def test_what_is_called_a_fault(tmp_path):
    for name in ("a.png", "model/b.txt", "model/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    old = disk.contents(tmp_path)
    new = dict.fromkeys(old, "new")
    assert disk.damage(tmp_path, old, new) == [] == disk.damage(tmp_path, new, old)
    mixed = old | {"model/b.txt": "new"}
    assert "mixture" in disk.damage(tmp_path, mixed, new | {"model/b.txt": old["model/b.txt"]})[-1]
    (tmp_path / "a.png").write_text("half")
    (tmp_path / ".d.part").touch()
    assert disk.damage(tmp_path, old, new) == [
        ".d.part is half written",
        "a.png is neither the old nor the new file",
    ]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Cannot write /a/b.png: No space left on device.", True),
        ("Cannot write /a/b: No space left on device. x stays: make room and resume.", True),
        ("OSError: [Errno 28] No space left on device", False),
        ("Cannot write /a/b.png: Permission denied.", False),
    ],
)
def test_which_line_is_a_sentence(line, says):
    assert bool(disk.SENTENCE.match(line)) == says
    assert bool(disk.PATH.search(line)) == ("/a/b" in line)
