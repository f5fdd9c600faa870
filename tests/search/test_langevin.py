"""Langevin dynamics: posteriors in closed form, in flat space and on a sphere; what is kept; rows that never meet."""

import math
from dataclasses import replace

import pytest
import torch

from degradations.compose import compose
from degradations.downscale import Downscale
from degradations.identity import Identity
from degradations.mask import Mask
from degradations.noise import GaussianNoise
from generators.linear import LinearGenerator
from pulse_framework.manifolds import Euclidean, Sphere
from pulse_framework.priors import GaussianPrior, SpherePrior
from pulse_framework.search import (
    Adam,
    Engine,
    L2Consistency,
    Langevin,
    NoiseLikelihood,
    Objective,
    Phase,
    PriorEnergy,
    Search,
    StopRule,
    annealed,
)
from pulse_framework.search.noise import noise_key
from pulse_framework.search.optimisers import Iterate
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import ConvToy, PoolToy
from tests.search import test_flights as flights

SIGMA = 0.05
POSTERIOR = Objective({"likelihood": NoiseLikelihood(sigma=SIGMA), "energy": PriorEnergy()})
LAST = StopRule(steps=80, keep="last")
HEAVY = Langevin(momentum=0.8, acceptance=0.8)
PHASE = Phase(prior=GaussianPrior(), objective=POSTERIOR, optimiser=HEAVY, stop=LAST)


def ppca():
    """A PPCA generator under an operator and noise; y, and mean and precision of its posterior."""
    size = 4
    matrix = torch.randn(1, 4, 4, size, generator=rng(0), dtype=torch.float64)
    matrix = matrix * torch.tensor([0.4, 0.3, 0.2, 0.05], dtype=torch.float64)
    generator, operator = LinearGenerator(matrix, torch.full((1, 4, 4), 0.5, dtype=torch.float64)), PoolToy()
    z = torch.randn(1, size, generator=rng(1), dtype=torch.float64)
    y = operator(generator({"z": z})) + SIGMA * torch.randn(1, 1, 2, 2, generator=rng(2), dtype=torch.float64)
    basis = operator(matrix.movedim(-1, 0)).flatten(1).T
    precision = torch.eye(size, dtype=torch.float64) + basis.T @ basis / SIGMA**2
    rest = (y - operator(generator.mean[None])).flatten()
    return generator, operator, y[0], torch.linalg.solve(precision, basis.T @ rest / SIGMA**2), precision


