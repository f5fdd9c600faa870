r"""What a sensor and its file do to values: colour filters, saturation, quantisation.

For sRGB-coded x in [0, 1], with c the channel and p the pixel,

- ``Bayer``: :math:`A(x)_p = x_{c(p) p}`, one colour a pixel, in a pattern of 2 x 2 pixels (Bayer, US patent 3971065, 1976);
- ``Clip``: :math:`A(x) = \min(\max(x, l), h)`;
- ``Quantise``: :math:`A(x) = \lfloor L x \rceil / L` with :math:`L = 2^n - 1`, clamped to [0, 1].

The last two have derivatives that are 0 almost everywhere or in places; which ones stand in is a setting: ``_surrogates`` has the
formulas and the sources.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from degradations._pixelwise import HALF_LEVEL, check_adjoint, luma_shape, saved
from degradations._rows import one_by_one
from degradations._surrogates import CLAMPS, ROUNDINGS, straight_through
from pulse_framework.interfaces import Degradation, LinearDegradation

__all__ = ["Bayer", "Clip", "Quantise"]

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


class Bayer(LinearDegradation):
    """A sensor behind colour filters: (3, H, W) to (1, H, W).

    Args:
        pattern: Colours of the first two pixels of the first row, then of the second: ``RGGB``, ``BGGR``, ``GRBG`` or ``GBRG``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: There is no such pattern.
    """

    gap = HALF_LEVEL

    def __init__(self, pattern: str = "RGGB") -> None:
        super().__init__()
        if pattern not in PATTERNS:
            raise ValueError(f"Bayer pattern: expected one of {', '.join(PATTERNS)}, got {pattern!r}; choose one")
        self.pattern = pattern

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(1, H, W).

        Raises:
            ValueError: The images are not RGB.
        """
        return luma_shape(self, image_shape)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1 H W"]:
        """The colour that each pixel's filter lets through.

        Raises:
            ValueError: The images are not RGB.
        """
        luma_shape(self, tuple(x.shape[1:]))
        return (x * self._filters(x)).sum(1, keepdim=True)

    def measure(self, x: Float[Tensor, "N 3 H W"], rng: torch.Generator) -> Float[Tensor, "N 1 H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits; nothing is drawn from ``rng``."""
        return saved(self(x))

    def adjoint(self, y: Float[Tensor, "N 1 H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N 3 H W"]:
        """``y`` in the channel of each pixel's filter, zero in the others.

        Raises:
            ValueError: y is not of the measurement shape of such images.
        """
        check_adjoint(self, y, image_shape)
        return y * self._filters(y)

    def extra_repr(self) -> str:
        """The pattern."""
        return f"pattern={self.pattern}"

    def _filters(self, like: Tensor) -> Tensor:
        """1 where a filter lets a channel through, (3, H, W)."""
        height, width = like.shape[-2:]
        tile = torch.tensor([[float(colour == own) for own in self.pattern] for colour in "RGB"]).to(like).reshape(3, 2, 2)
        return tile.repeat(1, -(-height // 2), -(-width // 2))[:, :height, :width]


class Clip(Degradation):
    """Saturation: x clamped to [low, high].

    Args:
        low: In image units.
        high: In image units, above ``low``.
        surrogate: ``straight_through``, ``sigmoid`` or ``exact``, with which a clamped pixel that is wrong stays wrong.

    Attributes:
        gap: Half of an 8-bit level, in image units.
        surrogate: Whether the derivative is another than A's own.

    Raises:
        ValueError: Not 0 <= low < high <= 1, or there is no such surrogate.
    """

    gap = HALF_LEVEL

    def __init__(self, low: float = 0.0, high: float = 1.0, surrogate: str = "straight_through") -> None:
        super().__init__()
        if not 0 <= low < high <= 1:
            raise ValueError(f"Clip: expected 0 <= low < high <= 1, got {low} and {high}; change them")
        self.low, self.high = low, high
        self.derivative = _known("Clip", surrogate, tuple(CLAMPS))
        self.surrogate = surrogate != "exact"

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x)."""
        return one_by_one(lambda image: CLAMPS[self.derivative](image, self.low, self.high), x)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) rounded to 8 bits; nothing is drawn from ``rng``."""
        return saved(x.clamp(self.low, self.high))

    def extra_repr(self) -> str:
        """Limits and derivative."""
        return f"low={self.low}, high={self.high}, surrogate={self.derivative}"


class Quantise(Degradation):
    r"""Rounding to :math:`2^n` levels. 8 bits, as in a picture's file, hold the levels of 1, 2, 4 and 8 bits exactly.

    Args:
        bits: n, from 1 to 16.
        surrogate: ``straight_through`` and ``leaky_cubic`` round and clamp truly; ``cubic`` gives A the values of the cubic,
            without a clamp, up to an eighth of a level beside those of the rounding.

    Attributes:
        gap: 0, or for ``cubic`` an eighth of a level, :math:`1 / (8 (2^n - 1))`, in image units.
        surrogate: Whether the derivative is another than A's own.

    Raises:
        ValueError: ``bits`` is not an integer from 1 to 16, or there is no such surrogate.
    """

    def __init__(self, bits: int, surrogate: str = "straight_through") -> None:
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
            raise ValueError(f"Quantise bits: expected an integer from 1 to 16, got {bits!r}; 8 is a usual file")
        self.bits, self._steps = bits, 2**bits - 1
        self.derivative = _known("Quantise", surrogate, tuple(ROUNDINGS))
        self.surrogate = surrogate != "cubic"
        self.gap = 0.0 if self.surrogate else 0.125 / self._steps

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x)."""
        c = x * self._steps
        levels = ROUNDINGS[self.derivative](c.detach().round(), c)
        if self.surrogate:
            levels = straight_through(levels.detach().clamp(0, self._steps), levels)
        return levels / self._steps

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Clamped to [0, 1] and rounded to the levels; nothing is drawn from ``rng``."""
        return (x.clamp(0, 1) * self._steps).round() / self._steps

    def extra_repr(self) -> str:
        """Bits and derivative."""
        return f"bits={self.bits}, surrogate={self.derivative}"


def _known(where: str, surrogate: str, names: tuple[str, ...]) -> str:
    if surrogate not in names:
        raise ValueError(f"{where} surrogate: expected one of {', '.join(names)}, got {surrogate!r}; choose one")
    return surrogate
