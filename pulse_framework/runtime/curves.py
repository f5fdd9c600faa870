"""Curves of a run: means over its images at every step, in memory that does not grow with their number."""

import math
from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from pulse_framework.search import SearchResult, psnr_db

__all__ = ["Curves"]


class Curves:
    """Adds up searches, step by step.

    ``objective``, ``psnr_db`` and ``psnr_db_worst`` are of the best iterate so far of every image, so that a search which is
    over keeps its last value; what was watched beside them is the mean over the searches that are still under way.
    """

    def __init__(self) -> None:
        self.count = 0
        self._objective, self._db = _Kept(), _Kept()
        self._watched: dict[str, _Passing] = {}

    def add(self, result: SearchResult) -> None:
        """One more search."""
        best = result.trace.double().nan_to_num(nan=torch.inf).cummin(0).values.cpu()
        self.count += 1
        self._objective.add(best[:, 0])
        self._db.add(torch.tensor([psnr_db(mse) for mse in best[:, 1].tolist()], dtype=torch.float64))
        for name, values in result.watched.items():
            self._watched.setdefault(name, _Passing()).add(values.double().cpu())

    def rows(self) -> list[dict[str, float]]:
        """The curves, one row a step; a value that there is not, or is not finite, is left out."""
        if not self.count:
            return []
        columns = {"objective": self._objective.mean(self.count), "psnr_db": self._db.mean(self.count)}
        columns |= {"psnr_db_worst": self._db.least} | {name: passing.mean() for name, passing in self._watched.items()}
        return [_finite(columns, step) for step in range(len(self._db.least))]

    def written(self) -> bytes:
        """All that it knows, as safetensors."""
        known = {"count": torch.tensor(self.count), "objective": self._objective.sums(), "psnr_db": self._db.sums()}
        return save(known | {f"watched/{name}": passing.sums() for name, passing in self._watched.items()})

    @classmethod
    def read(cls, content: bytes) -> "Curves":
        """What ``written`` gave."""
        curves, known = cls(), load(content)
        curves.count = int(known.pop("count"))
        curves._objective, curves._db = _Kept(known.pop("objective")), _Kept(known.pop("psnr_db"))
        curves._watched = {name.removeprefix("watched/"): _Passing(sums) for name, sums in known.items()}
        return curves


NOTHING = torch.zeros(2, 0, dtype=torch.float64)


class _Kept:
    """Sum and least of series that keep their last value."""

    def __init__(self, sums: Tensor = NOTHING) -> None:
        self.total, self.least = sums
        there = len(self.total) > 0
        self._last_total, self._last_least = (float(self.total[-1]), float(self.least[-1])) if there else (0.0, math.inf)

    def sums(self) -> Tensor:
        return torch.stack([self.total, self.least])

    def add(self, series: Tensor) -> None:
        length = max(len(series), len(self.total))
        series = _extended(series, length, float(series[-1]))
        self.total = _extended(self.total, length, self._last_total) + series
        self.least = torch.minimum(_extended(self.least, length, self._last_least), series)
        self._last_total, self._last_least = float(self.total[-1]), float(self.least[-1])

    def mean(self, count: int) -> Tensor:
        return self.total / count


class _Passing:
    """Sum and number of series that end, and may have gaps."""

    def __init__(self, sums: Tensor = NOTHING) -> None:
        self.total, self.number = sums

    def sums(self) -> Tensor:
        return torch.stack([self.total, self.number])

    def add(self, series: Tensor) -> None:
        length, there = max(len(series), len(self.total)), series.isfinite()
        self.total = _extended(self.total, length, 0.0) + _extended(series.where(there, torch.zeros(())), length, 0.0)
        self.number = _extended(self.number, length, 0.0) + _extended(there.double(), length, 0.0)

    def mean(self) -> Tensor:
        return self.total / self.number


def _extended(series: Tensor, length: int, last: float) -> Tensor:
    return torch.cat([series, series.new_full((length - len(series),), last)])


def _finite(columns: Mapping[str, Tensor], step: int) -> dict[str, float]:
    found = {name: float(column[step]) for name, column in columns.items() if step < len(column)}
    return {name: value for name, value in found.items() if math.isfinite(value)}
