r"""Rows of an image's Fourier transform, as a scanner for magnetic resonance fills its k-space, line by line.

.. math:: A(x) = R\, F_H\, x\, F_W^\top

with the unitary discrete Fourier transforms F of both axes, and R the rows that are kept (BRGM, Marinescu et al.,
arXiv:2012.04567, keeps some of a grey image). Real and imaginary parts are numbers of their own; for real images A is linear.
"""

import torch
from torch import Tensor

from degradations._sensing import Sensing, at_least_single, whole

__all__ = ["FourierRows"]

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue: the luma of BT.601."""


class FourierRows(Sensing):
    """Rows of the 2-D Fourier transform: (C, H, W) to (2 C, h, W), the real parts of the channels, then their imaginary parts.

    A row is a frequency along the image's height, from 0 upwards as ``torch.fft.fft2`` has them. The lowest are kept, and of the
    others some are drawn. The transform is unitary (``norm="ortho"``): all of the rows keep lengths, some shorten.

    Args:
        fraction: Of the rows, how many are kept, rounded to a number of at least 1.
        centre: Of the rows, how many of the lowest frequencies are kept in any case; if not 0, at least the constant one.
        grey: Whether images are turned grey (luma of BT.601) before; then C counts as 1.
        seed: Of the rows that are drawn.
        sigma: Standard deviation of the noise of ``measure``, in units of the measurement, for real and imaginary parts each.

    Raises:
        ValueError: ``fraction`` is not in (0, 1], ``centre`` is not in [0, fraction], the seed is negative or sigma is not a
            finite number of at least 0.
    """

    def __init__(
        self, fraction: float = 0.25, centre: float = 0.08, grey: bool = False, seed: int = 0, sigma: float = 0.0
    ) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"FourierRows fraction: expected a number above 0 and at most 1, got {fraction}; 1 keeps every row")
        if not 0 <= centre <= fraction:
            raise ValueError(f"FourierRows centre: expected a number from 0 to the fraction {fraction}, got {centre}; lower it")
        super().__init__(sigma, 128)  # so many numbers even in eight rows of eight
        self.fraction, self.centre, self.grey = fraction, centre, grey
        self.seed = whole(type(self), "seed", seed, 0)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(2 C, h, W), or (2, h, W) if turned grey.

        Raises:
            ValueError: Images of neither 1 nor 3 channels are to be turned grey.
        """
        channels, height, width = image_shape
        if self.grey and channels not in (1, 3):
            raise ValueError(f"FourierRows: expected 1 or 3 channels to turn grey, got {channels}; set grey to false")
        return 2 * (1 if self.grey else channels), len(self.rows(height)), width

    def rows(self, height: int) -> tuple[int, ...]:
        """The rows that are kept of the Fourier transform of images so high, in rising order."""
        count = max(1, round(self.fraction * height))
        low = max(1, round(self.centre * height)) if self.centre else 0
        order = sorted(range(height), key=lambda row: (min(row, height - row), row))
        drawn = torch.randperm(height - low, generator=torch.Generator().manual_seed(self.seed))[: count - low]
        return tuple(sorted(order[:low] + [order[low + int(place)] for place in drawn]))

    def _project(self, image: Tensor) -> Tensor:
        values = image.to(at_least_single(image))
        if self.grey and len(image) == 3:
            values = (self._luma(values) * values).sum(0, keepdim=True)
        kept = torch.fft.fft2(values, norm="ortho").index_select(1, self._places(image.shape[1], image))
        return torch.cat([kept.real, kept.imag]).to(image)

    def _backproject(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        real, imaginary = y.to(at_least_single(y)).chunk(2)
        kept = torch.complex(real, imaginary)
        full = kept.new_zeros(len(real), *image_shape[1:]).index_copy(1, self._places(image_shape[1], y), kept)
        x = torch.fft.ifft2(full, norm="ortho").real
        return (self._luma(x) * x if self.grey and image_shape[0] == 3 else x).to(y)

    def _places(self, height: int, like: Tensor) -> Tensor:
        return torch.tensor(self.rows(height), device=like.device)

    def _luma(self, like: Tensor) -> Tensor:
        return torch.tensor(LUMA, dtype=like.dtype, device=like.device)[:, None, None]
