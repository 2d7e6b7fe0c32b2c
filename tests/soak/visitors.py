"""Let a visitor try everything of another one: see it, change it, stop it.

    python tests/soak/visitors.py --count 25

Starts `python app.py` with a tiny model. In each round somebody, a browser with its cookie or a
client with its session, trains a LoRA under a secret prompt and begins a second training; meanwhile
another visitor, under several identities, tries the same names in every endpoint, the page's lists,
the files by every kind of address, forged cookies, and the ways to stop and to read a request. What
is told about a name that somebody has must not differ from what is told about a name that nobody
has. Prints a table; exit status 1 if anything was seen, changed or stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from demo.server.visitors import COOKIE  # noqa: E402

PATIENCE = 120  # seconds for one answer
KINDS = ("seen", "changed", "stopped")
LONG = 2000  # steps of the training that the other visitor tries to stop
SMALL = {"steps": 1, "width": 64, "height": 64, "seed": 5}
# Endpoints that draw from a prompt, with what each needs besides it.
DRAW: dict[str, dict[str, Any]] = {
    "generate": {},
    "image_to_image": {"picture": "picture", "strength": 1.0},
    "inpaint": {"picture": "picture", "mask": "mask"},
    "hires": {"scale": 2.0},
    "upscale": {"picture": "picture"},
    "colorize": {"picture": "picture"},
    "grid": {"x": "cfg: 2, 3"},
}


class Visitor:
    """Someone who talks to the server as a browser or a client does.

    url: the server's address, ending with "/". opens_page: whether the page is opened first, which
    brings a cookie. headers: more headers of all requests.
    """

    def __init__(self, url: str, opens_page: bool = False, session: str = "", **headers: str):
        self.url, self.session = url, session or secrets.token_hex(12)
        self.http = httpx.Client(timeout=PATIENCE, headers=headers)
        if opens_page:
            self.http.get(url)
        self.config = self.http.get(f"{url}config").json()
        self.info = self.http.get(f"{url}gradio_api/info").json()["named_endpoints"]
        self.ids = {d["api_name"]: d["id"] for d in self.config["dependencies"] if d["api_name"]}

    def upload(self, *pictures: Image.Image) -> list[dict[str, Any]]:
        """Upload pictures; return the values by which a request names them."""
        files = []
        for i, picture in enumerate(pictures):
            data = io.BytesIO()
            picture.save(data, "PNG")
            files.append(("files", (f"{i}.png", data.getvalue())))
        paths = self.http.post(f"{self.url}gradio_api/upload", files=files).json()
        return [named(path) for path in paths]

    def values(self, endpoint: str, fields: dict[str, Any]) -> list[Any]:
        """Return the values of an endpoint in its order, with the defaults of those left out."""
        rows = self.info[f"/{endpoint}"]["parameters"]
        return [fields.get(r["parameter_name"], r.get("parameter_default")) for r in rows]

    def join(self, number: int, values: list[Any]) -> httpx.Response:
        """Send a request to the queue. number: of the listener."""
        body = {"data": values, "fn_index": number, "session_hash": self.session}
        return self.http.post(f"{self.url}gradio_api/queue/join", json=body)

    def ask(self, endpoint: str | int, values: list[Any]) -> Answer:
        """Send a request and wait for its end. endpoint: its name, or a listener's number."""
        number = self.ids[endpoint] if isinstance(endpoint, str) else endpoint
        joined = self.join(number, values)
        if "event_id" not in joined.text:
            return Answer(False, None, joined.text)
        return self.read(joined.json()["event_id"])

    def read(self, event: str) -> Answer:
        """Wait for the end of a request. event: the number that the queue gave it."""
        said: list[str] = []
        address = f"{self.url}gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", address) as stream:
            for line in stream.iter_lines():
                said.append(line)
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_completed" and message.get("event_id") == event:
                    output = message["output"]
                    data = output.get("data") if message["success"] else None
                    return Answer(message["success"], data, "\n".join(said))
                if message["msg"] in ("close_stream", "unexpected_error"):
                    break
        return Answer(False, None, "\n".join(said))

    def call(self, endpoint: str, **fields: Any) -> Answer:
        """Send a request to a named endpoint and wait for its end."""
        return self.ask(endpoint, self.values(endpoint, fields))

    def pixels(self, answer: Answer) -> str:
        """Return a hash of the pixels of all pictures in an answer; "" without pictures."""
        found = answer.data[0] if answer.success and isinstance(answer.data[0], list) else []
        total = hashlib.sha256()
        for row in found:
            file = row.get("image", row)
            picture = Image.open(io.BytesIO(self.http.get(file["url"]).content))
            total.update(picture.convert("RGB").tobytes())
        return total.hexdigest() if found else ""


