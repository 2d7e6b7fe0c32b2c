"""The gate lets in as many as fit, in their order, and refuses who waits too long."""

import threading

import pytest

from pipeline.errors import InputError
from pipeline.images import open as pictures
from pipeline.images.gate import DecodingGate
from pipeline.images.open import open_picture


def test_as_many_at_once_as_fit_and_all_in_the_end():
    gate = DecodingGate(budget=100, at_once=3, patience=60)
    most, lock, done = [0, 0], threading.Lock(), []

    def work(size):
        with gate.reserve(size):
            with lock:
                most[:] = max(most[0], gate.count), max(most[1], gate.nbytes)
            threading.Event().wait(0.002)
        done.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in [30, 60, 10, 90, 45] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 30 and most[0] <= 3 and most[1] <= 100
    assert (gate.count, gate.nbytes) == (0, 0)


def test_a_large_one_waits_for_no_more_than_those_before_it():
    gate = DecodingGate(budget=100, patience=60)
    order, inside = [], threading.Event()

    def enter(name, size):
        with gate.reserve(size):
            order.append(name)

    with gate.reserve(60):
        large = threading.Thread(target=enter, args=("large", 90))
        large.start()
        while not gate._waiting:
            inside.wait(0.001)
        small = threading.Thread(target=enter, args=("small", 10))
        small.start()
        while len(gate._waiting) < 2:
            inside.wait(0.001)
        assert not order
    large.join(), small.join()
    assert order == ["large", "small"]


def test_alone_even_the_largest_is_let_in_and_a_thread_never_waits_for_itself():
    gate = DecodingGate(budget=100, at_once=1, patience=0)
    with gate.reserve(1000), gate.reserve(1000):
        assert gate.nbytes == 1000
    with pytest.raises(ZeroDivisionError), gate.reserve(50):
        1 / 0  # noqa: B018
    assert (gate.count, gate.nbytes) == (0, 0)


def test_who_waits_too_long_gets_a_sentence_and_leaves_the_line(tmp_path, monkeypatch):
    gate = DecodingGate(budget=100, patience=0)
    monkeypatch.setattr(pictures, "GATE", gate)
    from PIL import Image

    path = tmp_path / "cat.png"
    Image.new("RGB", (20, 20)).save(path)
    said = []

    def other():
        try:
            open_picture(path)
        except InputError as error:
            said.append(str(error))

    with gate.reserve(60):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert said == [
        "Too many pictures and files are being opened at the moment; try again in a minute."
    ]
    assert not gate._waiting and open_picture(path).image.size == (20, 20)


def test_no_limit():
    gate = DecodingGate(budget=0, patience=0)
    with gate.reserve(10**12):
        other = threading.Thread(target=lambda: gate._enter(10**12))
        other.start()
        other.join()
        assert gate.count == 2
