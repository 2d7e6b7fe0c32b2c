"""Write sample sheets: many pictures arranged in a grid in one PNG file."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ..disk import write_file


def save_sheet(pictures: torch.Tensor, path: Path, *, columns: int) -> None:
    """Save many pictures as a grid in one PNG file, to look at them together.

    pictures: (N, 3, H, W) in [-1, 1]; path: the file; columns: pictures in a row. Unused cells of
    the last row are white. Raises InputError if the file cannot be written.
    """
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    cells = torch.ones(rows * columns, 3, height, width)
    cells[:n] = pictures.float().cpu().clamp(-1, 1)
    grid = cells.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8)
    image = Image.fromarray(pixels.reshape(rows * height, columns * width, 3).numpy(), "RGB")
    write_file(path, lambda part: image.save(part, "PNG"))
