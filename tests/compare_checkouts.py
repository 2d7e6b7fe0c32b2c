"""Draw the same pictures with two checkouts and compare their latents bit by bit.

    python tests/compare_checkouts.py OTHER_CHECKOUT [--steps 4]

Each checkout draws in a process of its own: with every sampler, every task, a LoRA, prompt syntax
and attention maps of words, in fp32 on the CPU. Prints the largest absolute difference of latents
and pixels for each picture; exit code 1 if any bit differs. Run by hand, not by pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]

# The program that runs in each checkout; its arguments are the folder for results and the steps. It
# uses only what both checkouts have: pipeline.load, pipeline.tasks and the samplers' table.
DRIVER = """
import sys, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
out, steps = Path(sys.argv[1]), int(sys.argv[2])
import numpy, torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
torch.set_num_threads(1)
from pipeline import load, tasks
from pipeline.samplers import SAMPLERS

models = load("emoji", device="cpu", dtype="fp32", attention="sdpa", group_norm="torch")
generator = torch.Generator().manual_seed(1)
lora = {}
for name, layer in models.unet.named_modules():
    if name.endswith("attn2.to_k"):
        key = "lora_unet_" + name.replace(".", "_")
        lora[key + ".lora_down.weight"] = torch.randn(2, layer.in_features, generator=generator)
        lora[key + ".lora_up.weight"] = torch.randn(layer.out_features, 2, generator=generator)
Path("models").mkdir(exist_ok=True)
save_file(lora, "models/style.safetensors")

found = {}
def keep(name, result):
    for i, latents in enumerate(result.latents):
        found[f"{name}/latents{i}"] = latents.float().contiguous()
    for i, image in enumerate(result.images):
        found[f"{name}/image{i}"] = torch.from_numpy(numpy.array(image.convert("RGB")).copy())

def draw(name, task="generate", **fields):
    common = dict(prompt="a red apple on a blue background", seed=7, steps=steps)
    *_, result = tasks.stream(models, task, tasks.options(task, **(common | fields)))
    keep(name, result)
    return result

for sampler in SAMPLERS:
    draw(f"sampler {sampler}", sampler=sampler)
picture = Image.new("RGB", (128, 128), "#88aacc")
ImageDraw.Draw(picture).ellipse((30, 30, 100, 100), fill="#cc3322")
picture.save("given.png")
mask = Image.new("L", (128, 128))
ImageDraw.Draw(mask).rectangle((0, 0, 63, 127), fill=255)
mask.save("mask.png")
draw("task image_to_image", "image_to_image", picture="given.png", strength=0.6)
draw("task inpaint", "inpaint", picture="given.png", mask="mask.png")
draw("task outpaint", "inpaint", picture="given.png", left=32, fill="noise")
draw("task hires", "hires")
draw("task upscale", "upscale", picture="given.png")
draw("task colorize", "colorize", picture="given.png")
draw("task grid", "grid", x="Steps: 2, 3")
with_lora = draw("lora", prompt="a red apple <lora:style:0.8>")
without = draw("no lora", prompt="a red apple")
assert not torch.equal(with_lora.latents[0], without.latents[0]), "the LoRA was not applied"
draw("prompt syntax", prompt="a (red:1.3) [apple:fox:2] AND a dog BREAK on blue", negative="blur")
draw("variation", variation_seed=9, variation_strength=0.3, cfg_rescale=0.5, clip_skip=2, count=2)
asked = tasks.options("generate", prompt="a fox", seed=3, steps=steps)
words = list(models.stream(asked, words=True))
keep("word maps", words[-1])
found["word maps/maps"] = words[-2].maps.contiguous()
save_file(found, out / "found.safetensors")
"""


def main(argv: list[str] | None = None) -> int:
    """Draw with both checkouts and print the differences; return 1 if there are any, else 0.

    argv: command-line arguments; None: sys.argv.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args(argv)
    from safetensors.torch import load_file

    drawn = []
    for checkout in (args.other.resolve(), HERE):
        with tempfile.TemporaryDirectory() as folder:
            env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", DRIVER, folder, str(args.steps)]
            subprocess.run(command, cwd=folder, env=env, check=True)
            drawn.append(load_file(Path(folder) / "found.safetensors"))
    before, after = drawn
    rows: dict[str, dict[str, float]] = {}
    for name in sorted(before.keys() | after.keys()):
        row, _, what = name.partition("/")
        a, b = before.get(name), after.get(name)
        if a is None or b is None or a.shape != b.shape:
            difference = float("inf")
        else:
            difference = float((a.double() - b.double()).abs().max())
        kind = what.rstrip("0123456789")
        rows.setdefault(row, {})[kind] = max(difference, rows.get(row, {}).get(kind, 0.0))
    for row, kinds in rows.items():
        print(f"{row:28}", "  ".join(f"{kind} {value:g}" for kind, value in kinds.items()))
    differs = [row for row, kinds in rows.items() if any(kinds.values())]
    print(json.dumps({"compared": len(rows), "tensors": len(before), "differ": differs}))
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
