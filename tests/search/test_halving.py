"""Successive halving: restarts wait for one another at the rungs, and the better half goes on."""

import math
from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior, SpherePrior
from pulse_framework.search import SGD, Adam, L2Consistency, Objective, Phase, Plan, Search, SearchResult, StopReason, StopRule
from pulse_framework.search.allotment import Allotment, rungs
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import ConvToy, LinearToy, LinearWorld, PoolToy

WORLD = LinearWorld.make()
STEPS, RESTARTS = 24, 6
PHASE = Phase(
    prior=FlatPrior(), objective=Objective({"data": L2Consistency()}), optimiser=SGD(rate=0.02), stop=StopRule(steps=STEPS)
)
TARGET = StopRule(steps=STEPS, target_mse=0.1)


class Entrywise(LinearToy):
    """Its arithmetic is entry by entry, so that every width gives the same bits."""

    def synthesize(self, latents):
        z = latents["z"][:, :, None, None, None]
        return z[:, 0] * self.weight[..., 0] + z[:, 1] * self.weight[..., 1] + z[:, 2] * self.weight[..., 2] + self.bias


ENTRYWISE = Entrywise(WORLD.generator.weight.detach(), WORLD.generator.bias.detach())


def plan(stop, **changes):
    settings = {"phases": (replace(PHASE, stop=stop),), "slots": 4, "restarts": RESTARTS, "halving": True}
    return Plan(**(settings | changes))


def run(stop, images=slice(None), **changes):
    """Answers by the number of the image, and how many iterates they took."""
    made, taken, told = plan(stop, **changes), list(enumerate(WORLD.measurements(5)))[images], []
    engine = made.engine(ENTRYWISE, WORLD.degradation, told.append)
    found = {taken[answer.index][0]: answer.samples for answer in made.run(engine, [measurement for _, measurement in taken])}
    return found, told[-1].evaluations


def bits(samples):
    return [(one.restart, one.step, one.steps, one.reason, one.mse, one.image.tolist(), one.trace.tolist()) for one in samples]


def by_definition(tried):
    """The survivor of restarts that all ran to their end, and the iterates that halving takes, by its definition."""
    alive, begun, spent = list(tried), 0, 0
    for rung in [*rungs(len(tried), STEPS), STEPS]:
        spent += sum(min(rung, one.steps) - min(begun, one.steps) for one in alive)
        met = [one for one in alive if one.feasible and one.steps <= rung]
        if met or rung == STEPS:
            return (met or sorted(alive, key=lambda one: one.rank))[0], spent
        alive = sorted(alive, key=lambda one: (float(one.trace[:rung, 0].min()), one.restart))[: math.ceil(len(alive) / 2)]
        alive, begun = sorted(alive, key=lambda one: one.restart), rung
    raise AssertionError


@pytest.mark.parametrize(
    ("restarts", "steps", "expected"),
    [(1, 9, ()), (2, 10, (5,)), (3, 100, (25, 50)), (8, 400, (50, 100, 200)), (8, 3, (1, 1, 1))],
)
def test_rungs(restarts, steps, expected):
    assert rungs(restarts, steps) == expected


@pytest.mark.parametrize(
    ("target", "reasons"),
    [
        (None, {StopReason.BUDGET}),
        (0.1, {StopReason.BUDGET, StopReason.TARGET}),
        (0.306, {StopReason.TARGET}),  # met by one search with the very step of a rung
    ],
)
def test_the_answer_is_the_survivor_with_the_bits_of_its_own_search(target, reasons):
    stop = StopRule(steps=STEPS, target_mse=target)
    found, _ = run(stop)
    whole, _ = run(stop, restarts=1, samples=RESTARTS, halving=False)
    for index, (answer,) in found.items():
        tried = sorted(whole[index], key=lambda one: one.restart)
        assert bits([answer]) == bits([by_definition(tried)[0]])
    assert len({answer.restart for (answer,) in found.values()}) > 2
    assert {answer.reason for (answer,) in found.values()} == reasons


@pytest.mark.parametrize("poll_every", [1, 7])
@pytest.mark.parametrize("slots", [1, 2, 8, 32])
def test_the_answer_depends_on_neither_slots_nor_looks_nor_other_images(slots, poll_every):
    together, _ = run(TARGET, samples=2)
    expected = {index: bits(samples) for index, samples in together.items()}
    for images in (slice(None), slice(None, None, -1), slice(2, 3)):
        found, _ = run(TARGET, images, samples=2, slots=slots, poll_every=poll_every)
        assert {index: bits(samples) for index, samples in found.items()} == {index: expected[index] for index in found}


def test_it_costs_what_the_definition_says():
    _, spent = run(StopRule(steps=STEPS), restarts=8)
    assert spent == 5 * (8 * 3 + 4 * 3 + 2 * 6 + 12)
    found, least = run(TARGET, slots=1)
    whole, _ = run(TARGET, restarts=1, samples=RESTARTS, halving=False)
    assert least <= sum(by_definition(sorted(samples, key=lambda one: one.restart))[1] for samples in whole.values())
    assert len(found) == 5


