r"""Compressed sensing: m sums of all of an image's numbers, weighted at random.

With :math:`\vec x` the n = C H W numbers of an image, channels first, then rows:

- ``GaussianSensing``: :math:`A(x) = M \vec x`, :math:`M_{ij} \sim N(0, 1/m)` (CSGM, Bora et al., ICML 2017, arXiv:1703.03208).
- ``CirculantSensing``: :math:`A(x) = R\, (g * (s \odot \vec x))`, circular convolution with :math:`g_i \sim N(0, 1/m)`, random
  signs s, m random places R of the result (ILO, Daras et al., ICML 2021, arXiv:2102.07364). It needs memory for n numbers where
  the other needs m n.

Both keep lengths on average, :math:`E \|A(x)\|^2 = \|x\|^2`: the mean square of a measurement is n / m times that of the image.
What is random is drawn by PyTorch's generator on the CPU, seeded with ``seed``, in float32, in the order that each class names:
the same on every device and in every dtype. Another release of PyTorch may draw otherwise: for measurements that are to be kept
for years, keep ``GaussianSensing.matrix`` too, and read it with ``degradations.matrix``.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from degradations._sensing import Sensing, at_least_single, whole

__all__ = ["CirculantSensing", "GaussianSensing"]

LIMIT = 2**27
"""Entries of a dense matrix, half a GiB in float32; the four used last are kept in memory."""


class GaussianSensing(Sensing):
    """Sums of all of the image's numbers, weighted at random: (C, H, W) to (m,). Drawn are the rows of M, one after the other.

    Args:
        measurements: m.
        seed: Of M.
        sigma: Standard deviation of the noise of ``measure``, in units of the measurement.

    Raises:
        ValueError: There is not even one measurement, the seed is negative or sigma is not a finite number of at least 0.
    """

    def __init__(self, measurements: int, seed: int = 0, sigma: float = 0.0) -> None:
        super().__init__(sigma, whole(type(self), "measurements", measurements, 1))
        self.measurements, self.seed = measurements, whole(type(self), "seed", seed, 0)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """(m,).

        Raises:
            ValueError: M would have more than 2^27 entries.
        """
        size = math.prod(image_shape)
        if self.measurements * size > LIMIT:
            raise ValueError(
                f"GaussianSensing: expected a matrix of at most {LIMIT} entries, got {self.measurements} x {size} for images of"
                f" {tuple(image_shape)}; take at most {LIMIT // size} measurements, or CirculantSensing, which stores no matrix"
            )
        return (self.measurements,)

    def matrix(self, image_shape: tuple[int, int, int]) -> Float[Tensor, "m n"]:
        """M, in float32 on the CPU; saved in a file, ``load`` gives the same operator.

        Raises:
            ValueError: M would be too large.
        """
        self.measurement_shape(image_shape)
        return _gaussian(self.measurements, math.prod(image_shape), self.seed, torch.float32, torch.device("cpu")).clone()

    def _project(self, image: Tensor) -> Tensor:
        return self._made(image.numel(), image) @ image.flatten()

    def _backproject(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        return (self._made(math.prod(image_shape), y).mT @ y).reshape(image_shape)

    def _made(self, size: int, like: Tensor) -> Tensor:
        return _gaussian(self.measurements, size, self.seed, like.dtype, like.device)


class CirculantSensing(Sensing):
    """Random signs, circular convolution, m random places of the result: (C, H, W) to (m,). Drawn are s, g and R, in this order.

    Args:
        measurements: m, at most n.
        seed: Of s, g and R.
        sigma: Standard deviation of the noise of ``measure``, in units of the measurement.

    Raises:
        ValueError: There is not even one measurement, the seed is negative or sigma is not a finite number of at least 0.
    """

    def __init__(self, measurements: int, seed: int = 0, sigma: float = 0.0) -> None:
        super().__init__(sigma, whole(type(self), "measurements", measurements, 1))
        self.measurements, self.seed = measurements, whole(type(self), "seed", seed, 0)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """(m,).

        Raises:
            ValueError: The image has fewer than m numbers.
        """
        size = math.prod(image_shape)
        if self.measurements > size:
            raise ValueError(
                f"CirculantSensing: expected images of at least {self.measurements} numbers, one for each measurement, got {size}"
                f" in {tuple(image_shape)}; take fewer measurements"
            )
        return (self.measurements,)

    def _project(self, image: Tensor) -> Tensor:
        signs, spectrum, rows = self._made(image.numel(), image)
        turned = torch.fft.rfft(signs * image.flatten().to(signs))
        return torch.fft.irfft(spectrum * turned, image.numel())[rows].to(image)

    def _backproject(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        size = math.prod(image_shape)
        signs, spectrum, rows = self._made(size, y)
        spread = torch.zeros_like(signs).index_copy(0, rows, y.to(signs))
        back = torch.fft.irfft(spectrum.conj() * torch.fft.rfft(spread), size)
        return (signs * back).reshape(image_shape).to(y)

    def _made(self, size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _circulant(self.measurements, size, self.seed, at_least_single(like), like.device)


def _normal(shape: tuple[int, ...], count: int, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float32) / math.sqrt(count)


@lru_cache(maxsize=4)
def _gaussian(count: int, size: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """M."""
    with torch.inference_mode(False):  # the cached tensor must serve autograd, whoever asks first
        return _normal((count, size), count, torch.Generator().manual_seed(seed)).to(device=device, dtype=dtype)


@lru_cache(maxsize=16)
def _circulant(count: int, size: int, seed: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The signs, the spectrum of the filter, computed in float64 and then rounded, and the places."""
    rng = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False):
        signs = torch.randint(2, (size,), generator=rng) * 2 - 1
        spectrum = torch.fft.rfft(_normal((size,), count, rng).double())
        rows = torch.randperm(size, generator=rng)[:count]
        return signs.to(device, dtype), spectrum.to(device, dtype.to_complex()), rows.to(device)
