"""The model cache loads by name, swaps, and keeps serving."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.loading import load as loading
from pipeline.model_cache import MAX_EXTRA_MODELS, ModelCache
from pipeline.oom import DeviceOutOfMemory


@pytest.fixture
def model_cache(library_folder):
    return ModelCache(loading.load("one", device="cpu"), device="cpu")


@pytest.mark.slow
def test_model_cache_loads_by_name_and_keeps_a_few(model_cache):
    assert model_cache.get() is model_cache.first is model_cache.get("one")
    two = model_cache.get("two")
    assert two.family == "sd2" and model_cache.get("two") is two
    assert model_cache.get("xl").name == "xl" and MAX_EXTRA_MODELS == 1
    again = model_cache.get("two")  # had made room
    assert again is not two and again.hash == two.hash
    assert model_cache.get("one") is model_cache.first  # stays


@pytest.mark.parametrize(
    "name", ["../one", "/etc/passwd", "someone/model", "models/xl.safetensors"]
)
def test_model_cache_knows_names_of_its_list_only(model_cache, name):
    with pytest.raises(InputError, match="to choose; there is"):
        model_cache.get(name)
    for bad in ({"one": 1}, 7, ["one"]):
        with pytest.raises(InputError, match="by their names"):
            model_cache.get(bad)
        with pytest.raises(InputError, match="by their names"):
            model_cache.get("one", bad)
    assert (
        model_cache.hashes()["one"] == model_cache.first.hash and model_cache.hashes()["xl"] == ""
    )


def test_a_bad_file_leaves_what_serves_alone(model_cache, library_folder):
    for name, words in (("flux", "is a Flux model"), ("broken", "broken.safetensors")):
        with pytest.raises(InputError, match=words):
            model_cache.get(name)
    tensors = load_file(library_folder / "xl.safetensors")
    tensors["model.diffusion_model.out.2.bias"][:] = torch.nan
    save_file(tensors, library_folder / "xl.safetensors")
    with pytest.raises(InputError, match="not finite"):
        model_cache.get("xl")
    assert model_cache.get() is model_cache.first
    assert model_cache.first.generate(steps=1, seed=1, size=(64, 64)).images


def test_the_old_model_serves_while_the_new_one_loads(model_cache, monkeypatch):
    began, go = threading.Event(), threading.Event()
    load = loading.load

    def slow(*arguments, **options):
        began.set()
        assert go.wait(60)
        return load(*arguments, **options)

    monkeypatch.setattr(loading, "load", slow)
    got = []
    thread = threading.Thread(target=lambda: got.append(model_cache.get("two")))
    thread.start()
    assert began.wait(60)
    assert model_cache.get().generate(steps=1, seed=1, size=(64, 64)).images and not got
    go.set()
    thread.join()
    assert got[0].name == "two"


def test_who_chooses_a_model_that_is_being_loaded_waits_for_it(model_cache, monkeypatch):
    """The second visitor's request comes while the first one's is loading: it loads nothing."""
    loading_one, chose, loading_both = threading.Event(), threading.Event(), threading.Event()
    loads, got = [], []

    def slow(*arguments, **options):
        loads.append(arguments)
        (loading_both if len(loads) > 1 else loading_one).set()
        assert chose.wait(60)  # the second visitor has come as far as to wait, or to load
        loading_both.wait(0.3)
        return replace(model_cache.first)

    choices = model_cache.choices

    def choose():
        if loading_one.is_set():
            chose.set()
        return choices()

    monkeypatch.setattr(loading, "load", slow)
    monkeypatch.setattr(model_cache, "choices", choose)
    threads = [
        threading.Thread(target=lambda: got.append(model_cache.get("two"))) for _ in range(2)
    ]
    threads[0].start()
    assert loading_one.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert len(loads) == 1 and got[0] is got[1]


def test_model_cache_gives_another_autoencoder(model_cache, library_folder):
    assert [e.name for e in model_cache.vaes()] == ["soft"]
    soft = model_cache.get("one", "soft")
    assert soft is model_cache.get("one", "soft") and soft is not model_cache.get("one")
    assert model_cache.get("one") is model_cache.first
    ask = {"steps": 1, "seed": 1, "size": (64, 64)}
    assert "Model: one, VAE: soft, " in soft.generate(**ask).parameters[0]
    assert "VAE" not in model_cache.first.generate(**ask).parameters[0]
    with pytest.raises(InputError, match=r"no autoencoder '../soft' to choose; there is soft"):
        model_cache.get("one", "../soft")


def test_no_room_beside_the_others_makes_room(model_cache, monkeypatch):
    held, load = [], loading.load

    def tight(*arguments, **options):
        held.append(len(model_cache._held))
        if model_cache._held and str(arguments[0]).endswith("two"):
            raise DeviceOutOfMemory("It does not fit.")
        return load(*arguments, **options)

    monkeypatch.setattr(loading, "load", tight)
    model_cache.get("xl")
    assert model_cache.get("two").name == "two" and held == [0, 1, 0]
    assert model_cache.get() is model_cache.first
