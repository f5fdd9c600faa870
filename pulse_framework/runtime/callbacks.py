"""Observers of a run: results to disk, and progress to the terminal."""

import contextlib
import logging
import math
import time
from array import array
from collections import Counter
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from pulse_framework.grid import grid
from pulse_framework.images import ReadError, write_png
from pulse_framework.provenance import COMPOSITE, png_text, said
from pulse_framework.runtime.data import MeasurementData
from pulse_framework.runtime.intake import Rejected, Source
from pulse_framework.runtime.module import Finished, SearchModule, SearchObserver
from pulse_framework.runtime.outputs import OutputFolder
from pulse_framework.search import Progress, Status

__all__ = ["Narrator", "ProgressBar", "ResultWriter"]

_LOG = logging.getLogger(__name__)

GRID = "grid.png"
GRID_CELL = 128
GRID_ROWS = 16
"""Images shown in ``grid.png``; the others are in their own files."""


class ResultWriter(SearchObserver):
    """Writes every answer as it is found, and the grid at the end.

    Attributes:
        counts: How many answers have each status (of the best sample), and how many inputs were in error.
        rows: Input, answers and A(answers) of the first images, for the grid, by their index; measurements that are no pictures
            are left out. At the end also those of images that an earlier run or another process has answered.
        written: Pictures written, in order.
        errors: Inputs that could not be processed.
        best_db: Consistency of the best answer of each image, in dB.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.rows: dict[int, list[Tensor]] = {}
        self.written: list[str] = []
        self.errors: list[Rejected] = []
        self.best_db = array("d")

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """Write one image's samples and their lines."""
        self.written += [str(path) for path in self.folder.write_answer(finished)]
        best = finished.answer.samples[0]
        self.counts[best.status.value] += 1
        self.best_db.append(best.psnr_db)
        if best.status is not Status.FAILED:
            sound = [i for i, result in enumerate(finished.answer.samples) if result.status is not Status.FAILED]
            shown = [finished.measurement, *(finished.pictures[i] for i in sound), *(finished.degraded[i] for i in sound)]
            self.rows = _first({**self.rows, finished.source.index: _row(shown)})

    def grid(self) -> Tensor:
        """Input, answers and A(answers) of the first images, one row an image."""
        return grid([row for _, row in sorted(self.rows.items())], cell=GRID_CELL)

    def on_unreadable(self, module: SearchModule, source: Source, error: str) -> None:
        """Record an input whose pixels could not be read."""
        self.reject(Rejected(source.path, error))

    def reject(self, rejected: Rejected) -> None:
        """Record an input that could not be processed."""
        self.folder.write_rejected(rejected)
        self.errors.append(rejected)
        self.counts["error"] += 1

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remove an older ``grid.png``: what is there at the end is whole."""
        if trainer.is_global_zero:
            (self.folder.folder / GRID).unlink(missing_ok=True)

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write ``grid.png``."""
        assert isinstance(module, SearchModule)
        if trainer.world_size > 1:
            self._gather(trainer.world_size)
        if trainer.is_global_zero:
            self.folder.merge()
            self.draw(module, trainer.datamodule)  # type: ignore[attr-defined]

    def _gather(self, world: int) -> None:
        """Wait for all processes, and know what they know.

        Raises:
            ConnectionError: One of them is gone.
        """
        found: list[tuple[Counter[str], list[str], list[Rejected], list[float]]] = [(Counter(), [], [], [])] * world
        try:
            torch.distributed.all_gather_object(found, (self.counts, self.written, self.errors, list(self.best_db)))
        except RuntimeError as error:
            raise ConnectionError("trainer devices: expected all processes to do their share, got one that is gone") from error
        self.counts = sum((counts for counts, *_ in found), Counter())
        self.written = [path for _, written, *_ in found for path in written]
        self.errors = [error for *_, errors, _ in found for error in errors]
        self.best_db = array("d", [db for *_, best in found for db in best])

    def draw(self, module: SearchModule, data: MeasurementData) -> None:
        """Write ``grid.png``, of the first images of all that the folder has answers to."""
        self._complete(module, data)
        if self.rows:
            write_png(self.grid(), self.folder.folder / GRID, png_text(said(self.folder.generator), COMPOSITE))

    @property
    def is_drawn(self) -> bool:
        """Whether there is a ``grid.png``."""
        return (self.folder.folder / GRID).exists()

    def _complete(self, module: SearchModule, data: MeasurementData) -> None:
        """Add the rows that are lacking from the latents of answers made before."""
        rows: dict[int, list[Tensor]] = {}
        for source in data.sources:
            if len(rows) == GRID_ROWS:
                break
            if source.index in self.rows:
                rows[source.index] = self.rows[source.index]
            elif samples := self.folder.latents(source):
                with contextlib.suppress(ReadError):  # what cannot be read has no row
                    rows[source.index] = _row(module.shown(data.group(source), data.measurement(source), samples))
        self.rows = rows


