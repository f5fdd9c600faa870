r"""The ladder of Poirier-Ginter and Lalonde, "Robust Unsupervised StyleGAN Image Restoration", CVPR 2023, arXiv:2302.06733.

Four tasks at five levels, and their compositions, always in the order U, N, A, P:

| level | U, upsampling: factor | N, denoising: photons n, dropped p | A, deartifacting: JPEG quality | P, inpainting: strokes |
| --- | --- | --- | --- | --- |
| XS | 2 | 96, 0.04 | 18 | 1 |
| S | 4 | 48, 0.08 | 15 | 5 |
| M | 8 | 24, 0.16 | 12 | 9 |
| L | 16 | 12, 0.32 | 9 | 13 |
| XL | 32 | 6, 0.64 | 6 | 17 |

What is measured is theirs: Pillow's bilinear, bicubic or Lanczos filter, drawn for each image; Poisson noise, then whole pixels
lost; Pillow's JPEG with 4:2:0; strokes of 0.08 of the smaller side. The faces for the search are means over blocks, the mean
:math:`(1 - p)\,x` of the noise, a JPEG with a derivative, and the mask. Theirs draws fresh noise at every step; A may not, so it
has the mean. They compose at level M alone; here all parts of a composition have the level asked for.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from degradations.compose import compose
from degradations.downscale import Downscale
from degradations.jpeg import JPEG
from degradations.mask import strokes
from degradations.noise import DropOut, PoissonNoise
from pulse_framework.interfaces import Degradation, LinearDegradation

__all__ = ["LEVELS", "BlockMean", "DroppedPhotons", "rusir"]

TASKS = "UNAP"
LEVELS: dict[str, tuple[int, int, float, int, int]] = {
    "XS": (2, 96, 0.04, 18, 1),
    "S": (4, 48, 0.08, 15, 5),
    "M": (8, 24, 0.16, 12, 9),
    "L": (16, 12, 0.32, 9, 13),
    "XL": (32, 6, 0.64, 6, 17),
}
"""Factor, photons, share of pixels dropped, JPEG quality and number of strokes of each level."""
FILTERS = ("bilinear", "bicubic", "lanczos3")


class BlockMean(Downscale):
    """Means of square blocks, for images that an unknown filter of Pillow has made small.

    Args:
        factor: Side of a block.

    Attributes:
        gap: 0.08 in image units. No bound holds for every image (fine stripes come out differently); photos and noise stay below.

    Raises:
        ValueError: The factor is below 1.
    """

    gap = 0.08

    def __init__(self, factor: int) -> None:
        super().__init__(factor, kernel="box", library="pil")

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C h w"]:
        """Every image by a filter of its own, clamped and rounded to 8 bits."""
        drawn = torch.randint(len(FILTERS), (len(x),), generator=rng, device=rng.device).tolist()
        made = [
            Downscale(self.factor, FILTERS[k], "pil").measure(image, rng)
            for k, image in zip(drawn, x.split(1) if len(x) else (), strict=True)
        ]
        return torch.cat(made) if made else self(x)


class DroppedPhotons(LinearDegradation):
    r"""Photon noise, then whole pixels lost: y is 0 with probability p, else k / n with k Poisson of mean n x. A is (1 - p) x.

    Args:
        photons: n, expected where the image is 1.
        p: Probability of being lost.

    Attributes:
        gap: 1.25 times the root of the variance of y where the image is 1, :math:`(1 - p) / n + p (1 - p)`, and half a level of
            8 bits; no sure bound, since noise has none.

    Raises:
        ValueError: ``photons`` is not positive, or ``p`` is not in (0, 1].
    """

    def __init__(self, photons: float, p: float) -> None:
        super().__init__()
        self._counts, self._losses = PoissonNoise(photons, bits=None), DropOut(p)
        self.photons, self.p = photons, p
        self.gap = 1.25 * math.sqrt((1 - p) / photons + p * (1 - p)) + 0.5 / 255

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The mean of what is measured."""
        return (1 - self.p) * x

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Counts over n, with lost pixels, clamped and rounded to 8 bits."""
        return self._losses.measure(self._counts.measure(x, rng), rng)

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """A itself.

        Raises:
            ValueError: ``y`` is not of this image shape.
        """
        if tuple(y.shape[1:]) != tuple(image_shape):
            raise ValueError(f"DroppedPhotons adjoint: expected y of shape (N, *{image_shape}), got {tuple(y.shape)}")
        return self(y)


def rusir(task: str, level: str = "M", seed: int = 0) -> Degradation:
    """A task of the ladder.

    Args:
        task: Some of U, N, A and P, in this order: ``U`` or ``NAP``.
        level: ``XS``, ``S``, ``M``, ``L`` or ``XL``.
        seed: Of the strokes.

    Raises:
        ValueError: There is no such task or level.
    """
    if not task or task != "".join(letter for letter in TASKS if letter in task):
        raise ValueError(f"rusir task: expected some of U, N, A, P in this order, such as U or NAP, got {task!r}")
    if level not in LEVELS:
        raise ValueError(f"rusir level: expected one of {', '.join(LEVELS)}, got {level!r}")
    factor, photons, p, quality, count = LEVELS[level]
    made = {
        "U": lambda: BlockMean(factor),
        "N": lambda: DroppedPhotons(photons, p),
        "A": lambda: JPEG(quality),
        "P": lambda: strokes(count, seed=seed),
    }
    parts: list[Degradation] = [made[letter]() for letter in task]
    return parts[0] if len(parts) == 1 else compose(parts)
