"""Names, pairs, missing packages, and that the tables cost nothing to import."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from pipeline.errors import InputError
from pipeline.samplers import (
    SAMPLERS,
    SCHEDULES,
    check_pair,
    make_sampler,
    sampler_key,
    schedule_key,
    split_name,
    unsupported,
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Euler a", "euler_a"),
        ("euler_a", "euler_a"),
        (" EULER-A ", "euler_a"),
        ("Euler ancestral", "euler_a"),
        ("Euler", "euler"),
        ("DPM++ 2M", "dpmpp_2m"),
        ("dpm++ 2m sde", "dpmpp_2m_sde"),
        ("DPM++ SDE", "dpmpp_sde"),
        ("dpmpp-2m", "dpmpp_2m"),
        ("DPM2 a", "dpm2_a"),
        ("dpm2", "dpm2"),
        ("PLMS", "plms"),
        ("PNDM", "plms"),
        ("UniPC", "unipc"),
        ("DPM++ 2S a", "dpmpp_2s_a"),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun"),
        ("DDIM CFG++", "ddim_cfgpp"),
        ("HeunPP2", "heunpp2"),
        ("Heun++2", "heunpp2"),
        ("DPM 2M", None),
        ("euler b", None),
        ("", None),
        ("++", None),
        ("😀", None),
    ],
)
def test_sampler_key(text, key):
    assert sampler_key(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("SGM Uniform", "sgm_uniform"),
        ("sgm-uniform", "sgm_uniform"),
        ("Automatic", "automatic"),
        ("KARRAS", "karras"),
        ("beta ", "beta"),
        ("normal", "normal"),
        ("Align Your Steps", "align_your_steps"),
        ("KL Optimal", "kl_optimal"),
        ("SGMUniform", "sgm_uniform"),
        ("turbo", None),
        ("", None),
    ],
)
def test_schedule_key(text, key):
    assert schedule_key(text) == key


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Euler a", ("euler_a", None)),
        ("k_euler_a", ("euler_a", None)),
        ("k_euler_ancestral", ("euler_a", None)),
        ("k_dpm_2_a_ka", ("dpm2_a", "karras")),
        ("k_lms_ka", ("lms", "karras")),
        ("k_dpmpp_2s_a_ka", ("dpmpp_2s_a", "karras")),
        ("k_dpmpp_2m_sde_heun_exp", ("dpmpp_2m_sde_heun", "exponential")),
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ SDE Karras", ("dpmpp_sde", "karras")),
        ("DPM++ 2M SDE", ("dpmpp_2m_sde", None)),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ 2M SDE Heun Karras", ("dpmpp_2m_sde_heun", "karras")),
        ("DPM++ 3M SDE Polyexponential", ("dpmpp_3m_sde", "polyexponential")),
        ("DPM++ 2M SGM Uniform", ("dpmpp_2m", "sgm_uniform")),
        ("Euler Uniform", ("euler", "uniform")),
        ("Euler Align Your Steps", ("euler", "align_your_steps")),
        ("Euler DDIM", ("euler", "ddim")),
        ("DDIM", ("ddim", None)),
        ("DDIM CFG++", ("ddim_cfgpp", None)),
        ("DPM2 a Karras", ("dpm2_a", "karras")),
        ("Restart", ("restart", None)),
        ("DPM fast", None),
        ("DPM adaptive", None),
        ("Karras", None),
        ("k_", None),
        ("", None),
    ],
)
def test_split_name(text, pair):
    assert split_name(text) == pair


def test_split_name_knows_every_pair():
    for key, row in SAMPLERS.items():
        for schedule in row.schedules:
            assert split_name(f"{row.label} {SCHEDULES[schedule].label}") == (key, schedule)


def test_the_tables_hold_together():
    names = (
        "ddpm ddim ddim_cfgpp plms euler euler_a heun heunpp2 lms dpm2 dpm2_a dpmpp_2s_a dpmpp_2m "
        "dpmpp_2m_sde dpmpp_2m_sde_heun dpmpp_3m_sde dpmpp_sde unipc deis lcm tcd restart"
    )
    assert set(names.split()) <= set(SAMPLERS)  # names that people type stay
    schedules = (
        "automatic uniform karras exponential polyexponential sgm_uniform kl_optimal "
        "align_your_steps simple normal ddim beta"
    )
    assert set(schedules.split()) <= set(SCHEDULES)
    automatic = {key: row.automatic for key, row in SAMPLERS.items() if row.automatic != "uniform"}
    assert (
        automatic.items()
        >= {
            "dpm2": "karras",
            "dpm2_a": "karras",
            "dpmpp_2s_a": "karras",
            "dpmpp_2m": "karras",
            "dpmpp_2m_sde": "exponential",
            "dpmpp_2m_sde_heun": "exponential",
            "dpmpp_3m_sde": "exponential",
            "dpmpp_sde": "karras",
            "restart": "karras",
        }.items()
    )
    for key, row in SAMPLERS.items():
        assert sampler_key(row.label) == sampler_key(key) == key
        assert set(row.schedules) <= set(SCHEDULES) and row.schedules[:2] == (
            "automatic",
            "uniform",
        )
        assert row.automatic in row.schedules and row.note.endswith(".")
        assert all(check_pair(key, schedule) is None for schedule in row.schedules)
    for key, row in SCHEDULES.items():
        assert schedule_key(row.label) == schedule_key(key) == key


def test_a_pair_that_does_not_go_together():
    sentence = check_pair("plms", "karras")
    assert sentence == (
        "PLMS does not take the schedule karras; it takes automatic, uniform, sgm_uniform."
    )
    with pytest.raises(InputError, match="PLMS does not take the schedule karras"):
        begin("plms", "karras")


def begin(sampler="euler", schedule="uniform", steps=3, **config):
    noise = torch.zeros(1, 4, 2, 2)
    return make_sampler(sampler, schedule, config, noise, steps, torch.Generator(), 0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sampler": "eulr"}, "There is no sampler eulr; there is euler, "),
        ({"schedule": "karas"}, "There is no schedule karas; there is karras, "),
        ({"steps": 0}, "steps must be from 1 to 1000 with this checkpoint, not 0"),
        ({"steps": 11, "num_train_timesteps": 10}, "steps must be from 1 to 10 with"),
        ({"prediction_type": "flow_prediction"}, "This checkpoint predicts flow_prediction"),
        ({"beta_schedule": "wavy"}, "Euler cannot use this checkpoint's scheduler configuration"),
    ],
)
def test_bad_input_is_one_sentence_before_the_first_step(fields, sentence):
    with pytest.raises(InputError) as error:
        begin(**fields)
    assert str(error.value).startswith(sentence)


def test_missing_packages_are_named(monkeypatch):
    assert all(unsupported(name) is None for name in (*SAMPLERS, *SCHEDULES))
    find_spec = importlib.util.find_spec

    def without(*names):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: None if name in names else find_spec(name, *more),
        )

    without("torchsde")
    assert unsupported("dpmpp_sde") == "DPM++ SDE needs torchsde: pip install torchsde."
    assert unsupported("lms") is None
    with pytest.raises(InputError, match=r"DPM\+\+ SDE needs torchsde"):
        begin("dpmpp_sde")
    without("torchsde", "scipy")
    assert unsupported("lms") == "LMS needs scipy: pip install scipy."
    assert unsupported("dpmpp_sde").startswith("DPM++ SDE needs torchsde and scipy: ")
    with pytest.raises(InputError, match="Beta needs scipy"):
        begin("euler", "beta")


def test_the_import_is_light():
    done = run(
        "import sys, pipeline.samplers\n"
        "print([m for m in ('torch', 'diffusers', 'numpy', 'scipy') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.slow
def test_nothing_is_printed_whatever_the_configuration_holds(configs):
    config = configs["epsilon"] | {"solver_order": 2, "sigma_data": 1, "unheard_of": [1]}
    done = run(
        "import torch\n"
        "from pipeline.samplers import *\n"
        f"config = {config!r}\n"
        "for name in SAMPLERS:\n"
        "    x = torch.ones(1, 4, 2, 2)\n"
        "    sampler = make_sampler(name, 'automatic', config, x, 30, torch.Generator(), 0)\n"
        "    next(sampler)\n"
        "    try:\n"
        "        while True:\n"
        "            sampler.send(Answer(x))\n"
        "    except StopIteration as end:\n"
        "        assert end.value.isfinite().all(), name\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
