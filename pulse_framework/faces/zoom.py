"""A face by itself, enlarged: landmarks of whole pixels are then fractions of the photo's."""

import numpy as np
import torch
from torch import Tensor

from pulse_framework.affine import resample

__all__ = ["to_bytes", "zoomed"]

_SIDE = 200.0
"""Pixels a side of the box, about what the landmark models were trained on."""


def zoomed(photo: Tensor, box: tuple[float, float, float, float]) -> tuple[np.ndarray, tuple[float, ...], np.ndarray, float]:
    """The surroundings of a face, enlarged if it is small, never reduced.

    Returns:
        Pixels (H, W, 3) of 8 bits, the box in them, and what takes a point in them to the photo: point / scale + offset.
    """
    left, top, right, bottom = box
    scale = max(1.0, _SIDE / max(right - left, bottom - top))
    margin = max(right - left, bottom - top)
    x, y = max(0, int(left - margin)), max(0, int(top - margin))
    part = photo[:, y : int(np.ceil(bottom + margin)), x : int(np.ceil(right + margin))]
    if part.numel() == 0:
        raise ValueError(f"face: expected a box that touches the photo of {tuple(photo.shape[1:])} (height x width), got {box}")
    if scale > 1:
        size = (round(part.shape[1] * scale), round(part.shape[2] * scale))
        part = resample(part, [[1 / scale, 0, 0], [0, 1 / scale, 0]], size)
    offset = np.array([x, y], dtype=np.float64)
    inside = (np.array(box) - np.tile(offset, 2)) * scale
    return to_bytes(part), tuple(inside.tolist()), offset, scale


def to_bytes(photo: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) of 8 bits; one channel after the other, since photos may be large."""
    channels = [(channel.float().clamp(0, 1) * 255).round().to(torch.uint8) for channel in photo.detach().cpu()]
    made: np.ndarray = torch.stack(channels, -1).numpy()
    return made
