"""The search in one Python call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.images import to_tensor
from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search import Answer, Plan, SearchResult, Status

__all__ = ["Restoration", "upsample", "upsample_all"]


@dataclass(frozen=True)
class Restoration:
    """What was found for one image: its samples, best first; K of them.

    Attributes:
        results: The full record of each sample.
    """

    results: tuple[SearchResult, ...]

    @property
    def images(self) -> Float[Tensor, "K C H W"]:
        """RGB, sRGB-coded, nominally in [0, 1], not clamped; NaN where a search failed."""
        return torch.stack([result.image for result in self.results])

    @property
    def latents(self) -> dict[str, Tensor]:
        """Block name to latents of shape (K, *block.shape)."""
        return {name: torch.stack([result.latents[name] for result in self.results]) for name in self.results[0].latents}

    @property
    def statuses(self) -> list[Status]:
        """Converged, best effort or failed."""
        return [result.status for result in self.results]

    @property
    def psnr_db(self) -> list[float]:
        """Consistency of A(image) with the input, in dB."""
        return [result.psnr_db for result in self.results]


def upsample(image: Any, **settings: Any) -> Restoration:  # noqa: ANN401
    """Search a generator's latent space for images that degrade to the one given (PULSE).

    Args:
        image: One image, as ``upsample_all`` takes them.
        settings: The keyword arguments of ``upsample_all``.

    Raises:
        ValueError: A setting is out of range, or the image does not fit.
        TypeError: The image is of no known kind, or a setting is unknown.
    """
    return upsample_all([image], **settings)[0]


def upsample_all(
    images: Sequence[Any],
    *,
    generator: str | Generator = "faces-stylegan2-64",
    degradation: str | Degradation = "bicubic",
    factor: float | str | None = None,
    search: str | Plan = "auto",
    samples: int | None = None,
    steps: int | None = None,
    target_db: float | None = None,
    seed: int | None = None,
    device: str | torch.device = "auto",
    keys: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    allow: Sequence[str] = (),
) -> list[Restoration]:
    """Search for several images, as one queue; sizes may differ.

    Args:
        images: Paths, PIL images, NumPy arrays ((h, w, 3) or (h, w); uint8, uint16, or floats in [0, 1]) or tensors
            (C, h, w) in [0, 1]. For a degradation object that makes no pictures: tensors of the shape that it makes.
        generator: Name of a configuration, or an object.
        degradation: Name of a configuration, or an object (then ``factor`` is its own). Sidecars are not read.
        factor: Down-scale; None infers generator size over image size.
        search: Name of a configuration, or a plan (then ``samples``, ``steps``, ``target_db`` and ``seed`` are the plan's own).
        samples: Different answers for each image.
        steps: Budget of each search.
        target_db: Consistency that counts as converged, where the noise leaves as much.
        seed: Seed of the run; 0 is a seed, and the default.
        device: ``auto`` picks CUDA, then MPS, then the CPU.
        keys: Name of each image, which with the seed gives its random streams; by default its file name, or its index.
        overrides: More settings, as ``KEY=VALUE``.
        allow: Packages beyond this project's own that the configuration may name.

    Returns:
        One restoration for each image, in order.

    Raises:
        ValueError: A setting is unknown or out of range, or an image does not fit.
        TypeError: An image is of no known kind.
    """
    from pulse_framework.cli.compose import build_as, load
    from pulse_framework.cli.operators import operator_for
    from pulse_framework.runtime.data import as_channels

    if isinstance(search, Plan) and (samples, steps, target_db, seed) != (None,) * 4:
        raise ValueError(
            "upsample: expected settings of the search inside the plan given, got samples, steps, target_db or seed too"
        )
    if isinstance(degradation, Degradation) and factor is not None:
        raise ValueError("upsample: expected the factor inside the degradation given, got factor too; leave it out")
    given: Mapping[str, Any] = {
        "generator": generator if isinstance(generator, str) else None,
        "degradation": degradation if isinstance(degradation, str) else None,
        "degradation.factor": None if factor is None else f"'{factor}'",
        "search": search if isinstance(search, str) else None,
        "search.samples": samples,
        "search.steps": steps,
        "search.target_db": target_db,
        "search.seed": seed,
        "search.target_mse": None if target_db is None else "null",
    }
    config = load([*(f"{key}={value}" for key, value in given.items() if value is not None), *overrides])
    made: Generator = generator if isinstance(generator, Generator) else build_as(Generator, config.generator, allow)
    plan: Plan = search if isinstance(search, Plan) else build_as(Plan, config.search, allow)
    where = _device(device)
    made = made.to(where)
    names = [str(key) for key in keys] if keys is not None else [_key(item, i) for i, item in enumerate(images)]
    if len(names) != len(images):
        raise ValueError(f"upsample keys: expected one for each of {len(images)} images, got {len(names)}")
    node, image_shape = config.degradation, made.image_shape
    tensors = [_measurement(item, degradation, image_shape) for item in images]
    queues: dict[tuple[int, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        queues.setdefault(tuple(tensor.shape[-2:]), []).append(index)
    operators: dict[tuple[int, ...], Degradation] = {}
    for shape, members in queues.items():
        try:
            if tensors[members[0]].ndim == 3 and min(shape) < 2:
                raise ValueError(f"expected at least 2 x 2 pixels, got {shape[0]} x {shape[1]}; give a larger image")
            operator = degradation if isinstance(degradation, Degradation) else operator_for(node, shape, image_shape, allow)
        except ValueError as error:
            raise ValueError(f"image {names[members[0]]!r}: {error}") from error
        operators[shape] = operator.to(where)
    answers: dict[int, Answer] = {}
    for shape, members in queues.items():
        channels = operators[shape].measurement_shape(made.image_shape)[0]
        queue = [(names[i], as_channels(tensors[i], channels).to(where)) for i in members]
        for answer in plan.run(plan.engine(made, operators[shape]), queue):
            answers[members[answer.index]] = answer
    return [Restoration(answers[index].samples) for index in range(len(images))]


def _key(image: Any, index: int) -> str:  # noqa: ANN401
    """Name of an image: its file name, or its index."""
    return Path(image).name if isinstance(image, str | Path) else str(index)


def _measurement(item: Any, degradation: str | Degradation, image_shape: tuple[int, int, int]) -> Tensor:  # noqa: ANN401
    """A picture, or what else the degradation makes."""
    wanted = tuple(degradation.measurement_shape(image_shape)) if isinstance(degradation, Degradation) else ()
    if not wanted or (len(wanted) == 3 and wanted[0] in (1, 3)):
        return to_tensor(item)
    if not isinstance(item, Tensor) or tuple(item.shape) != wanted or not item.is_floating_point():
        got = f"{item.dtype} of shape {tuple(item.shape)}" if isinstance(item, Tensor) else type(item).__name__
        raise ValueError(f"upsample: expected a tensor of floats of shape {wanted}, as the degradation makes, got {got}")
    return item


def _device(device: str | torch.device) -> torch.device:
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"upsample device: expected one of this machine, got {device} ({why}); use auto or cpu") from error
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
