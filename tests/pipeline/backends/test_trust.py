"""Our kernels run on a GPU only where a check, in a process of its own, found them right."""

import json
import sys
import time
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")
from kernels import verdict
from kernels.verdict import Machine, Result, Verdict
from pipeline import backends
from pipeline.backends import attention_triton, failures, group_norm_triton, trust
from pipeline.errors import InputError

CARD, HALF = torch.device("cuda", 0), torch.float16
MACHINE = Machine("NVIDIA H200", "9.0", "3.6.0", "0123456789abcdef")
PLACES = (
    "attention/forward/d40/float16",
    "word_attention/d40/float16",
    "group_norm/forward/NCHW/float16",
    "group_norm/forward/NHWC/float16",
)
HEADS = frozenset({40})


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A GPU with no verdict; `trust.command` is to be replaced."""
    from kernels import attention, group_norm

    monkeypatch.setenv("GLASSBOX_VERDICTS", str(tmp_path))
    monkeypatch.setattr(verdict, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(verdict, "INTERPRETED", False)
    monkeypatch.setattr(verdict, "machine_of", lambda device: MACHINE)
    for module in (attention, group_norm):
        monkeypatch.setattr(module, "device_problem", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(backends, "order", lambda kind, device: tuple(backends.KINDS[kind].table))
    monkeypatch.setattr(trust, "_checks", {})
    monkeypatch.setattr(trust, "_said", set())
    monkeypatch.setattr(trust, "check_in_background", False)
    monkeypatch.setattr(failures, "BLACKLIST", {})
    monkeypatch.setattr(backends, "BLACKLIST", {})
    verdict.forget()
    yield tmp_path
    verdict.forget()


def write(folder, places=PLACES, note="ok"):
    rows = tuple(Result(place, {"M": 16}, "s", 0.0, 1.0, note) for place in places)
    return verdict.write(Verdict(MACHINE, rows), folder)


def check_that_writes(tmp_path, note="ok", seconds=0.0, code=0):
    """A command that writes a verdict after `seconds`, as kernels.check does in its process."""
    path = write(tmp_path / "made", note=note)
    source, target = str(path), str(tmp_path / path.name)
    script = (
        "import shutil, sys, time; print('On'); print('HEAD'); "
        f"[print('case', i, flush=True) for i in range(3)]; time.sleep({seconds}); "
        f"shutil.copy({source!r}, {target!r}); sys.exit({code})"
    )
    return lambda *_: [sys.executable, "-c", script]


def auto(kind):
    return backends.candidates(kind, "auto", CARD, HALF, HEADS)


@pytest.mark.parametrize("kind", ["attention", "group_norm"])
def test_auto_leaves_out_what_was_not_checked_or_failed(card, kind):
    assert "triton" not in auto(kind)
    reason = backends.unsupported_reason(kind, "triton", CARD, HALF, HEADS)
    assert trust.is_unchecked(reason) and "python -m kernels.check --quick" in reason
    write(card)
    assert auto(kind)[0] == "triton"
    assert trust.is_unchecked(
        backends.unsupported_reason(kind, "triton", CARD, torch.bfloat16, HEADS)
    )
    write(card, note="CRASHED: its process ended")
    assert "triton" not in auto(kind)
    reason = backends.unsupported_reason(kind, "triton", CARD, HALF, HEADS)
    assert "failed `python -m kernels.check`" in reason and not trust.is_unchecked(reason)


@pytest.mark.parametrize(
    "note",
    ["WRONG", "CRASHED: its process ended", "HUNG: no answer in 120 s", "UNEQUAL", "FAILED: x"],
)
def test_whatever_the_check_found_wrong_is_refused(card, note):
    """The notes of tests/kernels/test_check.py, which plants kernels of each kind."""
    from kernels import check

    rows = [Result(place, {"M": 16}, "s", 0.0, 1.0, note) for place in PLACES]
    check.write_verdict(CARD, rows, {}, None)
    for kind in backends.KINDS:
        assert "triton" not in auto(kind)
        with pytest.raises(InputError, match="on this GPU"):
            backends.candidates(kind, "triton", CARD, HALF, HEADS)


def test_another_head_size_and_gradients_need_a_check_of_their_own(card):
    write(card)
    assert attention_triton.unsupported(CARD, HALF, 40) is None
    assert attention_triton.unsupported(CARD, HALF) is None
    assert "d80" in attention_triton.unsupported(CARD, HALF, 80)
    reason = backends.untrainable_reason("attention", "triton", CARD, HALF, HEADS)
    assert "attention/dkv/d40" in reason and "`python -m kernels.check`" in reason
    assert "group_norm/backward" in group_norm_triton.backward_unsupported(CARD, HALF)
    assert backends.untrainable_reason("attention", "sdpa", CARD, HALF, HEADS) is None
    write(card, [f"attention/{kind}/d40/float16" for kind in ("dkv", "dq")])
    assert backends.untrainable_reason("attention", "triton", CARD, HALF, HEADS) is None


def test_maps_come_from_the_kernel_only_where_it_is_right(card):
    write(card, PLACES[:1])
    q = torch.empty(1, 4, 2, 40, dtype=HALF)

    class Q:
        shape, dtype, device = q.shape, q.dtype, CARD

    assert not attention_triton.maps_supported(Q)
    write(card)
    assert attention_triton.maps_supported(Q)
    assert attention_triton.maps_supported(q)  # no GPU, no verdict


def test_group_norm_in_another_dtype_is_pytorchs(monkeypatch):
    from kernels import group_norm

    x = torch.randn(1, 8, 4, 4)
    expected = torch.nn.functional.silu(torch.nn.functional.group_norm(x, 2, eps=1e-5))
    monkeypatch.setattr(trust, "problem", lambda *_: "not checked")
    monkeypatch.setattr(group_norm, "group_norm", lambda *_, **__: 1 / 0)
    assert torch.equal(group_norm_triton.run(x, 2, silu=True), expected)


def test_a_single_command_says_once_how_to_check(card, capsys):
    for _ in range(3):
        trust.notice(CARD, HALF, HEADS)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "`python -m kernels.check --quick`" in err
    assert "NVIDIA H200" in err and not trust._checks


def test_a_server_checks_in_the_background_and_a_later_request_uses_ours(card, monkeypatch):
    monkeypatch.setattr(trust, "check_in_background", True)
    monkeypatch.setattr(trust, "command", check_that_writes(card, seconds=1.0))
    assert trust.state(CARD, HALF) == "unchecked" and "triton" not in auto("attention")
    trust.notice(CARD, HALF, HEADS)
    trust.notice(CARD, HALF, HEADS)  # one check, not two
    deadline = time.monotonic() + 60
    while not trust._checks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert trust.state(CARD, HALF) == "checking" and len(trust._checks) == 1
    assert trust._checks[str(CARD), str(HALF)].done.wait(60)
    assert trust.state(CARD, HALF) == "checked" and auto("attention")[0] == "triton"


def test_a_backend_that_is_named_is_checked_first_with_its_progress(card, monkeypatch, capsys):
    monkeypatch.setattr(trust, "command", check_that_writes(card, code=1))  # another place failed
    assert backends.candidates("attention", "triton", CARD, HALF, HEADS) == ("triton",)
    assert "Checking our kernels on NVIDIA H200" in capsys.readouterr().err
    assert backends.candidates("group_norm", "triton", CARD, HALF) == ("triton",)
    assert not capsys.readouterr().err  # known now


@pytest.mark.parametrize(
    "note, argv, words",
    [
        ("WRONG", None, "attention/forward/d40/float16 failed `python -m kernels.check`"),
        ("ok", ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], "was ended"),
        ("ok", ["-c", "print('no such device'); raise SystemExit(2)"], "no such device"),
        ("ok", ["-c", "import time; time.sleep(600)"], "took more than 1 s"),
    ],
)
def test_a_check_that_finds_faults_dies_or_hangs_refuses_the_name(
    card, monkeypatch, note, argv, words
):
    made = check_that_writes(card, note=note)
    monkeypatch.setattr(trust, "LIMIT", 1.0 if "600" in str(argv) else 60.0)
    monkeypatch.setattr(trust, "command", (lambda *_: [sys.executable, *argv]) if argv else made)
    with pytest.raises(InputError, match="cannot run here") as refused:
        backends.candidates("attention", "triton", CARD, HALF, HEADS)
    assert words in str(refused.value) and str(refused.value).count("\n") == 0
    assert "triton" not in auto("attention")
    assert trust.state(CARD, HALF) == ("failed" if argv else "checked")


def test_on_zerogpu_only_shipped_verdicts_count(card, monkeypatch, capsys):
    import kernels.attention

    monkeypatch.setattr(kernels.attention, "attention", lambda *_: pytest.fail("it was tried out"))
    monkeypatch.setattr(trust, "ON_ZERO_GPU", True)
    monkeypatch.setattr(trust, "command", lambda *_: 1 / 0)
    monkeypatch.setattr(trust, "check_in_background", True)
    trust.notice(CARD, HALF, HEADS)
    assert not trust._checks and "triton" not in auto("attention")
    with pytest.raises(InputError, match="were not checked on this GPU"):
        backends.candidates("attention", "triton", CARD, HALF, HEADS)
    write(card / "shipped")
    assert auto("attention")[0] == "triton"


def test_the_command_checks_what_the_model_needs(monkeypatch):
    command = trust.command(CARD, torch.bfloat16, {72, 40})
    assert command[1:3] == ["-m", "kernels.check"] and "--quick" in command
    assert command[command.index("--dtype") + 1] == "bfloat16"
    assert [command[i + 1] for i, x in enumerate(command) if x == "--head-size"] == ["40", "72"]
    from kernels import check

    args = check.build_parser().parse_args(command[3:])
    assert args.head_size == [40, 72] and args.quick and args.dtype == ["bfloat16"]


def test_a_head_size_of_its_own_is_among_the_cases(monkeypatch):
    from kernels import check, launch
    from kernels.registry import KERNELS

    monkeypatch.setattr(check, "INTERPRETED", False)
    monkeypatch.setattr(check, "device_problem", lambda *_: None)
    monkeypatch.setattr(launch, "capability", lambda _: (9, 0))
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    monkeypatch.setattr(launch, "gpu_name", lambda _: "a card")
    for name, place in (("attention", "attention/forward"), ("word_attention", "word_attention")):
        cases = list(check.cases(KERNELS[name], "cuda:0", True, head_sizes=[72, 40, 7]))
        places = [c.place for c in cases if c.shape.model == "own"]
        assert set(places) == {f"{place}/d72/float16"}
    norms = list(check.cases(KERNELS["group_norm"], "cuda:0", True, head_sizes=[72]))
    assert norms and not any(c.shape.model == "own" for c in norms)


def test_places_are_written_as_the_kernels_do():
    from kernels import word_attention
    from kernels.attention import tiling
    from kernels.group_norm import tiling as norm

    assert attention_triton._place("dq", HALF, 40) == tiling.place("dq", 40, HALF)
    assert group_norm_triton._places("backward", HALF) == [
        norm.place("backward", last, HALF) for last in (False, True)
    ]
    assert word_attention.place(40, HALF) in PLACES
    assert json.loads(json.dumps(replace(Result(PLACES[0], {}, "s", 0.0, 1.0, "ok")).__dict__))
