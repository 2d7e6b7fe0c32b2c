"""The page is built, and its work done, without a server and without a network."""

import base64
import gc
import io
import json
import threading

import gradio as gr
import pytest
from PIL import Image

from demo import build
from demo.events import Broken, Finished, Progress
from demo.server.runner import Runner, task_fields
from demo.tabs import TABS, TASK_TABS
from demo.ui.images import THUMBNAIL_SIDE
from demo.ui.status import done_line, error_line
from demo.workspace import history, vocabulary
from demo.workspace.layout import EXAMPLES
from pipeline.errors import InputError
from pipeline.options import GenerateOptions
from pipeline.samplers import SAMPLERS, unsupported
from pipeline.tasks import TASKS, module


def fields(**given):
    return (
        dict.fromkeys(task_fields("generate")) | {"prompt": "a cat", "count": 1, "seed": 3} | given
    )


def test_every_task_has_a_tab():
    assert set(TASK_TABS) == set(TASKS)
    assert set(TABS) - set(TASKS) >= {"info", "kernels"}
    for prompt in EXAMPLES:
        GenerateOptions(prompt=prompt)


@pytest.mark.parametrize("key", TASK_TABS)
def test_a_tab_asks_for_fields_that_its_task_has(key, fake_models, fake_model_cache):
    """Every field of a task can be set on the page, and its default there is the task's own."""
    page = build(fake_model_cache(fake_models()))
    own = set(module(key).Options.model_fields) - set(module("generate").Options.model_fields)
    shown = {
        getattr(block, "elem_id", None): block
        for block in page.blocks.values()
        if str(getattr(block, "elem_id", "")).startswith(f"{key}-")
    }
    assert {f"{key}-{name}" for name in own} <= set(shown)
    for name in own - {"picture", "mask", "x", "y", "z"}:
        assert shown[f"{key}-{name}"].value == module(key).Options.model_fields[name].default


