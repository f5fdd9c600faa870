"""The laws of a generator. A plug-in's test subclasses ``GeneratorContract`` and supplies ``make``."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from pulse_framework.interfaces import Generator
from pulse_framework.latents import Latents, PushForward, space
from pulse_framework.search import draw
from pulse_framework.testing.checks import close, equal, left_alone, rng, uniform

__all__ = ["GeneratorContract"]


class GeneratorContract(ABC):
    """Laws of ``Generator``, tried on every choice of blocks that makes a full input.

    Attributes:
        lifts: Pairs (from, to) of blocks that ``lift`` must know, besides those that ``PushForward`` declares.
        tolerance: Relative difference allowed between float32 and float64 images.
        device: A second device; ``meta`` finds tensors made on the wrong one without any hardware. ``cpu`` where the
            network cannot run there.
    """

    lifts: tuple[tuple[str, str], ...] = ()
    tolerance: float = 1e-4
    device: str = "meta"

    @abstractmethod
    def make(self) -> Generator:
        """A tiny instance on the CPU, in float32, the same at every call; no download."""

    def oracle(self, latents: Latents) -> Tensor | None:
        """Images in closed form, where one exists; float64."""
        return None

    def test_declared_shapes_are_true(self) -> None:
        """Images have ``image_shape`` and the dtype of the latents, whatever blocks are given."""
        generator = self.make()
        for latents in _inputs(generator, 2, torch.float32):
            image = generator(latents)
            expected = (2, *generator.image_shape)
            assert tuple(image.shape) == expected, f"{sorted(latents)}: expected images of {expected}, got {tuple(image.shape)}"
            assert image.dtype == torch.float32, f"{sorted(latents)}: expected float32 images, got {image.dtype}"

    def test_refuses_what_is_not_a_full_input(self) -> None:
        """A missing or unknown block or a wrong shape is a ValueError."""
        generator = self.make()
        full = next(_inputs(generator, 2, torch.float32))
        name, value = next(iter(full.items()))
        rest = {other: tensor for other, tensor in full.items() if other != name}
        for wrong in (rest, full | {"no such block": value}, full | {name: value[..., :-1]}):
            try:
                generator(wrong)
            except ValueError:
                continue
            raise AssertionError(f"expected a ValueError for { ({key: tuple(item.shape) for key, item in wrong.items()}) }")

    def test_row_is_the_same_alone_or_in_a_batch(self) -> None:
        """Row i depends on row i alone."""
        generator = self.make().double()
        for latents in _inputs(generator, 3):
            together = generator(latents)
            for row in range(3):
                alone = generator({name: value[row : row + 1] for name, value in latents.items()})
                close(alone[0], together[row], f"row {row} alone")

    def test_same_input_gives_the_same_image(self) -> None:
        """Bit for bit."""
        generator = self.make()
        for latents in _inputs(generator, 2, torch.float32):
            equal(generator(latents), generator(latents), "second image of one input")

    def test_gradient_reaches_every_searchable_block(self) -> None:
        """Finite and not zero, in every row; an optional block may cut off those it replaces, an auxiliary one has none."""
        generator = self.make()
        auxiliary = {block.name for block in generator.blocks if block.auxiliary}
        optional = {block.name for block in generator.blocks if block.optional} - auxiliary
        for latents in _inputs(generator, 2, torch.float32):
            chosen = space(generator.blocks, latents)
            moved = [name for name in latents if chosen[name].searchable]
            must = (set(moved) & optional or set(moved)) - auxiliary
            for name, gradient in _gradients(generator, latents, moved).items():
                assert gradient is not None or name not in must, f"{name}: expected a gradient, got none"
                assert gradient is None or name not in auxiliary, f"{name}: expected an image that does not depend on it"
                if gradient is not None:
                    assert bool(gradient.isfinite().all()), f"{name}: expected a finite gradient"
                    reached = gradient.flatten(1).abs().amax(1) > 0
                    assert bool(reached.all()) or name not in must, f"{name}: expected a gradient that is not zero in every row"

    def test_nothing_is_altered(self) -> None:
        """Neither latents nor weights, ``.grad``, modes or the global random stream, also by a backward pass."""
        generator = self.make()
        for latents in _inputs(generator, 2, torch.float32):
            names = [name for name in latents if space(generator.blocks, latents)[name].searchable]
            with left_alone(generator, *latents.values()):
                generator(latents)
                _gradients(generator, latents, names)

    def test_lift_keeps_the_image(self) -> None:
        """Every declared way exists, and every way there is leads to the same image."""
        generator = self.make().double()
        declared = {(block.native.source, block.name) for block in generator.blocks if isinstance(block.native, PushForward)}
        declared |= set(self.lifts)
        slots = {block.name: block.slot for block in generator.blocks}
        for latents in _inputs(generator, 2):
            image = generator(latents)
            for name, slot in slots.items():
                sources = [source for source in latents if source == name or (source, name) in declared]
                try:
                    lifted = generator.lift(latents, name)
                except ValueError as error:
                    if sources:
                        raise AssertionError(f"expected a way from {sources} to {name!r}") from error
                    continue
                rest = {other: value for other, value in latents.items() if slots[other] != slot}
                close(generator(rest | {name: lifted}), image, f"image of {sorted(latents)} lifted to {name!r}")

    def test_ladder_can_be_climbed(self) -> None:
        """Its rungs are searchable blocks, each reached from the one before, and the last leads to the same image."""
        generator = self.make().double()
        if not generator.ladder:
            return
        first, *others = generator.ladder
        slots = {block.name: block.slot for block in generator.blocks}
        latents = next(latents for latents in _inputs(generator, 2) if first in latents)
        assert all(space(generator.blocks, (name,))[name].searchable for name in generator.ladder), "expected searchable rungs"
        image = generator(latents)
        for name in others:
            rest = {other: value for other, value in latents.items() if slots[other] != slots[name]}
            try:
                latents = rest | {name: generator.lift(latents, name)}
            except ValueError as error:
                raise AssertionError(f"expected a way up the ladder to {name!r}") from error
            close(generator(latents), image, f"image on rung {name!r} of the ladder")

    def test_lift_refuses_an_unknown_block(self) -> None:
        """With a ValueError."""
        generator = self.make()
        try:
            generator.lift(next(_inputs(generator, 1, torch.float32)), "no such block")
        except ValueError:
            return
        raise AssertionError("lift: expected a ValueError for an unknown block")

    def test_survives_float64(self) -> None:
        """The network in double precision takes and gives doubles, and says the same."""
        single, double = self.make(), self.make().double()
        for latents in _inputs(double, 2):
            image = double(latents)
            assert image.dtype == torch.float64, f"expected float64 images, got {image.dtype}"
            close(single({name: value.float() for name, value in latents.items()}), image, "float32 image", self.tolerance)

    def test_survives_another_device(self) -> None:
        """Moved with ``to``, it takes and gives tensors there, and makes none anywhere else."""
        moved = self.make().to(self.device)
        for latents in _inputs(self.make(), 2, torch.float32):
            image = moved({name: value.to(self.device) for name, value in latents.items()})
            assert image.device.type == self.device, f"expected images on {self.device}, got {image.device}"

    def test_survives_a_state_dict_round_trip(self) -> None:
        """All that is learned is in the state, and nothing derived from it goes stale."""
        generator, fresh = self.make(), self.make()
        for latents in _inputs(fresh, 2, torch.float32):
            fresh(latents)
        with torch.no_grad():
            for value in generator.state_dict().values():
                if value.is_floating_point():
                    value.mul_(1.25)
        fresh.load_state_dict({name: value.clone() for name, value in generator.state_dict().items()})
        for latents in _inputs(generator, 2, torch.float32):
            equal(fresh(latents), generator(latents), "image of the restored generator")

    def test_agrees_with_the_oracle(self) -> None:
        """Where a closed form is given."""
        generator = self.make().double()
        for latents in _inputs(generator, 3):
            expected = self.oracle(latents)
            if expected is not None:
                close(generator(latents), expected, f"image of {sorted(latents)}")


def _inputs(generator: Generator, count: int, dtype: torch.dtype = torch.float64) -> Iterator[dict[str, Tensor]]:
    """A full input for every choice of blocks: one of each slot, optional slots also left open."""
    slots: dict[str, list[tuple[str, ...]]] = {}
    for block in generator.blocks:
        slots.setdefault(block.slot, []).append((block.name,))
    for slot, alternatives in slots.items():
        if all(block.optional for block in generator.blocks if block.slot == slot):
            alternatives.insert(0, ())
    like = torch.empty((), dtype=dtype)
    for choice in itertools.product(*slots.values()):
        chosen = [name for names in choice for name in names]
        rows = [draw(generator, {}, rng(row), like, chosen) for row in range(count)]
        yield {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _gradients(generator: Generator, latents: Latents, names: list[str]) -> dict[str, Tensor | None]:
    """Gradients of a random weighing of the pixels."""
    leaves = {name: latents[name].detach().clone().requires_grad_() for name in names}
    image = generator({**latents, **leaves})
    weighed = (image * uniform(tuple(image.shape), dtype=image.dtype)).sum()
    return dict(zip(names, torch.autograd.grad(weighed, list(leaves.values()), allow_unused=True), strict=True))