class ProgressBar(SearchObserver):
    """Images done, iterates evaluated, consistency and time left, on the standard error stream.

    Args:
        total: Images to be answered.
    """

    def __init__(self, total: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[steps]} steps, {task.fields[db]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self.bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("search", total=total, steps=0, db="")

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the bar."""
        self.bar.start()

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """One image more."""
        self.bar.advance(self.task)

    def on_unreadable(self, module: SearchModule, source: Source, error: str) -> None:
        """One image more."""
        self.bar.advance(self.task)

    def on_progress(self, module: SearchModule, progress: Progress) -> None:
        """Show steps and consistency."""
        self.bar.update(self.task, steps=progress.evaluations, db=f"{progress.psnr_db:.1f} dB")

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Hide the bar."""
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Hide the bar."""
        self.bar.stop()


class Narrator(SearchObserver):
    """Logs a run at level INFO, for programs: its start, every answer, now and then how far it is, and its end.

    A record's ``fields`` are the numbers: ``event`` is ``start``, ``answer``, ``unreadable``, ``progress`` or ``end``.

    Args:
        total: Images to be answered.
        every: Seconds between two records of progress.
    """

    def __init__(self, total: int, every: float = 10.0) -> None:
        self.total, self.every = total, every
        self._done, self._told = 0, 0.0

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say what is to be done, and where."""
        self._told = time.monotonic()
        where = {"device": str(module.device), "precision": str(trainer.precision)}
        _tell(f"{self.total} images to search for", event="start", images=self.total, **where)

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """Say what became of an image."""
        self._done += 1
        best = finished.answer.samples[0]
        known = {"input": str(finished.source.path), "status": best.status.value, "samples": len(finished.answer.samples)}
        numbers = {"psnr_db": _finite(best.psnr_db), "steps": best.steps, "seconds": round(best.seconds, 4)}
        _tell(f"{finished.source.path}: {best.status.value}", event="answer", done=self._done, **known, **numbers)

    def on_unreadable(self, module: SearchModule, source: Source, error: str) -> None:
        """Say that an input could not be read."""
        self._done += 1
        _tell(error, event="unreadable", input=str(source.path), done=self._done)

    def on_progress(self, module: SearchModule, progress: Progress) -> None:
        """Say how far the run is, if it is time to."""
        if time.monotonic() - self._told >= self.every:
            self._told = time.monotonic()
            known = {"active": progress.active, "evaluations": progress.evaluations, "psnr_db": _finite(progress.psnr_db)}
            _tell(f"{self._done} of {self.total} images done", event="progress", done=self._done, images=self.total, **known)

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say that it is over."""
        _tell(f"{self._done} images done", event="end", done=self._done)


def _tell(text: str, **fields: str | float | None) -> None:
    _LOG.info("%s", text, extra={"fields": fields})


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _first(rows: dict[int, list[Tensor]]) -> dict[int, list[Tensor]]:
    return dict(sorted(rows.items())[:GRID_ROWS])


def _row(pictures: Sequence[Tensor]) -> list[Tensor]:
    """What of it can be seen."""
    return [_rgb(picture) for picture in pictures if picture.ndim == 3 and picture.shape[0] in (1, 3)]


def _rgb(picture: Tensor) -> Tensor:
    """A picture as three channels on the CPU, in float32."""
    return picture.detach().cpu().to(torch.float32).expand(3, -1, -1)
