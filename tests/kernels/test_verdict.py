"""Verdicts: which configurations may run on a GPU, and files that can't be used."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
from kernels import attention, check, launch, verdict, word_attention
from kernels.attention import tiling
from kernels.group_norm import tiling as norm_tiling
from kernels.verdict import Machine, Result, Verdict

pytestmark = pytest.mark.quick

CARD = torch.device("cuda", 0)
MACHINE = Machine("NVIDIA H200", "9.0", "3.6.0", "0123456789abcdef")
PLACE = "attention/forward/d40/float16"
SMALL, LARGE = {"M": 16, "N": 16}, {"M": 128, "N": 64}


def result(config, note="ok", place=PLACE, shape="s"):
    return Result(place, config, shape, 1e-3, 2e-3, note)


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A GPU, with folders for verdicts that are empty."""
    monkeypatch.setenv("GLASSBOX_VERDICTS", str(tmp_path / "user"))
    monkeypatch.setattr(verdict, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(verdict, "INTERPRETED", False)
    monkeypatch.setattr(verdict, "machine_of", lambda device: MACHINE)
    verdict.forget()
    yield tmp_path
    verdict.forget()


def write(folder, *results, machine=MACHINE):
    return verdict.write(Verdict(machine, results, {"torch": "2.11"}), folder)


def test_without_a_verdict_nothing_is_trusted_and_the_first_configuration_is_taken(card):
    reason = verdict.problem(CARD, [PLACE])
    assert verdict.is_unchecked(reason) and "kernels.check --quick" in reason
    assert verdict.choose(CARD, PLACE, [lambda: None, LARGE, SMALL]) == LARGE
    assert verdict.problem(torch.device("cpu"), [PLACE]) is None


def test_a_configuration_that_failed_gives_way_to_the_next(card):
    write(card / "user", result(LARGE), result(LARGE, "CRASHED: x", shape="t"), result(SMALL))
    assert verdict.problem(CARD, [PLACE]) is None
    assert verdict.choose(CARD, PLACE, [LARGE, lambda: SMALL]) == SMALL
    assert verdict.choose(CARD, PLACE, [{"M": 32, "N": 16}, SMALL]) == SMALL  # never checked
    reason = verdict.problem(CARD, [PLACE, "attention/forward/d80/float16"])
    assert verdict.is_unchecked(reason) and "d80" in reason


def test_where_all_failed_none_is_taken(card):
    write(card / "user", result(LARGE, "WRONG"), result(SMALL, "HUNG: no answer in 120 s"))
    reason = verdict.problem(CARD, [PLACE])
    assert reason == f"{PLACE} failed `python -m kernels.check` on this GPU."
    assert not verdict.is_unchecked(reason)
    with pytest.raises(verdict.NoRightConfiguration, match="No configuration of attention"):
        verdict.choose(CARD, PLACE, [LARGE, SMALL])


def test_shipped_verdicts_count_and_this_machines_come_first(card):
    other = PLACE.replace("d40", "d80")
    write(card / "shipped", result(LARGE), result(LARGE, place=other))
    assert verdict.problem(CARD, [PLACE, other]) is None
    write(card / "user", result(LARGE, "WRONG"))
    assert verdict.problem(CARD, [PLACE]) is not None and verdict.problem(CARD, [other]) is None


def test_a_second_check_replaces_its_places_and_keeps_the_others(card):
    other = PLACE.replace("d40", "d80")
    write(card / "user", result(LARGE, "WRONG"), result(LARGE, place=other))
    path = write(card / "user", result(LARGE))
    found = verdict.read(path, MACHINE)
    assert {(r.place, r.note) for r in found.results} == {(PLACE, "ok"), (other, "ok")}
    assert path.name == "NVIDIA_H200-9.0-triton-3.6.0.json"
    assert not list(path.parent.glob("*.part"))


def test_a_quick_check_takes_back_no_fault_found_at_another_shape(card):
    write(card / "user", result(LARGE, "WRONG", shape="large"), result(SMALL))
    write(card / "user", result(LARGE, shape="small"))
    assert verdict.choose(CARD, PLACE, [LARGE, SMALL]) == SMALL
    write(card / "user", result(LARGE, shape="large"))
    assert verdict.choose(CARD, PLACE, [LARGE, SMALL]) == LARGE


@pytest.mark.parametrize(
    "change, words",
    [
        ({"gpu": "NVIDIA L4"}, "is for gpu NVIDIA L4"),
        ({"capability": "8.9"}, "is for capability 8.9"),
        ({"triton": "3.9.0"}, "is for triton 3.9.0"),
        ({"code": "f" * 16}, "is for older kernels"),
    ],
)
def test_a_verdict_for_something_else_is_passed_over_with_one_line(card, caplog, change, words):
    path = write(card / "user", result(LARGE), machine=MACHINE._replace(**change))
    path.rename(path.with_name(verdict.file_name(MACHINE)))
    verdict.forget()
    for _ in range(3):
        assert verdict.is_unchecked(verdict.problem(CARD, [PLACE]))
    assert caplog.text.count("is passed over") == 1 and words in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"note"', '"notes"'),
        lambda text: text.replace('"ok"', "1"),
        lambda text: json.dumps(json.loads(text) | {"results": 3}),
        lambda text: json.dumps(json.loads(text) | {"machine": None}),
    ],
)
def test_a_damaged_verdict_is_passed_over_with_one_line(card, caplog, damage):
    path = write(card / "user", result(LARGE))
    path.write_text(damage(path.read_text()))
    verdict.forget()
    for _ in range(3):
        assert verdict.is_unchecked(verdict.problem(CARD, [PLACE]))
    assert caplog.text.count("is passed over") == 1


