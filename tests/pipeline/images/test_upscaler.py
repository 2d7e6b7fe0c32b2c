"""The shipped pixel upscaler: its size, what it gains, tiles that leave no trace, refusals."""

import json
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.images import upscaler
from pipeline.images.upscaler import FOLDER, UPSCALERS, WEIGHTS, Upscaler, load
from pipeline.tasks.common import PIXELS


def noise(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels, "RGB")


def shapes(seed: int) -> Image.Image:
    """256x256: discs, bars and triangles with smooth edges on a gradient."""
    rng, side = random.Random(seed), 1024
    ramp = np.linspace(0, 1, side)[:, None, None]
    ends = [np.array([rng.randrange(256) for _ in range(3)]) for _ in range(2)]
    ground = np.broadcast_to(ends[0] + (ends[1] - ends[0]) * ramp, (side, side, 3))
    image = Image.fromarray(ground.round().astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        colour = tuple(rng.randrange(256) for _ in range(3))
        x, y, size = rng.randrange(side), rng.randrange(side), rng.randrange(60, 300)
        kind = rng.randrange(3)
        if kind == 0:
            draw.ellipse((x, y, x + size, y + size * rng.uniform(0.4, 1)), fill=colour)
        elif kind == 1:
            points = [(x + rng.randrange(-size, size), y + rng.randrange(-size, size))]
            points += [(x, y), (x + size, y + rng.randrange(size))]
            draw.polygon(points, fill=colour)
        else:
            end = x + rng.randrange(-size, size), y + rng.randrange(-size, size)
            draw.line((x, y, *end), fill=colour, width=rng.randrange(6, 30))
    return image.resize((256, 256), Image.Resampling.BOX)


def psnr(a: Image.Image, b: Image.Image) -> float:
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return 10 * math.log10(255**2 / np.mean(difference**2))


def test_the_shipped_files_are_small_and_load():
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 2_000_000
    model = load()
    assert not model.training and all(p.dtype == torch.float32 for p in model.parameters())
    assert json.loads((FOLDER / "config.json").read_text()) == model.config
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    measured = json.loads((FOLDER / "evaluation.json").read_text())
    gain = measured["rows"]["scenes of held-out emoji"]["gain"]
    assert gain >= 1.5 and f"{gain:+.2f} dB" in card and measured["scenes"] >= 200


def test_it_beats_lanczos_on_drawings_that_it_never_saw():
    gains = []
    for seed in range(5):
        truth = shapes(seed)
        small = truth.resize((128, 128), Image.Resampling.BICUBIC)
        drawn = {k: psnr(u.enlarge(small, 256, 256), truth) for k, u in UPSCALERS.items()}
        gains.append(drawn["glass"] - drawn["lanczos"])
    assert min(gains) > 1.5, gains


def test_tiles_leave_no_trace():
    """Against the network itself on the whole picture, in double precision."""
    model = Upscaler(channels=6, blocks=3)
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    image = noise(61, 45, seed=2)
    pixels = np.asarray(image, dtype=np.float64).transpose(2, 0, 1)[None] / 255
    exact = Upscaler(channels=6, blocks=3).to(torch.float64)
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        whole = exact(torch.from_numpy(pixels))[0].clamp(0, 1).mul(255).numpy().transpose(1, 2, 0)
    for tile in (7, 16, 64):
        tiled = np.asarray(model.double_size(image, tile), dtype=np.float64)
        assert np.abs(tiled - whole).max() < 0.501, tile  # rounding, nothing else


def test_a_plain_picture_stays_plain_to_its_borders():
    for colour in ((0, 0, 0), (255, 255, 255), (66, 121, 219)):
        drawn = np.asarray(load().double_size(Image.new("RGB", (23, 9), colour), tile=8), dtype=int)
        assert (drawn == drawn[9, 23]).all() and np.abs(drawn - colour).max() <= 2


@pytest.mark.parametrize("factor", [1, 1.01, 1.5, 2, 2.7, 3.3, 8])
def test_exact_sizes(factor):
    image = noise(17, 9, seed=3)
    drawn = load().enlarge(image, factor)
    assert drawn.size == (round(17 * factor), round(9 * factor)) and drawn.mode == "RGB"
    if factor == 1:
        assert drawn.tobytes() == image.tobytes()
    if factor == 8:  # three times doubled
        again = image
        for _ in range(3):
            again = load().double_size(again)
        assert drawn.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", list(UPSCALERS))
def test_every_upscaler_of_the_table(name):
    way = UPSCALERS[name]
    ramp = Image.linear_gradient("L").resize((20, 20)).convert("RGBA")  # other modes become RGB
    drawn = way.enlarge(ramp, 50, 31)  # sides may grow differently
    assert drawn.size == (50, 31) and drawn.mode == "RGB" and way.label and way.note
    rows = np.asarray(drawn, dtype=float).mean((1, 2))
    assert rows[0] < 20 and rows[-1] > 235 and (np.diff(rows) > 0).all()
    assert way.enlarge(ramp, 7, 5).size == (7, 5)


def test_the_tasks_know_the_same_upscalers():
    assert set(PIXELS) == set(UPSCALERS)


def test_refusals_are_sentences():
    image = Image.new("RGB", (10, 10))
    for factor in (0.9, 8.1, float("nan"), -2, float("inf")):
        with pytest.raises(InputError, match=r"^A picture is enlarged 1 to 8 times, not .*\.$"):
            load().enlarge(image, factor)
    for way in UPSCALERS.values():
        with pytest.raises(InputError, match=r"cannot become 81x10: .* at most 8 times"):
            way.enlarge(image, 81, 10)
        with pytest.raises(InputError, match="0x10 pixels cannot be made"):
            way.enlarge(image, 0, 10)
        with pytest.raises(InputError, match="64 million pixels; at most 50"):
            way.enlarge(Image.new("RGB", (1000, 1000)), 8000, 8000)


def copied(folder):
    for name in ("config.json", WEIGHTS):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    return folder


DAMAGE = {
    "missing": (lambda f: (f / WEIGHTS).unlink(), "cannot be read"),
    "cut off": (lambda f: (f / WEIGHTS).write_bytes((FOLDER / WEIGHTS).read_bytes()[:-9]), "glass"),
    "pickle": (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x02" * 20), "pickle"),
    "other size": (lambda f: (f / "config.json").write_text('{"channels": 8, "blocks": 2}'), "go"),
    "no sizes": (lambda f: (f / "config.json").write_text('["channels"]'), "no upscaler"),
    "huge": (lambda f: (f / "config.json").write_text('{"channels": 9999, "blocks": 2}'), "no up"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damaged_files_are_refused(tmp_path, name):
    harm, sentence = DAMAGE[name]
    folder = copied(tmp_path)
    assert load(folder=folder).config == load().config
    upscaler.load.cache_clear()
    harm(folder)
    with pytest.raises(InputError, match=sentence) as error:
        load(folder=folder)
    assert "\n" not in str(error.value)


def test_what_is_loaded_is_what_the_file_holds(tmp_path):
    folder = copied(tmp_path)
    held = load_file(folder / WEIGHTS)
    held["tail.bias"] += 1  # brighter by 255: all white
    save_file(held, folder / WEIGHTS)
    drawn = load(folder=folder).double_size(noise(5, 5, seed=4))
    assert np.asarray(drawn).min() > 128
