"""The tuned configurations that are committed can be used by a launch."""

import json

import pytest
import torch

pytest.importorskip("triton")
from kernels import launch, shapes
from kernels.attention import tiling as attention
from kernels.group_norm import tiling as group_norm

pytestmark = pytest.mark.quick
FILES = sorted(launch.TUNED.glob("*.json"))


def keys():
    """Return the default configuration of each key that a launch at a measured shape looks up."""
    found = {}
    for shape in shapes.ATTENTION:
        sizes = shape.head_size, shape.queries, shape.keys, torch.float16
        for kind in ("forward", "dkv", "dq"):
            found[attention.key(kind, *sizes)] = attention.heuristic(kind, *sizes)
    for shape in shapes.GROUP_NORM:
        for norm in shape.norms:
            layout = torch.channels_last if shape.channels_last else torch.contiguous_format
            size = shape.batch, norm.channels, norm.side, norm.side
            x = torch.empty(size, dtype=torch.float16, device="meta", memory_format=layout)
            found[group_norm.key(group_norm.Plan.of(x, shapes.GROUPS))] = {"one_launch": True}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_launch_finds_and_takes_every_configuration(path, monkeypatch):
    content = json.loads(path.read_text())
    name, defaults = content["surroundings"]["gpu"], keys()
    assert launch.tuned_path(name) == path
    assert {*content["timed"].split(" and ")} <= {"graph", "events"}
    monkeypatch.setattr(launch, "gpu_name", lambda _: name)
    for key, config in content["configurations"].items():
        if key.startswith("word_attention"):
            continue
        card = torch.device("cuda", 0)
        assert launch.tuned_config(card, key, defaults[key]) == config, key
        assert config.get("num_stages", 2) > 1, key  # it was wrong and crashed on an H200


def test_there_is_a_tuned_file():
    assert FILES
