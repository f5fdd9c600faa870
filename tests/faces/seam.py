"""How steep a picture is across the edge of a square in it."""

import numpy as np
import torch
from torch.nn import functional

__all__ = ["seam"]


def steepness(picture, square, off):
    """Mean difference over one pixel across lines parallel to the square's sides, ``off`` pixels further out."""
    centre, x = np.array(square.centre), np.array(square.axis)
    y, half = np.array([-x[1], x[0]]), np.hypot(*x)
    along = np.linspace(-0.7, 0.7, 400)[:, None]
    found = []
    for out, side in ((x, y), (-x, y), (y, x), (-y, x)):
        line = centre + out * (1 + off / half) + along * side
        ends = torch.from_numpy(np.stack([line - out / half / 2, line + out / half / 2])[None]).float()
        height, width = picture.shape[1:]
        inside = ((ends > 0) & (ends < torch.tensor([width, height]))).all(-1).all(1)[0]
        values = functional.grid_sample(picture[None], 2 * ends / torch.tensor([width, height]) - 1, align_corners=False)[0]
        found.append((values[:, 1] - values[:, 0]).abs().mean(0)[inside])
    return float(torch.cat(found).mean())


def seam(picture, square, beside=1.5):
    """Steepness across the square's edge over that of both sides of it, less 1: 0 where nothing is to be seen."""
    return steepness(picture, square, 0) / np.mean([steepness(picture, square, off) for off in (-beside, beside)]) - 1