def test_every_device_listener_shares_one_place(fake_models, fake_model_cache):
    page = build(fake_model_cache(fake_models()))
    assert isinstance(page, gr.Blocks)
    device = [fn for fn in page.fns.values() if fn.concurrency_id == "gpu"]
    # the buttons of the tasks, their endpoints, and tabs that use the device themselves
    assert len(device) >= 2 * len(TASKS)
    assert {fn.concurrency_limit for fn in device} == {1}
    assert all(fn.queue for fn in device)
    assert page.api_open is False
    assert page._queue.size
    public = {fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"}
    assert public >= set(TASKS)


def test_a_model_without_vocabulary_has_no_list_of_objects(fake_models, fake_model_cache):
    models = fake_models()
    assert part(build(fake_model_cache(models)), "knows").visible
    models.vocabulary = None
    assert not part(build(fake_model_cache(models)), "knows").visible


def part(page, elem_id):
    (block,) = (b for b in page.blocks.values() if getattr(b, "elem_id", None) == elem_id)
    return block


def test_sampler_choices_are_the_tables(fake_models, fake_model_cache):
    page = build(fake_model_cache(fake_models()))
    assert [key for _, key in part(page, "sampler").choices] == [
        s for s in SAMPLERS if not unsupported(s)
    ]


def test_a_run_streams_steps_then_files_that_keep_their_text(
    fake_models, fake_model_cache, tmp_path
):
    *steps, last = Runner(fake_model_cache(fake_models())).stream(
        fields(steps=4, count=2), str(tmp_path)
    )
    assert all(isinstance(step, Progress) for step in steps)
    assert [(s.image, s.index) for s in steps] == [(i, n) for i in (1, 2) for n in (1, 2, 3, 4)]
    assert len({s.preview for s in steps}) == 8
    assert isinstance(last, Finished)
    assert last.seed == 3
    for path, text in zip(last.files, last.parameters.split("\n\n"), strict=True):
        assert Image.open(path).info["parameters"] == text


def test_a_run_draws_with_the_model_that_is_named(fake_models, fake_model_cache, tmp_path):
    first, second = fake_models(), fake_models()
    second.name = "second"
    stream = Runner(fake_model_cache(first, [second])).stream
    list(stream(fields(steps=2), str(tmp_path)))
    list(stream(fields(steps=3, model="second"), str(tmp_path)))
    assert (first.steps_done, second.steps_done) == (2, 3)
    with pytest.raises(InputError, match="no model 'third'"):
        next(stream(fields(model="third"), str(tmp_path)))


def test_a_picture_brings_a_small_one_and_its_warnings(fake_models, fake_model_cache, tmp_path):
    *_, last = Runner(fake_model_cache(fake_models())).stream(
        fields(width=1024, count=2), str(tmp_path)
    )
    made = json.loads(history.history_entries(last))
    assert [entry["text"] for entry in made] == last.texts
    for entry in made:
        small = Image.open(io.BytesIO(base64.b64decode(entry["image"].split(",")[1])))
        assert (max(small.size), small.format) == (THUMBNAIL_SIDE, "JPEG")
    told = done_line(last, "en")
    assert "A &lt;b&gt;quiet&lt;/b&gt; word." in told


def test_a_run_says_what_the_user_can_mend(fake_models, fake_model_cache, tmp_path):
    with pytest.raises(InputError, match="whole number from 1 to 200"):
        next(Runner(fake_model_cache(fake_models())).stream(fields(steps=9999), str(tmp_path)))
    with pytest.raises(InputError, match="at most 1024 pixels"):
        next(Runner(fake_model_cache(fake_models())).stream(fields(width=1032), str(tmp_path)))


def test_a_run_hides_what_the_user_cannot_mend(fake_models, fake_model_cache, tmp_path, caplog):
    stream = Runner(fake_model_cache(fake_models(fails=RuntimeError("secret path /x/y")))).stream
    with pytest.raises(Broken) as caught:
        next(stream(fields(), str(tmp_path)))
    assert "secret" not in str(caught.value)
    assert "secret path" in caplog.text


def test_closing_stops_the_work_and_frees_the_device(fake_models, fake_model_cache, tmp_path):
    models = fake_models()
    stream = Runner(fake_model_cache(models)).stream
    events = stream(fields(steps=200), str(tmp_path))
    for _ in range(3):
        next(events)
    events.close()
    assert models.active == 0
    assert models.steps_done == 3
    assert isinstance(list(stream(fields(steps=2), str(tmp_path)))[-1], Finished)


def test_a_dropped_request_frees_the_device(fake_models, fake_model_cache, tmp_path):
    models = fake_models()
    stream = Runner(fake_model_cache(models)).stream
    next(stream(fields(steps=200), str(tmp_path)))
    gc.collect()
    assert models.active == 0


def test_the_device_is_held_until_the_step_has_ended(fake_models, fake_model_cache, tmp_path):
    models = fake_models(seconds_a_step=0.02)
    stream = Runner(fake_model_cache(models)).stream
    threads = [
        threading.Thread(target=lambda: list(stream(fields(steps=3), str(tmp_path))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert models.most_active == 1


def test_the_vocabulary_is_shown_in_the_language_of_the_page(fake_models):
    english, chinese = (
        vocabulary.render_vocabulary(fake_models.vocabulary, t) for t in ("en", "zh")
    )
    assert 'data-name="red apple"' in english and "红苹果" not in english
    assert 'data-name="红苹果"' in chinese and "red apple" not in chinese
    strange = [{"emoji": "<x1>", "en": "<x2>", "zh": "x", "group": "<x3>"}]
    assert "<x" not in vocabulary.render_vocabulary(strange, "en")
    assert vocabulary.panel_updates(None, "en")[1] == ""


def test_status_escapes_what_people_typed():
    assert "<img" not in error_line("There is no sampler '<img src=x>'.")


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("red apple", "a red apple"),
        ("ice skate", "an ice skate"),
        ("unicorn", "a unicorn"),
        ("grapes", "grapes"),
        ("octopus", "an octopus"),
        ("红苹果", "红苹果"),
    ],
)
def test_names_go_into_the_prompt_as_the_captions_have_them(name, phrase):
    assert vocabulary.with_article(name) == phrase
