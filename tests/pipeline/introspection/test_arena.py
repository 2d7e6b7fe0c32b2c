"""Races on a tiny random model: whose turn it is, what is counted, what is measured, who closes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import GenerateOptions, InputError, load
from pipeline.backends import KINDS
from pipeline.introspection import arena
from pipeline.introspection.arena import (
    BackendComparison,
    BackendPair,
    CallDone,
    Distances,
    Entry,
    EntryDone,
    Failed,
    Reference,
)
from pipeline.samplers import SAMPLERS, Answer, make_sampler, unsupported

HERE = [key for key in SAMPLERS if not unsupported(key)]


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


@pytest.fixture
def short(monkeypatch):
    """A reference of few steps, where it matters not how near the truth it is."""
    monkeypatch.setattr(arena, "REFERENCE_STEPS", 5)


def options(**more):
    return GenerateOptions(**({"prompt": "a red apple", "seed": 7, "steps": 4} | more))


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def pixels(result):
    return np.asarray(result.images[0])


def slow_distance(clean, reference):
    clean, reference = (x.numpy().astype(np.float64).ravel() for x in (clean, reference))
    return np.sqrt(np.mean((clean - reference) ** 2)) / reference.std(ddof=1)


def test_every_label_is_parsed_to_its_entry():
    entries = arena.all_entries()
    assert {entry.sampler for entry in entries} == set(HERE)
    for entry in entries:
        other = Entry("euler") if entry != Entry("euler") else Entry("heun")
        assert arena.parse_entries([entry.label, other.label]) == (entry, other)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "2 to 6 lanes, not 0"),
        (["Euler"], "2 to 6 lanes, not 1"),
        (["Euler", "DDIM", "Heun", "UniPC", "DEIS", "PLMS", "DPM2"], "2 to 6 lanes, not 7"),
        (["Euler", "Euler b"], "no sampler 'Euler b'; there is Euler"),
        (["Euler", None], "no sampler None"),
        (["DDIM Karras", "Euler"], "DDIM does not take the schedule karras"),
        (["euler", "Euler"], "Euler is in two lanes"),
    ],
)
def test_what_cannot_race_is_said_in_one_sentence(names, words):
    with pytest.raises(InputError, match=words) as caught:
        arena.parse_entries(names)
    assert str(caught.value).count(". ") == 0


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="LMS needs scipy"):
        arena.parse_entries(["LMS", "Euler"])


def test_pictures_calls_and_distances(models, short):
    """Two calls a step for Heun and DPM2, one more than steps for PLMS; counted at the UNet."""
    entries = arena.parse_entries(["Euler a", "Heun", "DPM2", "PLMS", "DPM++ 2M Exponential"])
    asked, called = 0, Counter()

    def count(*_):
        nonlocal asked
        asked += 1

    hook = models.unet.register_forward_pre_hook(count)
    events = []
    for event in arena.race(models, options(), entries):
        if isinstance(event, CallDone):
            called[event.entry] += asked
            asked = 0
        events.append(event)
    hook.remove()
    finishes = {event.entry: event for event in of(EntryDone, events)}
    assert [finishes[i].calls for i in range(5)] == [4, 7, 7, 5, 4]
    assert called == {0: 4, 1: 7, 2: 7, 3: 5, 4: 4, None: 5}
    (reference,) = of(Reference, events)
    alone = models.generate(options(sampler="dpmpp_2m", schedule="uniform", steps=5))
    assert torch.equal(reference.latents, alone.latents[0])
    for measured in of(Distances, events):
        entry = entries[measured.entry]
        asked = options(sampler=entry.sampler, schedule=entry.schedule)
        *steps, result = models.stream(asked)
        made = finishes[measured.entry].result
        assert np.array_equal(pixels(made), pixels(result))
        assert made.parameters == result.parameters
        far = [slow_distance(step.clean, alone.latents[0]) for step in steps]
        assert measured.distances == pytest.approx(far, rel=1e-6)
        last = slow_distance(result.latents[0], alone.latents[0])
        assert measured.last == pytest.approx(last, rel=1e-6)
        calls = [e for e in of(CallDone, events) if e.entry == measured.entry]
        assert [(c.calls, c.step, c.sigma) for c in calls] == [
            (i, step.index, step.sigma) for i, step in enumerate(steps, 1)
        ]
        seconds = [c.seconds for c in calls]
        assert seconds == sorted(seconds) and seconds[0] > 0
    assert len(of(Distances, events)) == len(entries)


def test_everyone_makes_one_call_in_turn(models, short):
    entries = arena.parse_entries(["Euler", "Heun", "DDIM"])
    turns = [e.entry for e in of(CallDone, arena.race(models, options(steps=3), entries))]
    assert turns == [0, 1, 2] * 3 + [1, 1] + [None] * 5


def test_the_reference_s_own_sampler_comes_to_nothing_apart(models, monkeypatch):
    assert arena.REFERENCE_STEPS == 200
    monkeypatch.setattr(arena, "REFERENCE_STEPS", 40)
    entries = arena.parse_entries(["DPM++ 2M Uniform", "Euler"])
    events = list(arena.race(models, options(steps=40), entries))
    same, other = of(Distances, events)
    assert same.last == 0 and 0 < other.last < 0.1
    assert other.distances[0] > 10 * other.last
    # Known from before, nobody draws it again, and distances come with each call.
    (known,) = of(Reference, events)
    entries = arena.parse_entries(["Euler", "UniPC"])
    again = list(arena.race(models, options(steps=4), entries, known))
    calls = of(CallDone, again)
    assert {c.entry for c in calls} == {0, 1} and not of(Reference, again)
    for measured in of(Distances, again):
        live = tuple(c.distance for c in calls if c.entry == measured.entry)
        assert live == measured.distances


def test_a_random_seed_is_the_same_for_all(models, short):
    entries = arena.parse_entries(["Euler", "DDIM"])
    made = of(EntryDone, arena.race(models, options(seed=None, steps=1), entries))
    assert made[0].result.seeds == made[1].result.seeds


class Counting:
    """A model that counts which of its streams are open, and holds them: nobody but the race
    itself closes one."""

    def __init__(self, models):
        self.models, self.held, self.open, self.opened = models, [], 0, 0

    def __getattr__(self, name):
        return getattr(self.models, name)

    def stream(self, options):
        self.held.append(self._stream(options))
        return self.held[-1]

    def _stream(self, options):
        self.open += 1
        self.opened += 1
        try:
            yield from self.models.stream(options)
        finally:
            self.open -= 1


@pytest.mark.parametrize(("taken", "opened"), [(1, 1), (2, 2), (3, 3), (9, 3), (16, 4), (18, 4)])
def test_closing_closes_every_coroutine(models, short, taken, opened):
    """At first, midway, and while the reference is drawn, the 16th event and on."""
    counting = Counting(models)
    race = arena.race(counting, options(), arena.parse_entries(["Euler", "DDIM", "UniPC"]))
    for _ in range(taken):
        next(race)
    assert counting.open > 0
    race.close()
    assert counting.open == 0 and counting.opened == opened
    assert models.lock.acquire(blocking=False)
    models.lock.release()


def test_what_a_checkpoint_cannot_do_is_said_before_anyone_begins(models):
    counting = Counting(models)
    counting.scheduler_config = models.scheduler_config | {"prediction_type": "sample"}
    with pytest.raises(InputError, match="predicts sample"):
        next(arena.race(counting, options(), arena.parse_entries(["Euler", "DDIM"])))
    assert counting.opened == 0


def drawn(sampler, seed, steps=25):
    """Final latents and the number of calls, of a model that believes in half of what it sees."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    way, answer, calls = (
        make_sampler(sampler, "automatic", config, noise, steps, generator, seed),
        None,
        0,
    )
    try:
        while True:
            query = way.send(answer)
            calls += 1
            answer = Answer(0.5 * query.x, 0.5 * query.x, 0.5 * query.x)
    except StopIteration as done:
        return done.value, calls


