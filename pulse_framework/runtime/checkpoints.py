"""Long searches written down on the way, as a Lightning checkpoint: a run that is killed goes on within them."""

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from pulse_framework.runtime.module import SearchModule, SearchObserver
from pulse_framework.search import Progress

__all__ = ["SearchCheckpoint", "remove_checkpoints"]

_LOG = logging.getLogger(__name__)


class SearchCheckpoint(SearchObserver):
    """Writes the searches under way to a hidden file of the output folder, every so many steps; it is removed when all are over.

    The name of the file has a hash of the settings, so that no other run goes on from it.

    Args:
        folder: Of the run.
        settings: All that a result depends on besides the input.
        every: Steps between two times; None writes nothing, but goes on from what is there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], every: int | None) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.folder, self.every = folder, every
        self.path = folder / f".searches-{digest[:16]}.ckpt"
        self._next = every or 0

    def usable(self) -> Path | None:
        """The file, if there is one and it can be read."""
        if not self.path.exists():
            return None
        try:
            torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            why = " ".join(str(error).split())[:200]
            _LOG.warning("%s: expected searches that were written down, got a damaged file (%s); they begin anew", self.path, why)
            return None
        return self.path

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the searches in view."""
        assert isinstance(module, SearchModule)
        module.keeps_flights = self.every is not None

    def on_progress(self, module: SearchModule, progress: Progress) -> None:
        """Write, if it is time to."""
        if self.every is None:
            return
        if progress.rounds < self._next - self.every:  # another engine, which counts from 0
            self._next = self.every
        if progress.rounds >= self._next:
            self._next = progress.rounds + self.every
            self._write(module.trainer)

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remove the file, and those of runs with other settings, which this one has replaced."""
        remove_checkpoints(self.folder)

    def _write(self, trainer: pl.Trainer) -> None:
        part = self.path.with_suffix(".ckpt.part")
        trainer.save_checkpoint(part, weights_only=True)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self.path)


def remove_checkpoints(folder: Path) -> None:
    """Remove what was written down of searches: all are over."""
    for path in folder.glob(".searches-*.ckpt*"):
        path.unlink(missing_ok=True)
