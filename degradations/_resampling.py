r"""The matrix that resamples one axis, as the libraries that people degrade their images with do it.

Row i of the matrix R, for a side of s pixels that becomes n, samples a kernel k at the pixels p,

.. math:: R_{ip} \propto k\big((p - c_i) / g\big), \qquad c_i = (i + 1/2) f - 1/2, \qquad \sum_p R_{ip} = 1,

with the step f between samples. Antialiased resampling stretches the kernel by g = f; g = 1 does not. The libraries differ in f,
in g, in the cubic kernel's parameter, and in what they do with taps outside of the image.

| library | f | g | cubic a | taps outside |
| --- | --- | --- | --- | --- |
| ``pulse`` (Menon et al., CVPR 2020) | factor | f | -1/2 | reflected at the outermost pixels |
| ``pil`` (Pillow's ``Image.resize``) | s / n | f | -1/2 | left out |
| ``torch`` (``interpolate``) | s / n | 1 | -3/4 | the outermost pixel |
| ``torch_antialias`` (``interpolate(antialias=True)``) | s / n | f | -1/2 | left out |
| ``matlab`` (``imresize``) | factor | f | -1/2 | reflected, outermost pixels doubled |

For an odd factor the operator published with PULSE has its samples half a pixel further, and so has ``pulse``.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

__all__ = ["LIBRARIES", "matrix", "rational", "samples"]


@dataclass(frozen=True)
class _Convention:
    """How a library resamples; see the table above."""

    cubic: float
    antialias: bool
    outside: Literal["reflect", "symmetric", "replicate", "leave"]
    exact: bool
    kernels: tuple[str, ...]


_KERNELS = ("nearest", "box", "bilinear", "bicubic", "lanczos2", "lanczos3", "gaussian")
LIBRARIES: dict[str, _Convention] = {
    "pulse": _Convention(-0.5, True, "reflect", True, _KERNELS),
    "pil": _Convention(-0.5, True, "leave", False, _KERNELS),
    "torch": _Convention(-0.75, False, "replicate", False, ("nearest", "box", "bilinear", "bicubic")),
    "torch_antialias": _Convention(-0.5, True, "leave", False, ("bilinear", "bicubic")),
    "matlab": _Convention(-0.5, True, "symmetric", True, _KERNELS),
}


def rational(where: str, factor: int | float | str | Fraction) -> Fraction:
    """The factor as an exact fraction of at least 1.

    Raises:
        TypeError: It is none of these.
        ValueError: It is not a number, not finite or below 1.
    """
    advice = 'give an integer, a float or text such as "32/5"'
    if isinstance(factor, bool) or not isinstance(factor, int | float | str | Fraction):
        raise TypeError(f"{where} factor: expected a number of at least 1, got {type(factor).__name__}; {advice}")
    try:
        value = Fraction(factor)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"{where} factor: expected a finite number of at least 1, got {factor!r}; {advice}") from error
    if value < 1:
        raise ValueError(f"{where} factor: expected at least 1 (1 keeps the size), got {factor!r}; to enlarge is not its work")
    return value.limit_denominator(1000) if isinstance(factor, float) else value


def samples(side: int, factor: Fraction, library: str) -> int:
    """How many samples a side of so many pixels becomes: MATLAB rounds up, the others down."""
    return math.ceil(side / factor) if library == "matlab" else math.floor(side / factor)


def matrix(side: int, factor: Fraction, kernel: str, library: str, a: float | None = None, sigma: float = 0.5) -> np.ndarray:
    """R, of shape (samples, side), float64.

    Args:
        side: Pixels of the image along the axis.
        factor: Pixels of the image per sample.
        kernel: One that the library has.
        library: See the table above.
        a: Parameter of the cubic kernel; None is the library's.
        sigma: Standard deviation of the Gaussian kernel, in samples.
    """
    how, count = LIBRARIES[library], samples(side, factor, library)
    if factor == 1:
        return np.eye(side)
    f = factor if how.exact else Fraction(side, count)
    if kernel == "nearest":
        half = Fraction(0) if library == "torch" else Fraction(1, 2)
        return np.eye(side)[[min(math.floor((i + half) * f), side - 1) for i in range(count)]]
    if kernel == "box" and library == "torch":  # adaptive average pooling: every pixel touched counts alike
        spans = [(math.floor(i * f), math.ceil((i + 1) * f)) for i in range(count)]
        return np.array([[(low <= p < high) / (high - low) for p in range(side)] for low, high in spans])
    late = library == "pulse" and f.denominator == 1 and f % 2 == 1
    centres = [(i + Fraction(1, 2)) * f - (0 if late else Fraction(1, 2)) for i in range(count)]
    stretch = f if how.antialias else Fraction(1)
    reach = math.ceil(_support(kernel, sigma) * stretch)
    taps = np.array([math.floor(c) for c in centres])[:, None] + np.arange(-reach, reach + 2)
    t = np.array([[float((int(p) - c) / stretch) for p in row] for row, c in zip(taps, centres, strict=True)])
    values = _value(kernel, t, how.cubic if a is None else a, sigma)
    if how.outside == "leave":
        values = np.where((taps >= 0) & (taps < side), values, 0.0)
    made = np.zeros((count, side))
    np.add.at(made, (np.arange(count)[:, None], _folded(taps, side, how.outside)), values / values.sum(1, keepdims=True))
    return made


def _support(kernel: str, sigma: float) -> float:
    """Where the kernel ends, in samples; the Gaussian is cut at four standard deviations."""
    return {"box": 0.5, "bilinear": 1, "bicubic": 2, "lanczos2": 2, "lanczos3": 3, "gaussian": 4 * sigma}[kernel]


def _value(kernel: str, t: np.ndarray, a: float, sigma: float) -> np.ndarray:
    """k(t), up to a factor; the cubic one is of Keys, IEEE TASSP 29(6), 1981."""
    d = np.abs(t)
    if kernel == "box":
        return np.where((t > -0.5) & (t <= 0.5), 1.0, 0.0)
    if kernel == "bilinear":
        return np.maximum(1 - d, 0)
    if kernel == "bicubic":
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    if kernel == "gaussian":
        return np.where(d <= 4 * sigma, np.exp(-0.5 * (d / sigma) ** 2), 0.0)
    lobes = 2 if kernel == "lanczos2" else 3
    return np.where(d < lobes, np.sinc(t) * np.sinc(t / lobes), 0.0)


def _folded(index: np.ndarray, side: int, outside: str) -> np.ndarray:
    """Indices taken into [0, side); those left out have weight 0 wherever they go."""
    if outside in ("replicate", "leave") or side == 1:
        return index.clip(0, side - 1)
    if outside == "symmetric":
        index = index % (2 * side)
        return np.minimum(index, 2 * side - 1 - index)
    index = index % (2 * (side - 1))
    return np.minimum(index, 2 * (side - 1) - index)
