"""Experiment tracking: curves, table and grid of a run, into any Lightning logger, under few metric names.

Names: ``answer/psnr_db``, ``answer/objective`` and ``answer/steps`` of each answer as it comes, and at the end
``curve/psnr_db`` (mean over the images), ``curve/psnr_db_worst`` and ``curve/objective`` of the best iterate so far at every
step. A search that stopped early keeps its last value in the curves.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from pulse_framework.runtime.callbacks import ResultWriter
from pulse_framework.runtime.module import Finished, SearchModule, SearchObserver
from pulse_framework.search import Status, psnr_db

__all__ = ["Tracker", "csv_logger", "tensorboard_logger", "wandb_logger"]


def csv_logger(folder: str) -> CSVLogger:
    """Curves as ``FOLDER/csv/metrics.csv``."""
    return CSVLogger(folder, name="", version="csv")


def tensorboard_logger(folder: str) -> TensorBoardLogger:
    """Curves and grid in ``FOLDER/tensorboard``."""
    return TensorBoardLogger(folder, name="", version="tensorboard")


def wandb_logger(folder: str, project: str = "pulse", offline: bool | None = None) -> WandbLogger:
    """A Weights & Biases run in ``FOLDER/wandb``; offline when there is no key, unless told otherwise.

    Args:
        folder: Where W&B keeps its files.
        project: Name of the project.
        offline: None: offline exactly when there is no API key (or when the variable ``WANDB_MODE`` says so).
    """
    import wandb

    if offline is None:
        offline = not wandb.login(prompt=False, verify=False)
    Path(folder).mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(silent=True, console="off")
    # Its own argument ``offline`` would set a variable of the environment, which W&B has read by now.
    mode: dict[str, Any] = {"mode": "offline"} if offline else {}
    logger = WandbLogger(project=project, save_dir=folder, log_model=False, settings=settings, **mode)
    logger._wandb_init.pop("anonymous", None)  # W&B warns of it, set or not
    return logger


class Tracker(SearchObserver):
    """Logs a run. A logger that fails is reported once and left alone from then on: it must not cost the results.

    Args:
        settings: The resolved configuration, logged as hyper-parameters.
        writer: Has the rows of the grid.
        logger: Any Lightning logger.
    """

    COLUMNS = ("input", "sample", "status", "mse", "psnr_db", "steps", "seconds")

    def __init__(self, settings: Mapping[str, Any], writer: ResultWriter, logger: Logger) -> None:
        self.settings, self.writer, self.logger = dict(settings), writer, logger
        self.table: list[list[Any]] = []
        self.traces: list[Tensor] = []
        self.failed = False

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the settings."""
        with self._guarded() as logger:
            logger.log_hyperparams(self.settings)
            if isinstance(logger, WandbLogger):
                logger.experiment.define_metric("curve/*", step_metric="curve/step")
                logger.experiment.define_metric("answer/*", step_metric="answer/images")

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """Log one image's best sample, and keep its rows of the table."""
        for sample, result in enumerate(finished.answer.samples):
            numbers = (result.mse, result.psnr_db, result.steps, round(result.seconds, 4))
            self.table.append([str(finished.source.path), sample, result.status.value, *numbers])
        best = finished.answer.samples[0]
        if best.status is Status.FAILED:
            return
        self.traces.append(best.trace.double().nan_to_num(nan=torch.inf).cummin(0).values)
        metrics = {"psnr_db": best.psnr_db, "objective": best.objective, "steps": best.steps}
        with self._guarded() as logger:
            _log(logger, "answer", "images", len(self.traces), metrics)

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log curves, table and grid."""
        with self._guarded() as logger:
            for step, metrics in enumerate(self.curves()):
                _log(logger, "curve", "step", step, metrics)
            if self.writer.rows and isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("grid", self.writer.grid(), 0)
            if isinstance(logger, WandbLogger):
                logger.log_table("results", columns=list(self.COLUMNS), data=self.table)
                if self.writer.rows:
                    logger.log_image("grid", [self.writer.grid()])
            self._close(logger, "success")

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Close the logger of a run that was stopped."""
        with self._guarded() as logger:
            self._close(logger, "aborted")

    @staticmethod
    @rank_zero_only
    def _close(logger: Logger, status: str) -> None:
        logger.finalize(status)
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            offline, folder = run.offline, Path(run.dir).parent
            run.finish(exit_code=0 if status == "success" else 1)
            if offline:
                sys.stderr.write(f"pulse: to upload the offline run: wandb sync {shlex.quote(str(folder))}\n")

    @contextmanager
    def _guarded(self) -> Iterator[Any]:
        """The logger; once it has failed, one that logs nothing."""
        try:
            yield DummyLogger() if self.failed else self.logger
        except Exception as error:  # noqa: BLE001 - whatever a logger raises
            self.failed = True
            why = " ".join(f"{type(error).__name__}: {error}".split())
            sys.stderr.write(f"pulse: {type(self.logger).__name__} failed and is left out from here on ({why})\n")

    def curves(self) -> list[dict[str, float]]:
        """Best objective and consistency so far at each step, over all images."""
        if not self.traces:
            return []
        length = max(len(trace) for trace in self.traces)
        padded = torch.stack([torch.cat([trace, trace[-1:].expand(length - len(trace), -1)]) for trace in self.traces])
        rows = []
        for objective, mse in zip(padded[..., 0].T.tolist(), padded[..., 1].T.tolist(), strict=True):
            db = [psnr_db(value) for value in mse]
            rows.append({"objective": sum(objective) / len(objective), "psnr_db": sum(db) / len(db), "psnr_db_worst": min(db)})
        return rows


def _log(logger: Logger, group: str, axis: str, step: int, metrics: Mapping[str, float]) -> None:
    """Log numbers against their own axis: W&B has one global step that may not go back, the others take ours."""
    named = {f"{group}/{name}": value for name, value in metrics.items()}
    if isinstance(logger, WandbLogger):
        logger.log_metrics({**named, f"{group}/{axis}": step})
    else:
        logger.log_metrics(named, step=step)
