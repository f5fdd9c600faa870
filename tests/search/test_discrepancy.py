"""The discrepancy principle: what noise leaves, and searches that stop there."""

from dataclasses import replace

import pytest
import torch

from degradations.downscale import Downscale
from degradations.identity import Identity
from degradations.noise import GaussianNoise, PoissonNoise, SaltAndPepper
from pulse_framework.priors import FlatPrior
from pulse_framework.search import (
    SGD,
    Engine,
    L2Consistency,
    Objective,
    Phase,
    Search,
    Status,
    StopReason,
    StopRule,
    draw,
    mse_from_db,
    psnr_db,
    stream,
)
from pulse_framework.search.discrepancy import expected_residual
from pulse_framework.testing.checks import rng, uniform
from pulse_framework.testing.toys import LinearToy, LinearWorld

SIGMA, SIDE = 0.05, 12
IMAGE = uniform((1, SIDE, SIDE), 3) * 0.4 + 0.3
PHASE = Phase(
    prior=FlatPrior(),
    objective=Objective({"data": L2Consistency()}),
    optimiser=SGD(rate=8.0),
    stop=StopRule(steps=200, target_noise=1.0),
)


def world(spread=0.05):
    """A generator that can draw every image, noise included."""
    basis = torch.linalg.qr(torch.randn((SIDE**2, SIDE**2), generator=rng(4), dtype=torch.float64)).Q
    weight = spread * SIDE * basis.reshape(1, SIDE, SIDE, SIDE**2)
    return LinearToy(weight, torch.full((1, SIDE, SIDE), 0.5, dtype=torch.float64))


def noisy(operator, count=1):
    """Measurements of the image, by the operator's own process."""
    return [Search(str(k), operator.measure(IMAGE[None], rng(k))[0], index=k) for k in range(count)]


def run(operator, stop, searches=None, slots=4, lane=None, **change):
    engine = Engine(world(**change), operator, [replace(PHASE, stop=stop)], slots=slots, lane=lane)
    return sorted(engine.run(searches or noisy(operator)), key=lambda result: result.index)


class Counted(Downscale):
    """Counts its measurements."""

    seen = 0

    def measure(self, x, rng):
        self.seen += len(x)
        return super().measure(x, rng)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (GaussianNoise(SIGMA, bits=None), SIGMA**2),
        (PoissonNoise(30, bits=None), float(IMAGE.mean()) / 30),
        (PoissonNoise(30, sigma=SIGMA, bits=None), float(IMAGE.mean()) / 30 + SIGMA**2),
        (SaltAndPepper(0.3, bits=None), 0.15 * float((IMAGE.square() + (1 - IMAGE).square()).mean())),
        (GaussianNoise(SIGMA, bits=8), SIGMA**2 + 1 / (12 * 255**2)),
        (Identity(), 0.0),
    ],
    ids=["gaussian", "poisson", "poisson and gaussian", "salt and pepper", "8 bits", "identity"],
)
def test_residual_has_its_closed_form(operator, expected):
    assert expected_residual(operator, IMAGE, rng(1)) == pytest.approx(expected, rel=0.04)


def test_rounding_alone_leaves_a_twelfth_of_a_square_level():
    smooth = uniform((3, 64, 64), 5) * 0.4 + 0.3
    residual = expected_residual(Downscale(2), smooth, rng())
    assert residual == pytest.approx(1 / (12 * 255**2), rel=0.05)
    assert psnr_db(residual) > 58


def test_standard_error_is_a_hundredth():
    found = torch.tensor([expected_residual(GaussianNoise(SIGMA, bits=None), IMAGE, rng(seed)) for seed in range(40)])
    assert float(found.std()) / SIGMA**2 == pytest.approx(0.01, rel=0.4)


def test_what_takes_no_random_number_is_measured_once():
    operator = Counted(2)
    expected_residual(operator, IMAGE, rng())
    assert operator.seen == 1


def test_images_are_clamped_and_must_be_finite():
    operator = PoissonNoise(30, bits=None)
    white = expected_residual(operator, torch.full((1, 8, 8), 7.0), rng())
    assert white == pytest.approx(1 / 30, rel=0.04)
    assert expected_residual(operator, IMAGE.clone().index_fill_(1, torch.tensor([0]), torch.nan), rng()) == 0


def test_search_stops_at_the_noise():
    """Morozov: neither above sigma squared nor, but for one step, below; without it the noise is fitted."""
    operator = GaussianNoise(SIGMA, bits=None)
    for result in run(operator, PHASE.stop, noisy(operator, 3)):
        assert result.target_mse == pytest.approx(SIGMA**2, rel=0.04)
        assert result.reason is StopReason.TARGET
        assert result.status is Status.CONVERGED
        assert result.mse <= result.target_mse < result.trace[-2, 1]
        assert psnr_db(result.mse) == pytest.approx(psnr_db(SIGMA**2), abs=0.5)
    (greedy,) = run(operator, StopRule(steps=200))
    assert greedy.mse < SIGMA**2 / 1000
    assert (greedy.target_mse, greedy.feasible) == (None, False)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"target_db": 10.0}, mse_from_db(10)),
        ({"target_db": 40.0}, SIGMA**2),
        ({"target_mse": 0.5}, 0.5),
        ({"target_mse": 0.0}, SIGMA**2),
        ({"target_noise": 2.0}, 2 * SIGMA**2),
        ({"target_db": 40.0, "target_noise": None}, mse_from_db(40)),
    ],
    ids=str,
)
def test_target_is_the_looser_one(target, expected):
    (result,) = run(GaussianNoise(SIGMA, bits=None), StopRule(**{"steps": 1, "target_noise": 1.0} | target))
    assert result.target_mse == pytest.approx(expected, rel=0.04)


