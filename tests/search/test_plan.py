"""Samples and restarts: which searches an image gets, and which of them answer."""

import itertools
from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior
from pulse_framework.search import SGD, L2Consistency, Objective, Phase, Plan, SearchResult, Status, StopReason, StopRule
from pulse_framework.testing.toys import LinearToy, LinearWorld

WORLD = LinearWorld.make()
PHASE = Phase(prior=FlatPrior(), objective=Objective({"data": L2Consistency()}), optimiser=SGD(rate=0.02), stop=StopRule(steps=4))
PLAN = Plan(phases=(PHASE,), slots=4)


def run(measurements=None, generator=None, **changes):
    plan = replace(PLAN, **changes)
    engine = plan.engine(generator or WORLD.generator, WORLD.degradation)
    return sorted(plan.run(engine, measurements or WORLD.measurements(3)), key=lambda answer: answer.index)


def identity(sample):
    return sample.objective, sample.image.sum().item()


def test_every_image_has_one_answer_of_the_samples_asked_for():
    answers = run(samples=3, restarts=2)
    assert [(answer.key, answer.index, len(answer.samples)) for answer in answers] == [
        (f"image {number}", number, 3) for number in range(3)
    ]
    assert all(sample.key == answer.key and sample.index == answer.index for answer in answers for sample in answer.samples)


def test_samples_are_different_and_the_best_is_first():
    for answer in run(samples=4):
        objectives = [sample.objective for sample in answer.samples]
        assert objectives == sorted(objectives)
        assert len(set(objectives)) == 4


def test_sample_does_not_depend_on_how_many_there_are():
    few, many = run(samples=2, restarts=2), run(samples=5, restarts=2)
    for one, other in zip(few, many, strict=True):
        assert {identity(sample) for sample in one.samples} < {identity(sample) for sample in other.samples}


def test_restarts_keep_the_best_of_each_group():
    singles = run(samples=6)
    for answer, single in zip(run(samples=2, restarts=3), singles, strict=True):
        by_start = sorted(single.samples, key=lambda sample: sample.restart)
        groups = [min(by_start[:3], key=lambda sample: sample.rank), min(by_start[3:], key=lambda sample: sample.rank)]
        assert [identity(sample) for sample in answer.samples] == [identity(s) for s in sorted(groups, key=lambda s: s.rank)]


def test_same_seed_same_answers():
    first, second, other = run(samples=3), run(samples=3), run(samples=3, seed=1)
    for one, two, three in zip(first, second, other, strict=True):
        assert [identity(sample) for sample in one.samples] == [identity(sample) for sample in two.samples]
        assert not {identity(sample) for sample in one.samples} & {identity(sample) for sample in three.samples}
        assert [sample.seed for sample in three.samples] == [1] * 3


def test_default_seed_is_zero():
    assert [identity(answer.samples[0]) for answer in run()] == [identity(answer.samples[0]) for answer in run(seed=0)]


def test_images_of_one_key_keep_their_own_answers():
    """And equal measurements under one key get equal answers, whatever is between them."""
    (_, first), (_, second) = WORLD.measurements(2)
    answers = run([("twin", first), ("twin", second), ("twin", first)], samples=2)
    assert [answer.index for answer in answers] == [0, 1, 2]
    kept = [[identity(sample) for sample in answer.samples] for answer in answers]
    assert kept[0] == kept[2] != kept[1]
    alone = run([("twin", second)], samples=2)
    assert kept[1] == [identity(sample) for sample in alone[0].samples]


def test_key_and_not_position_decides_the_start():
    measurements = WORLD.measurements(3)
    forward, backward = run(measurements), run(measurements[::-1])
    assert [identity(a.samples[0]) for a in forward] == [identity(a.samples[0]) for a in backward[::-1]]


def test_answers_come_as_soon_as_they_are_whole():
    """The queue may be endless."""
    (_, y), read = WORLD.measurements(1)[0], []

    def endless():
        number = 0
        while True:
            read.append(number)
            yield f"{number}", y
            number += 1

    plan = replace(PLAN, samples=2)
    answers = plan.run(plan.engine(WORLD.generator, WORLD.degradation), endless())
    for number in range(5):
        assert next(answers).index == number
        assert len(read) <= number + 4


def test_a_measurement_may_come_lazily_and_alone():
    y = WORLD.measurements(1)[0][1]
    (answer,) = run(iter([("only", y)]))
    assert answer.key == "only"


class Unsteady(LinearToy):
    """Never finite where the first latent is negative."""

    def synthesize(self, latents):
        return super().synthesize(latents) * torch.where(latents["z"][:, 0] < 0, torch.nan, 1.0)[:, None, None, None]


