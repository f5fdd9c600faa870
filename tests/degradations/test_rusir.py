"""The ladder: its table against the paper's, its two faces against what the paper describes, and every composition."""

import itertools
import math

import pytest
import torch

from degradations.compose import Compose
from degradations.downscale import Downscale
from degradations.jpeg import JPEG
from degradations.mask import Mask, strokes
from degradations.rusir import BlockMean, DroppedPhotons, rusir
from pulse_framework.testing import DegradationContract, LinearDegradationContract
from pulse_framework.testing.checks import uniform

PAPER = {
    "U": {"XS": 2, "S": 4, "M": 8, "L": 16, "XL": 32},
    "N": {"XS": (96, 0.04), "S": (48, 0.08), "M": (24, 0.16), "L": (12, 0.32), "XL": (6, 0.64)},
    "A": {"XS": 18, "S": 15, "M": 12, "L": 9, "XL": 6},
    "P": {"XS": 1, "S": 5, "M": 9, "L": 13, "XL": 17},
}
ALL = ["".join(letters) for size in (1, 2, 3, 4) for letters in itertools.combinations("UNAP", size)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def told(part):
    """Task and setting of a part."""
    if isinstance(part, BlockMean):
        return "U", part.factor
    if isinstance(part, DroppedPhotons):
        return "N", (part.photons, part.p)
    if isinstance(part, JPEG):
        return "A", part.quality
    assert isinstance(part, Mask)
    counts = [count for count in range(1, 20) if torch.equal(strokes(count, 0.08, 7).mask((3, 64, 64)), part.mask((3, 64, 64)))]
    return "P", counts[0]


@pytest.mark.parametrize("level", PAPER["U"])
def test_levels_are_the_papers(level):
    for task in ALL:
        made = rusir(task, level, seed=7)
        parts = made.parts if isinstance(made, Compose) else [made]
        assert [told(part) for part in parts] == [(letter, PAPER[letter][level]) for letter in task]
    assert len(ALL) == 4 + 6 + 4 + 1


def test_composition_goes_through_in_its_order():
    x = uniform((2, 3, 64, 64), 1).float()
    made = rusir("UNAP", seed=3)
    small = torch.nn.functional.avg_pool2d(x, 8)
    known = strokes(9, seed=3).mask((3, 8, 8))
    assert torch.allclose(made(x), known * JPEG(12)(0.84 * small), atol=1e-5)
    assert torch.equal(made.mask((3, 64, 64)), known)
    assert 0 < float(known.mean()) < 1
    assert rusir("UNA").mask((3, 64, 64)) is None
    assert not torch.equal(rusir("P", seed=1).mask((3, 64, 64)), rusir("P", seed=2).mask((3, 64, 64)))


def test_upsampling_means_over_blocks_and_measures_one_of_three_filters():
    x = uniform((40, 3, 16, 16), 2)
    a = BlockMean(4)
    assert torch.allclose(a(x), torch.nn.functional.avg_pool2d(x, 4), atol=1e-15)
    filters = [Downscale(4, kernel, "pil").measure(x, rng()) for kernel in ("bilinear", "bicubic", "lanczos3")]
    y = a.measure(x, rng())
    used = [[k for k in range(3) if torch.equal(y[i], filters[k][i])] for i in range(len(x))]
    assert all(len(which) == 1 for which in used)
    assert {which[0] for which in used} == {0, 1, 2}
    assert a.measure(x[:0], rng()).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("level", PAPER["N"])
def test_noise_has_the_mean_that_the_search_is_told(level):
    (n, p), x = PAPER["N"][level], 0.3
    a = DroppedPhotons(n, p)
    y = a.measure(torch.full((1, 3, 200, 200), x, dtype=torch.float64), rng())
    lost = (y == 0).all(1).double().mean()
    dark = p + (1 - p) * math.exp(-3 * n * x)  # lost, or not one photon in any channel
    assert float(lost) == pytest.approx(dark, abs=5 * math.sqrt(dark * (1 - dark) / 40000))
    variance = (1 - p) * x / n + p * (1 - p) * x**2
    ax = float(a(torch.full((1,), x).reshape(1, 1, 1, 1)))
    assert ax == pytest.approx((1 - p) * x)
    clamped = 0.02 if n < 24 else 0.002  # counts above n are white
    assert float(y.mean()) == pytest.approx(ax, abs=5 * math.sqrt(variance / 40000) + clamped * ax)
    channels = [(y[0, c] == 0).double() for c in range(3)]
    assert all(float(((y[0] == 0).all(0).double() * (1 - channel)).sum()) == 0 for channel in channels)


@pytest.mark.parametrize(("task", "level"), [("", "M"), ("NU", "M"), ("UU", "M"), ("X", "M"), ("U", "XXL"), ("u", "M")])
def test_unknown_tasks_and_levels(task, level):
    with pytest.raises(ValueError, match=r"rusir (task|level): expected"):
        rusir(task, level)


class TestUpsampling(LinearDegradationContract):
    keeps_constants = True
    image_shapes = ((3, 16, 24), (1, 8, 8))

    def make(self):
        return BlockMean(4)

    def oracle(self, x):
        return torch.nn.functional.avg_pool2d(x, 4)


class TestDenoising(LinearDegradationContract):
    def make(self):
        return DroppedPhotons(24, 0.16)

    def oracle(self, x):
        return 0.84 * x


class TestComposition(DegradationContract):
    image_shapes = ((3, 16, 16), (1, 9, 12))

    def make(self):
        return rusir("UNP", "XS")
