"""Sheets of samples as one PNG."""

import pytest
import torch

from pipeline.training import sheet

pytestmark = pytest.mark.quick


def test_sheet(tmp_path):
    from PIL import Image

    pictures = torch.stack([torch.full((3, 4, 6), v) for v in (-1.0, 0.0, 1.0)])
    sheet.save_sheet(pictures, tmp_path / "s.png", columns=2)
    image = Image.open(tmp_path / "s.png")
    assert image.size == (12, 8)
    assert [image.getpixel(p) for p in ((0, 0), (6, 0), (0, 4))] == [
        (0, 0, 0),
        (128, 128, 128),
        (255, 255, 255),
    ]
