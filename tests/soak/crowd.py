"""A crowd of clients draws on one server; some cancel, some leave, most are refused at first.

    python tests/soak/crowd.py --count 5000 --seed 1

`python app.py` runs with a tiny model and the limits of a public server. Every 25 requests are of
one client, which has an address of its own. Of its requests 20% are cancelled and 10% dropped (the
connection is closed, or never opened), each at a random moment; every fourth client uses
gradio_client, the others speak HTTP. A refused client waits and tries again.

Targets: no answer holds another request's text or picture; equal requests give equal pixels; no
request is lost, that is ends in neither its pictures, a sentence nor its cancellation; every
refusal is a sentence; the server's memory is flat after the first fifth, and it draws at the end.
Prints a table; exit status 1 where one of this does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
REQUESTS_EACH = 25  # requests of a client
LEAST_CLIENTS = 40  # of a short form, whose clients send fewer requests
CANCELLED, DROPPED = 0.2, 0.1  # shares of all requests
SHARED = 0.1  # of the requests that all clients send alike, with a seed of SEEDS
SEEDS = 5
PATIENCE = 600.0  # seconds until a request counts as lost
MAX_GROWTH = 64.0  # MB of the server's memory after the first fifth
FLAGS = ("--max-waiting=4", "--max-waiting-address=12", "--max-work=400", "--max-seconds=600")


@dataclass
class Outcome:
    """What became of the requests. counts: by kind. wrong: sentences on what should not be.

    pixels: the hash of the pixels of each of the requests that all send alike, by seed. memory: MB
    of the server after a number of requests.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    pixels: dict[int, str] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)

    def check(self, text: str, picture: bytes, prompt: str, seed: int, shared: bool) -> None:
        """Compare an answer, its parameters text and its PNG file, with what was asked for."""
        from PIL import Image

        image = Image.open(io.BytesIO(picture))
        expected = (prompt, f"Seed: {seed},")
        for where, said in (("answer", text), ("picture", image.info.get("parameters", ""))):
            if not said.startswith(f"{expected[0]}\n") or expected[1] not in said:
                self.wrong.append(f"mixed: the {where} to {expected} says {said[:80]!r}")
        if shared:
            found = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
            if self.pixels.setdefault(seed, found) != found:
                self.wrong.append(f"mixed: other pixels of seed {seed}")
        self.counts["drawn"] += 1

    def refuse(self, sentence: object) -> None:
        """Count a refusal; note it where it is no sentence."""
        self.counts["refusals"] += 1
        text = sentence if isinstance(sentence, str) else json.dumps(sentence, ensure_ascii=False)
        if "try again" not in text.lower():
            self.wrong.append(f"a refusal that says {text[:80]!r}")


