"""Adam seen through noise that fades: Adam itself without noise, and where it has faded."""

from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior
from pulse_framework.search import Adam, Engine, JitteredAdam, L2Consistency, Objective, Phase, Search, StopRule
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import PoolToy, StyleToy

JITTERED = JitteredAdam(rate=0.05, block="w", jitter=0.1, until=0.5, samples=2000)
PHASE = Phase(
    prior=FlatPrior(),
    blocks=("w",),
    objective=Objective({"data": L2Consistency()}),
    optimiser=JITTERED,
    stop=StopRule(steps=16),
)


def found(optimiser, slots=4, restarts=4, steps=16):
    phase = replace(PHASE, optimiser=optimiser, stop=StopRule(steps=steps, keep="last"))
    engine = Engine(StyleToy(), PoolToy(), [phase], slots=slots)
    searches = [Search("image", uniform((1, 2, 2), 3, torch.float32), restart) for restart in range(restarts)]
    return sorted(engine.run(searches), key=lambda result: result.restart)


def test_without_noise_it_is_adam():
    for one, other in zip(found(replace(JITTERED, jitter=0.0)), found(Adam(rate=0.05)), strict=True):
        assert torch.equal(one.trace, other.trace)


def test_the_first_iterate_is_the_start_and_the_next_ones_are_not_adams():
    for one, other in zip(found(JITTERED), found(Adam(rate=0.05)), strict=True):
        assert torch.equal(one.trace[0], other.trace[0])
        assert bool((one.trace[1:8] != other.trace[1:8]).all())


def test_noise_is_as_large_as_it_says():
    """Second iterates of many starts, less Adam's own: of 600 numbers the deviation is within 15 % (5 standard errors)."""
    known = JITTERED.on(StyleToy(), ("w",))
    w = StyleToy().lift({"z": torch.randn(20000, 6, generator=torch.Generator().manual_seed(9))}, "w").detach()
    assert known.spread == pytest.approx(float((w - w.mean(0)).square().sum(1).mean().sqrt()), rel=0.03)
    table = known.table(torch.full((16,), 0.05, dtype=torch.float64))
    assert table[:, -1].tolist() == pytest.approx([0.1 * known.spread * max(0, 1 - (n + 1) / 8) ** 2 for n in range(16)])
    own, plain = (found(optimiser, 16, 100, 2) for optimiser in (replace(JITTERED, until=1.0), Adam(rate=0.05)))
    noise = torch.stack([one.latents["w"] - other.latents["w"] for one, other in zip(own, plain, strict=True)])
    assert float(noise.std()) == pytest.approx(0.1 * known.spread / 4, rel=0.15)


def test_answers_ignore_slots_and_company():
    for slots, restarts in ((1, 4), (2, 4), (16, 3)):
        for one, other in zip(found(JITTERED, slots, restarts), found(JITTERED), strict=False):
            assert torch.equal(one.trace, other.trace)
            assert torch.equal(one.image, other.image)


@pytest.mark.parametrize("settings", [{"jitter": -1.0}, {"until": 0.0}, {"until": 1.5}, {"samples": 1}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=f"JitteredAdam {next(iter(settings))}: expected"):
        replace(JITTERED, **settings)


def test_a_block_that_stays_is_refused():
    with pytest.raises(ValueError, match=r"JitteredAdam block: expected one of those that move, \['z'\], got 'w'"):
        replace(PHASE, blocks=("z",)).on(StyleToy())
