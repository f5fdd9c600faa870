r"""Colour and tone: grey, exposure, white balance, gamma.

All act on sRGB-coded values in [0, 1], pixel by pixel; c is the channel and p the pixel.

- ``Greyscale``: :math:`A(x)_p = \sum_c w_c x_{cp}`, with the luma weights of ITU-R BT.601 (0.299, 0.587, 0.114) or BT.709
  (0.2126, 0.7152, 0.0722).
- ``Exposure``: :math:`A(x)_{cp} = g_c x_{cp} + b_c`; ``WhiteBalance`` is its linear part.
- ``Gamma``: :math:`A(x) = x^\gamma`, see the class.

s stops more of exposure multiply linear light by :math:`2^s`. A coded value above the toe of the curve (IEC 61966-2-1), 0.04045,
stands for :math:`((x + 0.055) / 1.055)^{2.4}`, so it becomes :math:`g x + 0.055 (g - 1)` with :math:`g = 2^{s / 2.4}`. That is
affine, and ``expose`` makes it. A is not clamped where it leaves [0, 1], although a photo is: put ``clip`` after it where that
matters.

A number may also be a tensor with a graph; A(x) is then differentiable in it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from degradations._pixelwise import HALF_LEVEL, check_adjoint, luma_shape, numbers, saved
from degradations._rows import one_by_one
from pulse_framework.interfaces import Degradation, LinearDegradation

__all__ = ["Exposure", "Gamma", "Greyscale", "WhiteBalance", "expose"]

LUMA = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}
"""Weights of red, green and blue."""

Numbers = float | Sequence[float] | Tensor
"""One number or one for each channel: plain, or a float tensor of shape () or (C,)."""


class Greyscale(LinearDegradation):
    """Luma: (3, H, W) to (1, H, W).

    Args:
        weights: ``bt601``, as Pillow and JPEG have it, or ``bt709``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: There are no such weights.
    """

    gap = HALF_LEVEL

    def __init__(self, weights: str = "bt601") -> None:
        super().__init__()
        if weights not in LUMA:
            raise ValueError(f"Greyscale weights: expected one of {', '.join(LUMA)}, got {weights!r}; choose one")
        self.weights = weights

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(1, H, W).

        Raises:
            ValueError: The images are not RGB.
        """
        return luma_shape(self, image_shape)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1 H W"]:
        """The weighted sum of the channels.

        Raises:
            ValueError: The images are not RGB.
        """
        luma_shape(self, tuple(x.shape[1:]))
        red, green, blue = LUMA[self.weights]
        return red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]

    def measure(self, x: Float[Tensor, "N 3 H W"], rng: torch.Generator) -> Float[Tensor, "N 1 H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits; nothing is drawn from ``rng``."""
        return saved(self(x))

    def adjoint(self, y: Float[Tensor, "N 1 H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N 3 H W"]:
        """``y`` times the weight, in each channel.

        Raises:
            ValueError: y is not of the measurement shape of such images.
        """
        check_adjoint(self, y, image_shape)
        return torch.cat([weight * y for weight in LUMA[self.weights]], 1)

    def extra_repr(self) -> str:
        """The weights."""
        return f"weights={self.weights}"


class Exposure(Degradation):
    """Gain and offset, ``gain * x + offset``: exposure, colour casts, haze; affine on coded values.

    Args:
        gain: Above 0; one number, or one for each channel.
        offset: The same, in image units, of any sign.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        TypeError: A parameter is neither numbers nor a tensor of shape () or (C,).
        ValueError: A number is not finite, or a gain is not above 0.
    """

    gap = HALF_LEVEL

    def __init__(self, gain: Numbers = 1.0, offset: Numbers = 0.0) -> None:
        super().__init__()
        name = type(self).__name__
        self.gain, self.offset = numbers(f"{name} gain", gain, above=0), numbers(f"{name} offset", offset)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape.

        Raises:
            ValueError: The numbers are for another number of channels.
        """
        for name, values in (("gain", self.gain), ("offset", self.offset)):
            if len(values) not in (1, image_shape[0]):
                where = f"{type(self).__name__} {name}"
                raise ValueError(f"{where}: expected 1 number or {image_shape[0]}, one for each channel, got {len(values)}")
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x).

        Raises:
            ValueError: The numbers are for another number of channels.
        """
        self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        return self._times_gain(x) + self.offset.to(x)[:, None, None]

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits; nothing is drawn from ``rng``."""
        return saved(self(x))

    def extra_repr(self) -> str:
        """Gain and offset."""
        return f"gain={self.gain.tolist()}, offset={self.offset.tolist()}"

    def _times_gain(self, x: Tensor) -> Tensor:
        return self.gain.to(x)[:, None, None] * x


def expose(stops: float | Tensor) -> Exposure:
    """Exposure by so many stops, each of which doubles linear light; see above. Values below the toe follow the same line.

    Args:
        stops: A number, or a float tensor of shape (); negative is darker.

    Raises:
        TypeError: ``stops`` is neither.
        ValueError: It is not finite.
    """
    gain = torch.exp2(_one("expose stops", stops) / 2.4)
    return Exposure(gain, 0.055 * (gain - 1))


class WhiteBalance(Exposure, LinearDegradation):
    """Gain alone, which is linear.

    Args:
        gain: Above 0; one number, or one for each channel.

    Raises:
        TypeError: The gain is neither numbers nor a tensor of shape () or (C,).
        ValueError: A number is not finite or not above 0.
    """

    def __init__(self, gain: Numbers) -> None:
        super().__init__(gain)

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """A itself.

        Raises:
            ValueError: y is not of this image shape, or the numbers are for another number of channels.
        """
        check_adjoint(self, y, image_shape)
        return self._times_gain(y)

    def extra_repr(self) -> str:
        """The gain."""
        return f"gain={self.gain.tolist()}"


class Gamma(Degradation):
    r"""Tone curve :math:`A(x) = x^\gamma` above the toe t; below it, and for negative x, the line :math:`t^{\gamma - 1} x`.

    The line keeps the derivative finite and away from 0 (the power's own is infinite or 0 at 0), and the curve defined and
    monotone for every x. The true process has no toe, from which A differs by at most :math:`t^\gamma |u^\gamma - u|` with
    :math:`u = \gamma^{1 / (1 - \gamma)}`.

    Args:
        gamma: Above 0; below 1 brightens. A number, or a float tensor of shape ().
        toe: t, in image units, in (0, 1).

    Attributes:
        gap: Half of an 8-bit level and that difference, in image units.

    Raises:
        TypeError: ``gamma`` is neither a number nor a tensor of shape ().
        ValueError: ``gamma`` is not finite and above 0, or ``toe`` not in (0, 1).
    """

    def __init__(self, gamma: float | Tensor, toe: float = 1e-3) -> None:
        super().__init__()
        self.gamma, self.toe = _one("Gamma gamma", gamma, above=0), toe
        if not 0 < toe < 1:
            raise ValueError(f"Gamma toe: expected a number in (0, 1), got {toe}; 0.001 is a quarter of an 8-bit level")
        power = self.gamma.item()
        u = 0.0 if power == 1 else power ** (1 / (1 - power))
        self.gap = HALF_LEVEL + toe**power * abs(u**power - u)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x)."""
        gamma, toe = self.gamma.to(x), self.toe
        return one_by_one(lambda image: torch.where(image > toe, image.clamp(min=toe) ** gamma, image * toe ** (gamma - 1)), x)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """The power of x clamped to [0, 1], rounded to 8 bits; nothing is drawn from ``rng``."""
        return saved(one_by_one(lambda image: image.clamp(0, 1) ** self.gamma.to(image), x))

    def extra_repr(self) -> str:
        """Gamma and the toe."""
        return f"gamma={self.gamma.item()}, toe={self.toe}"


def _one(where: str, value: float | Tensor, above: float = -float("inf")) -> Tensor:
    """A parameter that is a single number, of shape ()."""
    vector = numbers(where, value, above)
    if len(vector) != 1:
        raise TypeError(f"{where}: expected one number, got {len(vector)}; they are the same for all channels")
    return vector[0]
