"""Every kernel compiles for GPUs that are not here, with the oldest and the newest Triton."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

pytest.importorskip("triton")
from kernels import compile as C
from kernels import triton_versions
from kernels.compile_report import Row
from kernels.launch import INTERPRETED

linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux only.")


def run(*argv, code=("-m", "kernels.compile")):
    """In a process of its own: the tests' process interprets kernels."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *code, *argv], capture_output=True, text=True, env=environment, timeout=900
    )


@linux
@pytest.mark.parametrize("name", list(C.CI))
def test_default_configurations_pass_the_gate(name):
    try:
        triton_versions.find(name)
    except triton_versions.VersionError as error:
        pytest.skip(f"no oldest Triton: {error}")
    done = run("--ci", "--triton", name)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    version = triton_versions.oldest() if name == "oldest" else triton_versions.installed()
    assert done.stdout.startswith(f"Triton {version}")
    for target in C.CI[name]:
        table = [x for x in done.stdout.splitlines() if f" | fp16 | {target} | " in x]
        assert {x.split(" | ")[0][2:] for x in table} == {
            "forward_kernel", "delta_kernel", "dkv_kernel", "dq_kernel", "word_kernel",
            "fused_fwd_kernel", "partials_kernel", "merge_kernel", "apply_kernel",
            "bwd_partials_kernel", "bwd_merge_kernel", "dx_kernel",
        }  # fmt: skip
        for layout in ("NCHW", "NHWC"):
            assert any("| dx_kernel |" in x and layout in x for x in table)
        unit = "HGMMA" if target == "sm_90" else "HMMA"
        flash = [x for x in table if x.startswith("| forward_kernel") and "4096x4096" in x]
        assert flash and all(re.search(rf"\d+ {unit}", x) for x in flash)


