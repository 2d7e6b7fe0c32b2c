"""A new sampler, schedule, backend or task is one file and one row of a table.

One fake of each is added to a copy of the code. They show in the listings, the page, the web API
and the benchmark, in both languages, without a change anywhere else.
"""

from pathlib import Path

import pytest

from tests import fake_row

SAMPLER = '''
"""Sleepy: Euler."""

from .sigma import Model


def make_sampler(sampler, schedule, config, noise, steps, generator, seed, start_step, clean):
    return _run(Model(sampler, schedule, config, noise, steps, generator, start_step, clean))


def _run(model):
    x = model.first
    for i, (s, s_next) in enumerate(zip(model.sigmas, model.sigmas[1:])):
        denoised = yield from model.denoise(x, s, i)
        x = x + (s_next - s) * (x - denoised) / s
    return x
'''
SAMPLER_ROW = """Sampler(
        "Sleepy",
        "Euler that is tired.",
        "困倦的 Euler。",
        "EulerDiscreteScheduler",
        file="sleepy",
    )"""
SCHEDULE = '''
"""Drowsy: even noise levels."""

import numpy as np


def drowsy(n, trained, config):
    return np.linspace(8, 2, n)
'''
SCHEDULE_ROW = """Schedule(
        "Drowsy",
        "Even noise levels from 8 to 2.",
        "从 8 到 2 的均匀噪声水平。",
        _sigmas("karras", "linspace"),
        formula="drowsy",
        file="drowsy",
    )"""
BACKEND = '''
"""Attention that returns its values."""


def unsupported(device, dtype, head_size=None):
    return None


def run(q, k, v):
    return v
'''
BACKEND_ROW = 'Backend("returns its values", "直接返回数值。", "attention_lazy", rank=9)'
TASK = '''
"""Doodle: text to image with a wish."""

from typing import Annotated

from pydantic import Field

from .option_types import TaskOptions, integer


class Options(TaskOptions):
    wobble: Annotated[int, integer(0, 9)] = Field(3, description="How shaky the hand is, 0 to 9")


def stream(models, options, *, words=False):
    return models.stream(options, words=words)


def work(options, defaults):
    return 2.0 * options.wobble * defaults["steps"]
'''
TASK_ROW = 'Task("Doodle", "draw with a shaky hand", signs=True)'


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Return what describe_tables.py writes in a copy of the code with these four rows added."""
    folder = tmp_path_factory.mktemp("copy")
    fake_row.copy_code(folder)
    files = {
        "pipeline/samplers/sleepy.py": SAMPLER,
        "pipeline/samplers/drowsy.py": SCHEDULE,
        "pipeline/backends/attention_lazy.py": BACKEND,
        "pipeline/tasks/doodle.py": TASK,
    }
    for name, source in files.items():
        (folder / name).write_text(source, encoding="utf-8")
    fake_row.add_row(folder / "pipeline/samplers/table.py", "SAMPLERS", "sleepy", SAMPLER_ROW)
    fake_row.add_row(folder / "pipeline/samplers/table.py", "SCHEDULES", "drowsy", SCHEDULE_ROW)
    fake_row.add_row(folder / "pipeline/backends/table.py", "ATTENTION", "lazy", BACKEND_ROW)
    fake_row.add_row(folder / "pipeline/tasks/__init__.py", "TASKS", "doodle", TASK_ROW)
    return fake_row.describe(folder, Path(__file__).with_name("describe_tables.py"))


@pytest.mark.slow
def test_the_listings_name_them(described):
    samplers, backends = described["listed"]["samplers"], described["listed"]["backends"]
    assert "sleepy" in samplers and "Euler that is tired." in samplers
    assert "drowsy" in samplers and "Even noise levels from 8 to 2." in samplers
    assert "lazy" in backends and "returns its values" in backends


def test_the_page_offers_them_with_a_note_in_both_languages(described):
    choices = described["choices"]
    assert "sleepy" in choices["sampler"] and "drowsy" in choices["schedule"]
    assert "lazy" in choices["attention"]
    english, chinese = (described["texts"][language] for language in ("en", "zh"))
    assert english["sampler.sleepy"] == "Euler that is tired."
    assert chinese["sampler.sleepy"] == "困倦的 Euler。"
    assert chinese["schedule.drowsy"] == "从 8 到 2 的均匀噪声水平。"
    assert chinese["attention.lazy"] == "直接返回数值。"


def test_the_web_api_takes_them_and_names_them_where_a_name_is_wrong(described):
    """Its schema has names as text: what there is, its sentence says."""
    schema = {p["parameter_name"]: p["type"] for p in described["schema"]["parameters"]}
    assert schema["sampler"] == schema["schedule"] == {"type": "string"}
    assert "there is sleepy, " in described["sentence"]


def test_the_benchmark_has_the_backend_among_its_providers(described):
    assert described["providers"].count("lazy") == 1
    assert len(described["providers"]) == len(set(described["providers"]))


def test_options_and_names_know_them(described):
    assert described["options"]["sampler"] == "sleepy"
    assert described["options"]["schedule"] == "drowsy"
    assert described["split"] == ["sleepy", "drowsy"]
    assert not described["stochastic"]


def test_they_run(described):
    assert described["sigmas"] == pytest.approx([8, 5, 2])
    assert described["attention"] == [[[[1.0] * 8]] * 2]


def test_a_task_is_a_command_with_flags_of_its_own(described):
    assert "doodle" in described["help"]["all"]
    assert "draw with a shaky hand" in described["help"]["all"]
    assert "--wobble" in described["help"]["doodle"] and "--steps" in described["help"]["doodle"]
    assert "How shaky the hand is, 0 to 9" in described["help"]["doodle"]


def test_a_task_is_an_endpoint_of_the_web_api(described):
    endpoint = described["endpoints"]["/doodle"]
    names = [parameter["parameter_name"] for parameter in endpoint["parameters"]]
    assert names[0] == "prompt" and "wobble" in names and "seed" in names


def test_a_task_is_checked_and_says_how_much_it_draws(described):
    assert described["task"] == {
        "wobble": 4,
        "work": 160.0,  # 2 * 4 * 20
        "sentence": "Wobble must be a whole number from 0 to 9, not 'ten'.",
    }
