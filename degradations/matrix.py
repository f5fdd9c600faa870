r"""Any linear measurement by its matrix, :math:`A(x) = M \vec x`.

:math:`\vec x` are the n = C H W numbers of an image, channels first, then rows; M has one row for each number of the measurement.
"""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from degradations._sensing import Sensing

__all__ = ["MatrixSensing", "load"]


class MatrixSensing(Sensing):
    """A given matrix times the image: (C, H, W), of n numbers, to (m,).

    Args:
        matrix: M, of shape (m, n).
        sigma: Standard deviation of the noise of ``measure``, in units of the measurement.

    Raises:
        TypeError: The matrix is not one of floats.
        ValueError: It is not a matrix or has an entry that is not finite; sigma is not a finite number of at least 0.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, sigma: float = 0.0) -> None:
        if not matrix.is_floating_point():
            raise TypeError(f"MatrixSensing matrix: expected a tensor of floats, got {matrix.dtype}; convert it")
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"MatrixSensing matrix: expected the shape (m, n), got {tuple(matrix.shape)}; reshape it")
        if not bool(matrix.isfinite().all()):
            raise ValueError("MatrixSensing matrix: expected finite numbers, got NaN or infinity among them; correct them")
        super().__init__(sigma, len(matrix))
        self.register_buffer("matrix", matrix.detach().clone())

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """(m,).

        Raises:
            ValueError: An image has other than n numbers.
        """
        count, size = self.matrix.shape
        if math.prod(image_shape) != size:
            raise ValueError(
                f"MatrixSensing: expected images of {size} numbers, for a matrix of shape {(count, size)}, got"
                f" {math.prod(image_shape)} in {tuple(image_shape)}; take the matrix of this image size"
            )
        return (count,)

    def _project(self, image: Tensor) -> Tensor:
        return self.matrix.to(image) @ image.flatten()

    def _backproject(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        return (self.matrix.to(y).mT @ y).reshape(image_shape)


def load(path: str | Path, sigma: float = 0.0, key: str | None = None) -> MatrixSensing:
    """A ``MatrixSensing`` from a file, in float32.

    Args:
        path: A ``.npy`` file with an array (m, n), or a ``.safetensors`` file with such a tensor.
        sigma: Standard deviation of the noise of ``measure``, in units of the measurement.
        key: Name of the tensor, if the file has several.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, cannot be read, or holds no such matrix.
    """
    path = Path(path)
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"{path}: expected a .npy or .safetensors file, got one that ends in {path.suffix!r}; convert it")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else {"": torch.from_numpy(np.load(path, allow_pickle=False))}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file makes the readers fail in every way there is
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: expected a {path.suffix} file of numbers, got one that cannot be read ({why}); save it anew"
        ) from error
    if (len(found) != 1) if key is None else (key not in found):
        wanted = "one tensor" if key is None else f"a tensor {key!r}"
        raise ValueError(f"{path}: expected {wanted}, got {sorted(found)[:5]}; name the matrix with key")
    matrix = next(iter(found.values())) if key is None else found[key]
    if matrix.is_complex():
        raise ValueError(f"{path}: expected real numbers, got {matrix.dtype}; stack real and imaginary parts as rows")
    try:
        return MatrixSensing(matrix.float(), sigma)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