class Answer:
    """The end of a request. success; data: its outputs, None where it failed; text: all said."""

    def __init__(self, success: bool, data: Any, text: str):
        self.success, self.data, self.text = success, data, text


def named(path: str) -> dict[str, Any]:
    """Return the value by which a request names a file of the server."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def drawings() -> list[Image.Image]:
    """Return three small pictures of one thing."""
    pictures = []
    for i, ground in enumerate(("navy", "white", "green")):
        picture = Image.new("RGB", (64, 64), ground)
        ImageDraw.Draw(picture).ellipse((8 + 4 * i, 12, 44 + 4 * i, 52), fill="purple")
        pictures.append(picture)
    return pictures


class Owner:
    """A visitor with something to hide: a trained LoRA, and a training that runs.

    name: of the LoRA. prompt: its secret prompt. other: the name of the training that runs, which
    no request of anybody else ever holds.
    """

    def __init__(self, url: str, runs: Path, rng: random.Random):
        word = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(5))
        self.visitor = Visitor(url, opens_page=rng.random() < 0.5)
        self.name, self.prompt, self.other = f"n{word}", f"p{word} creature", f"o{word}"
        self.pictures = self.visitor.upload(*drawings())
        before = set(runs.glob("*"))
        given = {"images": self.pictures, "rank": 2, "prompt": self.prompt}
        trained = self.visitor.call(
            "train_lora", **given, name=self.name, steps=2, prior_prompt=f"c{word}", prior_count=1
        )
        assert trained.success, trained.text[-600:]
        (self.home,) = set(runs.glob("*")) - before
        self.drawn = self.draw()
        self.running = self.visitor.values(
            "train_lora", {**given, "name": self.other} | {"steps": LONG}
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Words that no answer to anybody else may hold, whatever was asked."""
        tokens = [value for _, value in self.visitor.http.cookies.items()]
        return (self.prompt.split()[0], self.other, self.home.name, self.visitor.session, *tokens)

    def session_guess(self) -> str:
        """Return the owner's session with its last digit changed."""
        session = self.visitor.session
        return session[:-1] + ("0" if session[-1] != "0" else "1")

    def files(self) -> list[Path]:
        """Return the files of what is trained already."""
        place = self.home / "runs" / self.name
        return [p for p in (*place.rglob("*"), *(self.home / "lora").glob("*")) if p.is_file()]

    def state(self) -> dict[str, str]:
        """Return a hash of each of these files by its path."""
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in self.files()}

    def draw(self) -> str:
        """Draw with the LoRA; return a hash of the pixels."""
        asked = {"prompt": f"a red apple <lora:{self.name}:1>", **SMALL}
        answer = self.visitor.call("generate", **asked)
        assert answer.success and "Lora hashes" in answer.text, answer.text[-600:]
        return self.visitor.pixels(answer)

    @contextmanager
    def training(self) -> Iterator[Callable[[], str | None]]:
        """Run the long training in the `with` block, which gets a function, and stop it after that.

        The function returns why the training does not run any more; None if it does.
        """
        number = self.visitor.ids["train_lora"]
        event = self.visitor.join(number, self.running).json()["event_id"]
        log, answers = self.home / "runs" / self.other / "log.csv", list[Answer]()
        thread = threading.Thread(target=lambda: answers.append(self.visitor.read(event)))
        thread.start()
        until = time.monotonic() + PATIENCE
        while not log.exists() and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        try:
            yield lambda: None if thread.is_alive() else f"it ended: {answers[0].text[-300:]}"
        finally:
            cancel(self.visitor, event)
            thread.join(PATIENCE)


