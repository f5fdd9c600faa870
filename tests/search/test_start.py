"""Searches that begin at given latents."""

import pytest
import torch

from degradations.identity import Identity
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Normal, PushForward
from pulse_framework.priors import FlatPrior, SpherePrior
from pulse_framework.search import Adam, Engine, L2Consistency, MeanStart, NearestDraw, Objective, Phase, Search, StopRule


class Sum(Generator):
    """The image is w, which is 2 z, plus a map of noise."""

    def __init__(self):
        super().__init__()
        z, w = LatentBlock("z", (1, 4, 4), Normal(), "style"), LatentBlock("w", (1, 4, 4), PushForward("z"), "style")
        self.blocks = (z, w, LatentBlock("noise", (1, 4, 4), Normal()), LatentBlock("extra", (2,), Normal(), optional=True))
        self.image_shape = (1, 4, 4)

    def synthesize(self, latents):
        return self.lift(latents, "w") + latents["noise"]

    def lift(self, latents, name):
        return 2 * latents["z"] if name == "w" and "z" in latents else super().lift(latents, name)


def begun(given, prior=None, **options):
    """The input that a search of one step begins at, which is its answer."""
    phase = Phase(
        prior=prior or {"w": FlatPrior()},
        objective=Objective({"consistency": L2Consistency()}),
        optimiser=Adam(rate=0.1),
        stop=StopRule(steps=1),
    )
    engine = Engine(Sum(), Identity(), [phase], **options)
    (result,) = engine.run([Search("image", torch.zeros(1, 4, 4), start=given)])
    return result.latents


def value(seed, shape=(1, 4, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_full_start_is_taken_as_it_is():
    start = {"w": value(0), "noise": value(1)}
    got = begun(start)
    assert all(torch.equal(got[name], start[name]) for name in start)


def test_what_is_missing_is_drawn_as_ever():
    got, drawn = begun({"w": value(0)}), begun(None)
    assert torch.equal(got["w"], value(0))
    assert torch.equal(got["noise"], drawn["noise"])


def test_blocks_are_lifted_to_those_of_the_phase():
    got = begun({"z": value(0)})
    assert got.keys() == {"w", "noise"}
    assert torch.equal(got["w"], 2 * value(0))


def test_it_is_not_replaced_by_a_nearer_draw():
    assert torch.equal(begun({"w": value(0)}, start=NearestDraw(draws=8))["w"], value(0))


def test_it_is_put_on_the_manifold():
    sphere = SpherePrior(3.0, ndim=3)
    got = begun({"w": value(0)}, {"w": sphere})["w"]
    torch.testing.assert_close(got, 3 * value(0) / value(0).norm())


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"nothing": value(0)}, "expected names among .*, got 'nothing'"),
        ({"z": value(0), "w": value(0)}, "both fill the slot 'style'"),
        ({"w": value(0, (1, 4, 5))}, r"'w': expected shape \(1, 1, 4, 4\), got \(1, 1, 4, 5\)"),
        ({"w": value(0) * float("nan")}, r"expected finite numbers, got NaN or infinity in \['w'\]"),
        ({"extra": value(0, (2,))}, r"expected blocks that the first phase has, got \['extra'\]"),
    ],
)
def test_other_starts_are_refused(start, message):
    with pytest.raises(ValueError, match=message):
        begun(start)


def test_the_mean_is_that_of_the_mapping_and_the_rest_is_drawn():
    """2 z has mean 0 and standard deviation 2, so that of 4000 draws lies within 0.03 (one in 20000 is beyond 4 of these)."""
    got, drawn = begun(None, start=MeanStart(samples=4000)), begun(None)
    assert 0 < float(got["w"].abs().max()) < 4 * 2 / 4000**0.5
    assert torch.equal(got["w"], begun(None, start=MeanStart(samples=4000))["w"])
    assert torch.equal(got["noise"], drawn["noise"])


def test_the_mean_is_put_on_the_manifold():
    got = begun(None, {"w": SpherePrior(3.0, ndim=3)}, start=MeanStart(samples=100))["w"]
    torch.testing.assert_close(got.norm(), torch.tensor(3.0))


def test_nothing_that_is_drawn_has_a_mean_to_begin_at():
    with pytest.raises(ValueError, match=r"MeanStart: expected a block such as w or w_plus that moves, got \['z'\]"):
        begun(None, {"z": FlatPrior()}, start=MeanStart())


@pytest.mark.parametrize("settings", [{"draws": 2}, {"samples": 0}])
def test_settings_of_the_mean_are_checked(settings):
    with pytest.raises(ValueError, match=f"MeanStart {next(iter(settings))}: expected"):
        MeanStart(**settings)
