"""The planted faults of mutation.py still apply, and what it says of the tests is true."""

import shutil
from pathlib import Path

import pytest

from tests.soak import mutation

TABLE = mutation.FAULTS | mutation.RESERVE
CHEAP = "open_to_the_network"  # its tests take a second


@pytest.mark.parametrize("name", TABLE)
def test_a_fault_applies(name):
    fault = TABLE[name]
    changed = mutation.plant(fault, mutation.ROOT)
    assert changed != (mutation.ROOT / fault.file).read_text(encoding="utf-8")
    compile(changed, fault.file, "exec")


def test_each_fault_is_in_another_file():
    assert len({fault.file for fault in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize("there", ["", "if a:\n    pass\n" * 2])
def test_a_fault_whose_place_is_gone_or_not_the_only_one_is_named(tmp_path, there):
    (tmp_path / "a.py").write_text(there)
    with pytest.raises(mutation.DoesNotApply, match=r"a\.py has [02] times"):
        mutation.plant(mutation.Fault("a.py", "if a:", "if b:", ""), tmp_path)


def test_the_mirrored_tests_are_a_file_or_a_folder(tmp_path):
    for name in ("a/b/test_c.py", "a/test_d.py", "a/e/test_other.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    expected = {
        "a/b/c.py": "tests/a/b/test_c.py",
        "a/d/x.py": "tests/a/test_d.py",
        "a/e/x.py": "tests/a/e",
        "a/x.py": None,  # not the whole of tests/a
    }
    assert {file: mutation.mirrored_tests(file, tmp_path) for file in expected} == expected


@pytest.fixture
def fail(monkeypatch):
    """Return a function that sets which tests fail in the checkouts Path("clean") and "broken"."""

    def set_failing(**failing: list[str]) -> None:
        def run_tests(root, *arguments):
            left_out = [a.removeprefix("--deselect=") for a in arguments if a.startswith("--")]
            named = [a for a in arguments if "::" in a and not a.startswith("--")]
            left = [t for t in failing[root.name] if t not in left_out]
            most = next((int(a[10:]) for a in arguments if a.startswith("--maxfail=")), None)
            return [t for t in left if not named or t in named][:most]

        monkeypatch.setattr(mutation, "run_tests", run_tests)

    return set_failing


def find_fault() -> str | None:
    return mutation.find_fault(Path("clean"), Path("broken"), ("tests/a",))


def test_a_test_that_fails_without_the_fault_does_not_find_it(fail):
    fail(clean=["a.py::one"], broken=["a.py::one", "a.py::two"])
    assert find_fault() == "a.py::two"


def test_a_test_that_fails_once_does_not_find_it(monkeypatch):
    failing = iter([["a.py::one"], [], []])  # with others, alone, and when it is left out
    monkeypatch.setattr(mutation, "run_tests", lambda *_: next(failing))
    assert find_fault() is None


def test_a_fault_that_no_test_finds_is_not_found(fail):
    fail(clean=["a.py::one"], broken=["a.py::one"])
    assert find_fault() is None


def test_a_suite_that_fails_anyway_finds_nothing(fail):
    tests = [f"a.py::test_{i}" for i in range(20)]
    fail(clean=tests, broken=tests)
    with pytest.raises(RuntimeError, match="do not fail for the fault"):
        find_fault()


def test_tests_that_cannot_be_collected_find_nothing(tmp_path):
    (tmp_path / "test_it.py").write_text("import no_such_module\n")
    shutil.copy(mutation.ROOT / "pyproject.toml", tmp_path)
    with pytest.raises(RuntimeError, match="no_such_module"):
        mutation.run_tests(tmp_path, "test_it.py")


@pytest.mark.slow
@pytest.mark.skipif(not (mutation.ROOT / ".git").exists(), reason="this is no git checkout")
def test_a_planted_fault_is_found(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mutation.py", "--only", CHEAP])
    assert mutation.main() == 0
    output = capsys.readouterr().out
    assert "tests/demo/test_limits.py::" in output and "found 1 of 1 planted" in output
