r"""Downscaling by a kernel of your own: :math:`A(x)_p = (k * x)_{f p + s}`, a blur of which every f-th pixel is kept.

That is how the degradations of blind super-resolution are given, such as those that Bell-Kligler et al. estimate, "Blind
Super-Resolution Kernel Estimation using an Internal-GAN", NeurIPS 2019, arXiv:1909.06581.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from degradations._resampling import rational
from degradations.blur import Blur
from pulse_framework.interfaces import LinearDegradation

__all__ = ["KernelDownscale", "load"]


class KernelDownscale(LinearDegradation):
    """Downscaling by a kernel of one's own: (C, H, W) to (C, H / factor, W / factor), rounded down.

    The kernel's origin is its pixel floor(size / 2), and k is what a white pixel becomes, as in ``degradations.blur``. Published
    programs keep pixels 0, f, 2 f, ..., whether or not that moves the image; a symmetric kernel of a size that is odd or
    even as f is leaves it in place with the phase (f - 1) // 2.

    Args:
        kernel: k, of shape (h, w); or (taps,), which are used along both axes. It is divided by its sum, and may carry a graph.
        factor: f, an integer; or text that is one.
        phase: s, from 0 to f - 1.
        boundary: ``reflect``, ``circular``, ``replicate`` or ``zero``, as for ``degradations.blur``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        TypeError: The factor is no number, or the kernel is complex.
        ValueError: The factor is no integer of at least 1, the phase is not below it, the kernel is no vector or matrix of finite
            numbers with a positive sum, or there is no such boundary.
    """

    gap = 0.5 / 255

    def __init__(
        self,
        kernel: Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]],
        factor: int | str,
        phase: int = 0,
        boundary: str = "reflect",
    ) -> None:
        super().__init__()
        exact = rational("KernelDownscale", factor)
        if exact.denominator != 1:
            raise ValueError(
                f"KernelDownscale factor: expected an integer, got {exact}; degradations.downscale.Downscale has fractions"
            )
        self.factor = int(exact)
        if isinstance(phase, bool) or not isinstance(phase, int) or not 0 <= phase < self.factor:
            raise ValueError(f"KernelDownscale phase: expected an integer from 0 to {self.factor - 1}, got {phase!r}; correct it")
        given = kernel if isinstance(kernel, Tensor) else torch.from_numpy(np.array(kernel))
        if given.is_complex():
            raise TypeError(f"KernelDownscale kernel: expected real numbers, got {given.dtype}; take their real part")
        psf = given.to("cpu", torch.float64)
        self.phase, self.blur = phase, Blur(torch.outer(psf, psf) if psf.ndim == 1 else psf, boundary)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H / factor, W / factor), rounded down.

        Raises:
            ValueError: The image is smaller than the factor along an axis.
        """
        channels, height, width = image_shape
        if min(height, width) < self.factor:
            raise ValueError(
                f"KernelDownscale: expected images of at least {self.factor} pixels a side for this factor, got"
                f" {height} x {width} (height x width); use a smaller factor or larger images"
            )
        return channels, height // self.factor, width // self.factor

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            ValueError: The images are smaller than the factor.
        """
        return self._kept(self.blur(x)).contiguous()

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C h w"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits, as it is when saved; nothing is drawn from ``rng``."""
        del rng
        return (self(x).clamp(0, 1) * 255).round() / 255

    def adjoint(self, y: Float[Tensor, "N C h w"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A: zeros between the pixels, and the transposed blur.

        Raises:
            ValueError: ``y`` is not of the measurement shape of such images.
        """
        expected = self.measurement_shape(image_shape)
        if tuple(y.shape[1:]) != expected:
            raise ValueError(
                f"KernelDownscale adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape"
            )
        wide = y.new_zeros(len(y), *image_shape)
        self._kept(wide).copy_(y)
        return self.blur.adjoint(wide, image_shape)

    def extra_repr(self) -> str:
        """Factor and phase."""
        return f"factor={self.factor}, phase={self.phase}"

    def _kept(self, x: Tensor) -> Tensor:
        """A view of the pixels that are kept."""
        _, h, w = self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        return x[..., self.phase :: self.factor, self.phase :: self.factor][..., :h, :w]


def load(path: str | Path, factor: int | str, phase: int = 0, boundary: str = "reflect", flip: bool = False) -> KernelDownscale:
    """A ``KernelDownscale`` from a file.

    Args:
        path: ``.npy``, ``.safetensors`` with one tensor, or text (``.txt`` with spaces, ``.csv`` with commas): one row or
            column of taps, or a matrix.
        factor: As for ``KernelDownscale``.
        phase: The same.
        boundary: The same.
        flip: Turn the kernel by half a turn: for those made for correlation, such as KernelGAN's.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: The factor is no number, or the kernel is complex.
        ValueError: The file is of another kind, cannot be read or holds no kernel; and as for ``KernelDownscale``.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(_READERS)}, got {path.suffix!r}; convert it")
    try:
        kernel = _READERS[path.suffix](path)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files make the readers fail in every way there is
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: expected one kernel of real numbers, got a file that gives none ({why}); make it anew"
        ) from error
    try:
        return KernelDownscale(kernel.flip(*range(kernel.ndim)) if flip else kernel, factor, phase, boundary)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _from_array(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float64, casting="same_kind"))


def _from_safetensors(path: Path) -> Tensor:
    (tensor,) = load_file(path).values()
    return tensor


_READERS = {
    ".npy": lambda path: _from_array(np.load(path, allow_pickle=False)),
    ".safetensors": _from_safetensors,
    ".txt": lambda path: _from_array(np.loadtxt(path, ndmin=1)),
    ".csv": lambda path: _from_array(np.loadtxt(path, delimiter=",", ndmin=1)),
}
