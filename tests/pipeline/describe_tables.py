"""Write what the program shows of its tables' rows, as JSON, to the path in $REPORT.

test_one_row.py runs this as a test in a copy of the code (fake_row.describe).
"""

import json
import os
from pathlib import Path

import pytest
import torch

import demo
from demo import texts
from kernels.bench import attention as benchmark
from pipeline import GenerateOptions, InputError, samplers, tasks
from pipeline.__main__ import main
from pipeline.backends import ATTENTION, bench
from pipeline.introspection import arena


def choices(page, elem_id):
    """Return the values that the dropdown `elem_id` of a page offers."""
    boxes = [b for b in page.blocks.values() if getattr(b, "elem_id", None) == elem_id]
    return [value for box in boxes for _, value in box.choices]


def test_describe(fake_models, fake_model_cache, capsys):
    main(["samplers"])
    listed = {"samplers": capsys.readouterr().out}
    main(["backends", "--device", "cpu"])
    listed["backends"] = capsys.readouterr().out
    shown = {}
    for name, words in {"all": ["--help"], "doodle": ["doodle", "--help"]}.items():
        with pytest.raises(SystemExit):
            main(words)
        shown[name] = capsys.readouterr().out
    options = tasks.options("doodle", wobble=4)
    with pytest.raises(InputError) as wrong:
        tasks.options("doodle", wobble="ten")
    task = {
        "wobble": options.wobble,
        "work": tasks.work("doodle", options),
        "sentence": str(wrong.value),
    }
    page = demo.build(fake_model_cache(fake_models()))
    bench.add_providers()
    noise, config = torch.ones(1, 4, 2, 2), {"beta_schedule": "scaled_linear"}
    sampler = samplers.make_sampler("Sleepy", "Drowsy", config, noise, 3, torch.Generator(), 0)
    query, sigmas = next(sampler), []
    try:
        while True:
            sigmas.append(query.sigma)
            query = sampler.send(samplers.Answer(torch.zeros_like(noise)))
    except StopIteration:
        pass
    q = torch.ones(1, 2, 1, 8)
    with pytest.raises(InputError) as error:
        GenerateOptions(sampler="slepy")
    found = {
        "sentence": str(error.value),
        "listed": listed,
        "choices": {name: choices(page, name) for name in ("sampler", "schedule", "attention")},
        "help": shown,
        "task": task,
        "endpoints": page.get_api_info()["named_endpoints"],
        "schema": page.get_api_info()["named_endpoints"]["/generate"],
        "texts": texts.translations().translations_dict,
        "providers": list(benchmark.RUNS),
        "options": GenerateOptions(sampler="Sleepy", schedule="Drowsy").model_dump(),
        "split": samplers.split_name("Sleepy Drowsy"),
        "stochastic": "sleepy" in arena.STOCHASTIC,
        "sigmas": sigmas,
        "attention": ATTENTION["lazy"].run(q, q, q).tolist(),
    }
    Path(os.environ["REPORT"]).write_text(json.dumps(found), encoding="utf-8")
