"""Images that searches are compared on: what a generator draws, and pictures brought to the size of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pulse_framework.images import MAX_PIXELS, ReadError, read_image
from pulse_framework.interfaces import Generator, LatentPrior
from pulse_framework.runtime import Rejected, take_in
from pulse_framework.runtime.data import as_channels
from pulse_framework.search import draw, stream

__all__ = ["Targets", "fitted", "generated", "pictures"]


@dataclass(frozen=True)
class Targets:
    """Images that are measured.

    Attributes:
        keys: Names of their searches, whose random streams they give; none may be that of the stream an image was drawn with.
        images: Of shape (N, C, H, W), in [0, 1].
    """

    keys: Sequence[str]
    images: Tensor


def generated(
    generator: Generator, priors: Mapping[str, LatentPrior], count: int, seed: int = 0, like: Tensor | None = None
) -> Targets:
    """What the generator draws.

    Args:
        generator: G.
        priors: Of the blocks that are not drawn from what the generator was trained on.
        count: How many.
        seed: Of the draws.
        like: Gives device and dtype.
    """
    like = torch.zeros(1) if like is None else like
    with torch.no_grad():
        drawn = [draw(generator, dict(priors), stream(seed, f"face {index}"), like) for index in range(count)]
        images = torch.cat([generator(latents) for latents in drawn])
    return Targets([f"generated {index}" for index in range(count)], images)


def pictures(
    path: Path, image_shape: tuple[int, int, int], count: int, max_pixels: int = MAX_PIXELS
) -> tuple[Targets, list[Rejected]]:
    """Pictures as a generator would draw them; see ``fitted``.

    Args:
        path: A folder, a picture, or a ``.npy`` array of grey ones (N, h, w), such as scikit-image's ``lfw_subset.npy``, in
            [0, 1] or of 8 bits.
        image_shape: (C, H, W) of the generator's images.
        count: The first so many are taken.
        max_pixels: Of the largest picture that is read.

    Returns:
        The pictures, maybe none, and what could not be read.

    Raises:
        ValueError: The array is not one of pictures.
    """
    crops: dict[str, Tensor] = {}
    rejected: list[Rejected] = []
    if path.suffix.lower() == ".npy":
        crops = {f"{path.name} {index}": crop for index, crop in enumerate(_array(path)[:count])}
    else:
        sources, rejected = take_in([path], max_pixels)
        wrong = [source.path for source in sources if not source.picture]
        rejected += [Rejected(other, f"{other}: expected a picture, got a measurement; give the original") for other in wrong]
        for source in sources:
            if source.picture and len(crops) < count:
                try:
                    crops[source.key if source.key not in crops else str(source.path)] = read_image(source.path, max_pixels)
                except ReadError as error:
                    rejected.append(Rejected(source.path, str(error)))
    sized = [fitted(crop, image_shape) for crop in crops.values()]
    return Targets(list(crops), torch.stack(sized) if sized else torch.empty(0, *image_shape)), rejected


def fitted(image: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """The middle of a picture in the proportions of the generator's images, resized to theirs, grey or RGB as they are.

    Args:
        image: Of shape (C, h, w), C of 1 or 3, in [0, 1].
        image_shape: (C, H, W) of the generator's images.
    """
    channels, height, width = image_shape
    scale = min(image.shape[1] / height, image.shape[2] / width)
    h, w = (max(1, round(side * scale)) for side in (height, width))
    top, left = (image.shape[1] - h) // 2, (image.shape[2] - w) // 2
    crop = image[:, top : top + h, left : left + w]
    if (h, w) != (height, width):
        crop = functional.interpolate(crop[None], (height, width), mode="bicubic", antialias=True).clamp(0, 1)[0]
    return as_channels(crop, channels).contiguous()


def _array(path: Path) -> Tensor:
    """Grey pictures (N, 1, h, w) of an array, in [0, 1]."""
    where = f"{path}: expected an array (N, h, w) of grey pictures, in [0, 1] or of 8 bits"
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{where}, got {error}; check the file") from error
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.size == 0 or array.dtype.kind not in "uif":
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(f"{where}, got {got}; convert it")
    values = torch.from_numpy(array.astype(np.float32))
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= 255):
        raise ValueError(f"{where}, got values from {low:.4g} to {high:.4g}; convert it")
    return (values / (1 if high <= 1 else 255))[:, None]
