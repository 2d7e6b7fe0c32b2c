"""Many users and one device: stopping, leaving, waiting, failing. A server in this process."""

import threading
import time

import httpx
import pytest
from gradio_client import Client

import demo.serving

STEPS = 200


@pytest.fixture
def serve(monkeypatch, fake_model_cache):
    """serve(models) starts a page for them and returns its address."""
    pages = []

    def start(models, queue_size=8):
        monkeypatch.setattr(demo.serving, "QUEUE_SIZE", queue_size)
        page = demo.build(fake_model_cache(models))
        pages.append(page)
        return demo.serve(page)[1]

    yield start
    for page in pages:
        page.close(verbose=False)


def until(condition):
    """Waits for it, but not for ever."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def generate(client, **fields):
    return client.submit(**({"prompt": "a", "steps": STEPS} | fields), api_name="/generate")


def test_cancelling_stops_between_two_steps(serve, fake_models):
    models = fake_models(seconds_a_step=0.02)
    client = Client(serve(models), verbose=False)
    job = generate(client, count=16)
    until(lambda: models.steps_done > 3)
    job.cancel()
    until(lambda: models.active == 0)
    assert models.steps_done < 16 * STEPS
    pictures, _ = generate(client, steps=2).result()
    assert len(pictures) == 1


def test_leaving_stops_the_work(serve, fake_models):
    models = fake_models(seconds_a_step=0.02)
    url = f"{serve(models)}gradio_api/call/generate"
    fields = ["a", "", None, None, STEPS, None, None, None, None, 16]
    event = httpx.post(url, json={"data": fields}).json()["event_id"]
    with httpx.stream("GET", f"{url}/{event}", timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: generating"
        until(lambda: models.steps_done > 3)
    until(lambda: models.active == 0)
    assert models.steps_done < 16 * STEPS


def test_one_at_a_time_and_everyone_gets_their_own(serve, fake_models):
    models = fake_models(seconds_a_step=0.005)
    url = serve(models)
    got = {}

    def user(seed):
        with_own = Client(url, verbose=False)
        got[seed] = with_own.predict(
            prompt=f"user {seed}", steps=5, seed=seed, api_name="/generate"
        )

    users = [threading.Thread(target=user, args=(seed,)) for seed in range(5)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    assert models.most_active == 1
    for seed, (pictures, text) in got.items():
        assert text.startswith(f"user {seed}\n")
        assert pictures[0]["image"].endswith(f"glassbox-{seed}.png")


@pytest.mark.slow
def test_a_full_queue_says_so(serve, fake_models):
    models = fake_models(seconds_a_step=0.02)
    client = Client(serve(models, queue_size=1), verbose=False)
    first = generate(client)
    until(lambda: models.steps_done > 0)
    jobs = [generate(client, steps=1) for _ in range(3)]
    until(lambda: any(job.done() and job.exception() for job in jobs))
    assert any("ueue" in str(job.exception()) for job in jobs if job.done())
    first.cancel()


def test_what_breaks_inside_stays_inside(serve, fake_models, caplog):
    client = Client(serve(fake_models(fails=RuntimeError("secret path"))), verbose=False)
    with pytest.raises(Exception, match="server") as caught:
        generate(client).result()
    assert "secret" not in str(caught.value)
    assert "secret path" in caplog.text
