"""Terms and their sum, by hand and by finite differences."""

import pytest
import torch

from pulse_framework.priors import FlatPrior, GaussianPrior
from pulse_framework.search import Evaluation, L1Consistency, L2Consistency, Objective, PriorEnergy
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import LinearToy, PoolToy

GENERATOR, DEGRADATION = LinearToy().double(), PoolToy()


def evaluation(z, y, priors=None):
    image = GENERATOR({"z": z})
    degraded = DEGRADATION(image)
    return Evaluation({"z": z}, priors or {"z": GaussianPrior()}, image, degraded, y, (degraded - y).square().flatten(1).mean(1))


def made(errors):
    """Two items whose A(x) - y is given, without a generator."""
    errors = torch.tensor(errors, dtype=torch.float64).reshape(2, 1, 1, 2).requires_grad_()
    y = torch.full_like(errors, 0.5).detach()
    degraded = y + errors
    at = Evaluation({"z": errors.flatten(1)}, {}, degraded, degraded, y, (degraded - y).square().flatten(1).mean(1))
    return errors, at


def test_consistency_by_hand():
    _, at = made([[0.1, -0.3], [0.0, 0.2]])
    assert L2Consistency()(at).tolist() == pytest.approx([0.05, 0.02])
    assert L1Consistency()(at).tolist() == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize(
    ("term", "values"), [(L2Consistency(floor=0.03), [0.05, 0.03]), (L1Consistency(floor=0.15), [0.2, 0.15])]
)
def test_floor_stops_the_gradient_of_its_own_row(term, values):
    errors, at = made([[0.1, -0.3], [0.0, 0.2]])
    value = term(at)
    assert value.tolist() == pytest.approx(values)
    (gradient,) = torch.autograd.grad(value.sum(), errors)
    assert gradient[0].abs().min() > 0
    assert gradient[1].abs().max() == 0


def test_objective_is_the_weighted_sum():
    y = torch.rand(3, 1, 2, 2, generator=rng(1), dtype=torch.float64)
    z = torch.randn(3, 3, generator=rng(2), dtype=torch.float64)
    at = evaluation(z, y)
    objective = Objective({"data": L2Consistency(weight=100.0), "prior": PriorEnergy(weight=0.5)})
    expected = 100 * (DEGRADATION(GENERATOR({"z": z})) - y).square().mean((1, 2, 3)) + 0.25 * z.square().sum(1)
    torch.testing.assert_close(objective(at), expected)


def test_prior_energy_adds_up_the_blocks_that_move():
    latents = {"z": torch.full((2, 3), 2.0), "noise": torch.ones(2, 4), "fixed": torch.ones(2, 9)}
    nothing = torch.zeros(2, 1)
    at = Evaluation(latents, {"z": GaussianPrior(), "noise": GaussianPrior()}, nothing, nothing, nothing, nothing[:, 0])
    assert PriorEnergy()(at).tolist() == [6.0 + 2.0] * 2


@pytest.mark.parametrize("terms", [[L2Consistency(weight=3.0)], [L1Consistency()], [L2Consistency(), PriorEnergy(weight=0.1)]])
def test_gradient_is_true(terms):
    y = torch.rand(2, 1, 2, 2, generator=rng(1), dtype=torch.float64)
    objective = Objective({str(number): term for number, term in enumerate(terms)})
    z = torch.randn(2, 3, generator=rng(3), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(evaluation(z, y)), (z,))


def test_flat_prior_adds_nothing():
    z = torch.randn(2, 3, generator=rng(3), dtype=torch.float64)
    y = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    assert PriorEnergy()(evaluation(z, y, {"z": FlatPrior()})).tolist() == [0.0, 0.0]


def test_an_empty_objective_is_refused():
    with pytest.raises(ValueError, match="at least one term"):
        Objective({})


def test_a_term_that_is_none_is_left_out():
    term = L2Consistency()
    assert Objective({"data": term, "features": None}).terms == {"data": term}
    with pytest.raises(ValueError, match="Objective: expected at least one term, got none"):
        Objective({"data": None})
