"""Formulas of point spread functions (PSFs), float64 on the CPU, not yet divided by their sums.

A parameter is a number, or a tensor of shape () whose graph is kept. A PSF is continuous in its parameters, except for where a
Gaussian is cut off, and differentiable almost everywhere; its size follows from their values.
"""

import math

import torch
from torch import Tensor

__all__ = ["Scalar", "disk", "gaussian", "integer", "line", "scalar", "sinc", "trajectory"]

Scalar = float | Tensor
"""A number, or a tensor of shape ()."""

_POINTS = 1024
"""Points of a path; up to a thousand pixels long it has no holes."""


def scalar(where: str, name: str, value: Scalar, above: float = -math.inf) -> Tensor:
    """The parameter as float64 on the CPU.

    Raises:
        TypeError: It is neither a number nor a tensor of floats of shape ().
        ValueError: It is not finite, or not above a limit.
    """
    if isinstance(value, Tensor):
        if value.ndim or not value.is_floating_point():
            raise TypeError(f"{where} {name}: expected a float tensor of shape (), got {value.dtype} of {tuple(value.shape)}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where} {name}: expected a number or a tensor of shape (), got {type(value).__name__}")
    number = value.item() if isinstance(value, Tensor) else value
    if not above < number < math.inf:
        kind = "a finite number" if above == -math.inf else f"a finite number above {above:g}"
        raise ValueError(f"{where} {name}: expected {kind}, got {number}; change it")
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def integer(where: str, name: str, value: int, least: int = 1) -> int:
    """The parameter itself.

    Raises:
        TypeError: It is no integer.
        ValueError: It is below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} {name}: expected an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{where} {name}: expected at least {least}, got {value}; change it")
    return value


def gaussian(sigma: Tensor, ratio: Tensor, angle: Tensor) -> Tensor:
    r""":math:`\exp(-(a / \sigma)^2 / 2 - (b / \rho \sigma)^2 / 2)`, a along the angle and b across, up to 4 of the larger."""
    up, right = _grid(math.ceil(4 * sigma.item() * max(1.0, ratio.item())))
    along, across = angle.cos() * right + angle.sin() * up, angle.cos() * up - angle.sin() * right
    return torch.exp(-((along / sigma).square() + (across / (ratio * sigma)).square()) / 2)


def disk(radius: Tensor) -> Tensor:
    """Radius + 1/2 - r clamped to [0, 1], r being the distance of a pixel's centre."""
    up, right = _grid(max(0, math.ceil(radius.item() - 0.5)))
    return (radius + 0.5 - torch.hypot(up, right)).clamp(0, 1)


def line(length: Tensor, angle: Tensor) -> Tensor:
    """The straight path through the middle."""
    along = ((torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS - 0.5) * length
    return _path(angle.sin() * along, angle.cos() * along)


def trajectory(length: Tensor, bend: Tensor, seed: int) -> Tensor:
    """The path whose heading starts anywhere and is a Brownian motion of standard deviation ``bend`` at the end."""
    rng = torch.Generator().manual_seed(seed)
    start = 2 * math.pi * torch.rand((), generator=rng, dtype=torch.float64)
    turns = torch.randn(_POINTS, generator=rng, dtype=torch.float64).cumsum(0) / math.sqrt(_POINTS)
    heading = start + bend * turns
    up, right = heading.sin().cumsum(0) * length / _POINTS, heading.cos().cumsum(0) * length / _POINTS
    return _path(up - up.mean(), right - right.mean())


def sinc(cutoff: Tensor, size: int) -> Tensor:
    r""":math:`\omega J_1(\omega r) / (2 \pi r)`, of odd size.

    The Bessel function is Poisson's integral, :math:`J_1(z) = \frac{z}{\pi} \int_0^\pi \cos(z \cos t) \sin^2 t \, dt`, which the
    midpoint rule gives to rounding; PyTorch's own is off by 3e-7 at z = 5.1 and has no derivative.
    """
    z = cutoff * torch.hypot(*_grid(size // 2))
    count = math.ceil(z.max().item() / 2) + 24
    t = (torch.arange(count, dtype=torch.float64) + 0.5) * math.pi / count
    return cutoff.square() / (2 * math.pi) * ((z[..., None] * t.cos()).cos() * t.sin().square()).mean(-1)


def _grid(radius: int) -> tuple[Tensor, Tensor]:
    """Upward and rightward distance from the middle pixel."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return -at[:, None].expand(-1, len(at)), at.expand(len(at), -1)


def _path(up: Tensor, right: Tensor) -> Tensor:
    """Equal weights at points, each shared among the four nearest pixels bilinearly."""
    radius = math.ceil(max(up.detach().abs().max().item(), right.detach().abs().max().item()))
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    rows, columns = ((1 - (at[:, None] - points).abs()).clamp(min=0) for points in (-up, right))
    return rows @ columns.T / len(up)
