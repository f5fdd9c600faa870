r"""GEOCROSS: how far apart, on the cross product of spheres, the styles of the layers are (PULSE's code, ``GEOCROSS``).

Trained synthesis networks saw one w for all layers, so layers that agree make likelier images. For the rows
:math:`w_1, \dots, w_L` of one item,

.. math:: \frac{1}{L^2} \sum_{i,j} \frac{512}{8} \theta_{ij}^2, \qquad
          \theta_{ij} = 2 \arctan_2(\|w_i - w_j\|, \|w_i + w_j\|),

which is the angle between the two where their lengths agree. The constants 512 and 8 are the published ones, whatever the size
of w, so that the published weight of 0.05 keeps its meaning. One row, or equal ones, give 0, with gradient 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Generator
from pulse_framework.search.latent_terms import check_lift
from pulse_framework.search.objective import Evaluation, Term

__all__ = ["Geocross", "geocross"]

_TINY = 1e-12  # a length; keeps the gradient finite where both rows are zero


def geocross(w_plus: Float[Tensor, "N L D"]) -> Float[Tensor, " N"]:
    """The value of each item, in squared radians times 64."""
    count = w_plus.shape[1]
    if count == 1:
        return (0 * w_plus).sum((1, 2))
    first, second = torch.triu_indices(count, count, 1, device=w_plus.device)
    u, v = w_plus[:, first], w_plus[:, second]
    apart = torch.linalg.vector_norm(u - v, dim=2)  # its gradient at 0 is 0
    along = torch.linalg.vector_norm(u + v, dim=2).clamp(min=_TINY)
    theta = 2 * torch.atan2(apart, along)
    return theta.square().sum(1) * (2 * 512 / 8 / count**2)


@dataclass(frozen=True, kw_only=True)
class Geocross(Term):
    """GEOCROSS of the block ``block``, to which the latents are lifted.

    Attributes:
        block: A block of shape (L, D): the styles of all layers, as the network takes them.
        optional: Whether the term is left out for a generator without this block, instead of refusing it.
    """

    block: str = "w_plus"
    optional: bool = False

    def on(self, generator: Generator, moved: Sequence[str]) -> "Geocross | None":
        """The term, if the generator has the block.

        Raises:
            ValueError: It has not, and the term is not optional; or the block is not of shape (L, D).
        """
        shapes = {block.name: block.shape for block in generator.blocks}
        if self.block not in shapes and self.optional:
            return None
        if len(shapes.get(self.block, ())) != 2:
            raise ValueError(
                f"Geocross block: expected a block of shape (L, D), got {self.block!r} of {sorted(shapes)}; leave the term out"
            )
        check_lift("Geocross", generator, moved, self.block)
        return self

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In squared radians times 64."""
        return geocross(at.lift(self.block))
