"""Which devices kernels run on, and the files of tuned configurations."""

import json

import pytest
import torch

pytest.importorskip("triton")
from kernels import attention, launch
from kernels.group_norm import tiling

pytestmark = pytest.mark.quick


def test_tuned_files_are_looked_up_by_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    path = launch.tuned_path("NVIDIA H200")
    assert path.name == "NVIDIA_H200.json"
    path.write_text('{"configurations": {"a": {"M": 64}}}')
    launch.clear_tuned_cache()
    monkeypatch.setattr(launch, "gpu_name", lambda _: "NVIDIA H200")
    card = torch.device("cuda", 0)
    assert launch.tuned_config(card, "a", {"M": 16}) == {"M": 64}
    assert launch.tuned_config(card, "b", {"M": 16}) is None and launch.load_table("other") == {}
    assert launch.tuned_config(torch.device("cpu"), "a", {"M": 16}) is None
    launch.clear_tuned_cache()


def test_tuned_files_of_older_versions_say_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    old = {"configurations": {"group_norm/1024x4x1/leaves10": {"one_launch": False}}}
    launch.tuned_path("a card").write_text(json.dumps(old))
    launch.clear_tuned_cache()
    monkeypatch.setattr(launch, "gpu_name", lambda _: "a card")
    plan = tiling.Plan.of(torch.empty(1, 40, 32, 32), 1)
    assert tiling.key(plan) == "group_norm/1024x4x1/parts10"
    found = launch.tuned_config(torch.device("cuda", 0), tiling.key(plan), {"one_launch": True})
    assert found == {"one_launch": False}
    launch.clear_tuned_cache()


@pytest.mark.parametrize("text", ['{"configurations": {"a"', "{}", "[]", '{"configurations": 1}'])
def test_a_damaged_tuned_file_is_passed_over_with_a_warning(monkeypatch, tmp_path, caplog, text):
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    launch.tuned_path("a card").write_text(text)
    launch.clear_tuned_cache()
    assert launch.load_table("a card") == {} and launch.load_table("a card") == {}
    assert caplog.text.count("passed over") == 1
    launch.clear_tuned_cache()


def test_old_cards_are_refused_with_what_they_lack(monkeypatch):
    card = torch.device("cuda", 0)
    monkeypatch.setattr(launch, "capability", lambda _: (7, 5))
    assert attention.unsupported(card, torch.float16) is None
    reason = attention.unsupported(card, torch.bfloat16)
    assert "in bfloat16 need compute capability 8.0 or newer; cuda:0 has 7.5" in reason
    monkeypatch.setattr(launch, "capability", lambda _: (6, 1))
    reason = attention.unsupported(card, torch.float16)
    assert "need compute capability 7.5 or newer; cuda:0 has 6.1" in reason
