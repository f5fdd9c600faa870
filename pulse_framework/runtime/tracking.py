"""Experiment tracking: a run told to a logger as it goes on."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.logger import DummyLogger

from pulse_framework.files import write_atomic
from pulse_framework.runtime.callbacks import ResultWriter
from pulse_framework.runtime.curves import Curves
from pulse_framework.runtime.film import Film, read_film, thumbnail
from pulse_framework.runtime.module import Finished, SearchModule, SearchObserver
from pulse_framework.runtime.record import PICTURES, Record, begin, close, log_answer
from pulse_framework.runtime.replay import CURVES, FILM, ROWS, SHOWN, answers, files, lines, log_answers, table
from pulse_framework.search import Progress, Status

__all__ = ["Tracker"]

SECONDS = 10.0
"""Between two times that the curves are written down for a run that goes on in the folder."""


class Tracker(SearchObserver):
    """Logs a run. A logger that fails is reported once and left alone from then on: it must not cost the results.

    A run that goes on in its folder has the answers and curves of what was done before; its film is that of the first images.

    Args:
        settings: The resolved configuration, logged as hyper-parameters.
        writer: Has the folder, and the rows of the grid.
        logger: Any Lightning logger.
    """

    watches = True

    def __init__(self, settings: Mapping[str, Any], writer: ResultWriter, logger: Logger) -> None:
        self.settings, self.writer, self.logger = dict(settings), writer, logger
        self.table: list[list[Any]] = []
        self.answered = 0
        self.curves, self.film = Curves(), Film()
        self.failed = False
        self._folder, self._saved = writer.folder.folder, time.monotonic()
        self._old_film = b""

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the settings, and look up what was done before."""
        with self._guarded() as logger:
            known = lines(self._folder)
            self.table, self.answered = table(self._folder, known), len(answers(known))
            curves, film = self._folder / CURVES, self._folder / FILM
            if not self.writer.folder.overwrite:
                self.curves = Curves.read(curves.read_bytes()) if curves.exists() else Curves()
                self._old_film = film.read_bytes() if film.exists() else b""
            begin(logger, self.settings)
            if isinstance(logger, CSVLogger):  # whose file begins anew
                log_answers(logger, known)

    def on_progress(self, module: SearchModule, progress: Progress) -> None:
        """Keep pictures of the first searches."""
        if not self.failed and not self._old_film:
            with self._guarded():
                self.film.add(progress.snapshots)

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """Log one image's best sample, and keep its rows of the table."""
        with self._guarded() as logger:
            self._tabulate(finished)
            best = finished.answer.samples[0]
            if best.status is not Status.FAILED:
                self.curves.add(best)
                self.answered += 1
                metrics = {"psnr_db": best.psnr_db, "objective": best.objective, "steps": best.steps}
                log_answer(logger, self.answered, metrics)
            if time.monotonic() > self._saved + SECONDS and module.trainer.is_global_zero:
                self._save()

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log curves, film, table and grid; the table has the answers of all processes, curves and film those of the first."""
        if trainer.world_size > 1:
            with self._guarded():
                self.table = table(self._folder, lines(self._folder))
        self._end("success", write=trainer.is_global_zero)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Log what there is of a run that was stopped."""
        self._end("aborted", write=trainer.is_global_zero)

    def _tabulate(self, finished: Finished) -> None:
        for sample, result in enumerate(finished.answer.samples):
            if len(self.table) == ROWS:
                return
            numbers = (result.mse, result.psnr_db, result.steps, round(result.seconds, 4))
            shown = (finished.measurement, finished.pictures[sample], finished.degraded[sample])
            pictures = [thumbnail(picture) if _is_picture(picture) else None for picture in shown]
            kept = pictures if len(self.table) < SHOWN and result.status is not Status.FAILED else [None] * len(PICTURES)
            self.table.append([str(finished.source.path), sample, result.status.value, *numbers, *kept])

    def _save(self) -> None:
        write_atomic(self._folder / CURVES, self.curves.written())
        self._saved = time.monotonic()

    def _end(self, status: str, *, write: bool) -> None:
        with self._guarded() as logger:
            film = self._old_film or self.film.gif()
            if write:
                self._save()
                if film:
                    write_atomic(self._folder / FILM, film)
            record = Record(
                curves=self.curves.rows(),
                frames=read_film(film) if self._old_film else list(self.film),
                film=self._folder / FILM if film else None,
                grid=self.writer.grid() if self.writer.rows else None,
                table=self.table,
                files=files(self._folder),
            )
            record.log(logger)
            close(logger, status)

    @contextmanager
    def _guarded(self) -> Iterator[Any]:
        """The logger; once it has failed, one that logs nothing."""
        try:
            yield DummyLogger() if self.failed else self.logger
        except Exception as error:  # noqa: BLE001 - whatever a logger raises
            if not self.failed:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                sys.stderr.write(f"pulse: {type(self.logger).__name__} failed and is left out from here on ({why})\n")
            self.failed = True


def _is_picture(values: Any) -> bool:  # noqa: ANN401 - a measurement of any shape
    return values.ndim == 3 and values.shape[0] in (1, 3)
