"""Slots: searches leave when they are over, the queue is read when there is room, and nobody sees a neighbour."""

import itertools

import pytest
import torch

from pulse_framework.priors import FlatPrior
from pulse_framework.search import SGD, Adam, Engine, L2Consistency, Objective, Phase, Search, StopReason, StopRule
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import ConvToy, LinearToy, LinearWorld, PoolToy

DATA = Objective({"data": L2Consistency()})


class Counting(LinearToy):
    """Notes the width of every call; its arithmetic is entry by entry, so that every width gives the same bits."""

    def __init__(self, well):
        super().__init__(well.weight.detach(), well.bias.detach())
        self.widths = []

    def synthesize(self, latents):
        self.widths.append(len(latents["z"]))
        z = latents["z"][:, :, None, None, None]
        return z[:, 0] * self.weight[..., 0] + z[:, 1] * self.weight[..., 1] + z[:, 2] * self.weight[..., 2] + self.bias


def reachable(world, count):
    """Measurements that some latent explains, at different distances from the middle."""
    latents = 0.1 * (uniform((count, 3), 5) - 0.5) * torch.arange(1, count + 1)[:, None]
    degraded = world.degradation(world.generator({"z": latents})).detach()
    return [Search(str(number), y, index=number) for number, y in enumerate(degraded)]


def setting(slots=4, lane=1, steps=100, **stop):
    """A counting engine that has done its probes."""
    world = LinearWorld.make()
    generator = Counting(world.generator)
    phase = Phase(prior=FlatPrior(), objective=DATA, optimiser=SGD(rate=0.02), stop=StopRule(steps=steps, **stop))
    engine = Engine(generator, world.degradation, [phase], slots=slots, lane=lane)
    searches = reachable(world, 10)
    results = sorted(engine.run(searches), key=lambda result: result.index)
    generator.widths.clear()
    return engine, generator, searches, results


def test_early_finishers_leave_at_once():
    """With one slot, the generator sees exactly the iterates that the answers report."""
    engine, generator, searches, _ = setting(slots=1, target_db=40.0)
    steps = [result.steps for result in engine.run(searches)]
    assert len(set(steps)) > 3
    assert generator.widths == [1] * sum(steps)


def test_slots_are_refilled():
    """Greedy list scheduling by hand gives the number of calls and the order of answers."""
    engine, generator, searches, alone = setting(target_db=40.0)
    got = [(result.index, result.steps) for result in engine.run(searches)]
    queue, held, calls, expected = list(range(10)), {}, 0, []
    while queue or held:
        while queue and len(held) < 4:
            held[queue.pop(0)] = 0
        calls += 1
        held = {index: age + 1 for index, age in held.items()}
        over = [index for index, age in held.items() if age == alone[index].steps]
        expected += [(index, held.pop(index)) for index in over]
    assert got == expected
    assert len(generator.widths) == calls
    assert calls < sum(steps for _, steps in got) / 2


def test_batch_narrows_when_the_queue_is_empty():
    engine, generator, searches, _ = setting(target_db=40.0)
    list(engine.run(searches))
    assert generator.widths[0] == 4
    assert generator.widths[-1] == 1
    assert generator.widths == sorted(generator.widths, reverse=True)


def test_queue_is_read_as_slots_become_free():
    engine, _, searches, _ = setting(target_db=40.0)
    read = []

    def queue():
        for search in searches:
            read.append(search.index)
            yield search

    for finished, _ in enumerate(engine.run(queue()), 1):
        assert len(read) <= finished + 3
    assert len(read) == 10


def test_endless_queue_gives_answers():
    engine, _, searches, _ = setting(target_db=40.0)
    assert len(list(itertools.islice(engine.run(itertools.cycle(searches)), 25))) == 25


def test_empty_queue_gives_none():
    engine, generator, _, _ = setting()
    assert list(engine.run([])) == []
    assert generator.widths == []


@pytest.mark.parametrize("poll", [3, 7])
def test_rare_looks_change_no_answer(poll):
    _, _, searches, expected = setting(target_db=40.0)
    engine, *_ = setting(target_db=40.0)
    engine.poll_every = poll
    for got, other in zip(sorted(engine.run(searches), key=lambda result: result.index), expected, strict=True):
        assert (got.steps, got.step, got.reason) == (other.steps, other.step, other.reason)
        assert torch.equal(got.image, other.image)
        assert torch.equal(got.trace, other.trace)


BOX = 2.1  # some searches begin outside, some go there, some never do


def conv_searches(count=7):
    y = uniform((count, 3, 8, 8), 2, torch.float32)
    return [Search(str(number), y[number], index=number) for number in range(count)]


def conv_run(searches, generator=None, **settings):
    phase = Phase(prior=FlatPrior(), objective=DATA, optimiser=Adam(rate=0.07), stop=StopRule(steps=25))
    engine = Engine(generator or ConvToy(), PoolToy(), [phase], **settings)
    return engine, sorted(engine.run(searches), key=lambda result: result.index)


