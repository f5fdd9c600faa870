"""Coarse to fine: phases on a truncated generator, whose measurement is corrected for what is left out."""

from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior
from pulse_framework.search import SGD, Adam, Engine, L2Consistency, Objective, Phase, Plan, Search, StopRule
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import GainToy, LinearToy, PoolToy, StyleToy

PHASE = Phase(
    prior=FlatPrior(), objective=Objective({"data": L2Consistency()}), optimiser=Adam(rate=0.05), stop=StopRule(steps=12)
)
COARSE = replace(PHASE, coarse=1)
Y = uniform((1, 2, 2), 3)


class Sum(LinearToy):
    """The sum of two linear images, each with its own bias; the second is the finer level."""

    def __init__(self):
        super().__init__()
        self.fine = LinearToy(0.3 * uniform((1, 4, 4, 3), 5), uniform((1, 4, 4), 6))

    def synthesize(self, latents):
        return super().synthesize(latents) + self.fine.synthesize(latents)

    def truncated(self, levels):
        assert levels == 1
        return LinearToy(self.weight, self.bias).to(self.weight.dtype)


def run(generator, phases, ys=(Y,), degradation=None, **settings):
    engine = Engine(generator.double(), degradation or PoolToy(), phases, **settings)
    return engine, sorted(engine.run([Search(f"image {i}", y, index=i) for i, y in enumerate(ys)]), key=lambda r: r.index)


def test_a_coarse_phase_begins_with_the_residual_of_the_whole_generator():
    _, (fine,) = run(Sum(), [PHASE])
    _, (coarse,) = run(Sum(), [COARSE, PHASE])
    assert torch.allclose(coarse.trace[0, 1], fine.trace[0, 1], rtol=1e-10)
    assert not torch.allclose(coarse.trace[11, 1], fine.trace[11, 1], rtol=1e-3)


def test_a_coarse_step_is_one_against_the_corrected_measurement():
    """One step of gradient descent by hand: the gradient of the truncated image, the residual of the whole one."""
    generator, rate = Sum(), 0.1
    engine, (result,) = run(generator, [replace(COARSE, optimiser=SGD(rate=rate), stop=StopRule(steps=2)), PHASE])
    z = engine.starts.first(Search("image 0", Y)).latents["z"].requires_grad_()
    operator = PoolToy()
    with torch.no_grad():
        left_out = operator(generator({"z": z})) - operator(generator.truncated(1)({"z": z}))

    def mse(at):
        return (operator(generator.truncated(1)({"z": at})) + left_out - Y).square().mean()

    (gradient,) = torch.autograd.grad(mse(z), z)
    assert torch.allclose(result.trace[1, 1], mse(z - rate * gradient).detach(), rtol=1e-10)


def test_the_answer_is_that_of_the_whole_generator():
    generator = Sum()
    _, (result,) = run(generator, [COARSE, COARSE, PHASE])
    image = generator({"z": result.latents["z"][None]})[0].detach()
    assert torch.equal(result.image, image)
    assert result.mse == pytest.approx(float((PoolToy()(image[None])[0] - Y).square().mean()), rel=1e-10)
    assert len(result.trace) == 36


def test_answers_do_not_depend_on_the_slots():
    with torch.no_grad():
        ys = PoolToy()(Sum().double()({"z": 4 * uniform((5, 3), 7) - 2}))
    phases = [replace(phase, stop=StopRule(steps=12, target_db=15)) for phase in (COARSE, COARSE, PHASE)]
    _, one = run(Sum(), phases, ys, slots=1)
    _, four = run(Sum(), phases, ys, slots=4)
    assert len({result.steps for result in one}) > 1
    assert all(torch.equal(a.image, b.image) and torch.equal(a.trace, b.trace) for a, b in zip(one, four, strict=True))


def test_unknown_parameters_stay_beside_a_truncated_generator():
    _, (result,) = run(Sum(), [COARSE, PHASE], degradation=GainToy(), ys=(uniform(GainToy().measurement_shape((1, 4, 4)), 3),))
    assert set(result.latents) > {"z"}


def test_the_last_phase_is_at_full_size():
    with pytest.raises(ValueError, match="expected the last one at full size, got coarse"):
        Plan(phases=[PHASE, COARSE])


@pytest.mark.parametrize("levels", [1, -1])
def test_a_generator_that_cannot_be_truncated_is_refused_before_any_work(levels):
    with pytest.raises(ValueError, match="StyleToy: expected a generator that adds up images"):
        Plan(phases=[replace(PHASE, coarse=levels), PHASE]).check(StyleToy(), [PoolToy()])
