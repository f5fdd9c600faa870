"""Where a search begins: settings, frozen; and what they come to for one generator, operator and priors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents
from pulse_framework.search.phases import Search
from pulse_framework.search.streams import nearest_draw

__all__ = ["Begin", "NearestDraw", "Start"]

Begin = Callable[[Search, torch.Generator], Latents]
"""A full input of N = 1 for a search, blocks that move on their manifolds, from it and its random stream; without gradients."""


@dataclass(frozen=True, kw_only=True)
class Start(ABC):
    """How the start of a search is chosen. It depends on the search, the settings and the seed alone.

    Attributes:
        draws: Random latents among which it is chosen.

    Raises:
        ValueError: A number is below 1.
    """

    draws: int = 1

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"search start draws: expected at least 1, got {self.draws}")

    @abstractmethod
    def on(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior]) -> Begin:
        """What the settings come to; called once for an engine, it computes hardly anything before the first search.

        Args:
            generator: G, joint with the unknown parameters of A.
            degradation: A.
            priors: Prior of every block that the first phase moves.
        """


@dataclass(frozen=True, kw_only=True)
class NearestDraw(Start):
    """The nearest of ``draws`` random latents of the search's own stream, by their degraded images."""

    def on(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior]) -> Begin:
        """See ``Start``."""

        def begin(search: Search, rng: torch.Generator) -> Latents:
            return nearest_draw(generator, degradation, dict(priors), rng, search.measurement, self.draws)

        return begin
