"""The whole way of a picture, stage by stage, against the engine's own pieces."""

import ast
import threading
import time
from pathlib import Path

import pytest
import torch

from pipeline import GenerateOptions, load
from pipeline.engine import encode_request
from pipeline.introspection import trace
from pipeline.latents import noise
from pipeline.prompt import resources

ROOT = Path(__file__).parents[3]
PROMPT = "a red apple on a (blue:1.3) apple"


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(tiny_model, device="cpu")


def run(models, **fields):
    given = {"prompt": PROMPT, "seed": 5, "steps": 4, "width": 64, "height": 128} | fields
    options = GenerateOptions(**given)
    return options, list(trace.stages(models, options))


def test_every_stage_names_code_that_exists():
    """The page shows this code: a name that was changed elsewhere would stop it being built."""
    for path, name in trace.STAGES.values():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        definitions = [
            node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        ]
        assert name in definitions, f"{path} has no {name}"


def test_every_stage_comes_once_and_every_step(models):
    options, stages = run(models)
    keys = [stage.key for stage in stages]
    assert list(dict.fromkeys(keys)) == list(trace.STAGES)
    assert [s.output.index for s in stages if s.key == "step"] == [1, 2, 3, 4]
    assert len(keys) == len(trace.STAGES) + options.steps - 1


def test_what_stages_made_is_the_engines(models):
    options, stages = run(models)
    made = {stage.key: stage for stage in stages}
    result = models.generate(options)
    resolved = models.resolve(options)
    asked = resources.find_resources(models, resolved)
    context = encode_request(models, resolved, asked)[0].at(0)[0]
    assert torch.equal(made["context"].output, context)
    assert made["context"].shape == tuple(context.shape) == (1, 77, 32)
    first = noise.first_noise(torch.Generator().manual_seed(5), 4, 16, 8)
    assert torch.equal(made["noise"].output, first)
    assert made["noise"].shape == made["latents"].shape == (1, 4, 16, 8)
    assert torch.equal(made["latents"].output, result.latents[0])
    assert made["picture"].output.tobytes() == result.images[0].tobytes()
    assert made["picture"].shape == (1, 3, 128, 64)
    assert made["parameters"].output == result.parameters[0]


def test_the_first_step_sees_the_first_noise(models):
    """DDIM begins with the noise as it is; every sampler sees nothing else at first."""
    for sampler in ("ddim", "euler"):
        _, stages = run(models, sampler=sampler)
        drawn = next(s for s in stages if s.key == "noise").output.flatten()
        seen = next(s for s in stages if s.key == "step").output.latents.flatten()
        assert torch.corrcoef(torch.stack([drawn, seen]))[0, 1] > 0.9999


def test_variation_moves_the_noise(models):
    more = {"variation_seed": 9, "variation_strength": 0.5}
    plain, varied = (
        next(s for s in run(models, **fields)[1] if s.key == "noise").output
        for fields in ({}, more)
    )
    second = torch.randn(1, 4, 16, 8, generator=torch.Generator().manual_seed(9))
    assert torch.equal(varied, noise.slerp(0.5, plain, second))


def test_tokens_are_those_that_the_encoder_hears(models):
    _, stages = run(models, prompt="a red apple BREAK blue")
    tokens = next(s for s in stages if s.key == "tokens")
    assert tokens.shape == (2, 77) == (len(tokens.output), len(tokens.output[0]))
    names = [name for _, name in tokens.output[0]]
    assert names[:5] == ["<|startoftext|>", "a</w>", "red</w>", "apple</w>", "<|endoftext|>"]
    assert [n for _, n in tokens.output[1]][1] == "blue</w>"
    known = models.tokenizer.get_vocab()
    assert all(known[name] == number for row in tokens.output for number, name in row)


def test_times_add_up(models):
    """Steps that ask twice count once, with the seconds of both calls; all fit into the whole."""
    for sampler in ("heun", "ddim"):
        _, stages = run(models, sampler=sampler)
        steps = [s for s in stages if s.key == "step"]
        assert [s.output.index for s in steps] == [1, 2, 3, 4]
        picture, total = (next(s for s in stages if s.key == k) for k in ("picture", "parameters"))
        assert all(s.seconds > 0 for s in (*steps, picture))
        assert sum(s.seconds for s in steps) + picture.seconds < total.seconds


def test_the_lock_keeps_time_and_others_out():
    lock = trace.TimedLock(threading.Lock())
    with pytest.raises(RuntimeError), lock:
        assert lock.lock.locked()
        raise RuntimeError
    assert not lock.lock.locked()
    with lock:
        time.sleep(0.01)
    assert len(lock.held) == 2 and lock.held[1] >= 0.01


def test_closing_stops_the_work_and_leaves_the_model_free(models):
    events = trace.stages(models, GenerateOptions(prompt="a", steps=50, seed=1))
    while next(events).key != "step":
        pass
    events.close()
    assert models.lock.acquire(blocking=False)
    models.lock.release()
