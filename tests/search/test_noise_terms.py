"""Autocorrelation of noise maps against values worked by hand, and against the formula written out entry by entry."""

import math

import pytest
import torch

from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Evaluation, NoiseAutocorrelation
from pulse_framework.search.noise_terms import noise_autocorrelation


def white(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out(noise):
    """One map, entry by entry."""
    total, n = 0.0, noise.tolist()
    while True:
        side = len(n)
        places = [(a, b) for a in range(side) for b in range(side)]
        total += (sum(n[a][b] * n[a - 1][b] for a, b in places) / side**2) ** 2
        total += (sum(n[a][b] * n[a][b - 1] for a, b in places) / side**2) ** 2
        if side <= 8:
            return total
        half = range(side // 2)
        n = [[sum(n[2 * a + i][2 * b + j] for i in (0, 1) for j in (0, 1)) / 4 for b in half] for a in half]


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_formula_written_out(side):
    noise = white(2, 1, side, side)
    expected = torch.tensor([written_out(item[0]) for item in noise], dtype=torch.float64)
    torch.testing.assert_close(noise_autocorrelation(noise), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("side", "levels"), [(4, 1), (8, 1), (16, 2), (64, 4), (256, 6)])
def test_a_constant_is_its_own_neighbour(side, levels):
    """Two lags at each level, each the fourth power of the constant."""
    value = noise_autocorrelation(torch.full((1, 1, side, side), 0.5))
    torch.testing.assert_close(value, torch.tensor([2 * levels / 16]))


def test_patterns_known_in_advance():
    """Lags of a chessboard are -1 and it averages to 0; stripes are -1 across and 1 along."""
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    maps = torch.stack([(-1.0) ** (rows + columns), (-1.0) ** rows, (-1.0) ** columns])[:, None]
    torch.testing.assert_close(noise_autocorrelation(maps), torch.full((3,), 2.0))


def test_a_wave_across_the_border():
    """A cosine of one period has the lag cos(2 pi / side) / 2 along, on the torus, and 1/2 across."""
    side = 8
    wave = torch.cos(2 * math.pi * torch.arange(side, dtype=torch.float64) / side).expand(1, 1, side, side)
    expected = (math.cos(2 * math.pi / side) / 2) ** 2 + 0.25
    torch.testing.assert_close(noise_autocorrelation(wave), torch.tensor([expected], dtype=torch.float64))


def test_white_noise_has_the_expected_value():
    """E = sum over levels of 2 variance^2 / side^2, a level's variance a quarter of the one before."""
    values = noise_autocorrelation(white(4000, 1, 16, 16))
    expected = 2 / 16**2 + 2 / 4**2 / 8**2
    assert abs(float(values.mean()) - expected) < 5 * float(values.std()) / 4000**0.5


def test_gradient_and_rows():
    noise = white(3, 1, 16, 16).requires_grad_()
    assert torch.autograd.gradcheck(noise_autocorrelation, noise)
    for row in range(3):
        torch.testing.assert_close(noise_autocorrelation(noise[row : row + 1])[0], noise_autocorrelation(noise)[row])


def at(latents, moved):
    nothing = torch.zeros(2)
    return Evaluation(latents, {name: SpherePrior() for name in moved}, nothing, nothing, nothing, nothing)


LATENTS = {"v": white(2, 5), "noise_0": white(2, 1, 4, 4), "noise_1": white(2, 1, 16, 16, seed=1), "noise_2": white(2, 1, 8, 8)}


class World(Generator):
    """Declares the blocks of ``LATENTS``."""

    blocks = tuple(LatentBlock(name, tuple(value.shape[1:])) for name, value in LATENTS.items())

    def synthesize(self, latents):
        return latents["noise_0"]


VALUE = {name: noise_autocorrelation(value) for name, value in LATENTS.items() if value.ndim == 4}


def test_term_sums_the_maps_that_move_or_are_named():
    seen = at(LATENTS, ["v", "noise_0", "noise_1"])
    torch.testing.assert_close(NoiseAutocorrelation()(seen), VALUE["noise_0"] + VALUE["noise_1"])
    torch.testing.assert_close(NoiseAutocorrelation(blocks="noise_1")(seen), VALUE["noise_1"])
    torch.testing.assert_close(NoiseAutocorrelation(blocks=["noise_2", "noise_0"])(seen), VALUE["noise_2"] + VALUE["noise_0"])


@pytest.mark.parametrize(
    ("blocks", "match"),
    [
        ("noise_", r"expected blocks that move and begin with 'noise_', got \['v'\]; move noise maps"),
        (["noise_0", "noise_9"], r"expected blocks \['noise_0', 'noise_9'\], got \['noise_0', 'noise_1', 'noise_2', 'v'\]"),
        ([], "expected a block"),
        (["v", "noise_0"], r"expected maps of shape \(C, h, w\), got \{'v': \(5,\)\}"),
    ],
)
def test_blocks_that_are_not_there_are_refused(blocks, match):
    with pytest.raises(ValueError, match=match):
        NoiseAutocorrelation(blocks=blocks).on(World(), ["v"])
