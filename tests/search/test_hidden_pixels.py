"""Hidden pixels under the perceptual term, and stops at the value of a term."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from degradations.mask import box
from generators.linear import LinearGenerator
from pulse_framework.priors import FlatPrior
from pulse_framework.search import (
    Adam,
    Engine,
    Evaluation,
    FeatureConsistency,
    L2Consistency,
    Objective,
    Phase,
    Search,
    StopReason,
    StopRule,
    noise,
)
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import LinearToy, PoolToy

KEYS, NUMBERS = torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 7])


def mean_square(x, y):
    return (x - y).square().flatten(1).mean(1)


def total(x, y):
    """Tells of both images, not of their difference alone."""
    return (x + y).flatten(1).mean(1)


def at(x, y, observed, numbers=NUMBERS):
    nothing = torch.zeros(len(x))
    return Evaluation({}, {}, nothing, x, y, nothing, observed=observed, keys=KEYS, numbers=numbers)


def left_half(side):
    seen = torch.ones(1, side, side)
    seen[:, :, side // 2 :] = 0
    return seen


def test_hidden_pixels_are_the_same_noise_in_both_images():
    x, y, seen = uniform((2, 3, 8, 8), 1), uniform((2, 3, 8, 8), 2), left_half(8)
    term = FeatureConsistency(distance=total, hidden="noise")
    drawn, _ = noise.normals(KEYS, NUMBERS, 3 * 8 * 8, x, use=1)
    fill = (drawn.reshape(x.shape) + 0.5) / 2
    expected = torch.where(seen > 0, (x + y) / 2, fill)
    assert torch.allclose(term(at(x, y, seen)), 2 * expected.flatten(1).mean(1))
    assert torch.allclose(
        FeatureConsistency(distance=mean_square, hidden="noise")(at(x, y, seen)), mean_square(x * seen, y * seen)
    )


def test_every_step_search_and_scale_has_its_own_noise():
    x, seen = torch.zeros(2, 3, 32, 32), left_half(32)
    kept = []

    def keep(one, other):
        assert torch.equal(one, other)
        kept.append(one[:, :, :, one.shape[3] // 2 :])
        return mean_square(one, other)

    term = FeatureConsistency(distance=keep, hidden="noise", levels=2)
    for numbers in (NUMBERS, NUMBERS + 1):
        term(at(x, x, seen, numbers))
    first, half, later, _ = kept
    for one, other in ((first[0], first[1]), (first, later), (first[:, :, :16, :8], half)):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.1
    for drawn in kept:
        assert float(drawn.mean()) == pytest.approx(0.25, abs=0.05)
        assert float(drawn.std()) == pytest.approx(0.5, abs=0.03)


def test_what_is_hidden_has_no_part_at_any_scale():
    x, y, seen = uniform((2, 3, 32, 32), 1), uniform((2, 3, 32, 32), 2), left_half(32)
    term = FeatureConsistency(distance=mean_square, hidden="noise", levels=3, least=8, coarse=0.1)
    other = torch.where(seen > 0, x, uniform((2, 3, 32, 32), 3))
    assert torch.allclose(term(at(x, y, seen)), term(at(other, y, seen)), rtol=1e-12)
    assert not torch.allclose(term(at(x, y, seen)), term(at(other, y, None)))


def test_without_a_mask_nothing_is_noise_and_without_keys_it_is_refused():
    x, y = uniform((2, 3, 8, 8), 1), uniform((2, 3, 8, 8), 2)
    term = FeatureConsistency(distance=total, hidden="noise")
    assert torch.equal(term(at(x, y, None)), total(x, y))
    with pytest.raises(ValueError, match="expected an iterate with keys and numbers"):
        term(replace(at(x, y, left_half(8)), keys=None))


class Square(nn.Module):
    """A distance of edges, so that filling matters."""

    def forward(self, x, y):
        return mean_square(x.diff(dim=3), y.diff(dim=3))


def test_searches_with_noise_do_not_meet():
    rng = torch.Generator().manual_seed(0)
    generator = LinearGenerator(0.1 * torch.randn(3, 16, 16, 4, generator=rng), torch.full((3, 16, 16), 0.5))
    operator = box(0.5)
    term = FeatureConsistency(distance=Square(), hidden="noise", levels=2, least=4)
    phase = Phase(prior=FlatPrior(), objective=Objective({"f": term}), optimiser=Adam(rate=0.1), stop=StopRule(steps=8))
    ys = operator(generator({"z": torch.randn(5, 4, generator=rng)}))
    searches = [Search(str(number), y, index=number) for number, y in enumerate(ys)]
    together = {one.key: one for one in Engine(generator, operator, [phase], slots=4).run(searches)}
    for search in searches:
        (alone,) = Engine(generator, operator, [phase], slots=1).run([search])
        assert torch.equal(alone.latents["z"], together[search.key].latents["z"])
        assert torch.equal(alone.trace, together[search.key].trace)


def test_a_search_ends_where_a_term_is_low_enough():
    objective = Objective({"data": L2Consistency(weight=3.0)})
    phase = Phase(prior=FlatPrior(), objective=objective, optimiser=Adam(rate=0.05), stop=StopRule(steps=30))
    search = Search("image", uniform((1, 2, 2), 3))
    (whole,) = Engine(LinearToy().double(), PoolToy(), [phase]).run([search])
    limit = float(whole.trace[:, 0].median())
    stop = StopRule(steps=30, enough={"data": limit})
    (short,) = Engine(LinearToy().double(), PoolToy(), [replace(phase, stop=stop)]).run([search])
    expected = 1 + int((whole.trace[:, 0] <= limit).nonzero()[0, 0])
    assert 1 < expected < 30
    assert (short.steps, short.reason) == (expected, StopReason.ENOUGH)
    assert torch.equal(short.trace, whole.trace[:expected])


def test_a_limit_of_a_term_that_there_is_not_is_refused():
    objective = Objective({"data": L2Consistency()})
    stop = StopRule(steps=3, enough={"features": 0.06})
    phase = Phase(prior=FlatPrior(), objective=objective, optimiser=Adam(rate=0.05), stop=stop)
    with pytest.raises(ValueError, match=r"phase stop enough: expected terms among \['data'\], got \['features'\]"):
        phase.on(LinearToy())
