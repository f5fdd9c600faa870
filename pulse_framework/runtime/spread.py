"""How much the samples of one image differ: what the measurement leaves open."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pulse_framework.search import SearchResult, Status

__all__ = ["distances", "mean_and_deviation"]


def mean_and_deviation(pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every pixel over samples of shape (C, H, W), in image units.

    The deviation is that of the samples given (divided by their number), so at most 1/2 for pixels in [0, 1].
    """
    stack = torch.stack([picture.double() for picture in pictures])
    return stack.mean(0), stack.std(0, correction=0)


def distances(samples: Sequence[SearchResult]) -> list[dict[str, float | None]]:
    """How far each sample is from the nearest other one: root mean square differences of images and of latents.

    Args:
        samples: Of one image.

    Returns:
        For each, ``image_distance`` in image units and ``latent_distance`` in latent units, over all blocks; None for a failed
        sample, or where there is no other.
    """
    sound = [index for index, result in enumerate(samples) if result.status is not Status.FAILED]
    found: list[dict[str, float | None]] = [{"image_distance": None, "latent_distance": None} for _ in samples]
    for index in sound:
        others = [other for other in sound if other != index]
        if others:
            found[index] = {
                "image_distance": min(_rms([(samples[index].image, samples[other].image)]) for other in others),
                "latent_distance": min(
                    _rms([(value, samples[other].latents[name]) for name, value in samples[index].latents.items()])
                    for other in others
                ),
            }
    return found


def _rms(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Root mean square difference over all entries of all pairs."""
    squares = torch.cat([(one.double() - other.double()).square().flatten() for one, other in pairs])
    return float(squares.mean().sqrt())