def test_a_full_disk_leaves_the_old_verdict_alone(card, monkeypatch):
    folder = card / "user"
    path = write(folder, result(SMALL))
    before = path.read_text()

    def half(self, text, encoding):
        self.write_bytes(text[:9].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write(folder, result(LARGE))
    assert [p.name for p in folder.iterdir()] == [path.name] and path.read_text() == before


def test_launches_follow_the_verdict(card, monkeypatch):
    """The public ops' own selection: tuned, then the heuristic's, then the conservative one."""
    monkeypatch.setattr(launch, "gpu_name", lambda _: "a card")
    monkeypatch.setattr(launch, "capability", lambda _: (9, 0))
    monkeypatch.setattr(launch, "processors", lambda _: 132)

    class Q:  # a tensor on a GPU that is not here
        shape, dtype, device = (2, 4096, 8, 40), torch.float16, CARD

    usual = tiling.heuristic("forward", 40, 4096, 77, torch.float16)
    tuned = usual | {"num_stages": 4}
    table = {tiling.key("forward", 40, 4096, 77, torch.float16): tuned}
    monkeypatch.setattr(launch, "load_table", lambda _: table)
    chosen = lambda: tiling.configuration("forward", Q, 77)  # noqa: E731
    assert chosen() == tuned
    write(card / "user", result(usual), result(tiling.conservative()))
    assert chosen() == usual
    write(card / "user", result(usual, "WRONG"), result(tiling.conservative()))
    assert chosen() == tiling.conservative()
    usual = word_attention.heuristic(2, 40, 4096, 77, torch.float16, 132)
    write(
        card / "user",
        result(usual, "CRASHED: x", place="word_attention/d40/float16"),
        result(word_attention.conservative(), place="word_attention/d40/float16"),
    )
    assert word_attention.configuration(Q, 77) == word_attention.conservative()


def test_group_norm_takes_the_launches_that_were_right(card, monkeypatch):
    monkeypatch.setattr(norm_tiling, "tuned_config", lambda *_: None)
    monkeypatch.setattr(norm_tiling, "fits_one_launch", lambda *_: True)
    x = torch.empty(1, 64, 8, 8, dtype=torch.float16)
    plan = norm_tiling.Plan.of(x, 32)

    class X:  # x on a GPU that is not here
        device, dtype, stride = CARD, x.dtype, x.stride

        def __getitem__(self, at):
            return x[at]

    assert norm_tiling.use_one_launch(plan, X())
    place = norm_tiling.place("forward", False, torch.float16)
    write(
        card / "user",
        result({"one_launch": True}, "WRONG", place),
        result({"one_launch": False}, place=place),
    )
    assert not norm_tiling.use_one_launch(plan, X())


def test_no_default_is_of_the_kind_that_crashed(monkeypatch):
    for dtype in (torch.float16, torch.bfloat16):
        for d in range(8, 257, 8):
            for kind in ("forward", "dkv", "dq"):
                for c in tiling.choosable(kind, d, dtype, 132):
                    rows = c["N"] if kind == "dkv" else c["M"]
                    assert not tiling.is_unsafe(rows, c["num_stages"], dtype), (kind, d, c)
            for major in (8, 9, 10, 12):
                for c in word_attention.choosable(d, dtype, 132, major):
                    assert not tiling.is_unsafe(c["M"], c["num_stages"], dtype), (d, c)
    assert tiling.is_unsafe(64, 1, torch.float16) and not tiling.is_unsafe(64, 1, torch.float32)


def test_a_tuned_configuration_of_that_kind_is_passed_over(monkeypatch):
    monkeypatch.setattr(launch, "gpu_name", lambda _: "a card")
    monkeypatch.setattr(launch, "capability", lambda _: (9, 0))
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    monkeypatch.setattr(verdict, "_right", lambda *_: None)
    usual = tiling.heuristic("dq", 40, 4096, 4096, torch.float16)
    key = tiling.key("dq", 40, 4096, 4096, torch.float16)
    unsafe = usual | {"M": 64, "N": 64, "num_stages": 1}
    monkeypatch.setattr(launch, "load_table", lambda _: {key: unsafe})

    class Q:
        shape, dtype, device = (2, 4096, 8, 40), torch.float16, CARD

    assert tiling.configuration("dq", Q, 4096) == usual


def test_forced_configurations_end_with_their_context():
    with verdict.force({PLACE: SMALL}):
        assert verdict.choose(CARD, PLACE, []) == SMALL
    with pytest.raises(verdict.NoRightConfiguration):
        verdict.choose(torch.device("cpu"), PLACE, [])


def test_a_check_writes_what_the_next_launch_reads(card, monkeypatch):
    rows = [result(LARGE, "HUNG: no answer in 1 s"), result(SMALL)]
    path = check.write_verdict(CARD, rows, {"torch": "2.11", "driver": "580"}, None)
    assert path.parent == card / "user"
    assert verdict.verdict_of(CARD).recorded == {"torch": "2.11", "driver": "580"}
    assert verdict.choose(CARD, PLACE, [LARGE, SMALL]) == SMALL
    assert replace(rows[0], note="ok").right and not rows[0].right


def test_interpreted_kernels_need_no_verdict():
    if launch.INTERPRETED:
        assert verdict.problem(CARD, [PLACE]) is None
        assert attention.unsupported(torch.device("cpu"), torch.float32) is None
