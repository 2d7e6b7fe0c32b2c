"""Files that version 0.1.0 wrote still open: a receipt with a branch, an exported tree."""

from pathlib import Path

import pytest

from pipeline import load, verify
from pipeline.introspection.branch import BranchRun
from pipeline.introspection.recording_file import open_tree
from pipeline.metadata import receipt

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def models():
    return load("emoji", device="cpu")


def test_an_old_receipt_is_read_and_its_picture_verified(models):
    found = receipt.read(DATA / "receipt.png")
    assert found.intact and len(found.steps) == 3
    assert found.branches == [{"at": 1, "prompt": "a green apple"}]
    verdict = verify.verify(models, DATA / "receipt.png")
    # Another machine rounds otherwise; never is it taken for tampered with or another model.
    assert verdict.kind in ("identical", "departs"), verdict.sentences
    if verdict.kind == "departs":
        assert verdict.environment


def test_an_old_tree_opens_and_is_continued(models):
    root, branch = open_tree(DATA / "tree.safetensors")
    assert (root.steps, branch.steps, branch.parent) == (2, 2, root.key)
    assert branch.change == {"at": 1, "prompt": "a green apple"}
    assert branch.parent_calls == 1 and branch.calls[1].words
    assert receipt.from_image(branch.image).branches == [{"at": 1, "prompt": "a green apple"}]
    run = BranchRun(models, branch, 1, {"cfg": 4.0})
    list(run)
    assert run.recordings[0].change == {"at": 1, "cfg": 4.0}
