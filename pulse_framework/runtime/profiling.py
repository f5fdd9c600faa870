"""Where the time of a run goes: a trace for a browser, and tables to read."""

import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.profiler import ProfilerActivity, profile

from pulse_framework.files import write_atomic
from pulse_framework.runtime.module import SearchModule, SearchObserver
from pulse_framework.search import PREFIX, Progress

__all__ = ["Profile"]

_LOG = logging.getLogger(__name__)

LOOKS = 50
"""Looks of the engine (steps on a CPU, tens of steps elsewhere) that are recorded: a trace has thousands of lines for each."""

OPERATIONS = 30


class Profile(SearchObserver):
    """Records the beginning of a run: ``profile.json.gz``, a Chrome trace, and ``profile.txt``, tables of parts and operations.

    A run that is stopped has the profile of what was recorded until then; one whose profile cannot be written goes on without.

    Args:
        folder: Where they are written.
        looks: How much is recorded, in looks of the engine; see ``LOOKS``.
    """

    def __init__(self, folder: Path, looks: int = LOOKS) -> None:
        self.folder, self.looks = folder, looks
        self._left, self._begun = 0, 0.0
        self._whole: float | None = None
        self._recorder: profile | None = None

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin."""
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # its library tells the error stream of every start and stop
        cuda = [ProfilerActivity.CUDA] if module.device.type == "cuda" else []
        self._left, self._whole, self._recorder = self.looks, None, profile(activities=[ProfilerActivity.CPU, *cuda])
        self._recorder.start()
        self._begun = time.perf_counter()

    def on_progress(self, module: SearchModule, progress: Progress) -> None:
        """End after enough looks."""
        self._left -= 1
        if self._left == 0:
            self._write()

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """End with a short run."""
        self._write()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """End with a run that was stopped."""
        self._write()

    def _write(self) -> None:
        """End and write; what was interrupted in this is done again. That it fails is told, and costs the run nothing."""
        try:
            self._write_both()
        except (OSError, RuntimeError) as error:
            why = " ".join(str(error).split())
            _LOG.warning("%s: expected a folder that a profile can be written to, got: %s; the run goes on", self.folder, why)
        self._recorder = None

    def _write_both(self) -> None:
        if self._recorder is None:
            return
        if self._whole is None:
            self._recorder.stop()
            self._whole = time.perf_counter() - self._begun
        averages = self._recorder.key_averages()
        device = any(event.self_device_time_total for event in averages)
        key = "self_device_time_total" if device else "self_cpu_time_total"
        operations = averages.table(sort_by=key, row_limit=OPERATIONS, max_name_column_width=60)
        parts = _parts(averages, self._whole, device=device)
        write_atomic(self.folder / "profile.txt", f"{parts}\n{operations}".encode())
        with tempfile.TemporaryDirectory() as name:
            trace = Path(name) / "profile.json.gz"
            self._recorder.export_chrome_trace(str(trace))
            write_atomic(self.folder / trace.name, trace.read_bytes())


def _parts(averages: Any, whole: float, *, device: bool) -> str:  # noqa: ANN401 - a private list of torch's
    """A line for each part of a search: how often, and how many of all seconds, on the device where there is one."""
    found = [event for event in averages if event.key.startswith(PREFIX) and event.device_type == torch.autograd.DeviceType.CPU]
    times = {event.key: (event.device_time_total if device else event.cpu_time_total) / 1e6 for event in found}
    if device:
        whole = sum(event.self_device_time_total for event in averages) / 1e6
    times["everything else"] = whole - sum(times.values())
    counts = {event.key: event.count for event in found}
    lines = [f"{'part':<24}{'calls':>8}{'seconds':>12}{'share':>8}"]
    for name, seconds in sorted(times.items(), key=lambda item: -item[1]):
        share = seconds / whole if whole else 0.0
        lines.append(f"{name.removeprefix(PREFIX):<24}{counts.get(name, ''):>8}{seconds:>12.4f}{share:>8.1%}")
    return "\n".join([*lines, f"{'in all':<32}{whole:>12.4f}"]) + "\n"