class Crowd:
    """The clients of one server. url: its address. pid: of its process. count: requests in all."""

    def __init__(self, url: str, pid: int, count: int, seed: int):
        self.url, self.pid, self.count, self.seed = url, pid, count, seed
        self.outcome, self.ended = Outcome(), 0

    async def run(self) -> Outcome:
        """Let all clients send their requests; return what became of these."""
        import httpx

        clients = count_clients(self.count)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
        async with httpx.AsyncClient(timeout=PATIENCE, limits=limits) as http:
            config = (await http.get(f"{self.url}config")).json()
            fn = next(d for d in config["dependencies"] if d["api_name"] == "generate")
            work = [self._client(http, fn["id"], number, clients) for number in range(clients)]
            await asyncio.gather(*work)
            await self._draws_again(http, fn["id"])
        self._measure()
        return self.outcome

    async def _client(self, http: Any, fn: int, number: int, clients: int) -> None:
        """Send the requests of one client, one after another."""
        chance = random.Random(f"{self.seed} {number}")
        for i in range(number, self.count, clients):
            shared = chance.random() < SHARED
            prompt = "red apple" if shared else f"request {number}-{i}"
            seed = chance.randrange(SEEDS) if shared else chance.randrange(2**32)
            roll = chance.random()
            request = Request(self, http, fn, number, prompt, seed, shared, chance)
            try:
                if roll < CANCELLED:
                    await asyncio.wait_for(request.cancel(), PATIENCE)
                elif roll < CANCELLED + DROPPED:
                    await asyncio.wait_for(request.drop(), PATIENCE)
                elif number % 4 == 3:
                    await asyncio.wait_for(request.draw_with_gradio_client(), PATIENCE)
                else:
                    await asyncio.wait_for(request.draw(), PATIENCE)
            except Exception as error:
                self.outcome.counts["lost"] += 1
                self.outcome.wrong.append(f"lost: {prompt}: {type(error).__name__} {error}"[:160])
            self.ended += 1
            if self.ended in (self.count // 5, self.count // 2, 4 * self.count // 5):
                self._measure()

    async def _draws_again(self, http: Any, fn: int) -> None:
        """Draw one picture more: no request of those that have left holds the device."""
        last = Request(self, http, fn, 0, "last", 1, False, random.Random(0))
        began = time.monotonic()
        try:
            await asyncio.wait_for(last.draw(), 60)
        except Exception as error:
            self.outcome.wrong.append(f"the server does not draw at the end: {error!r}")
        self.outcome.counts["drawn"] -= 1
        self.outcome.counts["ms of a last picture"] = round(1000 * (time.monotonic() - began))

    def _measure(self) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text()
        kilobytes = int(status.partition("VmRSS:")[2].split()[0])
        self.outcome.memory[self.ended] = kilobytes / 1024


@dataclass
class Request:
    """One request of a client, which waits and tries again as long as it is refused."""

    crowd: Crowd
    http: Any
    fn: int
    number: int  # of the client
    prompt: str
    seed: int
    shared: bool
    chance: random.Random

    @property
    def headers(self) -> dict[str, str]:
        """As the proxy on this machine would pass the request of another address on."""
        return {"X-Forwarded-For": f"203.0.{self.number // 250}.{self.number % 250 + 1}"}

    async def join(self) -> tuple[str, str]:
        """Get a place in the line; return (hash of a new session, id of the request)."""
        session = f"s{self.number}-{self.chance.getrandbits(60):x}"
        data = [self.prompt, "", "euler", None, 2, None, self.seed]
        body = {"data": data, "fn_index": self.fn, "session_hash": session}
        pause = 0.5
        while True:
            url = f"{self.crowd.url}gradio_api/queue/join"
            answer = await self.http.post(url, json=body, headers=self.headers)
            if answer.status_code == 200:
                return session, answer.json()["event_id"]
            detail = answer.json().get("detail") if answer.content else ""
            self.crowd.outcome.refuse(detail)
            await asyncio.sleep(self.chance.uniform(0.5, 1) * pause)
            pause = min(pause * 1.5, 8)

    async def messages(self, session: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the server's messages to a session."""
        url = f"{self.crowd.url}gradio_api/queue/data?session_hash={session}"
        async with self.http.stream("GET", url, headers=self.headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    async def draw(self) -> None:
        """Draw a picture, read it and compare it with the request."""
        session, _ = await self.join()
        async for message in self.messages(session):
            if message["msg"] != "process_completed":
                continue
            if not message["success"]:
                self.crowd.outcome.counts["answered by a sentence"] += 1
                raise RuntimeError(message["output"])
            pictures, text = message["output"]["data"]
            picture = await self.http.get(pictures[0]["image"]["url"], headers=self.headers)
            self.crowd.outcome.check(text, picture.content, self.prompt, self.seed, self.shared)
            return
        raise RuntimeError("the answer ended without a picture")

    async def draw_with_gradio_client(self) -> None:
        """Do the same with gradio_client, in a thread."""
        await asyncio.to_thread(self._draw_in_thread)

    def _draw_in_thread(self) -> None:
        from gradio_client import Client

        settings = {"timeout": PATIENCE}
        with tempfile.TemporaryDirectory() as folder:
            client = Client(
                self.crowd.url,
                verbose=False,
                headers=self.headers,
                download_files=folder,
                analytics_enabled=False,
                httpx_kwargs=settings,
            )
            fields = dict(prompt=self.prompt, sampler="euler", steps=2, seed=self.seed)
            pause = 0.5
            while True:
                try:
                    pictures, text = client.predict(**fields, api_name="/generate")
                    break
                except Exception as error:
                    if "again" not in str(error):
                        raise
                    self.crowd.outcome.refuse(str(error))
                time.sleep(pause)
                pause = min(pause * 1.5, 8)
            picture = Path(pictures[0]["image"]).read_bytes()
            client.close()
        self.crowd.outcome.check(text, picture, self.prompt, self.seed, self.shared)

    async def cancel(self) -> None:
        """Cancel the request at a random moment; the server must end its answer."""
        session, event = await self.join()
        after, seen = self.chance.randrange(4), 0
        body = {"session_hash": session, "fn_index": self.fn, "event_id": event}
        cancelled = False
        async for message in self.messages(session):
            seen += 1
            if seen > after and not cancelled:
                cancelled = True
                await self.http.post(f"{self.crowd.url}gradio_api/cancel", json=body)
            if message["msg"] == "process_completed":
                break
        self.crowd.outcome.counts["cancelled"] += 1

    async def drop(self) -> None:
        """Leave at a random moment: before the answer, while it waits, or while it is drawn."""
        session, _ = await self.join()
        after, seen = self.chance.randrange(4), 0
        if after:
            async for _ in self.messages(session):
                seen += 1
                if seen >= after:
                    break
        self.crowd.outcome.counts["dropped"] += 1


def count_clients(count: int) -> int:
    """Return how many clients send `count` requests: more than there are places to wait in."""
    return max(count // REQUESTS_EACH, min(count, LEAST_CLIENTS))


def soak(count: int, seed: int) -> Outcome:
    """Run the crowd against a server of its own; return what became of the requests."""
    from tests.conftest import write_tiny_model
    from tests.demo.conftest import Server

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        server = Server(write_tiny_model(place / "tiny"), place, *FLAGS)
        try:
            server.wait()
            crowd = Crowd(server.url, server.process.pid, count, seed)
            with ThreadPoolExecutor(1) as pool:  # this thread may have a loop already
                outcome = pool.submit(lambda: asyncio.run(crowd.run())).result()
            if "Traceback" in server.log():
                outcome.wrong.append(f"a traceback in the log: {server.log()[-600:]}")
            return outcome
        finally:
            server.stop()


def judge(outcome: Outcome, count: int) -> list[str]:
    """Return a sentence for each missed target."""
    missed = list(outcome.wrong)
    ended = sum(outcome.counts[kind] for kind in ("drawn", "cancelled", "dropped", "lost"))
    if ended != count:
        missed.append(f"{ended} requests ended of {count}")
    after_first, *_, last = outcome.memory.values()
    if last - after_first > MAX_GROWTH:
        missed.append(f"memory grew by {last - after_first:.0f} MB")
    return missed


def main(argv: list[str] | None = None) -> int:
    """Run the soak test, print its table, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="requests (default: 5000)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    args = parser.parse_args(argv)
    began = time.monotonic()
    outcome = soak(args.count, args.seed)
    clients = count_clients(args.count)
    print(f"seed {args.seed}: {args.count} requests of {clients} clients", end="")
    print(f" in {time.monotonic() - began:.0f} s")
    for kind in ("drawn", "cancelled", "dropped", "lost", "refusals", "ms of a last picture"):
        print(f"{kind:24}{outcome.counts[kind]:>8,}")
    for ended, megabytes in outcome.memory.items():
        print(f"{f'MB after {ended:,}':24}{megabytes:>8.0f}")
    missed = judge(outcome, args.count)
    print("\n".join(sorted(set(missed))[:40]) or "All targets are met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
