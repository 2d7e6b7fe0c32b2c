"""Another version of Triton is found, installed beside the installed one, or refused in words."""

import os
import subprocess

import pytest

pytest.importorskip("triton")
from kernels import triton_versions as T

pytestmark = pytest.mark.quick


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A user's cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put_triton(folder, text='__version__ = "1.2.0"\n'):
    (folder / "triton").mkdir(parents=True)
    (folder / "triton" / "__init__.py").write_text(text)
    return folder


def fake_pip(monkeypatch, *, fails="", before=lambda: None):
    """Make pip install a Triton of one file, or fail with the text `fails`; return its calls."""
    calls = []

    def run(command, **_):
        calls.append(command)
        before()
        if fails:
            return subprocess.CompletedProcess(command, 1, "", fails)
        put_triton(command[command.index("--target") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(T.subprocess, "run", run)
    return calls


def test_the_oldest_version_is_the_bound_in_the_requirements(monkeypatch, tmp_path):
    text = T.REQUIREMENTS.read_text(encoding="utf-8")
    assert f"triton>={T.oldest()}" in text
    file = tmp_path / "requirements.txt"
    file.write_text(text.replace(f"triton>={T.oldest()}", "triton >= 4.10.1"))
    monkeypatch.setattr(T, "REQUIREMENTS", file)
    assert T.oldest() == "4.10.1"
    for broken in (lambda: file.write_text("triton\n"), file.unlink):
        broken()
        with pytest.raises(T.VersionError, match=r"has no line triton>=VERSION\.$"):
            T.oldest()


def test_the_installed_version_needs_no_folder(cache, monkeypatch):
    calls = fake_pip(monkeypatch)
    for name in ("newest", T.installed(), T.installed().removesuffix(".0")):
        assert T.find(name) is None
    assert not calls and not cache.exists()


def test_a_folder_is_used_as_it_is(tmp_path):
    folder = put_triton(tmp_path / "here")
    assert T.find(str(folder)) == folder
    assert T.version_in(folder) == "1.2.0"
    paths = T.environment(folder)["PYTHONPATH"].split(os.pathsep)
    assert paths[:2] == [str(folder), str(T.ROOT)]
    assert T.environment(None)["PYTHONPATH"].split(os.pathsep)[0] == str(T.ROOT)


def test_what_is_no_triton_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(T.VersionError, match=r"^The folder .* holds no Triton\.$"):
        T.find(str(tmp_path))
    for name in ("3.x", "", "no/where", "-r"):
        with pytest.raises(T.VersionError, match=r"neither a version of Triton, such as 3\.6"):
            T.find(name)
    broken = put_triton(tmp_path / "broken", "raise ImportError('no libtriton for 3.13')\n")
    with pytest.raises(T.VersionError, match=r"cannot be imported: .*no libtriton for 3\.13\.$"):
        T.version_in(broken)


def test_a_version_is_installed_once(cache, monkeypatch):
    calls = fake_pip(monkeypatch)
    folder = T.find("1.2")
    assert (folder / "triton" / "__init__.py").is_file() and cache in folder.parents
    assert {"--no-deps", "triton==1.2"} <= set(calls[0])
    assert T.find("1.2") == T.find("1.2.0") == folder and len(calls) == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no leftovers


def test_another_process_may_install_it_at_the_same_time(cache, monkeypatch):
    fake_pip(monkeypatch, before=lambda: put_triton(T.cache_folder("1.2")))
    assert (T.find("1.2") / "triton" / "__init__.py").is_file()


def test_why_it_cannot_be_installed_is_one_sentence(cache, monkeypatch):
    fails = "WARNING: retrying\nERROR: No matching distribution found for triton==1.2\n\n"
    fake_pip(monkeypatch, fails=fails)
    sentence = (
        r"^Triton 1\.2 cannot be installed: No matching distribution found for triton==1\.2\.$"
    )
    with pytest.raises(T.VersionError, match=sentence):
        T.find("1.2")
    assert not list(T.cache_folder("1.2").parent.iterdir())
    offline = "WARNING: Retrying (total=0) after connection broken by 'X'\nERROR: No distribution\n"
    fake_pip(monkeypatch, fails=offline)
    with pytest.raises(T.VersionError, match=r"installed: the package index cannot be reached\.$"):
        T.find("1.2")
    fake_pip(monkeypatch, fails="/usr/bin/python: No module named pip\n")
    with pytest.raises(T.VersionError, match=r"installed: /usr/bin/python: No module named pip\.$"):
        T.find("1.2")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    with pytest.raises(T.VersionError, match=r"^Triton 1\.2 cannot be installed: "):
        T.find("1.2")


def test_pip_itself_fails_in_a_sentence(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(T.VersionError, match=r"^Triton 1\.2 cannot be installed: [^\n]+\.$"):
        T.find("1.2")