@pytest.mark.parametrize("sampler", HERE)
def test_who_adds_fresh_noise_and_what_a_race_may_cost(sampler):
    (one, calls), (other, _) = (drawn(sampler, seed) for seed in (1, 2))
    assert torch.equal(one, other) == (sampler not in arena.STOCHASTIC)
    assert calls <= arena.max_calls([Entry(sampler)], 25) - arena.REFERENCE_STEPS


def test_a_reference_is_known_again_for_the_same_noise_and_words(models):
    base = arena.reference_key(models, arena.resolve_single(models, options()))
    for more in ({"steps": 9}, {"sampler": "heun"}, {"schedule": "karras", "sampler": "euler"}):
        assert arena.reference_key(models, arena.resolve_single(models, options(**more))) == base
    for more in ({"seed": 8}, {"prompt": "blue"}, {"cfg": 3.0}, {"negative": "red"}, {"width": 72}):
        assert arena.reference_key(models, arena.resolve_single(models, options(**more))) != base


@pytest.mark.parametrize(
    "other",
    [
        {"vae_name": "soft"},
        {"hash": "0123456789"},
        {"path": Path("another")},
        {"device": torch.device("meta")},
        {"dtype": torch.float16},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_reference_of_another_model_is_another(models, other):
    resolved = arena.resolve_single(models, options())
    changed = replace(models, **other)
    assert arena.reference_key(changed, resolved) != arena.reference_key(models, resolved)


def test_backends_draw_the_same_picture(models):
    plain, fused = BackendPair("math", "torch"), BackendPair("sdpa", "torch")
    events = list(arena.race_backends(models, options(cfg=3.0), [plain, fused, plain]))
    assert [c.entry for c in of(CallDone, events)] == [0, 1, 2] * 4
    first, other, again = of(BackendComparison, events)
    assert {c.baseline for c in (first, other, again)} == {0}
    assert (first.pixels, first.latents) == (again.pixels, again.latents) == (0, 0.0)
    a, b = (
        models.generate(options(cfg=3.0), attention=x, group_norm="torch") for x in ("math", "sdpa")
    )
    apart = np.abs(a.latents[0].double().numpy() - b.latents[0].double().numpy()).max()
    assert 0 < other.latents < 1e-4 and other.latents == pytest.approx(apart, rel=1e-3)
    assert other.pixels == np.abs(pixels(a).astype(int) - pixels(b).astype(int)).max() <= 2
    for compared, finish in zip((first, other, again), of(EntryDone, events), strict=True):
        times = np.diff([0, *(c.seconds for c in of(CallDone, events) if c.entry == finish.entry)])
        assert compared.median == pytest.approx(np.median(times[1:]))
        assert finish.result.metadata["attention"] == ("math", "sdpa", "math")[finish.entry]


def test_a_backend_that_cannot_run_falls_out(models):
    pairs = [BackendPair("xformers", "torch"), BackendPair("sdpa", "torch")]
    events = list(arena.race_backends(models, options(), pairs))
    (out,) = of(Failed, events)
    assert out.entry == 0 and "xformers cannot run here" in out.reason
    (compared,) = of(BackendComparison, events)
    assert (compared.entry, compared.baseline) == (1, 1)


def test_who_races_here_and_why_not_the_others(models):
    here = arena.backend_pairs(models)
    assert here[0] == BackendPair("math", "torch") and BackendPair("sdpa", "torch") in here
    assert len(set(here)) == len(here)
    away = arena.missing_backends(models)
    assert all(why.endswith(".") for _, _, why in away)
    for kind in KINDS:
        racing = {getattr(pair, kind) for pair in here}
        missing = {name for k, name, _ in away if k == kind}
        assert not racing & missing and racing | missing == set(KINDS[kind].table)
