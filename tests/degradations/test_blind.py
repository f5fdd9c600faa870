"""Unknown parameters: charts against distributions in closed form, operators against those whose parameters are known."""

import math
from functools import partial
from types import MappingProxyType

import pytest
import torch

from degradations.blind import Angle, Blind, Bounded, Simplex
from degradations.blur import Blur, gaussian_blur, motion_blur
from degradations.colour import Gamma, expose
from degradations.compose import Compose, compose
from degradations.downscale import Downscale
from degradations.jpeg import JPEG
from degradations.noise import GaussianNoise
from pulse_framework.testing import DegradationContract

SIGMA = "degradation.sigma"


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blind_blur(**settings):
    return Blind(gaussian_blur, {"sigma": Bounded(0.5, 3.0)}, **settings)


class TestBlindGaussianBlur(DegradationContract):
    image_shapes = ((3, 12, 16),)
    keeps_constants = True
    bounds = MappingProxyType({"sigma": (0.5, 3.0)})

    def make(self):
        return blind_blur()

    def oracle(self, x):
        return gaussian_blur(1.75)(x)


class TestBlindMotionBlur(DegradationContract):
    """Width and direction."""

    image_shapes = ((1, 12, 12),)
    bounds = MappingProxyType({"length": (2.0, 9.0), "angle": (-math.pi / 2, math.pi / 2)})

    def make(self):
        return Blind(motion_blur, {"length": Bounded(2.0, 9.0, "log"), "angle": Angle()})

    def oracle(self, x):
        return motion_blur(math.sqrt(18))(x)


class TestBlindPsf(DegradationContract):
    image_shapes = ((3, 8, 8),)
    keeps_constants = True
    bounds = MappingProxyType({"psf": (0.0, 1.0)})

    def make(self):
        return Blind(Blur, {"psf": Simplex(3)})

    def oracle(self, x):
        return Blur(torch.ones(3, 3))(x)


class TestBlindGamma(DegradationContract):
    bounds = MappingProxyType({"gamma": (0.4, 2.5)})

    def make(self):
        return Blind(Gamma, {"gamma": Bounded(0.4, 2.5, "log")})

    def oracle(self, x):
        return x


class TestBlindExposure(DegradationContract):
    def make(self):
        return Blind(expose, {"stops": Bounded(-1.0, 1.0)})

    def oracle(self, x):
        return x


class TestBlindNoise(DegradationContract):
    """A does not depend on it; a likelihood does."""

    image_shapes = ((3, 32, 32),)
    unseen = ("sigma",)

    def make(self):
        return Blind(GaussianNoise, {"sigma": Bounded(0.02, 0.1)})


class TestBlindJpeg(DegradationContract):
    """Its derivative in the quality is a stand-in, and a secant of it."""

    bounds = MappingProxyType({"quality": (20.0, 80.0)})

    def make(self):
        return Blind(partial(JPEG, rounding="cubic"), {"quality": Bounded(20.0, 80.0)})

    def oracle(self, x):
        return JPEG(50, rounding="cubic")(x)


class TestChainWithUnknowns(DegradationContract):
    """Two of its parts have some."""

    image_shapes = ((3, 16, 16),)
    bounds = MappingProxyType({"sigma": (0.5, 3.0), "tone.gamma": (0.5, 2.0)})

    def make(self):
        tone = Blind(partial(Gamma, toe=0.01), {"gamma": Bounded(0.5, 2.0, "log")}, name="tone")
        return compose([blind_blur(), Downscale(2), tone])

    def oracle(self, x):
        return Downscale(2)(gaussian_blur(1.75)(x))


@pytest.mark.parametrize(
    ("chart", "quantile"),
    [(Bounded(-1.0, 3.0), lambda p: 4 * p - 1), (Bounded(0.1, 10.0, "log"), lambda p: 10 ** (2 * p - 1))],
    ids=["linear", "log"],
)
def test_a_normal_number_is_uniform_within_the_bounds(chart, quantile):
    for p in (0.01, 0.3, 0.5, 0.95):
        u = torch.special.ndtri(torch.tensor([p], dtype=torch.float64))
        assert float(chart.value(u)) == pytest.approx(quantile(p), rel=1e-9)
    for u, end in ((-40.0, chart.low), (40.0, chart.high)):
        assert float(chart.value(torch.tensor([u], dtype=torch.float64))) == pytest.approx(end, rel=1e-12)


def test_a_psf_is_on_the_simplex():
    u = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    psf = Simplex(5, spread=2.0).value(u)
    assert float(psf.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((psf > 0).all())
    torch.testing.assert_close(psf.log() - psf.log().mean(), 2 * (u - u.mean()))


def test_directions_are_uniform_and_have_no_ends():
    chart, turns = Angle(), torch.linspace(-3.1, 3.1, 9, dtype=torch.float64)
    for turn in turns.tolist():
        value = chart.value(2.5 * torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64))
        assert float(value) == pytest.approx(turn / 2, abs=1e-12)
    ends = [torch.tensor(angle, dtype=torch.float64) for angle in (-math.pi / 2 + 0.01, math.pi / 2 - 0.01)]
    assert float(chart.error(*ends)) == pytest.approx(0.02 / (math.pi / 2))
    across = torch.tensor(0.0), torch.tensor(math.pi / 2)
    assert float(chart.error(*across)) == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.5, 0.9, 2.9])
