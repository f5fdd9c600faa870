"""Compressed sensing against dense matrices written down from the documented draws, and what theory says of them."""

import math

import pytest
import torch

from degradations import sensing
from degradations.sensing import CirculantSensing, GaussianSensing
from generators.linear import LinearGenerator
from pulse_framework.priors import FlatPrior
from pulse_framework.search import Adam, Engine, L2Consistency, Objective, Phase, Search, StopRule
from pulse_framework.testing import LinearDegradationContract
from tests.degradations.dense import check_bits, check_dense, matrix_of

ODD = (3, 5, 7)  # 105 numbers: no whole number of cache lines
KINDS = (GaussianSensing, CirculantSensing)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(count, size, seed):
    return (torch.randn(count, size, generator=rng(seed)) / math.sqrt(count)).double()


def circulant(count, size, seed):
    """Row k has the filter, reversed and turned to place r_k, times the signs."""
    draw = rng(seed)
    signs = torch.randint(2, (size,), generator=draw) * 2.0 - 1
    taps = torch.randn(size, generator=draw) / math.sqrt(count)
    places = torch.randperm(size, generator=draw)[:count]
    return taps.double()[(places[:, None] - torch.arange(size)) % size] * signs


@pytest.mark.parametrize(("make", "matrix"), [(GaussianSensing, gaussian), (CirculantSensing, circulant)])
@pytest.mark.parametrize(("shape", "count"), [(ODD, 13), ((1, 4, 6), 24)])
def test_is_the_matrix_of_the_documented_draws(make, matrix, shape, count):
    check_dense(make(count, seed=5), shape, matrix(count, math.prod(shape), 5))


@pytest.mark.parametrize("make", KINDS)
def test_rows_do_not_meet_by_a_bit(make):
    check_bits(make(13), ODD)


