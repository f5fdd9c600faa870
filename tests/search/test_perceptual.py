"""The perceptual term: its levels by hand, what it refuses, and searches that do not meet one another."""

import pytest
import torch
from torch import nn

from degradations.downscale import Downscale
from degradations.matrix import MatrixSensing
from generators.linear import LinearGenerator
from pulse_framework.features import FeatureDistance
from pulse_framework.priors import FlatPrior
from pulse_framework.search import Adam, Engine, Evaluation, FeatureConsistency, L2Consistency, Objective, Phase, Search, StopRule


def mean_square(x, y):
    return (x - y).square().flatten(1).mean(1)


def at(degraded, measurement):
    nothing = torch.zeros(len(degraded))
    return Evaluation({}, {}, nothing, degraded, measurement, nothing)


def images(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_level_is_the_distance():
    x, y = images(0, 2, 3, 8, 8), images(1, 2, 3, 8, 8)
    assert torch.equal(FeatureConsistency(distance=mean_square)(at(x, y)), mean_square(x, y))


def test_levels_are_averages_of_two_by_two_and_the_coarsest_counts_apart():
    x, y = images(0, 1, 3, 64, 64), images(1, 1, 3, 64, 64)

    def means(image, size):
        return image.unflatten(3, (-1, size)).unflatten(2, (-1, size)).mean((3, 5))

    expected = mean_square(x, y) + mean_square(means(x, 2), means(y, 2))
    coarse = (means(x, 4) - means(y, 4)).abs().flatten(1).mean(1)
    term = FeatureConsistency(distance=mean_square, levels=6, least=16, coarse=0.1)
    assert torch.allclose(term(at(x, y)), expected + 0.1 * coarse, rtol=1e-5)
    small = FeatureConsistency(distance=mean_square, levels=6, least=64, coarse=0.1)
    assert torch.allclose(small(at(x, y)), 0.1 * (x - y).abs().flatten(1).mean(1), rtol=1e-6)
    limited = FeatureConsistency(distance=mean_square, levels=1, least=16)
    assert torch.equal(limited(at(x, y)), mean_square(x, y))


def test_large_images_are_reduced_and_small_ones_are_left():
    x, y = images(0, 1, 3, 16, 8), images(1, 1, 3, 16, 8)
    halves = [image.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) for image in (x, y)]
    assert torch.allclose(FeatureConsistency(distance=mean_square, side=8)(at(x, y)), mean_square(*halves), rtol=1e-5)
    assert torch.equal(FeatureConsistency(distance=mean_square, side=32)(at(x, y)), mean_square(x, y))


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"side": 0}, {"least": -1}, {"coarse": -1.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"FeatureConsistency {next(iter(wrong))}"):
        FeatureConsistency(distance=mean_square, **wrong)


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)

    def forward(self, x):
        y = self.first(x).relu()
        return [y, self.second(y).relu()]


def network():
    rng = torch.Generator().manual_seed(0)
    return LinearGenerator(0.1 * torch.randn(3, 16, 16, 4, generator=rng), torch.full((3, 16, 16), 0.5))


def engine(degradation, **options):
    term = FeatureConsistency(distance=FeatureDistance(Features()))
    phase = Phase(
        prior=FlatPrior(),
        objective=Objective({"l2": L2Consistency(), "features": term}),
        optimiser=Adam(rate=0.1),
        stop=StopRule(steps=30),
    )
    return Engine(network(), degradation, [phase], **options)


def test_search_reaches_the_truth_and_answers_are_those_of_one_at_a_time():
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    measured = Downscale(factor=2)(network()({"z": z}))
    searches = [Search(str(i), y) for i, y in enumerate(measured)]
    together = {result.key: result for result in engine(Downscale(factor=2), slots=4).run(searches)}
    for search in searches:
        (alone,) = engine(Downscale(factor=2), slots=1).run([search])
        assert torch.equal(alone.latents["z"], together[search.key].latents["z"])
        assert alone.objective == together[search.key].objective
        assert alone.objective < 0.2 * float(alone.trace[0, 0])


def test_measurements_without_pixels_are_refused_before_any_step():
    with pytest.raises(ValueError, match=r"FeatureConsistency: expected measurements \(1 or 3, h, w\)"):
        engine(MatrixSensing(torch.ones(2, 3 * 16 * 16)))


def test_networks_that_cannot_take_the_measurement_are_refused():
    def narrow(x, y):
        return mean_square(nn.functional.max_pool2d(x, 16), nn.functional.max_pool2d(y, 16))

    FeatureConsistency(distance=narrow).check((3, 16, 16))
    with pytest.raises(ValueError, match=r"expected a network that takes measurements \(3, 8, 8\)"):
        FeatureConsistency(distance=narrow).check((3, 8, 8))
    with pytest.raises(ValueError, match="one number for each pair"):
        FeatureConsistency(distance=lambda x, y: (x - y).square()).check((3, 8, 8))
