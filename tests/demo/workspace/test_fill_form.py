"""A parameters text shown, and put into the form."""

from types import SimpleNamespace

import pytest

from demo.server.runner import task_fields
from demo.workspace import fill_form

TEXT = (
    "a <b>cat</b>\nNegative prompt: rain\nSteps: 7, Sampler: Euler, Schedule type: Karras, "
    "CFG scale: 3.5, Seed: 42, Size: 192x64, Model hash: 0123456789, Model: fake, "
    "Clip skip: 2, Odd <i>: 1, Odd thing: <u>1</u>"
)


@pytest.fixture
def model_cache(fake_models, fake_model_cache):
    second = fake_models()
    second.name, second.hash = "second", "9999999999"
    return fake_model_cache(fake_models(), [second])


@pytest.fixture
def page(model_cache):
    """A page whose components are the names of their fields."""
    form = {name: name for name in task_fields("generate")}
    return SimpleNamespace(model_cache=model_cache, form=form, i18n=str)


def values(page, text, vary=False):
    """What the form's fields become, without those that stay."""
    updates = fill_form.form_updates(page, fill_form.read_parameters(text, page.model_cache), vary)
    return {name: update["value"] for name, update in updates.items()}


def test_a_text_is_shown_in_both_languages_and_escaped(model_cache):
    read = fill_form.read_parameters(TEXT, model_cache)
    for language, words in (("en", ("Seed", "Euler", "42")), ("zh", ("种子", "采样器", "42"))):
        page = fill_form.render_settings(read, language)
        assert all(word in page for word in words)
        assert "a &lt;b&gt;cat&lt;/b&gt;" in page
        assert "&lt;u&gt;1&lt;/u&gt;" in page
        assert not any(tag in page for tag in ("<b>cat", "<u>", "<i>:"))


def test_warnings_are_shown(model_cache):
    page = fill_form.render_settings(
        fill_form.read_parameters("a\nSteps: 99999, Sampler: Euler, Seed: 1", model_cache), "en"
    )
    assert "99999" in page and "gb-warnings" in page


def test_the_form_takes_what_the_text_says(page):
    assert values(page, TEXT) == {
        "prompt": "a <b>cat</b>", "negative": "rain", "sampler": "euler", "schedule": "karras",
        "steps": 7, "cfg": 3.5, "seed": "42", "width": 192, "height": 64, "clip_skip": "2",
        "cfg_rescale": 0, "variation_seed": "", "variation_strength": 0, "count": 1,
        "model": "fake",
    }  # fmt: skip


def test_what_the_text_leaves_out_is_the_default_and_the_rest_stays(page):
    got = values(page, "a cat")
    assert got["clip_skip"] == got["seed"] == got["negative"] == ""
    assert not {"steps", "sampler", "attention", "group_norm", "model"} & set(got)


def test_variations_are_filled_and_forgotten(page):
    got = values(page, TEXT + ", Variation seed: 9, Variation seed strength: 0.25")
    assert (got["variation_seed"], got["variation_strength"]) == ("9", 0.25)
    assert (values(page, TEXT)["variation_seed"], values(page, TEXT)["variation_strength"]) == (
        "",
        0,
    )


def test_what_the_form_does_not_have_is_left_out(page):
    del page.form["cfg"]
    assert "cfg" not in values(page, TEXT) and values(page, TEXT)["steps"] == 7


def test_a_new_seed_is_a_random_one(page):
    assert values(page, TEXT, vary=True) == values(page, TEXT) | {"seed": ""}


def test_a_model_that_is_not_here_is_not_chosen(page):
    text = TEXT.replace("Model: fake", "Model: ../../x").replace("0123456789", "aaaaaaaaaa")
    assert "model" not in values(page, text)
    assert "is not here" in fill_form.render_settings(
        fill_form.read_parameters(text, page.model_cache), "en"
    )
