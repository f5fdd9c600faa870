"""What is logged of a run, under few metric names, into any Lightning logger.

Names: ``answer/psnr_db``, ``answer/objective`` and ``answer/steps`` of each answer; ``curve/...`` at every step, see ``curves``;
``search/image``, the search as pictures, at some of the steps; ``film``, the same as a video; ``grid`` and the table ``results``.
In W&B each group has an axis of its own (``answer/images``, ``curve/step``, ``search/step``): its global step may not go back.
"""

import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from pulse_framework.runtime.loggers import WandbRun

__all__ = ["COLUMNS", "PICTURES", "Record", "begin", "close", "log_answer"]

COLUMNS = ("input", "sample", "status", "mse", "psnr_db", "steps", "seconds")
PICTURES = ("measurement", "answer", "A(answer)")
AXES = {"answer": "images", "curve": "step", "search": "step"}


@dataclass
class Record:
    """What is known of a run at its end.

    Attributes:
        curves: One row a step.
        frames: Step and picture.
        film: The same as a GIF file.
        grid: Overview of the first images.
        table: Rows of ``COLUMNS`` and ``PICTURES``.
        files: What is stored as an artifact if that is asked for.
    """

    curves: Sequence[Mapping[str, float]] = ()
    frames: Sequence[tuple[int, Tensor]] = ()
    film: Path | None = None
    grid: Tensor | None = None
    table: list[list[Any]] = field(default_factory=list)
    files: Sequence[Path] = ()

    def log(self, logger: Logger) -> None:
        """Log all of it."""
        for step, metrics in enumerate(self.curves):
            _log(logger, "curve", step, metrics)
        if isinstance(logger, TensorBoardLogger):
            self._images(logger)
        if isinstance(logger, WandbLogger):
            self._media(logger)

    @rank_zero_only
    def _images(self, logger: TensorBoardLogger) -> None:
        if self.grid is not None:
            logger.experiment.add_image("grid", self.grid, 0)
        for step, picture in self.frames:
            logger.experiment.add_image("search/image", picture, step)

    @rank_zero_only
    def _media(self, logger: WandbLogger) -> None:
        import wandb

        run = logger.experiment
        for step, picture in self.frames:
            run.log({"search/image": wandb.Image(_pixels(picture)), "search/step": step})
        if self.film is not None:
            run.log({"film": wandb.Video(str(self.film), format="gif")})
        rows = [[wandb.Image(_pixels(cell)) if isinstance(cell, Tensor) else cell for cell in row] for row in self.table]
        run.log({"results": wandb.Table(columns=[*COLUMNS, *PICTURES], data=rows)})
        if self.grid is not None:
            run.log({"grid": wandb.Image(_pixels(self.grid))})
        if isinstance(logger, WandbRun) and logger.artifacts:
            artifact = wandb.Artifact(f"results-{run.id}", type="results")
            for file in self.files:
                artifact.add_file(str(file), name=file.name)
            run.log_artifact(artifact)


def begin(logger: Logger, settings: Mapping[str, Any]) -> None:
    """Log the settings, and say which axis belongs to what."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory .* is not empty")  # of a run that goes on
        logger.log_hyperparams(dict(settings))
    if isinstance(logger, WandbLogger):
        for group, axis in AXES.items():
            logger.experiment.define_metric(f"{group}/*", step_metric=f"{group}/{axis}")


def log_answer(logger: Logger, number: int, metrics: Mapping[str, float]) -> None:
    """Log what became of the image of this number, from 1."""
    _log(logger, "answer", number, metrics)


def _log(logger: Logger, group: str, step: int, metrics: Mapping[str, float]) -> None:
    """Log numbers against their own axis: W&B has one global step that may not go back, the others take ours."""
    named = {f"{group}/{name}": value for name, value in metrics.items()}
    if isinstance(logger, WandbLogger):
        logger.experiment.log({**named, f"{group}/{AXES[group]}": step})
    else:
        logger.log_metrics(named, step=step)


def _pixels(picture: Tensor) -> Any:  # noqa: ANN401 - an array of 8-bit values, as W&B takes it
    return (picture.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()


@rank_zero_only
def close(logger: Logger, status: str) -> None:
    """Close the logger of a run that is over; say how to upload what W&B has not got."""
    logger.finalize(status)
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        left, folder = run.offline, Path(run.dir).parent
        try:
            run.finish(exit_code=0 if status == "success" else 1)
        except TimeoutError:
            left = True
        if left:
            sys.stderr.write(f"pulse: to upload the run to W&B: wandb sync {shlex.join(map(str, _parts(folder)))}\n")


def _parts(folder: Path) -> list[Path]:
    """Folders of a run of W&B, ``[offline-]run-TIME-ID``, that have not been uploaded, oldest first; this one is the last."""
    same = [path for path in folder.parent.glob(f"offline-run-*-{folder.name.split('-')[-1]}") if path != folder]
    return [*sorted(path for path in same if not list(path.glob("*.wandb.synced"))), folder]
