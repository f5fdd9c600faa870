r"""Adam seen through noise that fades, as StyleGAN2's projector finds a style (Karras et al., CVPR 2020, appendix D).

What is evaluated is not the point c where Adam is, but :math:`c + \tau_n \xi` with standard normal noise :math:`\xi` and

.. math:: \tau_n = a \, s \, \max(0, 1 - (n / T) / u)^2 ,

s being the root mean squared distance of the block to its mean, which for w is some tens of times the deviation of an entry. The
gradient found there moves c. The first iterate is the start itself.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Generator
from pulse_framework.latents import Latents
from pulse_framework.search.noise import normals
from pulse_framework.search.optimisers import Adam, Iterate, State
from pulse_framework.search.streams import native_draws, stream

__all__ = ["JitteredAdam"]


@dataclass(frozen=True, kw_only=True)
class JitteredAdam(Adam):
    """Adam whose iterates are strewn about where it is.

    Attributes:
        block: The block that is jittered; others move as ever.
        jitter: a.
        until: u, the fraction of the budget after which there is no noise.
        samples: Draws that s is of.
        spread: s; found by ``on``.

    Raises:
        ValueError: A number is out of range.
    """

    block: str = "w"
    jitter: float = 0.05
    until: float = 0.75
    samples: int = 10_000
    spread: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.jitter >= 0:
            raise ValueError(f"JitteredAdam jitter: expected at least 0, got {self.jitter}")
        if not 0 < self.until <= 1:
            raise ValueError(f"JitteredAdam until: expected a fraction of the budget, above 0 and at most 1, got {self.until}")
        if self.samples < 2:
            raise ValueError(f"JitteredAdam samples: expected at least 2, got {self.samples}")

    def on(self, generator: Generator, moved: tuple[str, ...]) -> "JitteredAdam":
        """The optimiser with the spread of the block under the generator's own distribution.

        Raises:
            ValueError: The block does not move.
        """
        if self.block not in moved:
            raise ValueError(f"JitteredAdam block: expected one of those that move, {list(moved)}, got {self.block!r}")
        draws = native_draws(generator, self.block, self.samples, stream(0, "jitter"))
        rows = torch.cat([part.double().flatten(1) for part in draws])
        return replace(self, spread=float((rows - rows.mean(0)).square().sum(1).mean().sqrt()))

    def begin(self, latents: Latents, measurement: Float[Tensor, "N *m"]) -> State:
        """Moments, and where it is."""
        return super().begin(latents, measurement) | {"centre": latents[self.block].clone()}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """Adam's, and the noise of the iterate that comes next."""
        assert self.spread is not None, "the optimiser as `on` gives it"
        spent = torch.arange(1, len(rates) + 1, dtype=torch.float64) / len(rates)
        noise = self.jitter * self.spread * (1 - spent / self.until).clamp(min=0).square()
        return torch.cat([super().table(rates), noise[:, None]], 1)

    def move(self, at: Iterate, state: State) -> tuple[Latents, State]:
        """Adam's step from where it is, and the next iterate about there."""
        *coefficients, noise = at.coefficients
        there = replace(at, latents={**at.latents, self.block: state["centre"]}, coefficients=torch.stack(coefficients))
        moved, state = super().move(there, state)
        centre = moved[self.block]
        random, _ = normals(at.keys, at.numbers, centre[0].numel(), centre)
        strewn = centre + noise.reshape(-1, *[1] * (centre.ndim - 1)) * random.reshape(centre.shape)
        return {**moved, self.block: at.manifolds[self.block].project(strewn)}, state | {"centre": centre}
