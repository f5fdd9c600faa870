"""Searches that begin at saved latents."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import UNKNOWN, Latents, space
from pulse_framework.search.phases import Search, start_at
from pulse_framework.search.starting import Begin, Start
from pulse_framework.search.streams import draw

__all__ = ["FileStart"]


@dataclass(frozen=True, kw_only=True)
class FileStart(Start):
    """The latents of a file that ``pulse upsample`` or ``pulse sample`` wrote, lifted to the blocks of the first phase.

    What a file leaves open is drawn; restarts and samples of an image differ in that alone.

    Attributes:
        path: A ``.safetensors`` file for all images, or a folder with one for each: ``STEM.safetensors`` for ``STEM.png``.

    Raises:
        ValueError: There is no such file or folder, or there is more than one draw, which nothing would choose among.
    """

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws != 1:
            raise ValueError(f"FileStart draws: expected 1, since a file is not chosen among draws, got {self.draws}")
        if not Path(self.path).is_dir():
            _read(Path(self.path))

    def check(self, keys: Iterable[str]) -> None:
        """See ``Start``; files are opened."""
        for key in keys:
            _read(self._file(key))

    def _file(self, key: str) -> Path:
        path = Path(self.path)
        return path / f"{Path(key).stem}.safetensors" if path.is_dir() else path

    def on(self, generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior]) -> Begin:
        """See ``Start``. A search whose image has no file, or one that does not fit, raises a ``ValueError``."""
        names = tuple(space(generator.blocks, priors))

        def begin(search: Search, rng: torch.Generator) -> Latents:
            path = self._file(search.key)
            known = {block.name for block in generator.blocks}
            saved = {name: value for name, value in _read(path).items() if name in known or not name.startswith(UNKNOWN)}
            drawn = draw(generator, dict(priors), rng, search.measurement)
            try:
                full = start_at(generator, names, saved, drawn)
                lifted = {name: generator.lift(full, name) for name in names}
            except ValueError as error:
                raise ValueError(
                    f"{path}: expected latents that lift to {list(names)}, got {sorted(saved)} ({error}); "
                    "name blocks that it has in search.blocks, or give another file"
                ) from error
            return lifted | {name: prior.manifold.project(lifted[name]) for name, prior in priors.items()}

        return begin


def _read(path: Path) -> dict[str, Tensor]:
    """The blocks of a file, without N, on the CPU."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        text = f"search start path: expected saved latents at {path}, got: {error}; give a file that pulse wrote"
        raise ValueError(text) from error
