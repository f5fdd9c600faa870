"""Measurements that are no pictures: one tensor named ``measurement`` in a safetensors file."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pulse_framework.images import ReadError

__all__ = ["NAME", "SUFFIX", "fits_a_picture", "has_measurement", "peek_measurement", "read_measurement"]

SUFFIX = ".safetensors"
NAME = "measurement"


def fits_a_picture(y: Tensor) -> bool:
    """Whether an 8-bit picture can hold y: shape (C, H, W) with C of 1 or 3, and values in [0, 1] to half a level."""
    shaped = y.ndim == 3 and y.shape[0] in (1, 3) and y.numel() > 0
    return shaped and bool(((y >= -0.5 / 255) & (y <= 1 + 0.5 / 255)).all())


def has_measurement(path: Path) -> bool:
    """Whether a file is a measurement; one that cannot be read is none."""
    try:
        peek_measurement(path)
    except ReadError:
        return False
    return True


def peek_measurement(path: Path) -> tuple[int, ...]:
    """Shape of the measurement in a file, from its header alone.

    Raises:
        ReadError: The file cannot be read, or holds no measurement.
    """
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if names == [NAME]:
                return tuple(file.get_slice(NAME).get_shape())
    except (OSError, SafetensorError) as error:
        raise ReadError(
            f"{path}: expected a measurement ({SUFFIX}), got: {' '.join(str(error).split())}; make it anew"
        ) from error
    raise ReadError(
        f"{path}: expected one tensor named {NAME}, as `pulse degrade` writes, got {', '.join(sorted(names)[:3]) or 'none'}; "
        "give a measurement or a picture"
    )


def read_measurement(path: Path) -> Tensor:
    """The measurement in a file, in float32.

    Raises:
        ReadError: The file cannot be read, holds no measurement, or numbers that are not real and finite.
    """
    peek_measurement(path)
    try:
        with safe_open(path, "pt") as file:
            y = file.get_tensor(NAME)
    except (OSError, SafetensorError) as error:
        raise ReadError(
            f"{path}: expected a measurement ({SUFFIX}), got: {' '.join(str(error).split())}; make it anew"
        ) from error
    if not y.is_floating_point() or not bool(y.isfinite().all()):
        raise ReadError(f"{path}: expected finite numbers, got others in a tensor of {y.dtype}; make it anew")
    return y.to(torch.float32)