def run(optimiser, energy, x, steps, manifold=None):
    """Where every row is in the end, and the share of proposals that were taken in the second half."""
    manifold, last, taken = manifold or Euclidean(), x, []
    keys = torch.stack([noise_key(0, "row", row, 0) for row in range(len(x))])
    table = optimiser.table(torch.full((steps,), optimiser.rate, dtype=torch.float64)).to(x.dtype)
    state = optimiser.begin({"z": x}, x)
    for step in range(steps):
        leaf = x.detach().requires_grad_()
        value = energy(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        at = Iterate(
            latents={"z": x},
            gradients={"z": gradient},
            manifolds={"z": manifold},
            objective=value.detach(),
            live=torch.ones(len(x), dtype=torch.bool),
            coefficients=table[step][:, None].expand(-1, len(x)),
            weight=0.0,
            measured=lambda latents: latents["z"],
            keys=keys,
            numbers=torch.full((len(x),), step),
        )
        moved, state = optimiser.move(at, state)
        last = torch.where(state["taken"][:, None], x, last)
        taken.append(float(state["taken"].double().mean()))
        x = moved["z"]
    return last, sum(taken[steps // 2 :]) / len(taken[steps // 2 :])


def white_deviations(u):
    """Of samples that should be white: the largest of mean and covariance, and the 90 % coverage, in standard errors."""
    count, size = u.shape
    mean = u.mean(0).abs().max() * count**0.5
    spread = (u.T @ u / count - torch.eye(size)) * count**0.5 / (torch.eye(size) + 1).sqrt()
    within = torch.distributions.Chi2(torch.tensor(float(size), dtype=u.dtype)).cdf(u.square().sum(1)) < 0.9
    return float(mean), float(spread.abs().max()), abs(float(within.double().mean()) - 0.9) / (0.09 / count) ** 0.5


def test_samples_of_ppca_are_its_posterior():
    """Mean, covariance and 90 % coverage within sampling error, every sample a search of its own through the engine."""
    generator, operator, y, mean, precision = ppca()
    count, phase = 512, replace(PHASE, stop=replace(LAST, steps=160))
    engine = Engine(generator, operator, [phase], slots=count, lane=count)
    z = torch.stack([result.latents["z"] for result in engine.run(Search("y", y, restart) for restart in range(count))])
    white = (z - mean) @ torch.linalg.cholesky(precision)
    assert max(white_deviations(white)) < 4
    assert max(white_deviations(1.2 * white)) > 4  # what would be seen of a noise that is 20 % too large


@pytest.mark.parametrize("optimiser", [HEAVY, Langevin()], ids=["momentum", "none"])
def test_half_of_the_steps_adapt_the_lengths(optimiser):
    """To the share of proposals that was asked for, with no harm to a Gaussian of uneven widths."""
    scales = torch.tensor([1.0, 6.0, 40.0, 150.0], dtype=torch.float64)
    start = torch.randn(600, 4, generator=rng(3), dtype=torch.float64)
    last, taken = run(optimiser, lambda z: (scales * z.square()).sum(1) / 2, start, 100)
    assert max(white_deviations(last * scales.sqrt())) < 4
    assert taken == pytest.approx(optimiser.acceptance, abs=0.1)


def test_on_a_sphere_samples_are_von_mises_and_fishers():
    """Mean and mean square of the cosine, in closed form; steps are long, and every sample has the radius."""
    kappa, sphere, count = 3.0, Sphere(1.0), 1500
    start = sphere.project(torch.randn(count, 3, generator=rng(4), dtype=torch.float64))
    last, _ = run(Langevin(rate=0.5), lambda z: -kappa * z[:, 2], start, 40, sphere)
    torch.testing.assert_close(last.norm(dim=1), torch.ones(count, dtype=torch.float64))
    mean = 1 / math.tanh(kappa) - 1 / kappa
    for got, expected in ((last[:, 2], mean), (last[:, 2].square(), 1 - 2 * mean / kappa), (last[:, 0], 0.0)):
        assert abs(float(got.mean()) - expected) < 4 * float(got.std()) / count**0.5


def test_searches_are_the_same_bit_for_bit_in_any_company():
    """In float32, with convolutions, through two temperatures; other seeds and restarts end elsewhere."""
    generator, operator = ConvToy(), Downscale(4)
    plan = annealed(prior=SpherePrior(), objective=POSTERIOR, optimiser=Langevin(), steps=16, levels=1)
    ys = operator(generator({"z": torch.randn(5, 8, generator=rng(3))})).detach()
    searches = [Search(f"image {index}", y, index=index) for index, y in enumerate(ys)]
    alone = [next(Engine(generator, operator, plan.phases, slots=1).run([search])) for search in searches]
    for together in Engine(generator, operator, plan.phases, slots=4).run(searches[::-1]):
        assert torch.equal(together.trace, alone[together.index].trace)
        assert torch.equal(together.latents["z"], alone[together.index].latents["z"])
        assert float(together.latents["z"].norm()) == pytest.approx(8**0.5, rel=1e-5)
    begin = {"z": alone[0].latents["z"]}
    others = [Search("image 0", ys[0], restart, seed, start=begin) for restart, seed in ((0, 0), (1, 0), (0, 1))]
    ends = [result.latents["z"] for result in Engine(generator, operator, plan.phases).run(others)]
    assert len({tuple(end.tolist()) for end in ends}) == 3


def test_a_killed_run_goes_on_with_the_same_bits():
    """From what was written down on the way, the simulated level of the noise and the key of the random numbers included."""
    objective = Objective({"likelihood": NoiseLikelihood(), "energy": PriorEnergy()})
    plan = annealed(
        prior=SpherePrior(), objective=objective, optimiser=Langevin(), steps=10, levels=1, target_noise=1.5, samples=2, slots=4
    )
    whole, *_ = flights.answers(plan, flights.queue(), operator=flights.Grainy)
    found, state, _ = flights.answers(plan, flights.queue(), kill=8, operator=flights.Grainy)
    assert len(found) < len(whole)
    saved = flights.through_a_file(state)
    rest, *_ = flights.answers(
        plan, [image for image in flights.queue() if image[0] not in found], saved=saved, operator=flights.Grainy
    )
    for key, samples in (found | rest).items():
        for sample, expected in zip(samples, whole[key], strict=True):
            assert torch.equal(sample.trace, expected.trace)
            assert torch.equal(sample.latents["z"], expected.latents["z"])


def test_the_last_that_was_taken_is_kept():
    """Latent, image and numbers are of one iterate, which is not the best; of Adam it is the last of all."""
    generator, operator, y, *_ = ppca()
    (result,) = Engine(generator, operator, [PHASE]).run([Search("y", y)])
    assert result.step > 70
    assert result.objective > float(result.trace[:, 0].min())
    assert result.objective == float(result.trace[result.step, 0])
    assert result.mse == float(result.trace[result.step, 1])
    image = generator({"z": result.latents["z"][None]})[0]
    torch.testing.assert_close(result.image, image)
    adam = replace(PHASE, optimiser=Adam(rate=0.5), stop=replace(LAST, steps=30))
    (last,) = Engine(generator, operator, [adam]).run([Search("y", y)])
    (best,) = Engine(generator, operator, [replace(adam, stop=StopRule(steps=30))]).run([Search("y", y)])
    assert last.step == 29
    assert best.step < 29
    assert torch.equal(last.trace, best.trace)


def test_what_is_not_finite_is_not_kept():
    """The last finite iterate is the answer."""
    generator, operator, y, *_ = ppca()
    wild = replace(PHASE, optimiser=Adam(rate=1e160), stop=LAST)
    (result,) = Engine(generator, operator, [wild]).run([Search("y", y)])
    assert result.step == result.steps - 2
    assert math.isfinite(result.objective)


def test_the_level_of_the_noise_is_that_of_the_degradation():
    """Simulated by ``measure``, over the pixels that are observed; and never less than ``least``."""
    generator, y = ppca()[0], torch.rand(1, 4, 4, generator=rng(5), dtype=torch.float64)
    noise, hidden = GaussianNoise(0.1, bits=None), Mask((torch.arange(16) < 4).double().reshape(4, 4))
    cases = [(noise, 0.01, 0.1), (compose([noise, hidden]), 0.01, 0.1), (compose([hidden, noise]), 0.01, 0.1)]
    for operator, least, expected in [*cases, (Identity(), 0.03, 0.03)]:
        objective = Objective({"likelihood": NoiseLikelihood(least=least), "energy": PriorEnergy()})
        phase = replace(PHASE, objective=objective, stop=StopRule(steps=1, target_noise=None))
        (result,) = Engine(generator, operator, [phase]).run([Search("y", y, start={"z": torch.zeros(4)})])
        sigma = (16 * result.mse / (2 * result.objective)) ** 0.5
        assert sigma == pytest.approx(expected, rel=0.03)


def test_temperatures_divide_the_likelihood_alone():
    plan = annealed(
        prior=GaussianPrior(), objective=POSTERIOR, optimiser=Langevin(rate=0.05), steps=101, hottest=100.0, levels=2, cooling=0.5
    )
    weights = [phase.objective.terms["likelihood"].weight for phase in plan.phases]
    assert weights == pytest.approx([0.01, 0.1, 1.0])
    assert [phase.objective.terms["energy"].weight for phase in plan.phases] == [1.0] * 3
    assert [phase.optimiser.rate for phase in plan.phases] == pytest.approx([0.5, 0.05 * 10**0.5, 0.05])
    assert [phase.stop.steps for phase in plan.phases] == [25, 25, 51]
    assert all(phase.stop.keep == "last" and not phase.stop.at_target and not phase.climb for phase in plan.phases)
    (cold,) = annealed(prior=GaussianPrior(), objective=POSTERIOR, optimiser=Langevin(), steps=2).phases
    assert cold.stop.steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"longest": 0.05}, "Langevin longest: expected a number of at least the rate 0.1"),
        ({"momentum": 1.0}, "Langevin momentum: expected a number in"),
        ({"acceptance": 0.0}, "Langevin acceptance: expected a number in"),
        ({"adapting": 1.5}, "Langevin adapting: expected a number in"),
        ({"rate": 0.0}, "Langevin rate: expected a positive number"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Langevin(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hottest": 0.5}, "search hottest: expected a temperature of at least 1"),
        ({"levels": -1}, "search levels: expected at least 0"),
        ({"cooling": 1.0}, "search cooling: expected a share in"),
    ],
)
def test_settings_of_the_plan_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        annealed(prior=GaussianPrior(), objective=POSTERIOR, optimiser=Langevin(), steps=10, **change)


def test_keep_and_sigma_are_checked():
    with pytest.raises((ValueError, TypeError), match="keep"):
        StopRule(steps=1, keep="first")
    for change in ({"sigma": 0.0}, {"least": 0.0}):
        with pytest.raises(ValueError, match="expected a finite number above 0"):
            NoiseLikelihood(**change)


def test_a_likelihood_without_a_level_of_noise_says_so():
    objective = Objective({"likelihood": NoiseLikelihood(), "data": L2Consistency()})
    assert objective.needs_noise
    assert not POSTERIOR.needs_noise