def test_operator_is_that_of_the_natural_value(sigma):
    x, operator = images(2, 3, 16, 16), blind_blur()
    u = torch.special.ndtri(torch.tensor([(sigma - 0.5) / 2.5], dtype=torch.float64)).clamp(-40, 40)
    latents = {SIGMA: u.expand(2, 1), "z": torch.zeros(2, 7)}
    torch.testing.assert_close(operator.at(x, latents), gaussian_blur(sigma)(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.unknowns(latents)["sigma"], torch.full((2,), sigma).double())


def test_truth_is_measured_and_not_searched_with():
    x, operator, plain = images(1, 3, 16, 16), blind_blur(truth={"sigma": 0.7}), blind_blur()
    rng = torch.Generator()
    assert torch.equal(operator.measure(x, rng), gaussian_blur(0.7).measure(x, rng))
    assert torch.equal(plain.measure(x, rng), gaussian_blur(1.75).measure(x, rng))
    latents = {SIGMA: torch.tensor([[0.3]]).double()}
    assert torch.equal(operator(x), plain(x))
    assert torch.equal(operator.at(x, latents), plain.at(x, latents))
    given = operator.given({SIGMA: latents[SIGMA][0]})
    assert torch.equal(given.measure(x, rng), gaussian_blur(float(plain.unknowns(latents)["sigma"])).measure(x, rng))


def test_errors_are_relative_to_the_truth():
    latents = {SIGMA: torch.zeros(1, 1).double()}
    assert blind_blur().errors(latents) == {}
    errors = blind_blur(truth={"sigma": 1.4}).errors(latents)
    assert float(errors["sigma"]) == pytest.approx(0.25)
    truth = [[0.0, 0, 0], [0, 2, 0], [0, 0, 0]]
    psf = Blind(Blur, {"psf": Simplex(3)}, truth={"psf": truth}).errors({"degradation.psf": torch.zeros(1, 3, 3).double()})
    assert float(psf["psf"]) == pytest.approx(math.sqrt((8 / 9) ** 2 + 8 / 81))


def test_chain_reports_the_unknowns_of_its_parts():
    parts = [blind_blur(truth={"sigma": 1.0}), Downscale(2), Blind(Gamma, {"gamma": Bounded(0.5, 2.0)}, name="tone")]
    chain, latents = compose(parts), {SIGMA: torch.zeros(2, 1), "degradation.tone.gamma": torch.ones(2, 1)}
    assert [block.name for block in chain.blocks] == list(latents)
    assert list(chain.unknowns(latents)) == ["sigma", "tone.gamma"]
    assert list(chain.errors(latents)) == ["sigma"]
    x = images(2, 3, 16, 16)
    by_hand = parts[2].at(Downscale(2)(parts[0].at(x, latents)), latents)
    torch.testing.assert_close(chain.at(x, latents), by_hand, rtol=0, atol=1e-12)
    assert isinstance(chain.given({name: value[0] for name, value in latents.items()}), Compose)
    with pytest.raises(ValueError, match=r"expected unknown parameters of different names, got \['degradation.sigma', 'degr"):
        compose([blind_blur(), blind_blur()])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blind(gaussian_blur, {}), "Blind unknown: expected at least one parameter"),
        (lambda: blind_blur(truth={"width": 1.0}), r"Blind truth: expected some of \['sigma'\], got \['width'\]"),
        (lambda: blind_blur(truth={"sigma": 3.5}), r"Blind truth of sigma: expected a number in \[0.5, 3.0\], got 3.5"),
        (lambda: blind_blur(truth={"sigma": True}), "got True"),
        (lambda: Blind(gaussian_blur, {"sigma": Bounded(0.0, 3.0)}), "gaussian_blur sigma: expected a finite number above 0"),
        (lambda: Bounded(2.0, 1.0), "Bounded: expected low < high, finite, got 2.0 and 1.0"),
        (lambda: Bounded(0.0, 1.0, "log"), "Bounded: expected 0 < low < high"),
        (lambda: Bounded(0.0, 1.0, "cubic"), "Bounded scale: expected linear or log, got 'cubic'"),
        (lambda: Simplex(0), "Simplex: expected a size of at least 1"),
        (lambda: Simplex(3, spread=0.0), "a spread above 0, got 3 and 0.0"),
        (lambda: Angle(0.0), "Angle period: expected a positive number"),
        (lambda: Blind(Blur, {"psf": Simplex(3)}, truth={"psf": [[1.0]]}), r"expected 3 x 3 numbers of at least 0, got \(1, 1\)"),
        (lambda: Blind(Blur, {"psf": Simplex(1)}, truth={"psf": [[-1.0]]}), "numbers of at least 0"),
        (lambda: Blind(motion_blur, {"length": Bounded(1, 2), "angle": Angle()}, truth={"angle": math.inf}), "radians, got inf"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_operator_must_make_a_degradation():
    with pytest.raises(TypeError, match="Blind operator: expected it to make a Degradation, got Tensor"):
        Blind(lambda sigma: sigma, {"sigma": Bounded(0.5, 3.0)})