def test_failed_restarts_lose_to_any_other():
    generator = Unsteady(WORLD.generator.weight.detach(), WORLD.generator.bias.detach())
    singles = run(generator=generator, samples=6)
    assert {sample.status for answer in singles for sample in answer.samples} == {Status.FAILED, Status.BEST_EFFORT}
    for answer in run(generator=generator, restarts=6):
        assert answer.samples[0].status is Status.BEST_EFFORT
    for answer in singles:
        failed = [sample.status is Status.FAILED for sample in answer.samples]
        assert failed == sorted(failed)


def test_rank_prefers_finite_then_feasible_then_low_then_early():
    def made(step, feasible, objective, restart):
        empty = torch.empty(0)
        return SearchResult(
            "k", restart, 0, 0, {}, empty, objective, objective, feasible, None, step, 1, StopReason.BUDGET, 0.0, empty
        ).rank

    ordered = [
        made(0, True, 0.5, 1),
        made(0, True, 0.5, 2),
        made(0, True, 0.9, 0),
        made(0, False, 0.1, 0),
        made(-1, False, float("inf"), 0),
    ]
    assert all(better < worse for better, worse in itertools.pairwise(ordered))


@pytest.mark.parametrize("name", ["samples", "restarts"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match=f"search {name}"):
        replace(PLAN, **{name: 0})


STOP = StopRule(steps=12, target_mse=0.305)


class Entrywise(LinearToy):
    """Its arithmetic is entry by entry, so that every width gives the same bits."""

    def synthesize(self, latents):
        z = latents["z"][:, :, None, None, None]
        return z[:, 0] * self.weight[..., 0] + z[:, 1] * self.weight[..., 1] + z[:, 2] * self.weight[..., 2] + self.bias


ENTRYWISE = Entrywise(WORLD.generator.weight.detach(), WORLD.generator.bias.detach())


def until(slots, images=slice(None), samples=1, until_success=True):
    """Six restarts of five images, some of which meet the target; and how many iterates that took."""
    plan = replace(
        PLAN, phases=(replace(PHASE, stop=STOP),), slots=slots, samples=samples, restarts=6, until_success=until_success
    )
    taken, told = list(enumerate(WORLD.measurements(5)))[images], []
    engine = plan.engine(ENTRYWISE, WORLD.degradation, told.append)
    found = {taken[answer.index][0]: bits(answer) for answer in plan.run(engine, [measurement for _, measurement in taken])}
    return found, told[-1].evaluations


def bits(answer):
    return [(sample.restart, sample.step, sample.steps, sample.mse, sample.image.tolist()) for sample in answer.samples]


def test_until_success_the_lowest_numbered_restart_that_meets_the_target_answers():
    found, _ = until(4)
    winners = []
    for answer in run(WORLD.measurements(5), ENTRYWISE, phases=(replace(PHASE, stop=STOP),), samples=6):
        tried = sorted(answer.samples, key=lambda sample: sample.restart)
        met = [sample for sample in tried if sample.feasible]
        best = met[0] if met else min(tried, key=lambda sample: sample.rank)
        assert found[answer.index] == bits(replace(answer, samples=(best,)))
        winners.append(best.restart if met else None)
    assert winners == [None, 3, 3, 1, 2]


@pytest.mark.parametrize("slots", [1, 2, 8, 16])
def test_until_success_the_answer_depends_on_neither_slots_nor_other_images(slots):
    together, _ = until(4, samples=2)
    assert until(slots, samples=2)[0] == together
    assert until(slots, slice(None, None, -1), samples=2)[0] == together
    assert until(slots, slice(2, 3), samples=2)[0] == {2: together[2]}


def test_until_success_saves_steps_and_with_one_slot_begins_nothing_beyond_the_success():
    all_of_them = until(4, until_success=False)[1]
    assert until(4)[1] < all_of_them
    met = {
        answer.index: answer for answer in run(WORLD.measurements(5), ENTRYWISE, phases=(replace(PHASE, stop=STOP),), samples=6)
    }
    needed = 0
    for index, last in enumerate([5, 3, 3, 1, 2]):
        needed += sum(sample.steps for sample in met[index].samples if sample.restart <= last)
    assert until(1)[1] == needed


def test_until_success_wants_a_target():
    with pytest.raises(ValueError, match="search until_success: expected a target"):
        replace(PLAN, until_success=True)
    assert replace(PLAN, phases=(replace(PHASE, stop=StopRule(steps=4, target_noise=1.0)),), until_success=True).until_success
