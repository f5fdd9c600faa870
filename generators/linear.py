r"""Probabilistic principal component analysis: the linear generator, whose every search has a known answer.

.. math:: G(z) = W z + \mu, \qquad z \sim N(0, I), \qquad x = G(z) + e, \quad e \sim N(0, \sigma^2 I)

Maximum likelihood for d-dimensional images with sample covariance :math:`S = U \Lambda U^T`: :math:`\mu` is the mean,
:math:`\sigma^2 = (\lambda_{D+1} + \dots + \lambda_d) / (d - D)` and :math:`W = U_D (\Lambda_D - \sigma^2 I)^{1/2}`
(Tipping and Bishop, "Probabilistic principal component analysis", J. R. Stat. Soc. B 61, 1999, section 3.2).

Latent blocks: ``z`` of shape (D,), standard normal. Native range: that of the images it is fitted to.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from generators._tensors import read_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal

__all__ = ["LinearGenerator", "load"]


class LinearGenerator(Generator):
    """Images ``W z + mu``.

    Args:
        matrix: W, of shape (C, H, W, D): one image a column.
        mean: mu, of shape (C, H, W).
        noise_variance: sigma^2, squared image units; what W leaves unexplained. Images are made without this noise.

    Raises:
        ValueError: The two shapes do not fit.
    """

    matrix: Tensor
    mean: Tensor
    noise_variance: Tensor

    def __init__(self, matrix: Float[Tensor, "*image D"], mean: Float[Tensor, "*mean"], noise_variance: float = 0.0) -> None:
        super().__init__()
        if matrix.ndim != 4 or matrix.shape[:-1] != mean.shape:
            raise ValueError(
                f"LinearGenerator: expected matrix (C, H, W, D) and mean (C, H, W), got {tuple(matrix.shape)} and"
                f" {tuple(mean.shape)}; reshape them"
            )
        channels, height, width, size = matrix.shape
        self.blocks = (LatentBlock("z", (size,), Normal()),)
        self.image_shape = (channels, height, width)
        self.register_buffer("matrix", matrix.detach().clone())
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("noise_variance", torch.as_tensor(noise_variance, dtype=mean.dtype))

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of ``z``."""
        return torch.einsum("chwd,nd->nchw", self.matrix, latents["z"]) + self.mean

    @classmethod
    def fit(cls, images: Float[Tensor, "N C H W"], latent_dim: int) -> "LinearGenerator":
        """The maximum likelihood generator of some images, in closed form; columns are orthogonal, by falling length.

        Args:
            images: At least ``latent_dim + 1`` images.
            latent_dim: D, less than the number of entries of an image.

        Raises:
            ValueError: There are too few images or entries for ``latent_dim``.
        """
        count, size = len(images), images[0].numel()
        if not 0 < latent_dim < min(count, size):
            raise ValueError(
                f"LinearGenerator.fit: expected 0 < latent_dim < min(number of images, entries of one) = {min(count, size)},"
                f" got {latent_dim}; lower it, or give more images"
            )
        rows = images.flatten(1).double()
        mean = rows.mean(0)
        _, lengths, axes = torch.linalg.svd(rows - mean, full_matrices=False)
        variances = lengths.square() / count
        noise = variances[latent_dim:].sum() / (size - latent_dim)
        columns = axes[:latent_dim] * (variances[:latent_dim] - noise).sqrt()[:, None]
        # An axis is known up to its sign: the largest entry is made positive.
        largest = columns.gather(1, columns.abs().argmax(1, keepdim=True))
        matrix = (columns * largest.sign()).T.reshape(*images.shape[1:], latent_dim)
        return cls(matrix.to(images), mean.reshape(images.shape[1:]).to(images), noise.item())

    def optimum(
        self,
        operator: Callable[[Tensor], Tensor],
        y: Float[Tensor, "N *measurement"],
        consistency_weight: float = 1.0,
        energy_weight: float = 0.0,
    ) -> Float[Tensor, "N D"]:
        r"""The latents that minimise the objective of a search, item by item, in closed form.

        .. math:: c \, \tfrac{1}{M} \|A(W z + \mu) - y\|^2 + \tfrac{e}{2} \|z\|^2

        with M entries in a measurement. It is solved in float64; where z is not unique (e = 0), the shortest is given.

        Args:
            operator: A, linear or affine; it is called with images of the generator's own dtype.
            y: Measurements.
            consistency_weight: c, positive.
            energy_weight: e, not negative.

        Raises:
            ValueError: The operator is not affine, or does not give measurements of the shape of y.
        """
        basis = self.matrix.movedim(-1, 0)
        with torch.no_grad():
            probes = torch.cat(
                [basis, torch.zeros_like(self.mean)[None], self.mean[None], self.mean + basis.sum(0, keepdim=True)]
            )
            measured = operator(probes).double()
        if measured.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"LinearGenerator.optimum: expected y of shape (N, *{tuple(measured.shape[1:])}), got {tuple(y.shape)}; give A(x)"
                " of images of this generator"
            )
        *columns, origin, offset, last = measured.flatten(1)
        B = torch.stack(columns, 1) - origin[:, None]
        error = (last - offset - B.sum(1)).abs().max()
        allowed = 100 * len(basis) * torch.finfo(self.mean.dtype).eps * (1 + measured.abs().max())
        if error > allowed:
            raise ValueError(
                f"LinearGenerator.optimum: expected an affine operator, got one that is off by {error:.1e} at the sum of the"
                " columns; the closed form holds for linear degradations alone"
            )
        scale = (2 * consistency_weight / len(offset)) ** 0.5
        system = torch.cat([scale * B, energy_weight**0.5 * torch.eye(len(basis)).to(B)])
        right = scale * (y.flatten(1).double() - offset).T
        right = torch.cat([right, right.new_zeros(len(basis), len(y))])
        rtol = max(system.shape) * torch.finfo(self.mean.dtype).eps  # B is only as exact as the generator
        return (torch.linalg.pinv(system, rtol=rtol) @ right).T.to(self.mean)


def load(path: str | Path) -> LinearGenerator:
    """Read ``matrix``, ``mean`` and ``noise_variance``, the state dict of a ``LinearGenerator``, on the CPU.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or its tensors are not those of a linear generator.
    """
    tensors = read_tensors(path)
    if set(tensors) != {"matrix", "mean", "noise_variance"}:
        raise ValueError(
            f"{path}: expected matrix, mean and noise_variance, got {sorted(tensors)[:5]}; save a generator's state dict"
        )
    try:
        return LinearGenerator(tensors["matrix"], tensors["mean"], tensors["noise_variance"].item())
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error
