"""The tuner writes the fastest right configuration; wrong, crashing and hanging ones never win."""

import json
import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")
from kernels import launch
from kernels.attention.tiling import is_unsafe
from kernels.bench import tune
from kernels.bench.isolated import Failure, run_isolated
from kernels.bench.measure import Timing
from kernels.registry import KERNELS, load
from kernels.shapes import AttentionShape, GroupNormShape, Norm

FAKE = '''
"""A kernel that doubles q and behaves as its configuration says."""

import os
import signal
import time

import torch

from kernels import verdict
from kernels.bench.measure import Timing
from kernels.registry import TuningJob, combinations

MS = {"default": 2.0, "fast": 1.0, "wrong": 0.1, "slow": 3.0, "unsteady": 0.1}
calls = 0


def behaviour(q):
    return verdict.choose(q.device, "fake", [{"act": "default"}])["act"]


def double(q, k, v):
    global calls
    calls += 1
    act = behaviour(q)
    if act == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        time.sleep(600)
    if act == "uncompiled":
        raise RuntimeError("out of resources\\nshared memory")
    y = torch.empty_like(q)
    y[:, act == "incomplete":] = 2 * q[:, act == "incomplete":]
    if act == "unsteady":
        y += calls * 1e-6
    return y * 1.1 if act == "wrong" else y


def reference(q, k, v):
    return 2 * q


def time_call(call, device, seconds):
    ms = MS[behaviour(torch.empty(1))]
    call()
    return Timing(ms, ms, ms, "graph")


def tuning_jobs(shapes, dtype):
    bad = "uncompiled", "crash"
    for key, acts in (("good", ("slow", "wrong", "hang", "fast")), ("bad", bad)):
        yield TuningJob(key, "fake", combinations(act=acts), shapes[0], "forward")
        yield TuningJob(key, "fake", combinations(act=("hang",)), shapes[0], "forward")
'''
SHAPE = AttentionShape("fake", 64, 1, 8, 8, 1, 8)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_tuned.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_tuned", raising=False)
    names = "reference", "tuning_jobs"
    return replace(
        KERNELS["attention"], name="fake", function="fake_tuned:double", shapes=(SHAPE,),
        **{name: f"fake_tuned:{name}" for name in names},
    )  # fmt: skip


def session(**changes):
    return tune.Session("cpu", torch.float32, 0, 0.01, timer="fake_tuned:time_call", **changes)


@pytest.fixture
def card(monkeypatch, tmp_path):
    """The tuned file of a GPU that runs on the CPU."""
    monkeypatch.setattr(launch, "TUNED", tmp_path / "tuned")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    monkeypatch.setattr(tune, "environment", lambda _: {"gpu": "a card"})
    yield launch.tuned_path("a card")
    launch.clear_tuned_cache()


def test_the_fastest_right_one_is_written_and_the_others_are_named(fake, card, monkeypatch, capsys):
    monkeypatch.setitem(KERNELS, "fake", fake)
    card.parent.mkdir()
    old = {"group_norm/1x1x1/leaves2": {"one_launch": True}, "bad": {"act": "crash"}}
    card.write_text(json.dumps({"configurations": old, "timed": "graph"}))
    changes = {"timer": "fake_tuned:time_call", "limit": 3.0}
    assert tune.tune(["fake"], "cpu", torch.float32, 0.01, **changes) == 0
    written = json.loads(card.read_text())
    failed = written.pop("failed")
    assert written == {
        "surroundings": {"gpu": "a card"},
        "timed": "graph",
        "configurations": {
            "group_norm/1x1x1/parts2": {"one_launch": True},
            "good": {"act": "fast"},
        },
    }
    assert {key: [f["configuration"]["act"] for f in rows] for key, rows in failed.items()} == {
        "good": ["wrong", "hang"],
        "bad": ["uncompiled", "crash"],
    }
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("good: {'act': 'wrong'}: wrong: off by ")
    assert out[1:] == [
        "good: {'act': 'hang'}: hangs: no answer within 3 seconds",
        "good: 1.0000 ms, by default 2.0000 ms, {'act': 'fast'}",
        "bad: {'act': 'uncompiled'}: failed: out of resources",
        "bad: {'act': 'crash'}: crashed: its process ended by SIGKILL",
        "bad: no candidate is right",
        str(card),
        "Run `python -m kernels.check` next: launches take only what it finds right.",
    ]


@pytest.mark.quick
@pytest.mark.parametrize(
    "act, reason",
    [
        ("wrong", "wrong: off by"),
        ("incomplete", "wrong: off by nan"),
        ("unsteady", "wrong: a later call gave other bits"),
        ("uncompiled", "failed: out of resources"),
    ],
)
def test_what_is_not_right_has_no_time(fake, act, reason, monkeypatch):
    # the other tests' fixture must not do the tuner's work
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    where = session(), fake, "fake", SHAPE, "forward"
    result = tune.measure_candidate(tune.Task(*where, {"act": act}))
    assert isinstance(result, Failure) and result.reason.startswith(reason)
    assert result.new_process == reason.startswith("wrong")
    assert tune.measure_candidate(tune.Task(*where, None)) == Timing(2.0, 2.0, 2.0, "graph")


@pytest.mark.parametrize(
    "name, kind, shape",
    [
        ("attention", "/dq/", AttentionShape("fake", 64, 1, 20, 20, 1, 16)),
        ("group_norm", "", GroupNormShape("fake", 64, 1, (Norm(32, 4, True, True),))),
    ],
)
def test_right_candidates_of_our_kernels_have_a_time(fake, name, kind, shape):
    """Interpreted where there is no GPU: a gradient and an output."""
    kernel = KERNELS[name]
    jobs = load(kernel.tuning_jobs)([shape], torch.float32)
    job = next(j for j in jobs if kind in j.key)
    small = {"M": 16, "N": 16} if kind else {}
    where = session(), kernel, job.place, job.shape, job.mode
    result = tune.measure_candidate(tune.Task(*where, job.candidates[0] | small))
    assert result == Timing(2.0, 2.0, 2.0, "graph")


