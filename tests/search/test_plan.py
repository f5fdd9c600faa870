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