def same_bits(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert one.step == other.step
        assert torch.equal(one.trace, other.trace)
        assert torch.equal(one.image, other.image)
        assert all(torch.equal(one.latents[name], other.latents[name]) for name in one.latents)


def test_float32_bits_ignore_slots_order_and_company():
    searches = conv_searches()
    _, expected = conv_run(searches, slots=1)
    for slots in (3, 5, 16, 37):
        same_bits(conv_run(searches, slots=slots)[1], expected)
    same_bits(conv_run(searches[::-1], slots=4)[1], expected)
    same_bits(conv_run(searches[4:5], slots=4)[1], expected[4:5])


class WidthDependent(ConvToy):
    """Rounds otherwise in batches of other widths, as some kernels do."""

    def synthesize(self, latents):
        return super().synthesize(latents) * (1 + 1e-6 * len(latents["z"]))


@pytest.mark.parametrize("lane", [1, 3, 4])
def test_generator_that_depends_on_the_width_is_run_at_one_width(lane):
    searches = conv_searches()
    engine, expected = conv_run(searches, WidthDependent(), slots=1, lane=lane)
    assert lane == 1 or {width for _, width, *_ in engine._widths._probes} >= {lane}
    for slots in (2, 16):
        same_bits(conv_run(searches, WidthDependent(), slots=slots, lane=lane)[1], expected)
    same_bits(conv_run(searches[2:3], WidthDependent(), slots=16, lane=lane)[1], expected[2:3])


class SeldomWidthDependent(ConvToy):
    """Rounds otherwise in batches of other widths, but for one latent in six only."""

    def synthesize(self, latents):
        z = latents["z"]
        return super().synthesize(latents) * (1 + 1e-6 * len(z) * (z[:, 0] > 1))[:, None, None, None]


def test_a_rounding_that_is_seldom_seen_is_found():
    searches = conv_searches()
    _, expected = conv_run(searches, SeldomWidthDependent(), slots=1)
    same_bits(conv_run(searches, SeldomWidthDependent(), slots=4)[1], expected)


@pytest.mark.parametrize("slots", [2, 4, 16])
def test_short_sums_in_float64_ignore_slots(slots):
    """Sums of three numbers differ between one row and more for one search in seven."""
    world = LinearWorld.make()
    searches = [
        Search(key, y, restart, index=6 * i + restart) for i, (key, y) in enumerate(world.measurements(5)) for restart in range(6)
    ]
    phase = Phase(prior=FlatPrior(), objective=DATA, optimiser=SGD(rate=0.02), stop=StopRule(steps=4))
    alone, together = (
        sorted(Engine(world.generator, world.degradation, [phase], slots=count).run(searches), key=lambda result: result.index)
        for count in (1, slots)
    )
    same_bits(together, alone)


class Poisoned(ConvToy):
    """NaN where a searched latent leaves a box, or at once for some latents; or a gradient that is."""

    def __init__(self, box=torch.inf, slope=False):
        super().__init__()
        self.box, self.slope = box, slope

    def synthesize(self, latents):
        size = latents["z"].abs().amax(1)[:, None, None, None]
        outside = torch.where(size > self.box, size, 0)
        if self.slope:  # finite itself, but with a gradient that is not
            return super().synthesize(latents) + 0 * (size - size.detach() + (outside == 0)).sqrt()
        return super().synthesize(latents) + torch.where(outside > 0, torch.nan, 0.0)


def test_neighbours_of_a_broken_row_keep_their_bits():
    searches = conv_searches()
    _, healthy = conv_run(searches, slots=8)
    _, mixed = conv_run(searches, Poisoned(box=BOX), slots=8)
    reasons = [result.reason for result in mixed]
    assert reasons.count(StopReason.NON_FINITE) >= 2
    assert reasons.count(StopReason.BUDGET) >= 2
    for got, other in zip(mixed, healthy, strict=True):
        if got.reason is StopReason.BUDGET:
            same_bits([got], [other])
        else:
            assert torch.equal(got.trace[:-1], other.trace[: got.steps - 1])
            assert got.trace[-1].isnan().all()


def test_status_of_a_broken_row():
    """Failed if never finite, else best effort with the best iterate there was."""
    _, mixed = conv_run(conv_searches(), Poisoned(box=BOX), slots=8)
    for result in mixed:
        if result.reason is StopReason.NON_FINITE:
            assert result.status.value == ("failed" if result.steps == 1 else "best_effort")
            assert result.image.isfinite().all() == (result.steps > 1)
            assert all(value.isfinite().all() for value in result.latents.values())
    assert {result.status.value for result in mixed} == {"failed", "best_effort"}


def test_gradient_that_is_not_finite_ends_the_search_with_its_image():
    _, mixed = conv_run(conv_searches(), Poisoned(box=2.0, slope=True), slots=8)
    ended = [result for result in mixed if result.reason is StopReason.NON_FINITE]
    assert 1 <= len(ended) < 7
    assert all(result.status.value == "best_effort" and result.image.isfinite().all() for result in ended)
    assert all(result.trace.isfinite().all() for result in mixed)
