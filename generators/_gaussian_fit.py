r"""The Gaussian that PULSE puts on a StyleGAN's w space, and the charts to search in.

The mapping network M ends in a leaky ReLU of slope 0.2, whose inverse is a leaky ReLU of slope 5. What goes into that last
activation, :math:`p = \rho_5(w)`, is nearly Gaussian. With the mean :math:`\mu` and the standard deviation :math:`\sigma` of each
entry, or with the principal components (the rows of U) and the standard deviations s along them,

.. math:: w = \rho_{0.2}(\sigma v + \mu) = \rho_{0.2}(U^\top (s\, p_N) + \mu), \qquad v, p_N \sim N(0, I), \qquad
          \rho_a(t) = \max(t, 0) + a \min(t, 0),

are distributed much like M(z): v is PULSE's space (Menon et al., CVPR 2020, section 3.3), :math:`p_N` that of II2S, which keeps
the correlations (Zhu et al., arXiv:2012.09036, section 3.2). A positive factor that follows the activation, as in StyleGAN2,
passes through both :math:`\rho`, so the charts hold there too.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from generators._tensors import check_tensors, read_tensors
from pulse_framework.home import cache_folder

__all__ = ["GaussianFit", "cached_fit", "chart", "fit_gaussian", "fit_of", "pre_activation", "read_fit"]

_CHUNK = 4096
_SLOPE = 0.2
_LEAST = 1e-4  # of the largest deviation: along a component without any, float32 would be lost
_LOG = logging.getLogger(__name__)


class GaussianFit(NamedTuple):
    """A fit.

    Attributes:
        mean: Of each entry of p, (D,).
        std: Of each entry, (D,).
        components: Principal components, orthonormal rows (D, D), the largest last; None where only PULSE's numbers are known.
        scales: Standard deviation along each component, (D,).
    """

    mean: Tensor
    std: Tensor
    components: Tensor | None = None
    scales: Tensor | None = None


def chart(v: Float[Tensor, "*axes D"], mean: Float[Tensor, " D"], std: Float[Tensor, " D"]) -> Float[Tensor, "*axes D"]:
    """The w of a v."""
    return functional.leaky_relu(v * std + mean, _SLOPE)


def pre_activation(w: Float[Tensor, "*axes D"]) -> Float[Tensor, "*axes D"]:
    """The p of a w."""
    return functional.leaky_relu(w, 1 / _SLOPE)


@torch.no_grad()
def fit_gaussian(mapping: Callable[[Tensor], Tensor], z_dim: int, samples: int = 100_000, seed: int = 0) -> GaussianFit:
    """The Gaussian of the last activation's input, over seeded samples of z.

    Args:
        mapping: Takes z of shape (n, z_dim), float32, on the CPU, to w of shape (n, D).
        z_dim: Entries of z.
        samples: How many z; they are mapped in chunks and summed in float64, shifted by the mean of the first chunk.
        seed: Of the samples; the same machine gives the same answer.

    Returns:
        The fit in float32, with n - 1 in the denominators. Deviations along components are at least 1e-4 of the largest.

    Raises:
        ValueError: There are fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"Gaussian fit: expected at least 2 samples, got {samples}; the original program takes a million")
    rng = torch.Generator().manual_seed(seed)
    shift = total = square = torch.zeros((), dtype=torch.float64)
    for first in range(0, samples, _CHUNK):
        z = torch.randn(min(_CHUNK, samples - first), z_dim, generator=rng)
        p = pre_activation(mapping(z)).double()
        shift = p.mean(0) if first == 0 else shift
        total = total + (p - shift).sum(0)
        square = square + (p - shift).T @ (p - shift)
    covariance = (square - torch.outer(total, total) / samples) / (samples - 1)
    variances, columns = torch.linalg.eigh(covariance)
    signs = columns.gather(0, columns.abs().argmax(0, keepdim=True)).sign()
    scales = variances.clamp(min=0).sqrt()
    fit = (
        shift + total / samples,
        covariance.diagonal().clamp(min=0).sqrt(),
        (columns * signs).T.contiguous(),
        scales.clamp(min=_LEAST * float(scales.max())),
    )
    return GaussianFit(*(part.float() for part in fit))


def cached_fit(
    tensors: Mapping[str, Tensor], mapping: Callable[[Tensor], Tensor], z_dim: int, samples: int, seed: int = 0
) -> GaussianFit:
    """``fit_gaussian``, or what it gave on this machine for the same mapping before.

    It is kept in the folder ``fits`` of the cache (``PULSE_HOME``), under the SHA-256 of the mapping's tensors and the numbers; a
    file that is not whole or not that fit is made anew. Where the folder cannot be written, a warning says so.

    Args:
        tensors: Those of the mapping, by name: what the fit depends on.
        mapping: See ``fit_gaussian``.
        z_dim: See ``fit_gaussian``.
        samples: See ``fit_gaussian``.
        seed: See ``fit_gaussian``.
    """
    digest = hashlib.sha256(f"2 {samples} {seed} {z_dim}".encode())
    for name in sorted(tensors):
        value = tensors[name].detach().float().contiguous()
        digest.update(f"\0{name} {tuple(value.shape)}\0".encode() + value.numpy().tobytes())
    key = digest.hexdigest()
    path = cache_folder("fits") / f"{key[:24]}.safetensors"
    if (kept := _recall(path, key)) is not None:
        return kept
    fit = fit_gaussian(mapping, z_dim, samples, seed)
    _keep(path, key, fit)
    return fit


def read_fit(path: str | Path, size: int) -> GaussianFit:
    """A fit from a file: ``mean`` and ``std``, as PULSE's ``gaussian_fit.pt``, and perhaps ``components`` and ``scales``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or its tensors have other names or shapes.
    """
    return fit_of(path, size, read_tensors(path))


def fit_of(where: str | Path, size: int, tensors: Mapping[str, Tensor]) -> GaussianFit:
    """The tensors of a file as a fit.

    Raises:
        ValueError: They have other names or shapes.
    """
    shapes: dict[str, tuple[int, ...]] = {"mean": (size,), "std": (size,)}
    shapes |= {"components": (size, size), "scales": (size,)} if "components" in tensors else {}
    check_tensors(where, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, tensors)
    return GaussianFit(**{name: tensors[name].float() for name in shapes})


def _recall(path: Path, key: str) -> GaussianFit | None:
    """The fit in the file, if it is whole and that of the key."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            told, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if told.get("key") == key and told.get("sha256") == _sha256(tensors):
            return GaussianFit(**tensors)
    except (SafetensorError, OSError, TypeError) as error:
        _LOG.warning("%s: expected a Gaussian fit, got %s; it is made anew", path, error)
        return None
    _LOG.warning("%s: expected a Gaussian fit, got other content; it is made anew", path)
    return None


def _keep(path: Path, key: str, fit: GaussianFit) -> None:
    """Write the file under another name, then rename it: whoever reads it finds all of it."""
    tensors = {name: value for name, value in fit._asdict().items() if value is not None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            save_file(tensors, Path(folder) / "fit", {"key": key, "sha256": _sha256(tensors)})
            (Path(folder) / "fit").replace(path)
    except OSError as error:
        _LOG.warning("%s: the Gaussian fit cannot be kept (%s); it will be made anew", path.parent, error)


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))).hexdigest()
