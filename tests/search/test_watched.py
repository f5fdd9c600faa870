"""What is watched beside the trace: equations between norms, terms and trace; and no answer that knows of it."""

from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import GaussianPrior, SpherePrior
from pulse_framework.search import SGD, Adam, Engine, L2Consistency, Objective, Phase, PriorEnergy, Search, StopRule
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import ConvToy, LinearWorld, PoolToy

WORLD = LinearWorld.make()
DATA = L2Consistency(weight=3.0)
PHASE = Phase(
    prior=GaussianPrior(),
    objective=Objective({"data": DATA, "pull": PriorEnergy(weight=0.2)}),
    optimiser=SGD(rate=0.04),
    stop=StopRule(steps=20),
)
RATE = PHASE.optimiser.rate


def found(*phases, **settings):
    engine = Engine(WORLD.generator, WORLD.degradation, phases, **settings)
    return sorted(engine.run([Search(key, y) for key, y in WORLD.measurements(3)]), key=lambda result: result.key)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_terms_add_up_and_the_step_is_rate_times_gradient(slots):
    for result in found(PHASE, watch=True, slots=slots):
        watched = result.watched
        assert set(watched) == {"radius", "step_size", "gradient_norm", "term/data", "term/pull"}
        assert all(value.shape == (20,) for value in watched.values())
        torch.testing.assert_close(watched["term/data"] + watched["term/pull"], result.trace[:, 0])
        torch.testing.assert_close(watched["term/data"], 3.0 * result.trace[:, 1])
        torch.testing.assert_close(watched["step_size"], RATE * watched["gradient_norm"])
        assert float(watched["step_size"].min()) > 0


def test_norms_are_those_of_the_latents():
    """The best iterate of a falling objective is the last one, whose gradient autograd gives too."""
    (result, *_) = found(PHASE, watch=True)
    assert result.step == 19
    z = result.latents["z"][None].clone().requires_grad_()
    y = dict(WORLD.measurements(3))[result.key]
    loss = 3.0 * (WORLD.degradation(WORLD.generator({"z": z})) - y).square().mean() + 0.2 * GaussianPrior().energy(z).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(result.watched["radius"][-1], z.detach().norm())
    torch.testing.assert_close(result.watched["gradient_norm"][-1], gradient.norm())


def test_a_sphere_keeps_the_radius():
    phase = replace(PHASE, prior=SpherePrior(0.7), objective=Objective({"data": DATA}), optimiser=Adam(rate=0.1))
    for result in found(phase, watch=True):
        torch.testing.assert_close(result.watched["radius"], torch.full_like(result.watched["radius"], 0.7))


def test_phases_follow_one_another_with_gaps_where_a_term_is_missing():
    (result, *_) = found(PHASE, replace(PHASE, objective=Objective({"data": DATA}), stop=StopRule(steps=5)), watch=True)
    assert result.trace.shape == (25, 2)
    assert result.watched["term/data"].isfinite().all()
    assert result.watched["term/pull"].isnan().tolist() == [False] * 20 + [True] * 5


def test_nothing_is_recorded_unless_asked():
    assert all(result.watched == {} for result in found(PHASE))


def test_answers_are_the_same_bit_for_bit():
    phase = replace(PHASE, optimiser=Adam(rate=0.1))
    searches = [Search(f"{i}", uniform((3, 8, 8), i).float()) for i in range(5)]
    plain, watched = (
        sorted(Engine(ConvToy(), PoolToy(), [phase], watch=watch).run(searches), key=lambda result: result.key)
        for watch in (False, True)
    )
    for one, other in zip(plain, watched, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.trace, other.trace)
        assert all(torch.equal(value, other.latents[name]) for name, value in one.latents.items())


def test_snapshots_are_the_best_iterates_so_far():
    seen = {}

    def observe(progress):
        seen.update({(shot.key, shot.step): shot.image.clone() for shot in progress.snapshots})

    results = found(PHASE, observe=observe, slots=2, poll_every=5)
    assert sorted(seen) == [(result.key, step) for result in results for step in (5, 10, 15, 20)]
    for result in results:
        assert torch.equal(seen[result.key, 20], result.image)
        (short,) = (one for one in found(replace(PHASE, stop=StopRule(steps=10))) if one.key == result.key)
        torch.testing.assert_close(seen[result.key, 10], short.image)
