"""Tuning keeps what is clearly faster than the heuristic's configuration."""

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")
from kernels import launch
from kernels.bench import tune
from kernels.registry import KERNELS, TuningJob

pytestmark = pytest.mark.quick

MS = {None: 2.0, 16: 1.0, 32: 3.0, 64: None}  # of a configuration's M; None fails to compile


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A GPU on which a call takes MS milliseconds with the configuration in use."""
    monkeypatch.setattr(launch, "TUNED", tmp_path / "tuned")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    monkeypatch.setattr(tune, "environment", lambda _: {"gpu": "a card"})

    def time_call(call, device, seconds):
        ms = MS[call()]
        if ms is None:
            raise RuntimeError("out of resources")
        return ms, ms, ms

    monkeypatch.setattr(tune, "time_call", time_call)
    yield launch.tuned_path("a card")
    launch.clear_tuned_cache()


def jobs(shapes, dtype, device):
    def call(key):
        return (launch.load_table("a card").get(key) or {}).get("M")

    for key, choices in (("fast", (16, 32, 64)), ("slow", (32, 64)), ("broken", (64,))):
        yield TuningJob(key, {"M": choices}, lambda key=key: call(key))


def test_the_fastest_is_written_and_old_keys_stay(card, monkeypatch, capsys):
    monkeypatch.setitem(KERNELS, "fake", replace(KERNELS["attention"], tuning_jobs="fake:jobs"))
    monkeypatch.setattr(tune, "load", lambda name: jobs)
    card.parent.mkdir()
    old = {"group_norm/1x1x1/leaves2": {"one_launch": True}, "slow": {"M": 32}}
    card.write_text(json.dumps({"configurations": old}))
    assert tune.tune(["fake"], "cuda", torch.float16, 0.1) == 0
    assert json.loads(card.read_text()) == {
        "surroundings": {"gpu": "a card"},
        "configurations": {"group_norm/1x1x1/parts2": {"one_launch": True}, "fast": {"M": 16}},
    }
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "fast: 1.0000 ms, by default 2.0000 ms, {'M': 16}",
        "slow: 3.0000 ms, by default 2.0000 ms, {'M': 32}",
        str(card),
    ]