def test_without_noise_the_target_stands_alone():
    (result,) = run(Identity(), StopRule(steps=1, target_db=30.0, target_noise=1.0))
    assert result.target_mse == mse_from_db(30)
    (result,) = run(Identity(), StopRule(steps=1, target_noise=1.0))
    assert result.target_mse == 0


def test_target_follows_the_signal_where_the_search_starts():
    operator, dark = PoissonNoise(30, bits=None), LinearWorld.make(side=SIDE)
    generator = LinearToy(dark.generator.weight.detach() / 10, torch.full((1, SIDE, SIDE), 0.2, dtype=torch.float64))
    for search in noisy(operator, 3):
        (result,) = Engine(generator, operator, [replace(PHASE, stop=StopRule(steps=1, target_noise=1.0))]).run([search])
        start = draw(generator, {"z": FlatPrior()}, stream(0, search.key), search.measurement)
        assert result.target_mse == pytest.approx(float(generator(start).detach().clamp(0, 1).mean()) / 30, rel=0.04)


def test_later_phase_aims_anew_unless_the_target_is_met():
    """The noise of the best iterate so far, which is brighter than the start."""
    operator, generator = PoissonNoise(30, bits=None), world(spread=1e-3)
    generator.bias.data.fill_(0.05)
    y = torch.full((1, SIDE, SIDE), 0.8, dtype=torch.float64)
    phases = [replace(PHASE, optimiser=SGD(rate=rate), stop=StopRule(steps=60, target_noise=1.0)) for rate in (5e4, 1e-9)]
    (result,) = Engine(generator, operator, phases).run([Search("y", y)])
    assert result.feasible
    assert result.steps < 60
    assert result.target_mse == pytest.approx(0.05 / 30, rel=0.04)  # met, and held to that
    phases[0] = replace(phases[0], stop=StopRule(steps=3, target_noise=1e-3))
    (result,) = Engine(generator, operator, phases).run([Search("y", y)])
    assert result.target_mse == pytest.approx(float(result.image.mean()) / 30, rel=0.04)
    assert result.image.mean() > 0.1


@pytest.mark.parametrize("lane", [None, 4])
def test_target_and_answer_ignore_the_batch(lane):
    operator = PoissonNoise(30, bits=None)
    searches = noisy(operator, 5)
    alone = run(operator, PHASE.stop, searches, slots=1, lane=lane)
    assert len({result.target_mse for result in alone}) == 5
    for others in (run(operator, PHASE.stop, searches, slots=8, lane=lane), run(operator, PHASE.stop, searches[::-1], lane=lane)):
        for got, expected in zip(others, alone, strict=True):
            assert got.target_mse == expected.target_mse
            assert torch.equal(got.image, expected.image)
            assert torch.equal(got.trace, expected.trace)


LEVELS = torch.tensor([0.9, 0.6, 0.3, 0.1], dtype=torch.float64)


def flat_world():
    """A generator of flat images, from black to white: noise that depends on the image differs as much as it can."""
    return LinearToy(
        torch.full((1, SIDE, SIDE, 1), 0.2, dtype=torch.float64), torch.full((1, SIDE, SIDE), 0.5, dtype=torch.float64)
    )


def flat(operator):
    """Measurements of flat images; no search starts at the level that it has to find."""
    images = LEVELS[:, None, None, None].expand(-1, 1, SIDE, SIDE)
    return [Search(str(k), operator.measure(image[None], rng(k))[0], index=k) for k, image in enumerate(images)]


def test_target_follows_the_search_where_the_noise_depends_on_the_image():
    """Poisson noise of a flat image: variance level / 30, of the image that is found and not of the start."""
    operator = PoissonNoise(30, bits=None)
    phase = replace(PHASE, optimiser=SGD(rate=1.0), stop=StopRule(steps=200, target_noise=1.0, at_target=False))
    for result in Engine(flat_world(), operator, [phase]).run(flat(operator)):
        level = float(LEVELS[result.index])
        assert float(result.image.mean()) == pytest.approx(level, rel=0.1)
        assert result.target_mse == pytest.approx(float(result.image.mean()) / 30, rel=0.06)


@pytest.mark.parametrize(
    ("operator", "varies"), [(PoissonNoise(30, bits=None), True), (GaussianNoise(SIGMA), False), (Identity(), False)]
)
def test_noise_that_does_not_depend_on_the_image_is_simulated_once(operator, varies):
    engine = Engine(flat_world(), operator, [PHASE])
    assert engine.starts.noise_varies(0, IMAGE) is varies
    silent = Engine(flat_world(), operator, [replace(PHASE, stop=StopRule(steps=5, target_db=20.0))])
    assert not silent.starts.noise_varies(0, IMAGE)


def test_moving_targets_ignore_the_batch():
    operator = PoissonNoise(30, bits=None)
    phase = replace(PHASE, optimiser=SGD(rate=0.5), stop=StopRule(steps=40, target_noise=1.5))
    alone = [next(Engine(flat_world(), operator, [phase], slots=1).run([search])) for search in flat(operator)]
    assert len({result.steps for result in alone}) > 1
    together = sorted(Engine(flat_world(), operator, [phase], slots=4).run(flat(operator)[::-1]), key=lambda result: result.index)
    for got, expected in zip(together, alone, strict=True):
        assert (got.target_mse, got.steps, got.reason) == (expected.target_mse, expected.steps, expected.reason)
        assert torch.equal(got.trace, expected.trace)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_numbers_are_checked(value):
    with pytest.raises(ValueError, match="search target_noise: expected a number above 0"):
        StopRule(steps=1, target_noise=value)
