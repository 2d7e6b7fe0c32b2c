"""Plots of measured rows: bars against peers at each shape, and the share of the ceiling."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, PAPER, GRID = (30, 34, 38), (255, 255, 255), (226, 229, 232)
OURS = (11, 122, 94)
PEERS = [
    (92, 119, 188),
    (204, 138, 62),
    (150, 98, 160),
    (120, 128, 136),
    (188, 84, 84),
    (92, 158, 178),
]
ROW, GAP, LEFT, WIDTH = 18, 14, 300, 1000


def plots(rows: list[dict], folder: Path) -> list[Path]:
    """One PNG for each op and mode in `folder`: the rate of every provider at every shape."""
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["rate"]:
            groups.setdefault((row["kernel"], row["mode"]), []).append(row)
    out = []
    for (kernel, mode), here in groups.items():
        path = folder / f"{kernel}-{mode}.png"
        bars(here, f"{kernel}, {mode}, {here[0]['dtype']}").save(path)
        out.append(path)
    return out


def bars(rows: list[dict], title: str) -> Image.Image:
    """Bars in the rows' metric, a block a shape; the dashed line is the device's ceiling."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    shapes: dict[str, list[dict]] = {}
    for row in rows:
        shapes.setdefault(row["shape"], []).append(row)
    names = list(dict.fromkeys(r["provider"] for r in rows))
    others = [n for n in names if not n.startswith("ours")]
    colours = {
        n: OURS if n.startswith("ours") else PEERS[others.index(n) % len(PEERS)] for n in names
    }
    height = 90 + sum(ROW * len(v) + GAP for v in shapes.values()) + 30
    picture = Image.new("RGB", (LEFT + WIDTH + 120, height), PAPER)
    draw = ImageDraw.Draw(picture)
    around = rows[0]["surroundings"]
    where = around.get("gpu") or around.get("cpu", "")
    draw.text((16, 12), f"{title} on {where}", INK, font)
    x = 16
    for name in names:
        draw.rectangle((x, 44, x + 12, 56), colours[name])
        draw.text((x + 18, 43), name, INK, small)
        x += 40 + int(draw.textlength(name, small))
    top = max(max(r["rate"] for r in rows), rows[0]["ceiling"] or 0)
    y = 80
    for shape, here in shapes.items():
        draw.text((16, y + ROW * len(here) / 2 - 8), shape, INK, small)
        for row in here:
            end = LEFT + WIDTH * row["rate"] / top
            draw.rectangle((LEFT, y + 2, end, y + ROW - 2), colours[row["provider"]])
            draw.text((end + 6, y + 2), f"{row['rate']:.1f}", INK, small)
            y += ROW
        draw.line((LEFT, y + GAP / 2, LEFT + WIDTH, y + GAP / 2), GRID)
        y += GAP
    if rows[0]["ceiling"]:
        x = LEFT + WIDTH * rows[0]["ceiling"] / top
        for dash in range(76, y, 8):
            draw.line((x, dash, x, dash + 4), INK)
        label = f"measured ceiling {rows[0]['ceiling']:.0f} {rows[0]['metric']}"
        draw.text((x - draw.textlength(label, small) - 6, y + 4), label, INK, small)
    return picture
