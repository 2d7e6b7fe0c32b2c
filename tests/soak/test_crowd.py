"""A short form of crowd.py, and that it finds what it looks for."""

import io

import pytest
from PIL import Image, PngImagePlugin

from tests.soak import crowd


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_small_crowd():
    outcome = crowd.soak(60, seed=3)
    assert not crowd.judge(outcome, 60)
    assert outcome.counts["drawn"] > 20 and outcome.counts["cancelled"] > 4


def png(text, colour="teal"):
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8), colour).save(out, "PNG", pnginfo=info)
    return out.getvalue()


MINE, OTHERS = "mine\nSteps: 2, Seed: 7, x", "another's\nSteps: 2, Seed: 7, x"


@pytest.mark.parametrize(
    ("text", "picture"), [(OTHERS, png(MINE)), (MINE, png(OTHERS)), (MINE, png(MINE, "red"))]
)
def test_a_mixed_answer_is_found(text, picture):
    outcome = crowd.Outcome()
    outcome.check(MINE, png(MINE), "mine", 7, True)
    assert not outcome.wrong
    outcome.check(text, picture, "mine", 7, True)
    assert outcome.wrong[0].startswith("mixed")


def test_a_lost_request_a_silent_refusal_and_growing_memory_are_found():
    outcome = crowd.Outcome(memory={1: 300.0, 5: 500.0})
    outcome.counts.update(drawn=3, cancelled=1)
    outcome.refuse("The server's line is full. Please try again in a moment.")
    assert not outcome.wrong
    outcome.refuse("")
    assert len(crowd.judge(outcome, 5)) == 3
