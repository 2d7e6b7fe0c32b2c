"""The table of colour errors: its figures are those of the pictures."""

import numpy as np
import pytest
from PIL import Image

from pipeline import load
from pipeline.images import lab
from pipeline.training.emoji import evaluate_colorize


@pytest.mark.quick
def test_the_error_of_two_plain_colours():
    a, b = (Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 0, 255)))
    found = evaluate_colorize.errors(a, b, "grey_")
    distance = np.linalg.norm([53.2408 - 32.2970, 80.0925 - 79.1875, 67.2032 + 107.8602])
    assert found["grey_cie76"] == pytest.approx(distance, abs=1e-3)
    assert set(found) == {"grey_cie76", "grey_ciede2000"}
    assert set(evaluate_colorize.errors(a, a).values()) == {0.0}


def test_the_table_counts_what_it_says(tiny_model, tiny_data, tmp_path, monkeypatch):
    """Where the task gave back half of the scenes true and half grey, so would the table."""
    models = load(tiny_model, device="cpu")
    made = []

    def colorize(models, grey, prompt, seed, options):
        made.append((prompt, options))
        return grey if seed % 2 else Image.new("RGB", grey.size, (1, 2, 3))

    real = evaluate_colorize._colorize
    monkeypatch.setattr(evaluate_colorize, "_colorize", colorize)
    table = evaluate_colorize.evaluate(models, tiny_data, count=4, progress=False, steps=2)
    assert len(made) == 3 * (4 + 2) and {str(o) for _, o in made} == {"{'steps': 2}"}
    assert [p for p, _ in made].count("") == 6
    for kind, count in (("one", 4), ("two", 2)):
        for row in table[kind].values():
            assert row["scenes"] == count and 0 <= row["closer"] <= 0.5
            assert row["grey_ciede2000"] > 0 and row["grey_cie76"] > 0
    monkeypatch.setattr(evaluate_colorize, "_colorize", real)
    sheet = tmp_path / "sheet.png"
    table = evaluate_colorize.evaluate(
        models, tiny_data, count=2, progress=False, sheet=sheet, steps=1, width=64, height=64
    )
    assert Image.open(sheet).size == (6 * 128, 2 * 128)
    text = evaluate_colorize.to_markdown(table)
    assert f"{table['one']['zh']['ciede2000']:.1f}" in text and text.count("\n") == 7


def test_scenes_left_grey_are_no_closer(tiny_model, tiny_data, monkeypatch):
    monkeypatch.setattr(evaluate_colorize, "_colorize", lambda models, grey, *rest: grey)
    models = load(tiny_model, device="cpu")
    table = evaluate_colorize.evaluate(models, tiny_data, count=2, progress=False)
    row = table["one"]["en"]
    assert row["closer"] == 0 and row["cie76"] == row["grey_cie76"]
    assert lab.delta_e76([[0, 3, 4]], [[0, 0, 0]])[0] == 5
