"""A run shared out by Ray: parts of the images go to whichever worker is free, and this process writes what comes back.

Since an image's answer depends on nothing but image, settings and seed, a part whose worker died is given to another one.
"""

import contextlib
import importlib.util
import io
import itertools
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pytorch_lightning as pl
import torch

from pulse_framework.runtime.data import MeasurementData
from pulse_framework.runtime.intake import Source
from pulse_framework.runtime.module import Finished, SearchModule, SearchObserver
from pulse_framework.runtime.trainer import predict

__all__ = ["RayEngine", "run_here"]

AHEAD = 2
"""Parts given out at once for each worker that there is: none waits for work, and a cluster that can grow sees a reason to."""


def run_here(
    make_trainer: Callable[..., pl.Trainer], callbacks: Sequence[pl.Callback], module: SearchModule, data: MeasurementData
) -> None:
    """Search under Lightning's trainer in this process, and those that it starts."""
    predict(make_trainer(callbacks=callbacks), module, data)


class RayEngine:
    """Shares a run out to the workers of a Ray cluster, which may come and go.

    Workers read the inputs, by their paths; only this process writes, so what is promised of an output folder holds.

    Args:
        address: Of a cluster; None: what ``RAY_ADDRESS`` names, or else one that is started on this machine for this run.
        workers: Of a cluster that is started here; None: as many as there are cores.
        part: Images that a worker gets at once.
        cpus: Of each worker; also its threads.
        gpus: Of each worker.
        retries: Times that a part is given out again because its worker died.

    Raises:
        ValueError: A number is out of range, workers are wanted of a cluster that is there already, or Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        part: int = 16,
        cpus: float = 1.0,
        gpus: float = 0.0,
        retries: int = 3,
    ) -> None:
        if part < 1 or cpus <= 0 or gpus < 0 or retries < 0 or (workers is not None and workers < 1):
            raise ValueError(
                "engine ray: expected part >= 1, cpus > 0, gpus >= 0, retries >= 0 and workers >= 1, got "
                f"{part=}, {cpus=}, {gpus=}, {retries=}, {workers=}"
            )
        if importlib.util.find_spec("ray") is None:
            raise ValueError("engine ray: expected Ray, which is not installed; run pip install 'pulse-latent[ray]'")
        if workers is not None and (address or os.environ.get("RAY_ADDRESS")):
            raise ValueError(f"engine ray: expected workers=null with a cluster that is there, got {workers}; leave it out")
        self.address, self.workers, self.part = address, workers, part
        self.cpus, self.gpus, self.retries = cpus, gpus, retries

    def __call__(
        self,
        make_trainer: Callable[..., pl.Trainer],
        callbacks: Sequence[pl.Callback],
        module: SearchModule,
        data: MeasurementData,
    ) -> None:
        """Search on the cluster; observers hear of answers here, in the order in which they come.

        Raises:
            ConnectionError: A part's workers died more often than ``retries``, or the cluster is lost.
        """
        trainer = module.trainer = make_trainer(callbacks=callbacks)
        trainer.datamodule = data  # type: ignore[attr-defined]
        observers = [callback for callback in callbacks if isinstance(callback, SearchObserver)]
        watches = any(observer.watches for observer in observers)
        for observer in observers:
            observer.on_predict_start(trainer, module)
        try:
            with self._cluster():
                for heard in self._heard((make_trainer, module, watches), data.parts(self.part)):
                    for name, arguments in heard:
                        for observer in observers:
                            getattr(observer, name)(module, *arguments)
        except BaseException as error:
            for observer in observers:
                observer.on_exception(trainer, module, error)
            raise
        for observer in observers:
            observer.on_predict_end(trainer, module)

    def _heard(self, job: tuple[Any, ...], parts: Iterator[MeasurementData]) -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
        """What each part's observer heard, as soon as the part is done."""
        import ray

        shared = ray.put(job)
        search = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)(_search)
        out: list[Any] = []
        while True:
            free = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 0) / self.cpus)) - len(out)
            out += [search.remote([shared], part) for part in itertools.islice(parts, max(0, free))]
            if not out:
                return
            (done, *_), out = ray.wait(out, num_returns=1)
            try:
                written = ray.get(done)
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                why = " ".join(str(error).split()).rstrip(".")
                raise ConnectionError(f"engine ray: expected workers that live, got {why}") from error
            yield torch.load(io.BytesIO(written), map_location="cpu", weights_only=False)  # which our own worker wrote

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[None]:
        """A connection to the cluster; Ray's own answer to SIGTERM is put aside, as the commands have one."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        mine = signal.getsignal(signal.SIGTERM)
        ray.init(self.address, num_cpus=self.workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, mine)
        try:
            yield
        finally:
            ray.shutdown()


class _Listener(SearchObserver):
    """Keeps what it hears of a part, to be sent."""

    def __init__(self, watches: bool) -> None:
        self.watches = watches
        self.heard: list[tuple[str, tuple[Any, ...]]] = []

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        self.heard.append(("on_answer", (finished,)))

    def on_unreadable(self, module: SearchModule, source: Source, error: str) -> None:
        self.heard.append(("on_unreadable", (source, error)))


@lru_cache(maxsize=1)
def _held(shared: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """What all parts of a run have in common, which a worker unpacks once."""
    import ray

    job: tuple[Any, ...] = ray.get(shared)
    return job


def _search(shared: list[Any], part: MeasurementData) -> bytes:
    """In a worker: what is heard of a part."""
    make_trainer, module, watches = _held(shared[0])
    listener = _Listener(watches)
    predict(make_trainer(callbacks=[listener]), module, part)
    written = io.BytesIO()
    torch.save(listener.heard, written)
    return written.getvalue()