def timing(ms, timed="graph"):
    return Timing(ms, ms, ms, timed)


@pytest.mark.quick
def test_only_what_is_clearly_faster_than_the_default_is_chosen(capsys):
    a, b, wrong = {"M": 16}, {"M": 32}, Failure("wrong")
    assert tune.choose("k", [(None, timing(2.0)), (a, timing(1.97)), (b, wrong)]) is None
    found = tune.choose("k", [(None, timing(2.0)), (a, timing(1.5)), (b, timing(1.9))])
    assert found == (a, timing(1.5))
    found = tune.choose("k", [(None, wrong), (a, wrong), (b, timing(9.0))])
    assert found == (b, timing(9.0))
    assert tune.choose("k", [(None, timing(2.0)), (a, wrong)]) is None
    assert "k: the default: wrong" in capsys.readouterr().out


@pytest.mark.quick
def test_a_file_of_an_older_version_keeps_its_keys_and_how_they_were_timed(tmp_path):
    path = tmp_path / "new" / "card.json"
    file = tune.TunedFile(path, {})
    file.set("one", ({"M": 16}, timing(1.0)), [])
    assert json.loads(path.read_text())["timed"] == "graph"
    path.write_text(json.dumps({"surroundings": {}, "configurations": {"old": {"M": 32}}}))
    file = tune.TunedFile(path, {})
    file.set("one", ({"M": 16}, timing(1.0)), [({"M": 64}, Failure("wrong"))])
    content = json.loads(path.read_text())
    assert content["timed"] == "events and graph"
    assert content["configurations"] == {"old": {"M": 32}, "one": {"M": 16}}
    assert content["failed"] == {"one": [{"configuration": {"M": 64}, "reason": "wrong"}]}
    file = tune.TunedFile(path, {})
    file.set("old", None, [])
    content = json.loads(path.read_text())
    assert content["timed"] == "events and graph"  # how "one" was timed is not known any more
    assert content["configurations"] == {"one": {"M": 16}} and "one" in content["failed"]


@pytest.mark.quick
def test_a_damaged_file_is_one_sentence(card, capsys):
    card.parent.mkdir()
    card.write_text("{")
    assert tune.tune([], "cpu", torch.float32, 0.01) == 2
    err = capsys.readouterr().err
    assert "can't be read, so nothing is tuned" in err and err.count("\n") == 1


@pytest.mark.quick
def test_a_mode_tunes_only_what_it_uses(card, monkeypatch):
    monkeypatch.setattr(tune, "measure_all", lambda tasks, _: (timing(1.0) for _ in tasks))
    seen = []
    monkeypatch.setattr(tune, "choose", lambda key, found: seen.append(key))
    tune.tune(["attention"], "cpu", torch.float16, 0.01, mode="backward")
    assert {key.split("/")[1] for key in seen} == {"dkv", "dq"}


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux only.")
def test_candidates_are_compiled_in_other_processes(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    kernel, shape = KERNELS["word_attention"], AttentionShape("fake", 64, 1, 16, 16, 1, 16)
    (job,) = load(kernel.tuning_jobs)([shape], torch.float16)
    where = replace(session(target="sm_90"), dtype=torch.float16), kernel, job.place, shape
    usual = {"M": 16, "SPLIT": False, "num_warps": 4, "num_stages": 1}
    tasks = [tune.Task(*where, "forward", usual | {"M": m}) for m in (16, 48)]
    right, wrong = run_isolated(tune.compile_candidate, tasks, 300)
    assert right is None
    assert wrong.reason.startswith("does not compile: ")


@pytest.mark.quick
def test_miscompiled_candidates_never_run(fake, monkeypatch):
    kernel, shape = KERNELS["word_attention"], AttentionShape("fake", 64, 1, 16, 16, 1, 16)
    monkeypatch.setattr(tune, "compile_launch", lambda *_: None)
    monkeypatch.setattr(tune, "disassemble", lambda compiled: "")
    task = tune.Task(session(target="sm_90"), kernel, "", shape, "forward", None)
    assert tune.compile_candidate(task) is None
    monkeypatch.setattr(tune, "uninitialized_reads", lambda sass: ["05e0 UIADD3 UR14"])
    refused = tune.compile_candidate(task)
    assert refused.reason == "miscompiled: word_kernel reads registers that were never written"

    ran = []
    monkeypatch.setattr(tune, "run_isolated", lambda function, tasks, *_: map(function, tasks))
    monkeypatch.setattr(tune.ChildProcess, "run", lambda self, task: ran.append(task))
    assert list(tune.measure_all([task], 2)) == [refused] and not ran
    monkeypatch.setattr(tune, "uninitialized_reads", lambda sass: [])
    assert list(tune.measure_all([task], 2)) == [None] and ran == [task]


@pytest.mark.quick
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_no_candidate_is_known_to_crash_and_all_fit_the_tuned_file(dtype):
    """On Hopper, 64 rows of 16 bits in one stage crash."""
    for kernel in KERNELS.values():
        jobs = list(load(kernel.tuning_jobs)([s for s in kernel.shapes if s.measured], dtype))
        assert jobs
        for job in jobs:
            rows = "N" if "/dkv/" in job.key else "M"
            for config in job.candidates:
                assert launch._has_form_of(config, config)
                if kernel.matmul_kernels:
                    assert not is_unsafe(config[rows], config["num_stages"], torch.float16)
            assert len({str(c) for c in job.candidates}) == len(job.candidates) > 1
