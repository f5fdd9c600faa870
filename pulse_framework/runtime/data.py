"""Images as batches of measurements. A batch is a queue for the engine and holds one measurement shape."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pulse_framework.images import ReadError, read_image
from pulse_framework.runtime.intake import Source, take_in

__all__ = ["MeasurementData", "as_channels"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey (ITU-R BT.601), for generators of grey images."""


class _Queues(Dataset[dict[str, Any]]):
    """Each item is a whole queue: the indices of its images, their measurements, and what could not be read."""

    def __init__(self, queues: Sequence[Sequence[Source]], channels: int) -> None:
        self.queues, self.channels = queues, channels

    def __len__(self) -> int:
        return len(self.queues)

    def __getitem__(self, position: int) -> dict[str, Any]:
        read: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        for source in self.queues[position]:
            try:
                read[source.index] = as_channels(read_image(source.path), self.channels)
            except ReadError as error:
                errors[source.index] = str(error)
        measurements = torch.stack(list(read.values())) if read else torch.empty(0)
        return {"indices": list(read), "measurements": measurements, "errors": errors}


class MeasurementData(pl.LightningDataModule):
    """Measurements from files and folders.

    Headers are read at construction, so that what cannot be processed is known before any work; pixels are read queue by
    queue. Each process of a distributed run takes every n-th image, without padding.

    Args:
        inputs: Files and folders; folders are searched recursively.
        queue: Images handed to the engine at once.
        workers: Processes that read ahead.
    """

    def __init__(self, inputs: Iterable[str | Path], queue: int = 64, workers: int = 0) -> None:
        super().__init__()
        if queue < 1 or workers < 0:
            raise ValueError(f"data: expected queue >= 1 and workers >= 0, got queue={queue}, workers={workers}")
        self.sources, self.rejected = take_in(inputs)
        self.queue, self.workers, self.channels = queue, workers, 3
        self._chosen = list(self.sources)

    def choose(self, sources: Iterable[Source], channels: int) -> None:
        """Restrict the run to some of the sources, read with the given number of channels (1 or 3)."""
        self._chosen, self.channels = list(sources), channels

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Queues of at most ``queue`` images of one shape."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        by_shape: dict[tuple[int, int], list[Source]] = {}
        for source in self._chosen[rank::world]:
            by_shape.setdefault(source.shape, []).append(source)
        queues = [group[i : i + self.queue] for group in by_shape.values() for i in range(0, len(group), self.queue)]
        return DataLoader(_Queues(queues, self.channels), batch_size=None, num_workers=self.workers)


def as_channels(image: Tensor, channels: int) -> Tensor:
    """RGB as one grey channel, or grey repeated, where measurements have so many channels; else as it is."""
    if channels == 1 and len(image) == 3:
        return (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    return image.expand(channels, -1, -1) if len(image) == 1 else image
