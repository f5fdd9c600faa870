r"""Terms of the latents alone: what a style should look like, whatever the picture.

Each is of the latents expressed as some block of the generator, rows :math:`x_1, \dots, x_L` of D entries, or one:

- ``LatentNorm``, the mean square. Of ``p_n_plus`` it is II2S's :math:`\|P_N(w)\|^2` (Zhu et al., arXiv:2012.09036, section 3.3).
- ``Coupling``, the mean square of the difference of two blocks, :math:`\langle (w_l - M(z))^2 \rangle` in L-BRGM, where z is
  searched beside w+ (Marinescu et al., arXiv:2012.04567, section 3, with the authors' program): of ``w_plus`` and ``w_anchor``.
- ``GaussianEnergy``, a Gaussian fitted to what the generator was trained on, diagonal as in BRGM,
  :math:`\langle ((w_l - \mu) / \sigma)^2 \rangle / 2`, or with all of its covariance: truncation as a preference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulse_framework.interfaces import Generator
from pulse_framework.search.objective import Evaluation, Term
from pulse_framework.search.streams import draw, native_draws, stream

__all__ = ["Coupling", "GaussianEnergy", "LatentNorm", "PairwiseCosine", "check_lift"]


COVARIANCES = ("diagonal", "full", "row")


def check_lift(term: str, generator: Generator, moved: Sequence[str], name: str) -> None:
    """Refuse a block that the input of a search cannot be lifted to, by trying it on one draw.

    Raises:
        ValueError: The generator has no such block, or no way leads to it from those that move.
    """
    blocks = {block.name: block for block in generator.blocks}
    if name not in blocks:
        raise ValueError(f"{term} block: expected one of {sorted(blocks)}, got {name!r}; leave the term out")
    try:
        with torch.no_grad():
            generator.lift(draw(generator, {}, stream(0, "lift"), _like(generator), moved), name)
    except ValueError as error:
        raise ValueError(f"{term} block: expected a block that {list(moved)} can be lifted to, got {name!r} ({error})") from error


@dataclass(frozen=True, kw_only=True)
class LatentNorm(Term):
    """Mean square of the latents as the block ``block``."""

    block: str

    def on(self, generator: Generator, moved: Sequence[str]) -> "LatentNorm":
        """The term, checked.

        Raises:
            ValueError: The latents cannot be lifted to the block.
        """
        check_lift("LatentNorm", generator, moved, self.block)
        return self

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In squared units of the block."""
        return at.lift(self.block).flatten(1).square().mean(1)


@dataclass(frozen=True, kw_only=True)
class Coupling(Term):
    """Mean square of the difference of the latents as ``block`` and as ``anchor``, which may be one vector for all rows."""

    block: str = "w_plus"
    anchor: str = "w_anchor"

    def on(self, generator: Generator, moved: Sequence[str]) -> "Coupling":
        """The term, checked.

        Raises:
            ValueError: The latents cannot be lifted to one of the blocks, or shapes disagree.
        """
        for name in (self.block, self.anchor):
            check_lift("Coupling", generator, moved, name)
        shapes = {block.name: block.shape for block in generator.blocks}
        one, other = shapes[self.block], shapes[self.anchor]
        if other not in (one, one[-1:]):
            raise ValueError(f"Coupling anchor: expected shape {one} or {one[-1:]}, as of {self.block}, got {other}")
        return self

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In squared units of the block."""
        value, anchor = at.lift(self.block), at.lift(self.anchor)
        anchor = anchor if anchor.ndim == value.ndim else anchor[:, None]
        return (value - anchor).flatten(1).square().mean(1)


@dataclass(frozen=True, kw_only=True)
class PairwiseCosine(Term):
    r"""Rows that point elsewhere: the mean of :math:`|1 - \cos(w_i, w_j)|` over all pairs, each with itself included (BRGM)."""

    block: str = "w_plus"

    def on(self, generator: Generator, moved: Sequence[str]) -> "PairwiseCosine":
        """The term, checked.

        Raises:
            ValueError: The latents cannot be lifted to the block, or it has no rows.
        """
        check_lift("PairwiseCosine", generator, moved, self.block)
        shape = next(block.shape for block in generator.blocks if block.name == self.block)
        if len(shape) != 2:
            raise ValueError(f"PairwiseCosine block: expected one of several rows, got {self.block!r} of shape {shape}")
        return self

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In [0, 2]."""
        rows = functional.normalize(at.lift(self.block), dim=-1)
        cosines = torch.stack([item @ item.T for item in rows])  # bits of a row are its own
        return (1 - cosines).abs().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class GaussianEnergy(Term):
    """Half the squared distance to the mean of a block, in standard deviations, a mean over the entries.

    The Gaussian is that of the block's rows under the generator's own distribution (z mapped to w), over seeded draws.

    Attributes:
        block: The block, such as ``w_plus``.
        covariance: What distance is measured with: the variance of each entry (``"diagonal"``), all of the covariance
            (``"full"``), or, as BRGM and StyleGAN2's projector do, one number, the mean squared distance of a whole row to
            the mean (``"row"``), which makes the energy smaller by a factor of about D.
        samples: Draws that it is fitted to.
        fit: Mean (D,) and what whitens a row, (D, D) or (D,); found by ``on``.
    """

    block: str = "w_plus"
    covariance: str = "diagonal"
    samples: int = 10_000
    fit: tuple[Tensor, Tensor] | None = None

    def on(self, generator: Generator, moved: Sequence[str]) -> "GaussianEnergy":
        """The term with its Gaussian.

        Raises:
            ValueError: The latents cannot be lifted to the block, there are too few samples, or ``covariance`` is unknown.
        """
        check_lift("GaussianEnergy", generator, moved, self.block)
        size = next(block.shape for block in generator.blocks if block.name == self.block)[-1]
        if self.samples <= size:
            raise ValueError(f"GaussianEnergy samples: expected more than the {size} entries of a row, got {self.samples}")
        if self.covariance not in COVARIANCES:
            raise ValueError(f"GaussianEnergy covariance: expected one of {COVARIANCES}, got {self.covariance!r}")
        draws = native_draws(generator, self.block, self.samples, stream(0, "Gaussian energy"))
        rows = torch.cat([rows.flatten(0, -2).double() for rows in draws])
        mean, centred = rows.mean(0), rows - rows.mean(0)
        if self.covariance == "row":
            return replace(self, fit=(mean, centred.square().sum(1).mean().rsqrt().expand(size)))
        if self.covariance == "diagonal":
            return replace(self, fit=(mean, rows.std(0, correction=0).clamp(min=torch.finfo(torch.float32).tiny).reciprocal()))
        variances, columns = torch.linalg.eigh(centred.T @ centred / len(rows))
        scales = variances.clamp(min=1e-8 * float(variances.max())).sqrt()
        return replace(self, fit=(mean, columns / scales))

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """Per entry, in nats."""
        assert self.fit is not None, "the term as `on` gives it"
        value = at.lift(self.block)
        mean, whiten = (part.to(value) for part in self.fit)
        apart = value - mean
        full = self.covariance == "full"
        white = torch.stack([item @ whiten for item in apart]) if full else apart * whiten  # bits of a row are its own
        return white.flatten(1).square().mean(1) / 2


def _like(generator: Generator) -> Tensor:
    """Device and dtype."""
    return next((value for value in generator.state_dict().values() if value.is_floating_point()), torch.empty(()))
