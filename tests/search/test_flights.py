"""Searches that are written down on the way and taken up by another engine end with the same bits."""

import io
from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior, SpherePrior
from pulse_framework.search import Adam, L2Consistency, Objective, Phase, Plan, StopRule
from pulse_framework.search.rows import RowStepper
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import ConvToy, PoolToy

FIRST = Phase(
    prior=SpherePrior(), objective=Objective({"data": L2Consistency()}), optimiser=Adam(rate=0.1), stop=StopRule(steps=5)
)
SECOND = replace(FIRST, prior=FlatPrior(), stop=StopRule(steps=7, target_mse=0.083))
PLAN = Plan(phases=(FIRST, SECOND), samples=2, restarts=2, slots=4)


class Grainy(PoolToy):
    """Its noise depends on the image, so the target follows the search and draws from its stream."""

    def measure(self, x, rng):
        return self(x) * (1 + 0.5 * torch.randn(self(x).shape, generator=rng))


class Killed(Exception):
    """In place of a signal."""


def queue(count=3):
    return [(str(number), y) for number, y in enumerate(uniform((count, 3, 8, 8), 2, torch.float32))]


def answers(plan, images, *, saved=(), watch=False, kill=None, every=1, operator=PoolToy):
    """Answers by key, the last state written down, and the steps that were taken; killed at a look if that is asked for."""
    found, states, looks = {}, [], []

    def look(progress):
        looks.append(progress.active)
        if len(looks) % every == 0:
            states.append(engine.flights.state())
        if len(looks) == kill:
            raise Killed

    engine = plan.engine(ConvToy(), operator(), look, watch=watch)
    engine.flights.records, engine.flights.saved = True, list(saved)
    try:
        for answer in plan.run(engine, images):
            found[answer.key] = answer.samples
    except Killed:
        pass
    return found, states[-1] if states else [], sum(looks)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(got, expected):
    assert got.keys() == expected.keys()
    for key, samples in expected.items():
        for one, other in zip(got[key], samples, strict=True):
            for name in ("key", "restart", "seed", "objective", "mse", "feasible", "target_mse", "step", "steps", "reason"):
                assert getattr(one, name) == getattr(other, name), name
            assert torch.equal(one.trace, other.trace)
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.latents["z"], other.latents["z"])
            assert one.watched.keys() == other.watched.keys()
            for name, value in other.watched.items():
                torch.testing.assert_close(one.watched[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="module")
def whole():
    return answers(PLAN, queue())


@pytest.mark.parametrize("kill", [1, 4, 6, 9, 12, 15, 18, 22, 27, 31])
def test_killed_at_any_look(whole, kill):
    images = queue()
    found, state, begun = answers(PLAN, images, kill=kill)
    left = [image for image in images if image[0] not in found]
    rest, _, steps = answers(PLAN, left, saved=through_a_file(state))
    same(found | rest, whole[0])
    assert begun + steps <= whole[2] + PLAN.slots * 3  # searches that are over have one more look; none is made again


def test_checkpoints_that_are_older_and_killed_again(whole):
    images, found, state, steps = queue(), {}, [], 0
    for kill in (8, 6, 9, None):
        left = [image for image in images if image[0] not in found]
        some, newer, taken = answers(PLAN, left, saved=through_a_file(state), kill=kill, every=5)
        found, state, steps = found | some, newer or state, steps + taken
    same(found, whole[0])
    assert steps < whole[2] + 60


@pytest.mark.parametrize("watch", [False, True])
def test_what_is_watched_goes_on(watch):
    images = queue(1)
    expected, _, _ = answers(PLAN, images, watch=watch)
    _, state, _ = answers(PLAN, images, watch=watch, kill=7)
    same(answers(PLAN, images, saved=state, watch=watch)[0], expected)
    same(answers(PLAN, images, saved=answers(PLAN, images, watch=not watch, kill=7)[1], watch=watch)[0], expected)


def test_a_target_that_follows_the_noise_goes_on():
    plan = Plan(phases=(replace(FIRST, stop=StopRule(steps=12, target_noise=0.2)),), slots=4)
    expected, _, _ = answers(plan, queue(), operator=Grainy)
    assert len({samples[0].target_mse for samples in expected.values()}) == 3
    found, state, _ = answers(plan, queue(), operator=Grainy, kill=5)
    left = [image for image in queue() if image[0] not in found]
    same(found | answers(plan, left, operator=Grainy, saved=through_a_file(state))[0], expected)


def test_another_measurement_or_seed_begins_anew():
    images = queue(1)
    _, state, _ = answers(PLAN, images, kill=7)
    other = [("0", 1 - images[0][1])]
    same(answers(PLAN, other, saved=state)[0], answers(PLAN, other)[0])
    seeded = replace(PLAN, seed=1)
    same(answers(seeded, images, saved=state)[0], answers(seeded, images)[0])
    _, kept, _ = answers(PLAN, other, saved=state, kill=3)
    same(answers(PLAN, images, saved=kept)[0], answers(PLAN, images)[0])  # what is not taken up is kept for its image


def test_what_has_its_answer_is_not_kept():
    engine = PLAN.engine(ConvToy(), PoolToy())
    engine.flights.records = True
    for answer in PLAN.run(engine, queue()):
        assert answer.key not in {known["key"] for known in engine.flights.state()}
    assert engine.flights.state() == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_goes_on(dtype):
    plan = Plan(phases=(replace(FIRST, stop=StopRule(steps=12)),), slots=4)
    with torch.autocast("cpu", dtype):
        expected, _, _ = answers(plan, queue())
        _, state, _ = answers(plan, queue(), kill=5)
        same(answers(plan, queue(), saved=through_a_file(state))[0], expected)


def test_a_second_try_is_made_again(monkeypatch):
    """A search that reduced precision has lost is written down as lost; full precision begins anew."""
    step = RowStepper.step

    def lossy(self, rows):
        step(self, rows)
        if torch.is_autocast_enabled("cpu"):
            rows["reason"][rows["steps"] >= 3] = 4

    monkeypatch.setattr(RowStepper, "step", lossy)
    plan = Plan(phases=(replace(FIRST, stop=StopRule(steps=12)),), slots=4)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _, _ = answers(plan, queue())
        assert all(samples[0].retried for samples in expected.values())
        _, state, _ = answers(plan, queue(), kill=8)
        got, _, _ = answers(plan, queue(), saved=through_a_file(state))
    same(got, expected)
    assert all(samples[0].retried for samples in got.values())
