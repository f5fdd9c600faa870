r"""Colour and tone: grey, a sensor's colour filters, exposure and white balance, gamma, clipping, quantisation.

All act on sRGB-coded values in [0, 1], pixel by pixel; c is the channel and p the pixel.

- ``Greyscale``: :math:`A(x)_p = \sum_c w_c x_{cp}`, with the luma weights of ITU-R BT.601 (0.299, 0.587, 0.114) or BT.709 (0.2126,
  0.7152, 0.0722).
- ``Bayer``: :math:`A(x)_p = x_{c(p) p}`, one colour a pixel, in a pattern of 2 x 2 pixels (Bayer, US patent 3971065, 1976).
- ``WhiteBalance``: :math:`A(x)_{cp} = g_c x_{cp}`; ``Exposure`` adds an offset :math:`b_c`.
- ``Gamma``, ``Clip`` and ``Quantise``: see the classes.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Degradation, LinearDegradation

__all__ = ["Bayer", "Clip", "Exposure", "Gamma", "Greyscale", "Quantise", "WhiteBalance"]

_HALF_LEVEL = 0.5 / 255
"""Half of an 8-bit level, in image units."""

LUMA = {"rec601": (0.299, 0.587, 0.114), "rec709": (0.2126, 0.7152, 0.0722)}
"""Weights of red, green and blue."""


class Greyscale(LinearDegradation):
    """Luma: (3, H, W) to (1, H, W).

    Args:
        weights: ``rec601`` or ``rec709``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: There are no such weights.
    """

    gap = _HALF_LEVEL

    def __init__(self, weights: str = "rec601") -> None:
        super().__init__()
        if weights not in LUMA:
            raise ValueError(f"Greyscale weights: expected one of {', '.join(LUMA)}, got {weights!r}")
        self.weights = weights

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(1, H, W).

        Raises:
            ValueError: The images are not RGB.
        """
        return _one_channel(self, image_shape)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1 H W"]:
        """The weighted sum of the channels.

        Raises:
            ValueError: The images are not RGB.
        """
        _one_channel(self, tuple(x.shape[1:]))
        red, green, blue = LUMA[self.weights]
        return red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]

    def measure(self, x: Float[Tensor, "N 3 H W"], rng: torch.Generator) -> Float[Tensor, "N 1 H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits; nothing is drawn from ``rng``."""
        return _saved(self(x))

    def adjoint(self, y: Float[Tensor, "N 1 H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N 3 H W"]:
        """``y`` times the weight, in each channel.

        Raises:
            ValueError: y is not of the measurement shape of such images.
        """
        _check_adjoint(self, y, image_shape)
        return torch.cat([weight * y for weight in LUMA[self.weights]], 1)


class Bayer(LinearDegradation):
    """A sensor behind colour filters: (3, H, W) to (1, H, W).

    Args:
        pattern: Colours of the first two pixels of the first row, then of the second: ``RGGB``, ``BGGR``, ``GRBG`` or ``GBRG``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: There is no such pattern.
    """

    gap = _HALF_LEVEL

    def __init__(self, pattern: str = "RGGB") -> None:
        super().__init__()
        if pattern not in ("RGGB", "BGGR", "GRBG", "GBRG"):
            raise ValueError(f"Bayer pattern: expected one of RGGB, BGGR, GRBG, GBRG, got {pattern!r}")
        self.pattern = pattern

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(1, H, W).

        Raises:
            ValueError: The images are not RGB.
        """
        return _one_channel(self, image_shape)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1 H W"]:
        """The colour that each pixel's filter lets through.

        Raises:
            ValueError: The images are not RGB.
        """
        _one_channel(self, tuple(x.shape[1:]))
        return (x * self._filters(x)).sum(1, keepdim=True)

    def measure(self, x: Float[Tensor, "N 3 H W"], rng: torch.Generator) -> Float[Tensor, "N 1 H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits; nothing is drawn from ``rng``."""
        return _saved(self(x))

    def adjoint(self, y: Float[Tensor, "N 1 H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N 3 H W"]:
        """``y`` in the channel of each pixel's filter, zero in the others.

        Raises:
            ValueError: y is not of the measurement shape of such images.
        """
        _check_adjoint(self, y, image_shape)
        return y * self._filters(y)

    def _filters(self, like: Tensor) -> Tensor:
        """1 where a filter lets a channel through, (3, H, W)."""
        height, width = like.shape[-2:]
        tile = torch.tensor([[float(colour == own) for own in self.pattern] for colour in "RGB"]).to(like).reshape(3, 2, 2)
        return tile.repeat(1, -(-height // 2), -(-width // 2))[:, :height, :width]


class Exposure(Degradation):
    """Gain and offset, ``gain * x + offset``: exposure, colour casts, haze; affine.

    Args:
        gain: One number, or one for each channel.
        offset: The same, in image units.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: A number is not finite, or a gain is 0.
    """

    gap = _HALF_LEVEL

    def __init__(self, gain: float | Sequence[float] = 1.0, offset: float | Sequence[float] = 0.0) -> None:
        super().__init__()
        self.gain, self.offset = _numbers(gain), _numbers(offset)
        if not all(map(math.isfinite, (*self.gain, *self.offset))) or 0 in self.gain:
            raise ValueError(f"Exposure: expected finite numbers and gains that are not 0, got {gain} and {offset}")

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape.

        Raises:
            ValueError: The numbers are for another number of channels.
        """
        for name, values in (("gain", self.gain), ("offset", self.offset)):
            if len(values) not in (1, image_shape[0]):
                raise ValueError(f"{type(self).__name__} {name}: expected 1 number or {image_shape[0]}, got {len(values)}")
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x).

        Raises:
            ValueError: The numbers are for another number of channels.
        """
        self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        gain, offset = (torch.tensor(v, dtype=x.dtype, device=x.device)[:, None, None] for v in (self.gain, self.offset))
        return gain * x + offset

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits; nothing is drawn from ``rng``."""
        return _saved(self(x))


class WhiteBalance(Exposure, LinearDegradation):
    """Gain alone, which is linear.

    Args:
        gain: One number, or one for each channel.

    Raises:
        ValueError: A gain is 0 or not finite.
    """

    def __init__(self, gain: float | Sequence[float]) -> None:
        super().__init__(gain)

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """A itself.

        Raises:
            ValueError: y is not of this image shape.
        """
        _check_adjoint(self, y, image_shape)
        return self(y)


class Gamma(Degradation):
    r"""Tone curve :math:`A(x) = x^\gamma` above the toe t; below it, and for negative x, the line :math:`t^{\gamma - 1} x`.

    The line keeps the derivative finite and away from 0 (the power's own is infinite or 0 at 0), and the curve defined and
    monotone for every x. The true process has no toe, from which A differs by at most :math:`t^\gamma |u^\gamma - u|` with
    :math:`u = \gamma^{1 / (1 - \gamma)}`.

    Args:
        gamma: Positive; below 1 brightens.
        toe: t, in image units, in (0, 1).

    Attributes:
        gap: Half of an 8-bit level and that difference, in image units.

    Raises:
        ValueError: ``gamma`` is not positive and finite, or ``toe`` not in (0, 1).
    """

    def __init__(self, gamma: float, toe: float = 1e-3) -> None:
        super().__init__()
        if not (gamma > 0 and math.isfinite(gamma)) or not 0 < toe < 1:
            raise ValueError(f"Gamma: expected a positive gamma and a toe in (0, 1), got {gamma} and {toe}")
        self.gamma, self.toe = gamma, toe
        u = 0.0 if gamma == 1 else gamma ** (1 / (1 - gamma))
        self.gap = _HALF_LEVEL + toe**gamma * abs(u**gamma - u)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x)."""
        return torch.where(x > self.toe, x.clamp(min=self.toe) ** self.gamma, x * self.toe ** (self.gamma - 1))

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """The power of x clamped to [0, 1], rounded to 8 bits; nothing is drawn from ``rng``."""
        return _saved(x.clamp(0, 1) ** self.gamma)


class Clip(Degradation):
    """Saturation: A(x) is x clamped to [low, high]. Its derivative is true, 0 where x is clamped.

    Args:
        low: In image units.
        high: In image units, above ``low``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: Not 0 <= low < high <= 1.
    """

    gap = _HALF_LEVEL

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not 0 <= low < high <= 1:
            raise ValueError(f"Clip: expected 0 <= low < high <= 1, got {low} and {high}")
        self.low, self.high = low, high

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x)."""
        return x.clamp(self.low, self.high)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) rounded to 8 bits; nothing is drawn from ``rng``."""
        return _saved(self(x))


class Quantise(LinearDegradation):
    r"""Rounding to :math:`2^n` levels, with the straight-through surrogate (Bengio et al., 2013, arXiv:1308.3432).

    A is the identity, whose gradient stands for that of the rounding; ``measure`` rounds. ``gap`` is what lies between.

    Args:
        bits: n, from 1 to 16.

    Attributes:
        gap: Half a level, :math:`1 / (2 (2^n - 1))`, in image units.

    Raises:
        ValueError: ``bits`` is not from 1 to 16.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= 16:
            raise ValueError(f"Quantise bits: expected 1 to 16, got {bits}")
        self.bits, self.gap = bits, 0.5 / (2**bits - 1)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The images themselves."""
        return x

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Clamped to [0, 1] and rounded to the levels; nothing is drawn from ``rng``."""
        steps = 2**self.bits - 1
        return (x.clamp(0, 1) * steps).round() / steps

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """``y`` itself.

        Raises:
            ValueError: y is not of this image shape.
        """
        _check_adjoint(self, y, image_shape)
        return y


def _saved(y: Tensor) -> Tensor:
    return (y.clamp(0, 1) * 255).round() / 255


def _numbers(values: float | Sequence[float]) -> tuple[float, ...]:
    return (float(values),) if isinstance(values, int | float) else tuple(map(float, values))


def _one_channel(operator: Degradation, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = image_shape
    if channels != 3:
        raise ValueError(f"{type(operator).__name__}: expected RGB images, of 3 channels, got {channels}; use a colour generator")
    return 1, height, width


def _check_adjoint(operator: Degradation, y: Tensor, image_shape: tuple[int, int, int]) -> None:
    expected = operator.measurement_shape(image_shape)
    if tuple(y.shape[1:]) != tuple(expected):
        name = type(operator).__name__
        raise ValueError(f"{name} adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape")
