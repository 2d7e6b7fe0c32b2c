"""Grids: axes are read as A1111 reads them, each cell is the picture drawn alone, bad ones end in a
sentence before anything is drawn."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import load
from pipeline.errors import InputError
from pipeline.metadata import infotext
from pipeline.model_cache import ModelCache
from pipeline.model_files import library
from pipeline.tasks import grid, grid_axes

SMALL = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(tiny_model)


def drawn(models, model_cache=None, **fields):
    *steps, result = grid.stream(models, grid.Options(**(SMALL | fields)), model_cache)
    return steps, result


def refused(**fields) -> str:
    with pytest.raises(InputError) as error:
        grid.Options(**({"prompt": "a red apple"} | fields))
    return str(error.value)


# --- axes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("cfg: 3, 5, 7", "cfg", (3, 5, 7)),
        ("CFG Scale:7.5", "cfg", (7.5,)),
        ("Sampler: Euler a, ddim", "sampler", ("euler_a", "ddim")),
        ("schedule type: Karras", "schedule", ("karras",)),
        ("prompt S/R: red, blue", "prompt", ("red", "blue")),
        ('prompt: "red, ripe", blue', "prompt", ("red, ripe", "blue")),
        ('prompt: red,"blue, unripe"', "prompt", ("red", "blue, unripe")),
        ("prompt: red,", "prompt", ("red", "")),
        ("prompt: a:b, c", "prompt", ("a:b", "c")),
        ("size: 64x64, 128 × 64", "size", ("64x64", "128x64")),
        ("Clip skip: 1-3", "clip_skip", (1, 2, 3)),
        ("checkpoint name: a, b", "model", ("a", "b")),
        ("vae: None, x", "vae", ("own", "x")),
        ("提示", None, ()),
        ("variation strength： 0-1 [3]", "variation_strength", (0, 0.5, 1)),
        ("negative: , blurry", "negative", ("", "blurry")),
        # the examples of A1111's own manual
        ("steps: 1-5", "steps", (1, 2, 3, 4, 5)),
        ("steps: 1-5 (+2)", "steps", (1, 3, 5)),
        ("steps: 10-5 (-3)", "steps", (10, 7)),
        ("cfg: 1-3 (+0.5)", "cfg", (1, 1.5, 2, 2.5, 3)),
        ("steps: 1-10 [5]", "steps", (1, 3, 5, 7, 10)),
        ("cfg: 0.0-1.0 [6]", "cfg", (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ("steps: 4, 6-8, 20-10 (-5)", "steps", (4, 6, 7, 8, 20, 15, 10)),
    ],
)
def test_an_axis_is_read(text, name, values):
    if name is None:
        with pytest.raises(InputError, match="no option"):
            grid_axes.parse_axis("x", text)
        return
    axis = grid_axes.parse_axis("x", text)
    assert (axis.name, axis.values) == (name, values)
    assert len(axis.labels) == len(values) and all(label.strip() for label in axis.labels)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_ranges_of_whole_numbers_count_by_their_step(start, end, step):
    up = range(start, end + 1, step) if start <= end else range(start, end - 1, -step)
    sign = "+" if start <= end else "-"
    assert grid_axes.parse_axis("y", f"steps: {start} - {end} ({sign}{step})").values == tuple(up)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 100))
def test_ranges_with_a_count_are_numpys_cut_to_whole_numbers(start, end, count):
    # fp64 may fall just below a whole number that is meant
    expected = tuple(int(v + 1e-9) for v in np.linspace(start, end, count))
    assert grid_axes.parse_axis("z", f"steps: {start}-{end} [{count}]").values == expected


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 700))
def test_ranges_of_fractions_never_pass_their_end(start, end, step):
    a, b, by = min(start, end), max(start, end), step
    assume((b - a) // by < grid_axes.MAX_CELLS)
    got = grid_axes.parse_axis("x", f"cfg: {a / 100:.2f}-{b / 100:.2f} (+{by / 100:.2f})").values
    assert got == tuple(v / 100 for v in range(a, b + 1, by))


@settings(max_examples=300)
@given(st.text(max_size=40), st.sampled_from(["", "cfg: ", "prompt: ", "seed:", "size: "]))
def test_any_text_is_an_axis_or_a_sentence(text, start):
    try:
        axis = grid_axes.parse_axis("x", start + text)
    except InputError as error:
        said = str(error)
        assert "axis x" in said and said.endswith(".") and "\n" not in said and len(said) < 600
    else:
        assert 1 <= len(axis.values) <= grid_axes.MAX_CELLS == 100


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "Zs"))), min_size=1, max_size=9))
def test_values_in_quotes_come_back(values):
    quoted = ", ".join('"' + value.replace('"', '""') + '"' for value in values)
    assert grid_axes.parse_axis("x", f"prompt: {quoted}").values == tuple(v.strip() for v in values)


def test_a_seed_of_minus_one_is_drawn_and_named():
    axis = grid_axes.parse_axis("y", "seed: -1, 4, -1")
    assert axis.values[1] == 4 and len(set(axis.values)) == 3
    assert axis.fields["Y Values"] == "-1, 4, -1"
    assert axis.fields["Fixed Y Values"] == ", ".join(map(str, axis.values))


def test_every_option_can_vary():
    assert set(grid_axes.NAMES) == {*grid.GenerateOptions.model_fields, "size", "model", "vae"} - {
        "count"
    }


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "A grid needs an axis"),
        ({"x": " "}, "A grid needs an axis"),
        ({"x": "cfg"}, "no values"),
        ({"x": "cfg: "}, "no values"),
        ({"x": "cgf: 3"}, "On the axis x, there is no option 'cgf'; there is cfg"),
        ({"x": "count: 1, 2"}, "no option 'count'"),
        ({"y": "cfg: 3, 99"}, "On the axis y, cfg must be a number from 0 to 30, not '99'."),
        ({"y": "cfg: 3, x"}, "not 'x'"),
        ({"z": "steps: 4,,5"}, "On the axis z, steps has an empty value."),
        ({"z": "steps: 0-3"}, "not '0'"),
        ({"x": "steps: 1.5-3"}, "not '1.5-3'"),
        ({"x": "steps: 1-5 (-1)"}, "'1-5 (-1)' has no values"),
        ({"x": "steps: 1-5 (+0)"}, "has no values"),
        ({"x": "steps: 1-5 [0]"}, "has no values"),
        ({"x": "seed: 0-4294967295"}, "too many values"),
        ({"x": f"seed: 0-{'9' * 5000}"}, "seed must be a whole number"),
        ({"x": "seed: " + "1," * 101 + "1"}, "102 values; a grid has at most 100"),
        ({"x": "seed: 1-11", "y": "steps: 1-10"}, "11 x 10 x 1 = 110 pictures; at most 100"),
        ({"x": "seed: 1-5", "y": "steps: 1-5", "z": "cfg: 1-5"}, "5 x 5 x 5 = 125 pictures"),
        ({"x": "sampler: eulr"}, "there is no sampler 'eulr'; there is euler"),
        ({"x": "size: 64"}, "size must be WIDTHxHEIGHT"),
        ({"x": "size: 64x65"}, "height must be a multiple of 8, not 65"),
        ({"x": "prompt: pear, plum"}, "'pear' is searched for and is neither"),
        ({"x": "prompt: red, blue", "y": "prompt: red apple, pear"}, "'red apple' is searched"),
        ({"x": 'prompt: "red'}, "a quote too many or too few"),
        ({"x": "cfg: 1", "y": "CFG scale: 2"}, "The axes x and y both set cfg."),
        ({"x": "size: 64x64", "z": "width: 64"}, "The axes x and z both set width."),
        ({"x": "cfg: 1", "count": 2}, "count must be 1, not 2"),
        ({"x": 3}, "X must be text"),
        ({"x": "p" * 10_001}, "at most 10,000"),
        (
            {"x": "sampler: unipc, ddim", "y": "schedule: karras"},
            "At x DDIM and y Karras, ",
        ),
        ({"x": "model: a, "}, "model has an empty value"),
        ({"x": f"prompt: red, {'x' * 9_999}"}, "at most 10,000 are allowed"),
    ],
)
def test_what_cannot_be_ends_in_one_sentence(fields, words):
    said = refused(**fields)
    assert words in said and said.endswith(".") and "\n" not in said


def test_the_axes_are_all_told_of_at_once():
    said = refused(x="cfg: 99", y="steps: 999")
    assert "axis x" in said and "axis y" in said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"x": "seed: 1-10", "y": "cfg: 1-10", "width": 1024, "height": 1024}, "million pixels"),
        ({"x": "seed: 1-20", "width": 1024}, "16,383 a side"),
        ({"x": "model: tiny, other"}, "no other model can be chosen here"),
        ({"x": "attention: sdpa, none"}, "none"),
        ({"y": "clip_skip: 1", "x": "group_norm: torch, nothing"}, "At x nothing and y 1, "),
    ],
)
def test_what_this_model_cannot_do_is_told_before_the_first_step(
    models, monkeypatch, fields, words
):
    monkeypatch.setattr(type(models), "stream", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(InputError, match=words):
        drawn(models, **fields)


def test_options_need_no_torch():
    code = (
        "import sys; from pipeline.tasks.grid import Options; Options(x='cfg: 1-3');"
        "assert not {'torch', 'PIL', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what is drawn --------------------------------------------------------------------------------


def test_each_cell_is_the_picture_drawn_alone_and_stands_in_the_sheet(models):
    _, result = drawn(
        models, x="cfg: 1, 4", y="prompt: red, blue", z="sampler: euler a, ddim", negative="red"
    )
    assert len(result.images) == len(result.parameters) == len(result.seeds) == 9
    sheet = np.array(result.images[0])
    places = product(("euler_a", "ddim"), ("red", "blue"), (1, 4))
    found = []
    for (sampler, colour, cfg), image, text in zip(
        places, result.images[1:], result.parameters[1:], strict=True
    ):
        fields = {"prompt": f"a {colour} apple", "negative": colour, "cfg": cfg}
        alone = models.generate(**(SMALL | fields | {"sampler": sampler}))
        pixels = np.array(image)
        assert np.array_equal(pixels, np.array(alone.images[0]))
        assert text == alone.parameters[0] == image.info["parameters"]
        corners = np.argwhere((sheet == pixels[0, 0]).all(-1))
        there = [
            (int(y), int(x))
            for y, x in corners
            if np.array_equal(sheet[y : y + 64, x : x + 64], pixels)
        ]
        assert len(there) == 1
        found += there
    rows, columns = ([at[i] for at in found] for i in (0, 1))
    assert columns[0] < columns[1] and rows[0] == rows[1] < rows[2] and columns[2] == columns[0]
    assert rows[4] > rows[2] or columns[4] > columns[1]  # the second block


def test_events_count_over_all_cells(models):
    steps, result = drawn(models, x="steps: 1-3", y="seed: 1, 2")
    assert [(s.image, s.index, s.total) for s in steps] == [
        (image, index, total)
        for image, total in enumerate((1, 2, 3, 1, 2, 3))
        for index in range(1, total + 1)
    ]
    assert {s.count for s in steps} == {6}
    spent = [s.seconds for s in steps] + [result.seconds]
    assert spent == sorted(spent)
    assert result.seeds == [1, 1, 1, 1, 2, 2, 2] and steps[0].preview.size


def test_the_sheets_own_text_names_the_axes(models):
    _, result = drawn(models, x='prompt: red, "blue, big"', z="seed: 3, -1")
    found = infotext.parse(result.images[0].info["parameters"])
    assert found["Script"] == "X/Y/Z plot" and "Y Type" not in found
    assert (found["X Type"], found["X Values"]) == ("Prompt S/R", 'red, "blue, big"')
    assert (found["Z Type"], found["Z Values"]) == ("Seed", "3, -1")
    assert found["Fixed Z Values"] == f"3, {result.seeds[3]}"
    assert found["Prompt"] == "a red apple" and found["Seed"] == "3"


def test_a_seed_that_is_left_out_is_one_for_all(models):
    _, result = drawn(models, seed=None, x="variation strength: 0, 0.5, 1")
    assert len(set(result.seeds)) == 1 and result.options.seed == result.seeds[0]
    said = [infotext.parse(text) for text in result.parameters[1:]]
    assert "Variation seed" not in said[0]
    assert said[1]["Variation seed"] == said[2]["Variation seed"]
    last = models.generate(**(SMALL | {"seed": int(said[2]["Variation seed"]), "sampler": "ddim"}))
    _, other = drawn(
        models,
        sampler="ddim",
        variation_seed=int(said[2]["Variation seed"]),
        x="variation strength: 1",
    )
    assert np.array_equal(np.array(last.images[0]), np.array(other.images[1]))


def test_pictures_of_several_sizes_stand_apart(models):
    _, result = drawn(models, x="width: 64, 128", y="height: 64, 72")
    assert [i.size for i in result.images[1:]] == [(64, 64), (128, 64), (64, 72), (128, 72)]
    assert result.images[0].width > 192 and result.images[0].height > 136


def test_closing_the_stream_stops_the_work(models):
    events = grid.stream(models, grid.Options(**SMALL, x="seed: 1-50"))
    next(events)
    events.close()
    with pytest.raises(StopIteration):
        next(events)


@pytest.fixture
def model_cache(tmp_path, monkeypatch, tiny_model, models):
    folder = tmp_path / "models"
    for name in ("one", "two"):
        shutil.copytree(tiny_model, folder / name)
    monkeypatch.setattr(library, "OWN", folder)
    monkeypatch.setattr(library, "EMBEDDED", tmp_path / "none")
    return ModelCache(load(folder / "one"))


def test_models_are_an_axis_where_there_is_a_model_cache(model_cache):
    asked = []
    get = model_cache.get
    model_cache.get = lambda *names: asked.append(names) or get(*names)
    _, result = drawn(model_cache.first, model_cache, x="model: TWO, one", y="seed: 1, 2")
    names = [infotext.parse(text)["Model"] for text in result.parameters[1:]]
    assert names == ["two", "one", "two", "one"]
    assert [name for name, *_ in asked] == ["one", "one", "two", "two"]  # no model is loaded twice
    assert result.metadata["model"] == "two"


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ("model: one, three", "there is no model 'three' to choose; there is one"),
        ("vae: own, other", "there is no vae 'other' to choose; there is none"),
    ],
)
def test_a_model_that_is_not_there_is_told_before_the_first_step(
    model_cache, monkeypatch, axis, words
):
    monkeypatch.setattr(type(model_cache.first), "stream", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(InputError, match=re.escape(words)):
        drawn(model_cache.first, model_cache, x=axis)


def test_a_damaged_model_is_told_before_the_first_step(model_cache, monkeypatch):
    (library.OWN / "two" / "unet" / "config.json").write_text("{")
    monkeypatch.setattr(type(model_cache.first), "stream", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(InputError, match=r"config\.json"):
        drawn(model_cache.first, model_cache, x="model: one, two")
