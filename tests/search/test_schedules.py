"""Schedules at known points."""

import pytest

from pulse_framework.search import Constant, CosineRamps, Linear1Cycle, Linear1CycleDrop

DROP = {0: 0.1, 22.5: 0.55, 45: 1.0, 67.5: 0.55, 90: 0.1, 95: 0.0505, 99: 0.0109}
CYCLE = {0: 0.1, 25: 0.55, 50: 1.0, 75: 0.55, 99: 0.118}


@pytest.mark.parametrize(("step", "multiplier"), DROP.items())
def test_linear1cycledrop_is_pulses(step, multiplier):
    assert Linear1CycleDrop()(step / 100) == pytest.approx(multiplier, abs=1e-12)


@pytest.mark.parametrize(("step", "multiplier"), CYCLE.items())
def test_linear1cycle_is_a_triangle(step, multiplier):
    assert Linear1Cycle()(step / 100) == pytest.approx(multiplier, abs=1e-12)


def test_low_end_is_a_setting():
    assert Linear1Cycle(0.2)(0.25) == pytest.approx(0.6)
    assert Linear1CycleDrop(0.2)(0.95) == pytest.approx(0.2 * 0.505)


def test_constant_is_one():
    assert [Constant()(fraction) for fraction in (0.0, 0.5, 0.99)] == [1.0] * 3


RAMPS = {0: 0.0, 10: 0.2, 50: 1.0, 500: 1.0, 750: 1.0, 875: 0.5, 950: 0.0954915, 999: 3.947818e-05}


@pytest.mark.parametrize(("step", "multiplier"), RAMPS.items())
def test_cosine_ramps_are_the_projectors(step, multiplier):
    """Of 1000 steps: linear over 50, whole until 750, and a half period of the cosine from there."""
    assert CosineRamps()(step / 1000) == pytest.approx(multiplier, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("settings", [{"down": 0}, {"up": 1.5}, {"down": float("nan")}])
def test_cosine_ramps_are_fractions(settings):
    with pytest.raises(ValueError, match=f"CosineRamps {next(iter(settings))}: expected a fraction"):
        CosineRamps(**settings)