@pytest.mark.parametrize("make", KINDS)
def test_seeds_make_the_operator_and_zero_is_one(make):
    first, again, other = (matrix_of(make(10, seed), (1, 6, 6)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert float((first - other).abs().mean()) > 0.1


def test_entries_have_the_declared_moments():
    entries = GaussianSensing(100, seed=3).matrix((1, 40, 50)).double().flatten() * 10  # standard normal, 200,000 of them
    error = 5 / math.sqrt(len(entries))
    for power, moment, spread in ((1, 0, 1), (2, 1, math.sqrt(2)), (3, 0, math.sqrt(15)), (4, 3, math.sqrt(96))):
        assert abs(float(entries.pow(power).mean()) - moment) <= spread * error


@pytest.mark.parametrize("make", KINDS)
def test_lengths_are_kept_on_average(make):
    x = torch.rand(1, 3, 8, 8, generator=rng(), dtype=torch.float64)
    ratios = torch.stack([make(20, seed)(x).square().sum() / x.square().sum() for seed in range(400)])
    assert abs(float(ratios.mean()) - 1) <= 5 * float(ratios.std()) / math.sqrt(len(ratios))
    assert float(ratios.std()) == pytest.approx(math.sqrt(2 / 20), rel=0.2)  # of chi square of 20 numbers, over 20


def test_largest_singular_value_is_that_of_random_matrices():
    """1 + sqrt(n / m) for large n and m (Bai and Yin)."""
    matrix = GaussianSensing(200, seed=1).matrix((1, 20, 40)).double()
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1 + math.sqrt(800 / 200), rel=0.02)


def test_all_of_a_circulant_matrix_has_the_singular_values_of_its_filter():
    draw = rng(4)
    torch.randint(2, (30,), generator=draw)
    spectrum = torch.fft.fft((torch.randn(30, generator=draw) / math.sqrt(30)).double()).abs()
    values = torch.linalg.svdvals(matrix_of(CirculantSensing(30, seed=4), (1, 5, 6)))
    torch.testing.assert_close(values, spectrum.sort(descending=True).values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_noise_is_white_and_neither_clamped_nor_rounded(make):
    operator = make(300, sigma=0.5)
    x = torch.rand(40, 3, 10, 11, generator=rng(), dtype=torch.float64)
    noise = (operator.measure(x, rng(1)) - operator(x)).flatten() / 0.5
    assert abs(float(noise.mean())) <= 5 / math.sqrt(len(noise))
    assert abs(float(noise.square().mean()) - 1) <= 5 * math.sqrt(2 / len(noise))
    assert abs(float((noise[1:] * noise[:-1]).mean())) <= 5 / math.sqrt(len(noise))
    assert torch.equal(make(300).measure(x, rng(1)), make(300)(x))


def test_search_reaches_the_closed_form():
    """A linear generator under a dense Gaussian matrix: the least squares solution, although the data has noise."""
    generator = LinearGenerator(0.3 * torch.randn(3, 4, 4, 4, generator=rng()).double(), torch.full((3, 4, 4), 0.5).double())
    operator = GaussianSensing(20, seed=2, sigma=0.1)
    y = operator.measure(generator({"z": torch.randn(2, 4, generator=rng(1), dtype=torch.float64)}), rng(2))
    phase = Phase(
        prior=FlatPrior(),
        objective=Objective({"data": L2Consistency()}),
        optimiser=Adam(rate=0.3),
        stop=StopRule(steps=300),
        schedule=lambda fraction: 1 - fraction,
    )
    results = Engine(generator, operator, [phase]).run([Search(str(i), y[i]) for i in range(2)])
    for result, best in zip(results, generator.optimum(operator, y), strict=True):
        torch.testing.assert_close(result.latents["z"], best, rtol=0, atol=1e-6)
        assert 1e-4 < result.mse < 0.1


def test_matrix_that_would_not_fit_into_memory_is_refused(monkeypatch):
    with pytest.raises(
        ValueError, match=r"expected a matrix of at most 134217728 entries, got 7500 x 3145728 .* at most 42 meas"
    ):
        GaussianSensing(7500).measurement_shape((3, 1024, 1024))
    monkeypatch.setattr(sensing, "_gaussian", None)
    with pytest.raises(ValueError, match="or CirculantSensing"):
        GaussianSensing(10**9)(torch.zeros(1, 1, 1, 1).expand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianSensing(0), "GaussianSensing measurements"),
        (lambda: CirculantSensing(True), "CirculantSensing measurements"),
        (lambda: CirculantSensing(3, seed=-1), "CirculantSensing seed"),
        (lambda: GaussianSensing(3, sigma=-0.1), "GaussianSensing sigma"),
        (lambda: GaussianSensing(3, sigma=math.inf), "GaussianSensing sigma"),
        (lambda: CirculantSensing(13).measurement_shape((3, 2, 2)), "CirculantSensing"),
        (lambda: GaussianSensing(3).adjoint(torch.zeros(1, 4), (1, 2, 2)), "GaussianSensing adjoint"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=f"{message}: expected .* got"):
        make()


def test_pictures_of_bytes_are_refused():
    with pytest.raises(TypeError, match=r"GaussianSensing: expected a tensor of floats, got torch\.uint8"):
        GaussianSensing(3)._check_floats(torch.zeros(1, dtype=torch.uint8))


class TestContractOfGaussianSensing(LinearDegradationContract):
    image_shapes = (ODD, (1, 8, 8))

    def make(self):
        return GaussianSensing(11, seed=3, sigma=0.05)

    def oracle(self, x):
        return x.flatten(1) @ gaussian(11, x[0].numel(), 3).T


class TestContractOfCirculantSensing(LinearDegradationContract):
    image_shapes = (ODD, (1, 8, 8))

    def make(self):
        return CirculantSensing(11, seed=3, sigma=0.05)

    def oracle(self, x):
        return x.flatten(1) @ circulant(11, x[0].numel(), 3).T
