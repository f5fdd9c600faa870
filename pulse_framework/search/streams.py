"""Random streams and starts: what a search begins with depends on (seed, image key, restart) and on nothing else."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import PushForward, space

__all__ = ["draw", "native_draws", "nearest_draw", "stream"]

CHUNK_PIXELS = 2**17
"""Pixels of the draws that are looked at together: always the same batch shape, so always the same arithmetic."""
CHUNK_ENTRIES = 2**24
"""Entries of the draws that a block is averaged over together."""


def stream(seed: int, key: str, restart: int = 0) -> torch.Generator:
    """The random stream of one start: independent of batch, order, device and the other images.

    Args:
        seed: Seed of the run; any integer.
        key: Name of the image.
        restart: Which start this is.
    """
    digest = hashlib.sha256(f"{seed}\0{key}\0{restart}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(
    generator: Generator, priors: dict[str, LatentPrior], rng: torch.Generator, like: Tensor, chosen: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Draw one full input: searched blocks from their priors, the others from what the generator was trained on.

    A push-forward is lifted from its source together with the other slots' draws, a class label among them.

    Args:
        generator: Declares the blocks.
        priors: Prior of every block that will move.
        rng: The stream of this start; blocks are drawn in the generator's order, a push-forward's source in its place.
        like: Gives device and dtype.
        chosen: Blocks that must be part of the input; by default those of ``priors``.

    Returns:
        Block name to tensor of shape (1, *block.shape); searched blocks lie on their manifold in the dtype asked for.
    """
    blocks = space(generator.blocks, chosen or priors)
    drawn: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for name, block in blocks.items():
        native, shape = block.native, block.shape
        if name in priors:
            drawn[name] = priors[name].manifold.project(priors[name].sample(shape, rng)[None].to(like))
            continue
        if isinstance(native, PushForward):
            source = next(other for other in generator.blocks if other.name == native.source)
            assert not isinstance(source.native, PushForward), f"{name}: the source of a push-forward has a distribution"
            sources[name], native, shape = source.name, source.native, source.shape
        drawn[name] = native.sample(shape, rng)[None].to(like)
    latents = dict(drawn)
    for name, source_name in sources.items():  # once all is drawn: a lift may need another slot, as a class label
        others = {other: value for other, value in drawn.items() if other not in sources}
        latents[name] = generator.lift(others | {source_name: drawn[name]}, name)
    return {name: value.detach() for name, value in latents.items()}


def nearest_draw(
    generator: Generator,
    degradation: Degradation,
    priors: dict[str, LatentPrior],
    rng: torch.Generator,
    measurement: Tensor,
    count: int,
) -> dict[str, Tensor]:
    """The draw, of ``count``, whose degraded image is nearest to the measurement: the start that matters most.

    Args:
        generator: G.
        degradation: A.
        priors: Prior of every block that will move.
        rng: The stream of this start.
        measurement: y, shape (c, h, w).
        count: How many to draw; 1 looks at none.

    Returns:
        As ``draw``.
    """
    best, least = draw(generator, priors, rng, measurement), torch.inf
    _, height, width = generator.image_shape
    chunk = min(count, max(1, CHUNK_PIXELS // (height * width)))
    for first in range(0, count if count > 1 else 0, chunk):
        drawn = [best] if first == 0 else []
        drawn += [draw(generator, priors, rng, measurement) for _ in range(min(chunk, count - first) - len(drawn))]
        filled = (drawn * chunk)[:chunk]
        latents = {name: torch.cat([item[name] for item in filled]) for name in best}
        image = generator(latents).to(measurement.dtype)
        with torch.autocast(measurement.device.type, enabled=False):
            errors = (degradation.at(image, latents) - measurement).square().flatten(1).mean(1)[: len(drawn)]
        error, index = errors.nan_to_num(nan=torch.inf).min(0)
        if float(error) < least:
            best, least = drawn[int(index)], float(error)
    return best


def native_draws(generator: Generator, name: str, samples: int, rng: torch.Generator) -> Iterator[Tensor]:
    """A block of draws of the generator's own distribution, on the CPU, in chunks that depend on nothing but its size.

    Args:
        generator: Declares the blocks.
        name: One of them; a push-forward is lifted from its source.
        samples: How many.
        rng: Their stream.
    """
    block = next(block for block in generator.blocks if block.name == name)
    source = block.native.source if isinstance(block.native, PushForward) else name
    like = next((value for value in generator.state_dict().values() if value.is_floating_point()), torch.empty(()))
    needed = [found for found in space(generator.blocks, [source]).values() if found.name == source or not found.searchable]
    chunk = max(1, min(256, CHUNK_ENTRIES // block.size))
    for first in range(0, samples, chunk):
        drawn: dict[str, list[Tensor]] = {found.name: [] for found in needed}
        for found, _ in itertools.product(needed, range(min(chunk, samples - first))):
            assert not isinstance(found.native, PushForward), f"{found.name}: the source of a push-forward has a distribution"
            drawn[found.name].append(found.native.sample(found.shape, rng))
        with torch.no_grad():
            yield generator.lift({other: torch.stack(items).to(like) for other, items in drawn.items()}, name).cpu()
