"""Where metrics can go: Lightning's loggers, each below the output folder of the run."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from pulse_framework.runtime.surroundings import has_wandb_key, unreachable, wandb_url

__all__ = ["WandbRun", "csv_logger", "tensorboard_logger", "wandb_logger"]

INIT_SECONDS, FINISH_SECONDS = 20.0, 600.0
"""How long W&B's server has to open a run, and to take what is left of it at its end."""


class WandbRun(WandbLogger):
    """Weights & Biases.

    Attributes:
        artifacts: Whether results and latents are stored there, too, as an artifact.
    """

    artifacts = False


def csv_logger(folder: str) -> CSVLogger:
    """Curves as ``FOLDER/csv/metrics.csv``."""
    return CSVLogger(folder, name="", version="csv")


def tensorboard_logger(folder: str) -> TensorBoardLogger:
    """Curves, grid and the search as images in ``FOLDER/tensorboard``."""
    return TensorBoardLogger(folder, name="", version="tensorboard")


def wandb_logger(
    folder: str,
    project: str = "pulse",
    offline: bool | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    artifacts: bool = False,
    run_id: str | None = None,
) -> WandbRun:
    """A Weights & Biases run in ``FOLDER/wandb``; offline when there is no key or no network, unless told otherwise.

    A run that goes on in its folder goes on in W&B under the same id; the parts of it that were offline are joined by one
    ``wandb sync`` that names them all.

    Args:
        folder: Where W&B keeps its files; its last part names the run.
        project: Name of the project.
        offline: None: as the variable ``WANDB_MODE`` says, else exactly when there is no key or no answer from the server.
        group: Name that the runs of a sweep have in common.
        tags: Of the run.
        artifacts: Whether results and latents are stored there, too.
        run_id: None: that of the folder, kept in ``FOLDER/wandb/run-id``.
    """
    import wandb

    place, mode = Path(folder) / "wandb", os.environ.get("WANDB_MODE")
    place.mkdir(parents=True, exist_ok=True)
    if offline is None:
        offline = mode == "offline" if mode else not has_wandb_key() or bool(unreachable(wandb_url()))
    settings = wandb.Settings(
        silent=True,
        console="off",
        reinit="create_new",  # a sweep has many runs in one process
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )
    # Its own argument ``offline`` would set a variable of the environment, which W&B has read by now.
    chosen: dict[str, Any] = {"mode": "offline"} if offline else {}
    logger = WandbRun(
        name=Path(folder).resolve().name,
        project=project,
        save_dir=folder,
        id=run_id or _identity(place / "run-id"),
        log_model=False,
        settings=settings,
        group=group,
        tags=list(tags) or None,
        **chosen,
    )
    logger._wandb_init.pop("anonymous", None)  # W&B warns of it, set or not
    logger.artifacts = artifacts
    return logger


def _identity(file: Path) -> str:
    """The id that is kept in a file, made at the first call."""
    if not file.exists():
        file.write_text(secrets.token_hex(4))
    return file.read_text().strip()
