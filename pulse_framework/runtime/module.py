"""The Lightning side of a search: it hands each batch to the engine and tells the observers what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.latents import Latents
from pulse_framework.runtime.data import Group, MeasurementData
from pulse_framework.runtime.intake import Source
from pulse_framework.runtime.known import known_pixels, with_known_pixels
from pulse_framework.search import Answer, Engine, Plan, Progress, part

__all__ = ["Finished", "SearchModule", "SearchObserver"]


@dataclass(frozen=True)
class Finished:
    """An image that has been answered.

    Attributes:
        source: The input.
        measurement: y, shape (C, h, w) if it is a picture.
        answer: Its samples, best first.
        degraded: A of each sample's image, with the unknown parameters that were found.
        errors: Relative errors of each sample's unknown parameters whose truth is known.
        pictures: What each sample is shown as: its image, with known pixels kept where that was asked for.
        operator: Name of the degradation.
    """

    source: Source
    measurement: Tensor
    answer: Answer
    degraded: tuple[Tensor, ...]
    errors: tuple[dict[str, float], ...]
    pictures: tuple[Tensor, ...]
    operator: str


class SearchObserver(pl.Callback):
    """A Lightning callback that also hears of answers, unreadable inputs and progress.

    Attributes:
        watches: Whether it wants to know norms and terms at every step (``SearchResult.watched``).
    """

    watches = False

    def on_answer(self, module: "SearchModule", finished: Finished) -> None:
        """An image has been answered."""

    def on_unreadable(self, module: "SearchModule", source: Source, error: str) -> None:
        """An input could not be read."""

    def on_progress(self, module: "SearchModule", progress: Progress) -> None:
        """Steps were taken."""


class SearchModule(pl.LightningModule):
    """Adapts batches of measurements to the engine, in ``predict_step``.

    Run it with ``Trainer(inference_mode=False)``: a search is gradient descent at prediction time.

    Args:
        generator: G.
        operators: A for each group of inputs.
        plan: Settings of the search.
        keep_known: Whether pictures show observed pixels as they were measured; see ``known``.

    Attributes:
        keeps_flights: Whether a checkpoint of it has the searches under way. It never has the generator: nothing is trained.
    """

    def __init__(
        self, generator: Generator, operators: Mapping[Group, Degradation], plan: Plan, keep_known: bool | None = None
    ) -> None:
        super().__init__()
        self.generator, self.plan, self.keep_known = generator, plan, keep_known
        self.operators = nn.ModuleDict({_key(group): operator for group, operator in operators.items()})
        given = [phase.prior.values() if isinstance(phase.prior, Mapping) else [phase.prior] for phase in plan.phases]
        given += [phase.beside.values() for phase in plan.phases if phase.beside]
        self.priors = nn.ModuleList(dict.fromkeys(prior for priors in given for prior in priors))
        self.keeps_flights, self.strict_loading = False, False
        self._engine: tuple[str, Engine] | None = None
        self._saved: list[dict[str, Any]] = []

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> int:
        """Search for every measurement of the batch; observers receive each answer as it is found.

        Returns:
            How many were answered.
        """
        sources = self._sources()
        for index, error in batch["errors"].items():
            for observer in self._observers():
                observer.on_unreadable(self, sources[index], error)
        indices, measurements = batch["indices"], batch["measurements"]
        if not indices:
            return 0
        key = _key(batch["group"])
        operator = self.operators[key]
        assert isinstance(operator, Degradation)
        if self._engine is None or self._engine[0] != key:  # batches of a group follow one another
            watch = any(observer.watches for observer in self._observers())
            self._engine = (key, self.plan.engine(self.generator, operator, self._progress, watch=watch))
            self._engine[1].flights.records, self._engine[1].flights.saved = self.keeps_flights, self._saved
        queue = [(sources[index].key, y) for index, y in zip(indices, measurements, strict=True)]
        for answer in self.plan.run(self._engine[1], queue):
            source, y = sources[indices[answer.index]], measurements[answer.index]
            found = [result.latents for result in answer.samples]
            degraded, pictures = self._shown(operator, y, [result.image for result in answer.samples], found)
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                errors = tuple({name: float(e[0]) for name, e in operator.errors(_one(latents)).items()} for latents in found)
            finished = Finished(source, y, answer, degraded, errors, pictures, type(operator).__name__)
            with part("answers written"):
                for observer in self._observers():
                    observer.on_answer(self, finished)
        return len(indices)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down the searches under way instead of the weights."""
        checkpoint["state_dict"] = {}
        checkpoint["searches"] = self._engine[1].flights.state() if self._engine else self._saved

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with searches that were under way."""
        self._saved = checkpoint["searches"]

    @torch.no_grad()
    def shown(self, group: Group, y: Tensor, samples: Sequence[Latents]) -> list[Tensor]:
        """Input, answers and A(answers) of an image that was answered before, from latents without N."""
        operator = self.operators[_key(group)]
        assert isinstance(operator, Degradation)
        like = y.to(self.device, samples[0][next(iter(samples[0]))].dtype)
        found = [{name: value.to(self.device) for name, value in latents.items()} for latents in samples]
        blocks = {block.name for block in self.generator.blocks}
        images = [
            self.generator({name: value for name, value in _one(latents).items() if name in blocks})[0] for latents in found
        ]
        degraded, pictures = self._shown(operator, like, images, found)
        return [like, *pictures, *degraded]

    @torch.no_grad()
    def _shown(
        self, operator: Degradation, y: Tensor, images: Sequence[Tensor], found: Sequence[Latents]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """A of images, and what they are shown as."""
        mask = known_pixels(operator, self.generator.image_shape, self.keep_known)
        with torch.autocast(self.device.type, enabled=False):
            degraded = tuple(operator.at(x[None], _one(latents))[0] for x, latents in zip(images, found, strict=True))
        shown = (with_known_pixels(x, y, ax, mask, self.keep_known) for x, ax in zip(images, degraded, strict=True))
        return degraded, tuple(shown)

    def _sources(self) -> Mapping[int, Source]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, MeasurementData)
        return data.chosen

    def _observers(self) -> list[SearchObserver]:
        return [callback for callback in self.trainer.callbacks if isinstance(callback, SearchObserver)]  # type: ignore[attr-defined]

    def _progress(self, progress: Progress) -> None:
        for observer in self._observers():
            observer.on_progress(self, progress)


def _one(latents: Latents) -> Latents:
    """One item's latents as N = 1."""
    return {name: value[None] for name, value in latents.items()}


def _key(group: Group) -> str:
    return group if isinstance(group, str) else "x".join(str(side) for side in group)
