"""Images as batches of measurements. A batch is a queue for the engine: measurements of one shape, made by one operator."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pulse_framework.images import MAX_PIXELS, ReadError, read_image
from pulse_framework.runtime.intake import Source, take_in
from pulse_framework.runtime.measurements import read_measurement

__all__ = ["Group", "MeasurementData", "as_channels"]

Group = tuple[int, ...] | str
"""What an operator is known by: the shape of the inputs, where all of one shape have the same operator, or a name."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey (ITU-R BT.601), for generators of grey images."""


class _Queues(Dataset[dict[str, Any]]):
    """Each item is a whole queue: its operator's group, indices of its images, their measurements, and what could not be read."""

    def __init__(self, queues: Sequence[tuple[Group, Sequence[Source]]], channels: Mapping[Group, int], max_pixels: int) -> None:
        self.queues, self.channels, self.max_pixels = queues, channels, max_pixels

    def __len__(self) -> int:
        return len(self.queues)

    def __getitem__(self, position: int) -> dict[str, Any]:
        read: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        group, sources = self.queues[position]
        for source in sources:
            try:
                read[source.index] = _read(source, self.channels.get(group, 3), self.max_pixels)
            except ReadError as error:
                errors[source.index] = str(error)
        measurements = torch.stack(list(read.values())) if read else torch.empty(0)
        return {"group": group, "indices": list(read), "measurements": measurements, "errors": errors}


class MeasurementData(pl.LightningDataModule):
    """Measurements from files and folders.

    Headers are read at construction, so that what cannot be processed is known before any work; pixels are read queue by
    queue. Each process of a distributed run takes every n-th image of those that the first one chose, without padding.

    Args:
        inputs: Files and folders; folders are searched recursively.
        queue: Images handed to the engine at once.
        workers: Processes that read ahead.
        max_pixels: Of the largest picture that is read.

    Attributes:
        sources: What was found, in order.
        rejected: What cannot be processed.
        chosen: The sources that the run is about, by index.
    """

    def __init__(self, inputs: Iterable[str | Path], queue: int = 64, workers: int = 0, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__()
        if queue < 1 or workers < 0 or max_pixels < 1:
            given = f"queue={queue}, workers={workers}, max_pixels={max_pixels}"
            raise ValueError(f"data: expected queue >= 1, workers >= 0 and max_pixels >= 1, got {given}")
        self.sources, self.rejected = take_in(inputs, max_pixels)
        self.queue, self.workers, self.max_pixels = queue, workers, max_pixels
        self.channels: dict[Group, int] = {}
        self.groups: dict[int, Group] = {}
        self.chosen = {source.index: source for source in self.sources}

    def choose(self, sources: Iterable[Source], groups: Mapping[int, Group], channels: Mapping[Group, int]) -> None:
        """Restrict the run to some of the sources.

        Args:
            sources: Those that are left.
            groups: Group of each source's operator, by index; its shape where there is none.
            channels: Channels, 1 or 3, that the pictures of a group are read with; 3 where there is none.
        """
        self.chosen = {source.index: source for source in sources}
        self.groups, self.channels = dict(groups), dict(channels)

    def parts(self, size: int) -> Iterator["MeasurementData"]:
        """What was chosen as runs of their own, of at most ``size`` images of one group each."""
        for group, sources in self._queues(list(self.chosen.values()), size):
            part = MeasurementData((), queue=size, workers=self.workers, max_pixels=self.max_pixels)
            own = {source.index: self.groups[source.index] for source in sources if source.index in self.groups}
            part.choose(sources, own, {group: self.channels[group]} if group in self.channels else {})
            yield part

    def group(self, source: Source) -> Group:
        """What the operator of a source is known by."""
        return self.groups.get(source.index, source.shape)

    def measurement(self, source: Source) -> Tensor:
        """The measurement of a source, as searches have it.

        Raises:
            ReadError: It cannot be read.
        """
        return _read(source, self.channels.get(self.group(source), 3), self.max_pixels)

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Queues of at most ``queue`` images of one group."""
        chosen, world = list(self.chosen.values()), 1
        if self.trainer:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            known = {source.index: source for source in (*self.sources, *chosen)}
            indices = self.trainer.strategy.broadcast([source.index for source in chosen])
            chosen = [known[index] for index in indices[rank::world]]
        queues = self._queues(chosen, self.queue)
        if world > 1:  # all meet at the end, so nobody's share may be left out
            queues = queues or [((), [])]
        return DataLoader(_Queues(queues, self.channels, self.max_pixels), batch_size=None, num_workers=self.workers)

    def _queues(self, sources: Sequence[Source], size: int) -> list[tuple[Group, list[Source]]]:
        """Sources by group, at most so many together."""
        members: dict[Group, list[Source]] = {}
        for source in sources:
            members.setdefault(self.group(source), []).append(source)
        return [(group, some[i : i + size]) for group, some in members.items() for i in range(0, len(some), size)]


def _read(source: Source, channels: int, max_pixels: int) -> Tensor:
    return as_channels(read_image(source.path, max_pixels), channels) if source.picture else read_measurement(source.path)


def as_channels(image: Tensor, channels: int) -> Tensor:
    """RGB as one grey channel, or grey repeated, where measurements have so many channels; else as it is."""
    if image.ndim != 3:
        return image
    if channels == 1 and len(image) == 3:
        return (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    return image.expand(channels, -1, -1) if len(image) == 1 else image
