"""Plans from flat settings: one target for all phases, and a budget shared out in proportion."""

from dataclasses import replace

import pytest

from pulse_framework.cli.compose import build, load
from pulse_framework.priors import FlatPrior
from pulse_framework.search import (
    LBFGS,
    SGD,
    Constant,
    EncoderStart,
    L2Consistency,
    Linear1Cycle,
    NearestDraw,
    Objective,
    Phase,
    StopRule,
    by_target,
    multi_phase,
    single_phase,
)

PARTS = {"prior": FlatPrior(), "objective": Objective({"data": L2Consistency()}), "optimiser": SGD(rate=0.1)}


class Guess(EncoderStart):
    """One whose file nobody reads."""

    def __post_init__(self):
        pass


def phases(*steps):
    return [Phase(**PARTS, stop=StopRule(steps=count, patience=count)) for count in steps]


@pytest.mark.parametrize(
    ("steps", "shares"),
    [(None, [1, 20, 79]), (100, [1, 20, 79]), (1000, [10, 200, 790]), (10, [1, 2, 8]), (1, [1, 1, 1]), (33, [1, 7, 26])],
)
def test_the_budget_is_shared_out(steps, shares):
    plan = multi_phase(phases=phases(1, 20, 79), steps=steps)
    assert [phase.stop.steps for phase in plan.phases] == shares


def test_the_target_is_that_of_every_phase_and_what_is_not_given_stays():
    plan = multi_phase(phases=phases(3, 4), target_db=30.0, at_target=False, seed=7, restarts=2, start=NearestDraw(draws=5))
    for phase, before in zip(plan.phases, phases(3, 4), strict=True):
        assert phase.stop == replace(before.stop, target_db=30.0, at_target=False)
        assert phase.stop.patience == before.stop.steps
    assert (plan.seed, plan.restarts, plan.start.draws, plan.samples) == (7, 2, 5, 1)


def test_one_phase_is_a_plan_of_one():
    single = single_phase(**PARTS, steps=9, target_mse=0.1, slots=3)
    several = multi_phase(phases=[Phase(**PARTS, stop=StopRule(steps=9))], target_mse=0.1, slots=3)
    assert single == several
    assert (single.phases[0].stop.target_mse, single.slots) == (0.1, 3)


def test_a_budget_is_at_least_one_step():
    with pytest.raises(ValueError, match="search steps: expected at least 1, got 0"):
        multi_phase(phases=phases(2), steps=0)


def test_settings_that_there_are_not_are_refused():
    with pytest.raises(TypeError, match="nope"):
        single_phase(**PARTS, steps=1, nope=2)


@pytest.mark.parametrize(
    ("given", "precise"),
    [
        ({"start": Guess(path="encoder.safetensors")}, True),
        ({"start": Guess(path="encoder.safetensors"), "target_db": 20.0}, True),
        ({"start": NearestDraw(draws=8), "target_db": 20.0}, False),
        ({}, False),
        ({"target_db": 29.9}, False),
        ({"target_db": 30.0}, True),
        ({"target_db": 45.0}, True),
        ({"target_mse": 2e-3}, False),
        ({"target_mse": 1e-4}, True),
        ({"target_mse": 0.0}, True),
    ],
)
def test_target_and_start_decide_which_optimiser_runs(given, precise):
    own = {**PARTS, "schedule": Linear1Cycle(), "steps": 5, "blocks": ["z"], "seed": 3, **given}
    two = {"precise": LBFGS(), "precise_schedule": Constant(), "precise_from_db": 30.0}
    plan = by_target(**own, **two)
    exact = {**own, "optimiser": two["precise"], "schedule": two["precise_schedule"]}
    assert replace(plan, told="") == single_phase(**(exact if precise else own))
    assert plan.told.startswith(f"the search runs {'LBFGS' if precise else 'SGD'} for ")
    assert ("from an encoder's guess" in plan.told) == isinstance(given.get("start"), EncoderStart)


def test_the_default_search_is_auto_which_is_adam_up_to_its_limit_and_says_so():
    auto, adam = build(load([]).search), build(load(["search=adam"]).search)
    assert "Adam for a target of 27 dB" in auto.told
    assert not adam.told
    assert auto.phases[0].optimiser == adam.phases[0].optimiser
    assert auto.phases[0].stop == adam.phases[0].stop
    precise = build(load(["search=auto", "search.target_db=45"]).search)
    assert precise.phases[0].optimiser == build(load(["search=lbfgs"]).search).phases[0].optimiser