def test_searches_that_are_halved_say_so_and_end_at_a_rung():
    made = plan(StopRule(steps=STEPS))
    engine = made.engine(ENTRYWISE, WORLD.degradation)
    (_, y) = WORLD.measurements(1)[0]
    results = list(engine.run([Search("image", y, n) for n in range(RESTARTS)], Allotment(1, RESTARTS, rungs(RESTARTS, STEPS))))
    assert sorted(one.steps for one in results) == [3, 3, 3, 6, 12, STEPS]
    assert {one.reason for one in results if one.steps < STEPS} == {StopReason.HALVED}
    assert all(len(one.trace) == one.steps and one.objective == float(one.trace[:, 0].min()) for one in results)


def test_phases_before_the_last_run_to_their_end():
    first = replace(PHASE, stop=StopRule(steps=5))
    made = plan(StopRule(steps=STEPS), phases=(first, PHASE))
    engine = made.engine(ENTRYWISE, WORLD.degradation)
    (_, y) = WORLD.measurements(1)[0]
    results = list(engine.run([Search("image", y, n) for n in range(4)], Allotment(1, 4, rungs(4, STEPS))))
    assert sorted(one.steps for one in results) == [11, 11, 17, 29]


CONV = Phase(prior=SpherePrior(), objective=PHASE.objective, optimiser=Adam(rate=0.1), stop=StopRule(steps=16, target_mse=0.0815))


class Killed(Exception):
    """In place of a signal."""


def conv(images, saved=(), kill=None, poll_every=1):
    looks, made = [], Plan(phases=(CONV,), slots=2, restarts=4, halving=True, poll_every=poll_every)

    def look(progress):
        looks.append(progress)
        if len(looks) == kill:
            raise Killed

    engine, found = made.engine(ConvToy(), PoolToy(), look), {}
    engine.flights.records, engine.flights.saved = True, list(saved)
    try:
        for answer in made.run(engine, images):
            found[answer.key] = bits(answer.samples)
    except Killed:
        pass
    return found, engine.flights.state(), len(looks)


@pytest.mark.parametrize("poll_every", [1, 3])
def test_killed_at_any_look_it_goes_on_to_the_same_answers(poll_every):
    images = [(str(number), y) for number, y in enumerate(uniform((3, 3, 8, 8), 2, torch.float32))]
    whole, _, looks = conv(images, poll_every=poll_every)
    assert len({samples[0][3] for samples in whole.values()}) == 2  # some met the target, some did not
    for kill in range(1, looks, 5):
        found, state, _ = conv(images, kill=kill, poll_every=poll_every)
        rest, _, _ = conv([image for image in images if image[0] not in found], saved=state, poll_every=poll_every)
        assert found | rest == whole, f"killed at look {kill}"


def come(allotment, **objectives):
    """Restarts of one image, r0, r1, ..., have come to the first rung."""
    for name, objective in objectives.items():
        allotment.come(search(int(name[1:])), 1, torch.tensor([[objective, 0.0]]))


def search(restart):
    return Search("image", torch.zeros(1), restart)


def ended(restart, objective, feasible=False):
    empty = torch.empty(0)
    return SearchResult(
        "image", restart, 0, 0, {}, empty, objective, objective, feasible, None, 0, 1, StopReason.BUDGET, 2.0, empty
    )


def test_what_is_lost_in_reduced_precision_is_out_where_others_are_finite():
    allotment = Allotment(1, 3, (1,))
    allotment.lost(search(0))
    come(allotment, r1=3.0)
    assert allotment.waits(search(1))
    come(allotment, r2=math.nan)
    assert [allotment.wanted(search(number)) for number in range(3)] == [False, True, True]
    assert allotment.add(ended(1, 2.0)) is None
    (answer,) = allotment.add(ended(2, math.inf))
    assert (answer.restart, answer.seconds) == (1, 4.0)


def test_where_all_are_lost_all_come_again():
    allotment = Allotment(1, 2, (1,))
    for number in range(2):
        allotment.lost(search(number))
    assert [allotment.wanted(search(number)) for number in range(2)] == [True, True]
    come(allotment, r0=3.0, r1=2.0)
    assert not allotment.wanted(search(0))
    (answer,) = allotment.add(ended(1, 2.0))
    assert answer.restart == 1


def test_a_success_waits_for_those_before_it_alone():
    allotment = Allotment(1, 4, (1,), ends=True)
    come(allotment, r0=1.0)
    assert allotment.add(ended(2, 5.0, feasible=True)) is None
    assert [allotment.wanted(search(number)) for number in range(4)] == [True, True, True, False]
    come(allotment, r1=0.5)
    assert [allotment.wanted(search(number)) for number in range(4)] == [False, False, True, False]
    (answer,) = allotment.add(ended(0, 0.1))
    assert answer.restart == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"restarts": 1}, "expected at least 2 restarts, and until_success=false, got 1 and false"),
        ({"until_success": True}, "got 6 and true"),
        ({"phases": (replace(PHASE, stop=replace(TARGET, at_target=False)),)}, "got keep=best and at_target=false"),
        ({"phases": (replace(PHASE, stop=replace(TARGET, keep="last")),)}, "got keep=last and at_target=true"),
    ],
)
def test_what_cannot_be_halved_is_refused(changes, match):
    with pytest.raises(ValueError, match=f"search halving: .*{match}"):
        plan(TARGET, **changes)
