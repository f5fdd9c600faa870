"""Processes of one run end together: where one is gone, the others do not search on for hours, or wait for it."""

import os
import signal
import threading
from typing import Any

import pytorch_lightning as pl

from pulse_framework.runtime.module import SearchModule, SearchObserver
from pulse_framework.runtime.ranks import is_started_from_outside, leads

__all__ = ["Together", "end_others"]

TORCHRUN = "TORCHELASTIC_RUN_ID"


class Together(SearchObserver):
    """Looks after the other processes of a run, and leaves SIGTERM to the commands.

    Lightning's own answer to SIGTERM waits for all processes, for ever where one is gone or waits itself.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember what SIGTERM does, before Lightning adds to it, and who has started this process."""
        self._sigterm = signal.getsignal(signal.SIGTERM)
        waited_for = TORCHRUN in os.environ or not (leads() or is_started_from_outside())
        self._parent = os.getppid() if waited_for else None

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Let SIGTERM do what it did."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)

    def on_progress(self, module: SearchModule, progress: object) -> None:
        """See whether the others are there.

        Raises:
            ConnectionError: The process that started this one is gone, or one that it started has failed.
        """
        if self._parent is not None and os.getppid() != self._parent:
            raise ConnectionError("trainer devices: expected the process that started this one, got one that is gone")
        for rank, process in enumerate(_started(module.trainer), 1):
            if process.poll():
                raise ConnectionError(
                    f"trainer devices: expected all processes to end well, got status {process.returncode} of rank {rank}"
                )


def end_others(trainer: pl.Trainer) -> None:
    """Kill the processes that this one has started: it has failed, and they would search on for nobody."""
    for process in _started(trainer):
        process.kill()


def _started(trainer: pl.Trainer) -> list[Any]:
    """Processes that Lightning has started here, by rank from 1."""
    return getattr(trainer.strategy.launcher, "procs", [])
