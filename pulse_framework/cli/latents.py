"""Commands about latents: random images of a generator, and images from saved latents."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pulse_framework.cli.compose import ConfigError, build, build_as, load
from pulse_framework.cli.framing import warn_once
from pulse_framework.cli.options import Allow, ConfigDir, Device, Generator, Out, Overwrite, Seed, planning, split_overrides
from pulse_framework.grid import grid
from pulse_framework.images import write_png
from pulse_framework.interfaces import Generator as GeneratorInterface
from pulse_framework.interfaces import LatentPrior
from pulse_framework.latents import UNKNOWN, check_latents, space
from pulse_framework.provenance import png_text, said
from pulse_framework.runtime import write_latents
from pulse_framework.search import draw, stream
from pulse_framework.search.phases import searched_blocks

__all__ = ["render", "sample", "sampling_priors"]

COLUMNS = 8
"""Pictures in a row of ``grid.png``."""


def sample(
    output: Out,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many images.")] = 16,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides.")] = None,
    generator: Generator = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Draw random images of a generator, and keep their latents."""
    with planning():
        name, made, priors, where = _built(generator, arguments or [], device, config_dir, allow or [])
        stems = [f"sample_{index:0{max(4, len(str(number - 1)))}d}" for index in range(number)]
        _free(output, stems, overwrite=overwrite)
    pictures = []
    for index, stem in enumerate(stems):
        latents = draw(made, _drawn(made, priors), stream(seed, f"sample {index}"), torch.zeros(1, device=where))
        metadata = {"generator": name, "seed": str(seed), "sample": str(index)}
        pictures.append(_save(made, latents, output, stem, metadata, said(name, seed, sample=index)))
    rows = [pictures[i : i + COLUMNS] for i in range(0, min(number, COLUMNS**2), COLUMNS)]
    write_png(grid(rows), output / "grid.png", png_text(said(name, seed)))


def render(
    files: Annotated[list[str], typer.Argument(metavar="LATENT... [KEY=VALUE...]", help="Saved latents, overrides.")],
    output: Out,
    between: Annotated[int, typer.Option("--between", min=0, help="Images on the way from one latent to another.")] = 0,
    generator: Generator = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Make images from saved latents; with --between K, K steps along the geodesic of the prior from the first to the second."""
    paths, overrides = split_overrides(files)
    with planning():
        read = [_read(Path(path)) for path in paths]
        named = {metadata.get("generator") for _, metadata in read} - {None}
        if generator is None and len(named) > 1:
            raise ConfigError(f"latents: expected latents of one generator, got {sorted(map(str, named))}; render them apart")
        if between and len(read) != 2:
            raise ConfigError(f"--between: expected two latents, got {len(read)}")
        chosen = generator or next(iter(named), None)
        name, made, priors, where = _built(chosen, overrides, device, config_dir, allow or [])
        double = any(value.dtype is torch.float64 for latents, _ in read for value in latents.values())
        dtype = torch.float64 if double else torch.float32
        made = made.to(dtype)
        inputs = [
            {block: value[None].to(where, dtype) for block, value in latents.items() if not block.startswith(UNKNOWN)}
            for latents, _ in read
        ]
        for path, latents in zip(paths, inputs, strict=True):
            try:
                check_latents(made.blocks, latents)
            except ValueError as error:
                raise ConfigError(f"{path}: {error}; name the generator it was made with by --generator") from error
        stems, seeds = [Path(path).stem for path in paths], [metadata.get("seed") for _, metadata in read]
        if between:
            seeds = [None] * between
            stems = [f"between_{index:0{max(2, len(str(between - 1)))}d}" for index in range(between)]
            inputs = [
                {block: _along(priors.get(block), inputs[0][block], inputs[1][block], t) for block in inputs[0]}
                for t in torch.linspace(0, 1, between).tolist()
            ]
        if len(set(stems)) < len(stems):
            raise ConfigError(f"latents: expected files of different names, got {sorted(stems)}; render them apart")
        _free(output, stems, overwrite=overwrite)
    for stem, latents, known in zip(stems, inputs, seeds, strict=True):
        _save(made, latents, output, stem, {"generator": name} if between else None, said(name, known))


def _along(prior: LatentPrior | None, first: Tensor, second: Tensor, t: float) -> Tensor:
    """A point on the way: along the manifold for blocks that a search moves, straight for the others."""
    return torch.lerp(first, second, t) if prior is None else prior.manifold.geodesic(first, second, t)


def _built(
    generator: str | None, overrides: list[str], device: str, config_dir: Path | None, allow: list[str]
) -> tuple[str, GeneratorInterface, dict[str, LatentPrior], torch.device]:
    """Name, generator, priors of the blocks that a search may move, and device of a configuration."""
    config = load([f"trainer.device={device}", *([f"generator={generator}"] if generator else []), *overrides], config_dir)
    warn_once(config)
    where = build(config.trainer, allow)().strategy.root_device
    made = build_as(GeneratorInterface, config.generator, allow)
    priors = _priors(made, build(config.prior, allow))
    space(made.blocks, _drawn(made, priors))
    return config.choices.generator, made.to(where), priors, where


def sampling_priors(generator: GeneratorInterface, prior: LatentPrior | Mapping[str, LatentPrior]) -> dict[str, LatentPrior]:
    """Priors that images of a generator are drawn from: of the first block of each slot that a search may move.

    Args:
        generator: Declares the blocks.
        prior: As configured: one for all blocks, or one for each name.
    """
    return _drawn(generator, _priors(generator, prior))


def _priors(generator: GeneratorInterface, prior: LatentPrior | Mapping[str, LatentPrior]) -> dict[str, LatentPrior]:
    """The prior of every block that a search may move."""
    if isinstance(prior, Mapping):
        return dict(prior)
    return dict.fromkeys((*searched_blocks(generator), *generator.ladder), prior)


def _drawn(generator: GeneratorInterface, priors: Mapping[str, LatentPrior]) -> dict[str, LatentPrior]:
    """The first block of each slot, with its prior."""
    slots = {block.name: block.slot for block in generator.blocks}
    first: dict[str, str] = {}
    for name in priors:
        first.setdefault(slots.get(name, name), name)
    return {name: priors[name] for name in first.values()}


def _free(output: Path, stems: list[str], *, overwrite: bool) -> None:
    """Refuse to replace files unless told to."""
    taken = [f"{stem}.png" for stem in stems if (output / f"{stem}.png").exists()]
    if taken and not overwrite:
        raise ConfigError(f"output {output}: expected no {taken[0]}, got one; choose another folder or add --overwrite")
    output.mkdir(parents=True, exist_ok=True)


def _save(
    generator: GeneratorInterface,
    latents: dict[str, Tensor],
    output: Path,
    stem: str,
    metadata: dict[str, str] | None,
    text: dict[str, str],
) -> Tensor:
    """Write the image of one input with what is said of it, and its latents if there is metadata; returns the image."""
    with torch.no_grad():
        image = generator(latents)[0].cpu()
    if metadata is not None:
        write_latents(output / f"{stem}.safetensors", {name: value[0] for name, value in latents.items()}, metadata)
    write_png(image, output / f"{stem}.png", png_text(text))
    sys.stdout.write(f"{output / f'{stem}.png'}\n")
    return image


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Blocks and metadata of a latents file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: expected saved latents (.safetensors), got: {error}; give a file that pulse wrote") from error