@linux
def test_amd_and_bf16_compile():
    targets = "--target", "gfx942", "--target", "sm_80"
    done = run(*targets, "--dtype", "bf16", "--only", "word_attention SD 1.5 64x77", "--jobs", "1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for target, unit in (("gfx942", "v_mfma"), ("sm_80", "HMMA")):
        assert re.search(rf"word_kernel .* bf16 \| {target} .* \d+ {unit}", done.stdout)


PLAN = """
import json
from kernels import compile as C
groups = [(target, dtype) for target in ("sm_90", "sm_75") for dtype in C.DTYPES]
tasks = C.plan(["sm_90", "sm_75"], list(C.DTYPES), "attention")
print(json.dumps([
    [sum((task.target, task.dtype) == group for task in tasks) for group in groups],
    sum("attention" in case.op for case, _ in C.launches("fp16")),
    len({row.kernel + row.shape for row in (task.row() for task in tasks)}),
    sorted({task.row().op for task in tasks}),
]))
"""


@linux
def test_launches_that_are_the_same_are_compiled_once():
    counts, launches, pairs, ops = json.loads(run(code=("-c", PLAN)).stdout)
    assert counts[0] == counts[1] == counts[3] > 40 and counts[2] == counts[5] > 40
    assert counts[4] == 0  # sm_75 has no bf16
    assert counts[0] < launches and pairs <= launches
    assert ops == ["attention", "word_attention"]


ROW = Row("attention", "forward_kernel", "s", "fp16", "sm_90", matrix="8 HGMMA")


@pytest.fixture
def compiling(monkeypatch):
    """Pretend that kernels are not interpreted, and compile nothing; return what was asked for."""
    asked = []

    def compile_all(targets, dtypes, only="", jobs=1):
        asked.append((tuple(targets), tuple(dtypes), only, jobs))
        yield from rows

    rows = [replace(ROW)]
    monkeypatch.setattr(C, "INTERPRETED", False)
    monkeypatch.setattr(C, "compile_all", compile_all)
    return asked, rows


@pytest.mark.quick
def test_the_exit_code_says_whether_a_kernel_failed(compiling, capsys, tmp_path):
    asked, rows = compiling
    assert C.main(["--ci", "--triton", "newest", "--jobs", "3"]) == 0
    assert asked == [(("sm_90", "sm_120"), ("fp16",), "", 3)]
    # that it does not compile fails always; a spill only where it is gated
    free = replace(ROW, dtype="fp32", mode="backward", target="sm_75")
    for bad, code in (
        (replace(free, error="does not compile: x"), 1),
        (replace(free, spilled=8), 0),
        (replace(ROW, spilled=8), 1),
    ):
        rows[:] = [replace(ROW), bad]
        file = tmp_path / "rows.json"
        assert C.main(["--target", "sm_90", "--rows", str(file)]) == code
        assert [Row(**fields) for fields in json.loads(file.read_text())] == rows
    assert C.main(["--report", str(tmp_path / "report.md")]) == 1
    assert "## Remarked on" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("2 kernels compiled, 1 of those") == 1


@pytest.mark.quick
def test_another_triton_runs_in_a_process_of_its_own(compiling, monkeypatch, tmp_path, capfd):
    folder = tmp_path / "other"
    (folder / "triton").mkdir(parents=True)
    (folder / "triton" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    seen = []

    def child(command, env, **_):
        if "-m" not in command:
            return subprocess.CompletedProcess(command, 0, "1.2.0\n", "")
        seen.append((command, env["PYTHONPATH"]))
        path = command[command.index("--rows") + 1]
        with open(path, "w") as file:
            json.dump([asdict(replace(ROW, triton="1.2.0", unwritten=2))], file)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(C.subprocess, "run", child)
    report = tmp_path / "report.md"
    argv = ["--triton", str(folder), "--triton", "newest", "--target", "sm_90", "--only", "d40"]
    assert C.main([*argv, "--dtype", "fp16", "--jobs", "2", "--report", str(report)]) == 1
    ((command, path),) = seen
    given = ["-m", "kernels.compile", "--target=sm_90", "--dtype=fp16", "--only=d40", "--jobs=2"]
    assert command[1:7] == given and path.startswith(str(folder))
    assert "2 kernels compiled, 1 of those" in report.read_text(encoding="utf-8")
    assert "Triton 1.2.0\n" in capfd.readouterr().out


@pytest.mark.quick
def test_a_triton_that_cannot_be_used_is_one_sentence(compiling, tmp_path, capfd):
    assert C.main(["--triton", str(tmp_path)]) == 2
    assert capfd.readouterr().err == f"The folder {tmp_path} holds no Triton.\n"
    (tmp_path / "triton").mkdir()
    file = tmp_path / "triton" / "__init__.py"
    file.write_text("raise ImportError('no libtriton')\n")
    assert C.main(["--triton", str(tmp_path)]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"The Triton in {tmp_path} cannot be imported: ")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        C.main(["--ci", "--target", "sm_90"])
    assert "--ci has its own targets" in capfd.readouterr().err
    for file in (tmp_path, tmp_path / "no" / "report.md"):  # said before an hour of compiling
        with pytest.raises(SystemExit):
            C.main(["--report", str(file)])
        assert f"{file} cannot be written." in capfd.readouterr().err
    assert not compiling[0]


def test_a_triton_that_ends_early_is_one_sentence(compiling, tmp_path, capfd):
    (tmp_path / "triton").mkdir()
    text = "import os, sys\n__version__ = '1.2.0'\nif 'torch' in sys.modules: os._exit(9)\n"
    (tmp_path / "triton" / "__init__.py").write_text(text)
    assert C.main(["--triton", str(tmp_path), "--target", "sm_90"]) == 2
    sentence = f"The Triton in {tmp_path} ended before everything was compiled.\n"
    assert capfd.readouterr().err.endswith(sentence)


@pytest.mark.quick
def test_what_the_compiler_raises_is_the_rows_error(monkeypatch):
    task = C.Task("sm_90", "fp16", 0)
    for error in (RuntimeError("PassManager::run failed\nmore"), KeyError("x"), ValueError()):

        def build(launch, target, error=error):
            raise error

        monkeypatch.setattr(C, "build", build)
        row = C.compile_task(task)
        first = (str(error) or repr(error)).split("\n")[0]
        assert row.error == f"does not compile: {first}" and row.failed and not row.registers


def test_a_compiler_that_crashes_takes_one_launch_with_it():
    calm, deadly = "'calm'", "__import__('os')._exit(3)"
    tasks = [calm, deadly, calm, calm, deadly]
    for jobs in (1, 2):
        seen = list(C.each_result(eval, tasks, jobs))
        assert seen == [(task, "calm" if task == calm else None) for task in tasks]


@pytest.mark.quick
def test_a_crash_is_the_rows_error(monkeypatch):
    tasks = [C.Task("sm_90", "fp16", i) for i in range(2)]
    monkeypatch.setattr(C, "plan", lambda *_: tasks)
    made = [replace(ROW, registers=7), None]
    monkeypatch.setattr(C, "each_result", lambda *_: zip(tasks, made, strict=True))
    right, crashed = C.compile_all(["sm_90"], ["fp16"])
    assert right == replace(ROW, registers=7, triton=triton_versions.installed())
    assert crashed.error == "does not compile: the compiler crashed" and crashed.failed


@pytest.mark.skipif(not INTERPRETED, reason="Kernels are not interpreted here.")
@pytest.mark.quick
def test_an_interpreting_process_says_so(capsys):
    assert C.main(["--target", "sm_90"]) == 2
    assert "unset it" in capsys.readouterr().err