def cancel(visitor: Visitor, event: str) -> None:
    """Cancel a training that the visitor began. event: the number of the request."""
    body = {"session_hash": visitor.session, "fn_index": visitor.ids["train_lora"]}
    visitor.http.post(f"{visitor.url}gradio_api/cancel", json=body | {"event_id": event})


class Soak:
    """What was tried on one server, and what came of it.

    url: the server's address. place: its working folder. seed: of the random choices.
    tries: number of tries by attack; faults: (kind, sentence) of each that gave something
    """

    def __init__(self, url: str, place: Path, seed: int):
        self.url, self.place, self.rng = url, place, random.Random(seed)
        self.runs = place / "runs" / "visitors"
        self.tries: Counter[str] = Counter()
        self.faults: list[tuple[str, str, str]] = []

    def round(self, identities: int) -> None:
        """Let one visitor hide something, and another one try everything of it.

        identities: under how many the other one comes.
        """
        owner = Owner(self.url, self.runs, self.rng)
        before = owner.state()
        with owner.training() as ended:
            for stranger in self.rng.sample(list(self.strangers(owner)), identities):
                for attack in (
                    self.read_files, self.stop, self.read_requests, self.read_lists,
                    self.draw_with, self.hand_over_files,
                ):  # fmt: skip
                    attack(owner, stranger)
                    why = ended()
                    if why:
                        self.fault(attack.__name__, "stopped", why)
                        return
        self.take_name(owner)
        after = owner.state()
        if any(after.get(path) != digest for path, digest in before.items()):
            self.fault("state", "changed", "files of the owner are others now")
        if owner.draw() != owner.drawn:
            self.fault("state", "changed", "the owner's picture is another one now")
        self.tries["state"] += len(before) + 1

    def strangers(self, owner: Owner) -> Iterator[Visitor]:
        """Yield another visitor under some of the identities that could be taken for the owner."""
        session = owner.visitor.session
        token = owner.visitor.http.cookies.get(COOKIE) or secrets.token_urlsafe(32)
        yield Visitor(self.url)
        forged = [
            f"{COOKIE}={session}", f"{COOKIE}={token[:-1]}", f"{COOKIE}={token}x",
            f"{COOKIE}={token.swapcase()}", f"{COOKIE}=../{owner.home.name}",
            f"{COOKIE.upper()}={token}", f"{COOKIE}={owner.home.name}", f'{COOKIE}=""',
            f"{COOKIE}=browser {token}"[:-3],
        ]  # fmt: skip
        for cookie in self.rng.sample(forged, 2):
            yield Visitor(self.url, Cookie=cookie)
        for name in self.rng.sample([token, session.upper(), session[:-1], owner.home.name], 1):
            yield Visitor(self.url, session=name)
        yield Visitor(self.url, **{"x-gradio-user": "mcp"})
        yield Visitor(self.url, opens_page=True)

    def fault(self, attack: str, kind: str, sentence: str) -> None:
        """Note that an attack gave something. kind: of KINDS."""
        self.faults.append((attack, kind, sentence))

    def check(self, attack: str, owner: Owner, text: str) -> None:
        """Count a try; note a fault where the answer holds one of the owner's secrets."""
        self.tries[attack] += 1
        for secret in owner.secrets:
            if secret in text:
                self.fault(attack, "seen", f"{secret} in: {text[:300]}")

    def read_files(self, owner: Owner, stranger: Visitor) -> None:
        """Ask for the owner's files, and their folders, by every kind of address."""
        paths = [*self.rng.sample(owner.files(), 3), owner.home]
        for path in paths:
            relative = path.relative_to(self.place)
            contents = path.read_bytes() if path.is_file() else None
            forms = [str(path), str(relative), f"./{relative}", f"../{self.place.name}/{relative}"]
            forms += [quote(form, safe="") for form in forms[:3]]
            forms += [f"/proc/self/cwd/{relative}", f"{tempfile.gettempdir()}/../{path}"]
            forms += [path.as_uri()]
            routes = ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/",
                      "gradio_api/proxy=file://", "svelte/", "")  # fmt: skip
            for form in forms:
                route = self.rng.choice(routes) if self.rng.random() < 0.5 else routes[0]
                answer = stranger.http.get(
                    f"{self.url}{route}{form.lstrip('/') if not route else form}"
                )
                self.tries["files"] += 1
                if contents and answer.content == contents:
                    self.fault("files", "seen", f"{route}{form} gave the file")

    def hand_over_files(self, owner: Owner, stranger: Visitor) -> None:
        """Name the owner's files as input of each endpoint that takes files."""
        path = self.rng.choice(owner.files())
        pictures = [p for p in owner.files() if p.suffix == ".png"] or [path]
        for form in (str(path), str(path.relative_to(self.place)), str(self.rng.choice(pictures))):
            for endpoint, fields in (
                ("verify", {"file": named(form)}),
                ("image_to_image", {"picture": named(form), "prompt": "a", **SMALL}),
                ("train_lora", {"images": [named(form)], "name": "x", "prompt": "y"}),
            ):
                if endpoint == "train_lora" and not form.startswith("/"):
                    continue  # it waits for the training that runs
                values = stranger.values(endpoint, fields)
                if endpoint == "train_lora":
                    joined = stranger.join(stranger.ids[endpoint], values)
                    if joined.is_success:
                        cancel(stranger, joined.json().get("event_id"))
                    self.tries["files as input"] += 1
                    continue
                answer = stranger.ask(endpoint, values)
                self.check("files as input", owner, answer.text)
                if answer.success:
                    self.fault("files as input", "seen", f"{endpoint} took {form}")

    def draw_with(self, owner: Owner, stranger: Visitor) -> None:
        """Name the owner's LoRA in prompts: the same must come as for a LoRA that nobody has."""
        endpoint = self.rng.choice([*DRAW, "race"])
        name = self.rng.choice([owner.name, owner.name.upper(), f"{owner.name} (lora)"])
        nobody = "".join(self.rng.choice("bcdfgh") for _ in name)
        answers = []
        picture, mask = stranger.upload(drawings()[0], Image.new("L", (64, 64), 255))
        for asked in (name, nobody):
            fields = dict(SMALL, prompt=f"a red apple <lora:{asked}:1>", cfg=3)
            for field, value in DRAW.get(endpoint, {}).items():
                fields[field] = (
                    {"picture": picture, "mask": mask}.get(value, value)
                    if isinstance(value, str)
                    else value
                )
            if endpoint == "race":
                fields["lanes"] = "DDIM, Euler"
            answer = stranger.call(endpoint, **fields)
            answers.append((answer.success, stranger.pixels(answer)))
            self.check(f"draw: {endpoint}", owner, answer.text)
            if "Lora hashes" in answer.text:
                self.fault(f"draw: {endpoint}", "seen", f"<lora:{asked}:1> was applied")
        if answers[0] != answers[1]:
            self.fault(
                f"draw: {endpoint}", "seen", "the owner's LoRA gives another answer than none"
            )
        if not answers[0][0]:
            self.fault(f"draw: {endpoint}", "stopped", "nothing was drawn")

    def read_lists(self, owner: Owner, stranger: Visitor) -> None:
        """Read all that the page loads when it opens, and what the server tells of itself."""
        pages = ("", "config", "gradio_api/info", "gradio_api/queue/status", "monitoring")
        for page in (*pages, "monitoring/summary", "gradio_api/startup-events", "manifest.json"):
            text = stranger.http.get(f"{self.url}{page}").text
            self.check("lists", owner, text)
            if owner.name in text:
                self.fault("lists", "seen", f"{page} names the owner's LoRA")
        for row in stranger.config["dependencies"]:
            if any(event == "load" for _, event in row["targets"]) and row["backend_fn"]:
                answer = stranger.ask(row["id"], [None] * len(row["inputs"]))
                self.check("lists", owner, answer.text)
                if owner.name in answer.text:
                    self.fault("lists", "seen", f"listener {row['id']} names the owner's LoRA")

    def read_requests(self, owner: Owner, stranger: Visitor) -> None:
        """Ask for the answers of requests by numbers that a stranger may guess."""
        guesses = [stranger.session, "null", "", "0", owner.name, owner.session_guess()]
        for guess in self.rng.sample(guesses, 3):
            for route in (
                f"call/train_lora/{guess}", f"call/generate/{guess}",
                f"stream/{guess}/0/0/playlist.m3u8", f"queue/data?session_hash={guess}",
            ):  # fmt: skip
                said: list[str] = []
                address = f"{self.url}gradio_api/{route}"
                with (
                    contextlib.suppress(httpx.TransportError),  # it waits, or is cut off
                    stranger.http.stream("GET", address, timeout=0.3) as answer,
                ):
                    said.extend(answer.iter_text())
                self.check("answers of others", owner, "".join(said))

    def stop(self, owner: Owner, stranger: Visitor) -> None:
        """Press every Stop button, and cancel by numbers that a stranger may guess."""
        elements = {c["id"]: c["props"].get("elem_id") or "" for c in stranger.config["components"]}
        for row in stranger.config["dependencies"]:
            targets = [elements.get(target, "") for target, _ in row["targets"]]
            if any("stop" in name for name in targets) and row["backend_fn"]:
                guesses = " ".join([owner.name, "0", "character", owner.session_guess()])
                answer = stranger.ask(row["id"], [guesses] * len(row["inputs"]))
                self.check("stop", owner, answer.text)
        number = stranger.ids["train_lora"]
        for session in (stranger.session, "", None, owner.session_guess()):
            for event in (secrets.token_hex(16), "", None):
                body = {"session_hash": session, "fn_index": number, "event_id": event}
                for route in ("cancel", "reset"):
                    answer = stranger.http.post(f"{self.url}gradio_api/{route}", json=body)
                    self.check("stop", owner, answer.text)

    def take_name(self, owner: Owner) -> None:
        """Train under the owner's names, afresh and to go on: as under a name that nobody has."""
        stranger, answers = Visitor(self.url), []
        pictures = stranger.upload(*drawings()[:2])
        free = f"f{owner.name}"
        for name, resume in ((owner.name, True), (free, True), (owner.name, False), (free, False)):
            given = {"images": pictures, "steps": 1, "rank": 1, "prompt": "mine", "resume": resume}
            given |= {"prior_prompt": "c", "prior_count": 1, "name": name}
            answer = stranger.call("train_lora", **given)
            self.check("take the name", owner, answer.text)
            sentence = re.sub(r"[\d.]+|/tmp\S+", "", str(answer.data or answer.text[-300:]))
            answers.append((answer.success, sentence.replace(free, owner.name)))
        if answers[0][0] != answers[1][0] or answers[2][0] != answers[3][0]:
            self.fault("take the name", "seen", f"{owner.name} is told from a free name: {answers}")


