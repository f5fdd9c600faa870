"""The laws of unknown parameters: part of the suite of degradations, empty for operators that know all of theirs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation
from pulse_framework.latents import UNKNOWN
from pulse_framework.testing.checks import equal, rng

__all__ = ["UnknownsContract"]

_FAR = 40.0


class UnknownsContract(ABC):
    """Laws of ``blocks``, ``given``, ``at`` and ``unknowns``.

    Attributes:
        bounds: Least and largest natural value of unknown parameters, by name.
        unseen: Names of those that A does not depend on, since they are of the noise.
    """

    image_shapes: tuple[tuple[int, int, int], ...]
    bounds: Mapping[str, tuple[float, float]] = {}
    unseen: tuple[str, ...] = ()

    @abstractmethod
    def make(self) -> Degradation:
        """A small instance on the CPU, the same at every call."""

    @abstractmethod
    def images(self, shape: tuple[int, int, int], count: int = 3) -> Tensor:
        """Float64 images."""

    def test_unknown_parameters_are_as_declared(self) -> None:
        """Names of their own; A with them has the shape and dtype of A; nothing is left unknown once they are given."""
        operator = self.make()
        names = [block.name for block in operator.blocks]
        assert len(set(names)) == len(names), f"blocks: expected different names, got {names}"
        assert all(name.startswith(UNKNOWN) for name in names), f"blocks: expected names {UNKNOWN}..., got {names}"
        if not names:
            assert operator.unknowns({}) == {}, "unknowns: expected none without blocks"
        for shape in self.image_shapes if names else ():
            x, latents = self.images(shape).float(), self._latents(operator)
            y, plain = operator.at(x, latents), operator(x)
            assert (y.shape, y.dtype) == (plain.shape, plain.dtype), f"at: expected {plain.dtype} of {tuple(plain.shape)}"
            assert not operator.given({name: value[0] for name, value in latents.items()}).blocks, "given: expected no blocks"
            counts = {name: len(value) for name, value in operator.unknowns(latents).items()}
            assert counts, f"unknowns: expected values of {names}, got none"
            assert set(counts.values()) == {3}, f"unknowns: expected 3 rows, got {counts}"

    def test_unknown_parameters_are_of_their_row(self) -> None:
        """Bit for bit the same alone or in a batch; without unknown parameters, ``at`` is A."""
        operator = self.make()
        if not operator.blocks:
            x = self.images(self.image_shapes[0]).float()
            equal(operator.at(x, {}), operator(x), "A with nothing unknown")
        for shape in self.image_shapes if operator.blocks else ():
            x, latents = self.images(shape).float(), self._latents(operator)
            together, values = operator.at(x, latents), operator.unknowns(latents)
            for row in range(len(x)):
                alone = {name: value[row : row + 1] for name, value in latents.items()}
                equal(operator.at(x[row : row + 1], alone)[0], together[row], f"row {row} alone")
                given = operator.given({name: value[row] for name, value in latents.items()})
                equal(given(x[row : row + 1])[0], together[row], f"row {row} given")
                for name, value in operator.unknowns(alone).items():
                    equal(value[0], values[name][row], f"{name} of row {row} alone")

    def test_gradient_reaches_every_unknown_parameter(self) -> None:
        """Finite, not zero, and that of finite differences unless it is a stand-in."""
        operator = self.make().double()
        hidden = {f"{UNKNOWN}{name}" for name in self.unseen}
        seen = [block.name for block in operator.blocks if block.name not in hidden]
        for shape in self.image_shapes if seen else ():
            x, latents = self.images(shape), self._latents(operator, torch.float64)
            leaves = [latents[name].requires_grad_() for name in seen]
            y = operator.at(x, latents)
            assert y.requires_grad, f"at: expected a graph from {seen}, got none"
            weights = torch.randn(y.shape, generator=rng(5), dtype=torch.float64)
            for name, gradient in zip(seen, torch.autograd.grad((weights * y).sum(), leaves, allow_unused=True), strict=True):
                sound = gradient is not None and bool(gradient.isfinite().all() and (gradient.flatten(1) != 0).any(1).all())
                assert sound, f"gradient of {name}: expected finite numbers, not all 0, got {gradient}"
            if not operator.surrogate:
                at = partial(self._at, operator, x, latents, seen)
                assert torch.autograd.gradcheck(at, leaves, fast_mode=True)

    def test_unknown_parameters_keep_their_bounds(self) -> None:
        """Wherever a search may go, A is finite and natural values are in their bounds; a search gone astray gives NaN."""
        operator = self.make()
        for shape in self.image_shapes if operator.blocks else ():
            x = self.images(shape, 4).float()
            latents = self._latents(operator, count=4)
            for value in latents.values():
                value[1:] = torch.tensor([-_FAR, _FAR, torch.nan]).reshape(-1, *[1] * (value.ndim - 1))
            y, values = operator.at(x, latents), operator.unknowns({name: value[:3] for name, value in latents.items()})
            assert bool(y[:3].isfinite().all()), "at: expected finite numbers at both ends"
            assert bool(y[3].isnan().any()), "at: expected NaN of a NaN"
            for name, (low, high) in self.bounds.items():
                inside = bool((values[name] >= low).all() and (values[name] <= high).all())
                assert inside, f"{name}: expected numbers in [{low}, {high}], got {values[name]}"

    def _at(self, operator: Degradation, x: Tensor, latents: Mapping[str, Tensor], seen: list[str], *values: Tensor) -> Tensor:
        return operator.at(x, {**latents, **dict(zip(seen, values, strict=True))})

    def _latents(self, operator: Degradation, dtype: torch.dtype = torch.float32, count: int = 3) -> dict[str, Tensor]:
        """What a search might begin with."""
        return {block.name: torch.randn((count, *block.shape), generator=rng(3)).to(dtype) for block in operator.blocks}
