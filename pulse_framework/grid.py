"""Pictures side by side."""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["grid"]


def grid(rows: Sequence[Sequence[Float[Tensor, "_C _H _W"]]], gap: int = 4, cell: int = 1) -> Float[Tensor, "3 H W"]:
    """Lay pictures of any sizes out in rows, on white.

    All cells are as large as the largest height and width; every picture is enlarged to fill its cell, by nearest neighbour and
    keeping its proportions, and centred. Short rows are filled up with white.

    Args:
        rows: Grey or RGB pictures.
        gap: White pixels between cells.
        cell: Least height and width of a cell.

    Raises:
        ValueError: There are no pictures, or one has another shape.
    """
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise ValueError("grid: expected at least one picture, got none")
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[0] not in (1, 3) or picture.numel() == 0:
            raise ValueError(f"grid: expected pictures of shape (C, H, W) with C of 1 or 3, got {tuple(picture.shape)}")
    height, width = max(cell, *(p.shape[1] for p in pictures)), max(cell, *(p.shape[2] for p in pictures))
    columns = max(len(row) for row in rows)
    sheet = torch.ones(3, len(rows) * (height + gap) - gap, columns * (width + gap) - gap)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            scale = min(Fraction(height, picture.shape[1]), Fraction(width, picture.shape[2]))
            h, w = (max(1, floor(side * scale)) for side in picture.shape[1:])
            down = (torch.arange(h) * picture.shape[1]) // h
            across = (torch.arange(w) * picture.shape[2]) // w
            enlarged = picture.detach().cpu().float().clamp(0, 1)[:, down][:, :, across]
            top, left = i * (height + gap) + (height - h) // 2, j * (width + gap) + (width - w) // 2
            sheet[:, top : top + h, left : left + w] = enlarged
    return sheet