def start(place: Path) -> tuple[subprocess.Popen, str]:
    """Start app.py with a tiny model in the folder `place`; return the process and its address."""
    from tests.conftest import write_tiny_model

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model, log = write_tiny_model(place / "tiny"), place / "log.txt"
    argv = [sys.executable, str(ROOT / "app.py"), "--model", str(model), "--port", str(port)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(argv, cwd=place, stdout=out, stderr=out, env=environment)
    url = f"http://127.0.0.1:{port}/"
    while url not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    return process, url


def main(argv: list[str] | None = None) -> int:
    """Run the soak; return 0, or 1 if a visitor saw, changed or stopped something of another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=25, help="rounds")
    parser.add_argument("--identities", type=int, default=6, help="of the other one, in a round")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = parser.parse_args(argv)
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(Path(folder))
        try:
            soak, began = Soak(url, Path(folder), args.seed), time.monotonic()
            for _ in range(args.count):
                soak.round(args.identities)
            seconds = time.monotonic() - began
        finally:
            process.terminate()
            process.wait(60)
    for attack, kind, sentence in soak.faults[:40]:
        print(f"{attack}: {kind}: {sentence}")
    print(f"{'':28} {'tries':>7} " + " ".join(f"{kind:>8}" for kind in KINDS))
    for attack in sorted({*soak.tries, *(fault[0] for fault in soak.faults)}):
        counts = [sum(f[:2] == (attack, kind) for f in soak.faults) for kind in KINDS]
        print(f"{attack:28} {soak.tries[attack]:7,} " + " ".join(f"{n:8,}" for n in counts))
    print(f"{args.count} rounds, {sum(soak.tries.values()):,} tries, {seconds:.0f} s")
    print(f"{len(soak.faults)} faults")
    return int(bool(soak.faults))


if __name__ == "__main__":
    sys.exit(main())
