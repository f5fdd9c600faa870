"""A search that begins at the guess of an encoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents
from pulse_framework.search.encoder import encoder_probes, read_encoder
from pulse_framework.search.phases import Search
from pulse_framework.search.starting import Begin, Start
from pulse_framework.search.streams import draw

__all__ = ["EncoderStart"]

_NEAR = 1e-3  # what probes may differ from machine to machine, in image units
_KNOWN = 0.1


@dataclass(frozen=True, kw_only=True)
class EncoderStart(Start):
    """The guess of an encoder; for further restarts, or with ``draws`` above 1, guesses strewn about it.

    Of ``draws`` candidates the nearest by its degraded image is taken. The first candidate of restart 0 is the guess itself, and
    every other one the guess plus noise of the search's own stream, ``scatter`` times the error of the encoder. Blocks that it
    does not guess, or guesses with a cosine below 0.1, are drawn.

    Attributes:
        path: A file that ``pulse encoder train`` wrote for the same generator, degradation and first phase.
        scatter: See above.

    Raises:
        ValueError: A number is out of range; the file is none, or was made for something else.
    """

    path: str
    scatter: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.scatter < math.inf:
            raise ValueError(f"search start scatter: expected a number of at least 0, got {self.scatter}")
        read_encoder(self.path)

    def on(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior]) -> Begin:
        """See ``Start``."""
        encoder, probes, card = read_encoder(self.path)
        guessed = [name for name, cosine in card["cosines"].items() if cosine >= _KNOWN]
        shapes = {block.name: tuple(block.shape) for block in generator.blocks if block.name in encoder.blocks}
        shape = tuple(degradation.measurement_shape(generator.image_shape))
        if shapes != encoder.blocks or not set(shapes) <= set(priors) or shape != encoder.shape:
            raise ValueError(
                f"encoder {self.path}: expected one from {shape} to blocks among {sorted(priors)}, got one from "
                f"{encoder.shape} to {encoder.blocks}; train one for this generator, degradation and "
                "first phase (a small budget leaves out the first rungs of a ladder)"
            )
        learned = {name: priors[name] for name in encoder.blocks}
        like = next(generator.parameters(), torch.zeros(1))
        self._check(probes, encoder_probes(generator, degradation, learned, like.detach().flatten()))

        def begin(search: Search, rng: torch.Generator) -> Latents:
            y = search.measurement[None]
            network = encoder.to(search.measurement)
            guess = {name: value for name, value in network(y).items() if name in guessed}
            candidates = [self._candidate(generator, priors, search, rng, guess, network.spread, k) for k in range(self.draws)]
            if len(candidates) == 1:
                return candidates[0]
            errors = [float((degradation.at(generator(c).to(y.dtype), c) - y).square().mean()) for c in candidates]
            return candidates[min(range(len(errors)), key=lambda k: (math.isnan(errors[k]), errors[k], k))]

        return begin

    def _candidate(
        self,
        generator: Generator,
        priors: Mapping[str, LatentPrior],
        search: Search,
        rng: torch.Generator,
        guess: Latents,
        spread: Tensor,
        number: int,
    ) -> Latents:
        drawn = draw(generator, dict(priors), rng, search.measurement)
        for name, value in guess.items():
            noise = torch.randn(value.shape, generator=rng).to(value)
            strewn = value if number == 0 and search.restart == 0 else value + self.scatter * spread * noise
            drawn[name] = priors[name].manifold.project(strewn)
        return drawn

    def _check(self, probes: Tensor, found: Tensor) -> None:
        near = probes.shape == found.shape and bool((probes.to(found) - found).abs().max() < _NEAR)
        if not near:
            raise ValueError(
                f"encoder {self.path}: expected one trained for this generator, degradation and prior, got one for others; "
                "train it anew with `pulse encoder train` and the same options"
            )
