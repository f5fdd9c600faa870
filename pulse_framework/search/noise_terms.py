r"""Noise maps kept noise: the regulariser of StyleGAN2's projector (Karras et al., CVPR 2020, arXiv:1912.04958, appendix D).

A search that moves noise maps can write the picture into them. White noise knows nothing of its neighbours, so the term is the
squared autocorrelation at lag 1, the map taken as a torus, at every level of a pyramid. For one map :math:`n^{(0)}` and its
averages over 2x2 pixels :math:`n^{(1)}, n^{(2)}, \dots`, down to 8x8,

.. math:: \sum_j \Big( \frac{1}{h_j w_j} \sum_{a,b} n^{(j)}_{ab} n^{(j)}_{a-1,b} \Big)^2
                 + \Big( \frac{1}{h_j w_j} \sum_{a,b} n^{(j)}_{ab} n^{(j)}_{a,b-1} \Big)^2,

and maps add up. As in the published program, averages are not rescaled to variance 1, and a map of 8x8 or less is a level
of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulse_framework.interfaces import Generator
from pulse_framework.latents import space
from pulse_framework.search.objective import Evaluation, Term

__all__ = ["NoiseAutocorrelation", "noise_autocorrelation"]

_LEAST = 8


def noise_autocorrelation(noise: Float[Tensor, "N C h w"]) -> Float[Tensor, " N"]:
    """The value of each item, summed over the pyramid."""
    levels = [noise]
    while min(levels[-1].shape[2:]) > _LEAST:
        levels.append(functional.avg_pool2d(levels[-1], 2))
    lags = [(n * n.roll(1, axis)).flatten(1).mean(1) for n in levels for axis in (2, 3)]
    return torch.stack(lags).square().sum(0)


@dataclass(frozen=True, kw_only=True)
class NoiseAutocorrelation(Term):
    """Autocorrelation of noise maps, summed over them. The projector's weight is 1e5, beside a sum of LPIPS features.

    Attributes:
        blocks: Names of the maps; or a prefix, for all blocks that move and begin with it.
    """

    blocks: str | Sequence[str] = "noise_"

    def on(self, generator: Generator, moved: Sequence[str]) -> "NoiseAutocorrelation":
        """The term, checked.

        Raises:
            ValueError: A block is not part of the input or is no map, or none that moves has the prefix.
        """
        shapes = {name: block.shape for name, block in space(generator.blocks, moved).items()}
        names = self._names(moved)
        if not names or not shapes.keys() >= set(names):
            prefix = isinstance(self.blocks, str)
            wanted = f"blocks that move and begin with {self.blocks!r}" if prefix else f"blocks {names}" if names else "a block"
            raise ValueError(
                f"NoiseAutocorrelation blocks: expected {wanted}, got {sorted(moved if prefix else shapes)};"
                " move noise maps or leave the term out"
            )
        if flat := {name: shapes[name] for name in names if len(shapes[name]) != 3}:
            raise ValueError(f"NoiseAutocorrelation blocks: expected maps of shape (C, h, w), got {flat}; leave them out")
        return self

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In squared units of the map's variance."""
        return torch.stack([noise_autocorrelation(at.latents[name]) for name in self._names(at.priors)]).sum(0)

    def _names(self, moved: Iterable[str]) -> list[str]:
        return [name for name in moved if name.startswith(self.blocks)] if isinstance(self.blocks, str) else list(self.blocks)
