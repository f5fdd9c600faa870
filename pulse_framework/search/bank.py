r"""A bank of latents: many draws of the prior, looked at once, that serve every image of a run.

The degraded images of N draws are one matrix; the start of a search is its row nearest to the measurement. What a search
with N draws of its own pays for every image is paid once for a generator, prior and operator, and kept on disk.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pulse_framework.files import write_atomic
from pulse_framework.home import cache_folder
from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents
from pulse_framework.search.phases import Search
from pulse_framework.search.starting import Begin, Start
from pulse_framework.search.streams import CHUNK_PIXELS, draw, stream

__all__ = ["LatentBank"]

_SHARE = 8  # rows among which restarts look for one that lies elsewhere, for each restart before


@dataclass(frozen=True, kw_only=True)
class LatentBank(Start):
    """The nearest of ``draws`` random latents by their degraded images, the same latents for every image.

    Restart 0 begins at the nearest. Restart r begins, of the ``8 r + 1`` nearest, at the one farthest in latent space from those
    chosen before it, so that restarts (and samples) begin at different places that are all near.

    Attributes:
        draws: Rows of the bank; those of a smaller bank are the first of a larger one.
        cache: Whether the matrix is kept below ``PULSE_HOME`` or the user's cache folder, under a hash of the weights, the prior,
            what the operator makes of fixed draws, the number of rows and the dtype; read by memory map.
    """

    draws: int = 16384
    cache: bool = True

    def on(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior]) -> Begin:
        """See ``Start``."""
        found: dict[tuple[torch.device, torch.dtype], Tensor] = {}

        def begin(search: Search, rng: torch.Generator) -> Latents:
            del rng
            y = search.measurement
            key = (y.device, y.dtype)
            if key not in found:
                found[key] = self._matrix(generator, degradation, priors, y)
            index = _chosen(found[key], y, search.restart, lambda row: _flat(_row(generator, priors, y, row), priors))
            return _row(generator, priors, y, index)

        return begin

    def _matrix(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior], y: Tensor) -> Tensor:
        """Measurements of all rows, shape (draws, m); from disk if they are there."""
        chunk = max(1, CHUNK_PIXELS // (generator.image_shape[1] * generator.image_shape[2]))
        probe = _measured(generator, degradation, priors, y, 0, chunk)

        def fill() -> Tensor:
            matrix = probe.new_empty(self.draws, probe.shape[1])
            for first in range(0, self.draws, chunk):  # in place: rows kept one by one between activations scatter the heap
                rows = _measured(generator, degradation, priors, y, first, chunk) if first else probe
                matrix[first : first + chunk] = rows[: self.draws - first]
            return matrix

        if not self.cache:
            return fill()
        path = cache_folder("banks") / f"{self._name(generator, degradation, priors, probe)}.npy"
        if (kept := _read(path, (self.draws, probe.shape[1]), probe)) is None:
            kept = fill()
            _write(path, kept.cpu().contiguous())
        return kept.to(y)

    def _name(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior], probe: Tensor) -> str:
        digest = hashlib.sha256(repr((sorted((name, repr(prior)) for name, prior in priors.items()), self.draws)).encode())
        for module in (generator, degradation):
            for name, value in module.state_dict().items():
                digest.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(
            f"{probe.device.type} {probe.dtype}".encode() + probe.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        )
        return digest.hexdigest()


def _row(generator: Generator, priors: Mapping[str, LatentPrior], like: Tensor, index: int) -> Latents:
    """One draw of the bank, anew: only its measurement is kept."""
    return draw(generator, dict(priors), stream(0, "bank", index), like)


def _measured(
    generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior], like: Tensor, first: int, count: int
) -> Tensor:
    """A(G(z)) of some rows, flat; always as many at once, so always the same bits."""
    rows = [_row(generator, priors, like, first + k) for k in range(count)]
    latents = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        return degradation.at(generator(latents).to(like.dtype), latents).flatten(1)


def _chosen(matrix: Tensor, y: Tensor, restart: int, latent: Callable[[int], Tensor]) -> int:
    """The row where a restart begins."""
    errors = (matrix - y.flatten()).square().mean(1).nan_to_num(nan=torch.inf)
    if restart == 0:
        return int(errors.argmin())
    near = errors.argsort(stable=True)[: _SHARE * restart + 1].tolist()
    z = torch.stack([latent(row) for row in near])
    taken = [0]
    for _ in range(restart):
        gaps = torch.cdist(z.double(), z[taken].double()).amin(1)
        taken.append(int(gaps.argmax()))
    return near[taken[-1]]


def _flat(latents: Latents, priors: Mapping[str, LatentPrior]) -> Tensor:
    return torch.cat([latents[name].flatten() for name in priors]).cpu()


def _read(path: Path, shape: tuple[int, int], probe: Tensor) -> Tensor | None:
    """The matrix of a file; None if there is none, or it is not what was written."""
    try:
        kept = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError):
        return None
    if kept.dtype != probe.dtype or kept.ndim != 2 or kept.shape[1] != shape[1] or len(kept) <= shape[0]:
        return None
    matrix, check = kept[: shape[0]], kept[shape[0] :]
    count = min(len(probe), shape[0])
    return matrix if _same_bits(_check(matrix), check) and _same_bits(matrix[:count], probe[:count].cpu()) else None


def _check(matrix: Tensor) -> Tensor:
    """Sums of the bits of every column, as rows of their own: whole numbers, so in any order."""
    bits = matrix.view(torch.int32 if matrix.element_size() == 4 else torch.int64)
    return bits.sum(0, dtype=torch.int64).view(matrix.dtype).reshape(-1, matrix.shape[1])


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _write(path: Path, matrix: Tensor) -> None:
    """Keep a matrix; a bank that cannot be kept is no reason to fail."""
    file = io.BytesIO()
    np.save(file, torch.cat([matrix, _check(matrix)]).numpy())
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, file.getvalue())
