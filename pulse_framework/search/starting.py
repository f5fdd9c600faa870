"""Where a search begins: settings, frozen; and what they come to for one generator, operator and priors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents, PushForward
from pulse_framework.search.phases import Search
from pulse_framework.search.streams import draw, native_draws, nearest_draw, stream

__all__ = ["Begin", "MeanStart", "NearestDraw", "Start"]

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

    def check(self, keys: Iterable[str]) -> None:
        """Refuse images that it has no start for, before any work.

        Args:
            keys: Names of the images: their file names.

        Raises:
            ValueError: It has none for one of them.
        """
        del keys

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


@dataclass(frozen=True, kw_only=True)
class MeanStart(Start):
    """Blocks that a mapping makes (``w``, ``w_plus``) begin at the mean of the generator's own distribution; others are drawn.

    So begin StyleGAN2's projector, BRGM, II2S and RUSIR. Restarts and samples of an image differ in what is drawn alone.

    Attributes:
        samples: Draws that the mean is of, the same for every image.

    Raises:
        ValueError: A number is below 1, or there is more than one draw, which nothing would choose among.
    """

    samples: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws != 1:
            raise ValueError(f"MeanStart draws: expected 1, since a mean is not chosen among draws, got {self.draws}")
        if self.samples < 1:
            raise ValueError(f"MeanStart samples: expected at least 1, got {self.samples}")

    def on(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior]) -> Begin:
        """See ``Start``.

        Raises:
            ValueError: No block that moves is made by a mapping.
        """
        made = [block.name for block in generator.blocks if block.name in priors and isinstance(block.native, PushForward)]
        if not made:
            raise ValueError(
                f"MeanStart: expected a block such as w or w_plus that moves, got {sorted(priors)}; use another start"
            )

        @cache
        def means() -> Latents:
            found = {}
            for name in made:
                parts = native_draws(generator, name, self.samples, stream(0, "mean"))
                found[name] = torch.stack([part.double().sum(0) for part in parts]).sum(0) / self.samples
            return found

        def begin(search: Search, rng: torch.Generator) -> Latents:
            drawn = draw(generator, dict(priors), rng, search.measurement)
            like = search.measurement
            return drawn | {name: priors[name].manifold.project(mean[None].to(like)) for name, mean in means().items()}

        return begin
