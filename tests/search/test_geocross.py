"""GEOCROSS against the original program's values, and against angles known in advance."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_framework.priors import SpherePrior
from pulse_framework.search import Evaluation, Geocross
from pulse_framework.search.geocross import geocross

GOLDEN = Path(__file__).parent.parent / "golden" / "pulse_geocross.npz"


def test_values_of_the_original():
    with np.load(GOLDEN) as golden:
        random = np.random.RandomState(7)
        w = torch.from_numpy(random.standard_normal((4, 18, 512)).astype(np.float32))
        torch.testing.assert_close(geocross(w), torch.from_numpy(golden["geocross"]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.3, math.pi / 2, 3.0, math.pi])
def test_two_rows_at_a_known_angle(angle):
    """Two of the four pairs (i, j) are at the angle, the others at none."""
    w = 7 * torch.tensor([[[1.0, 0.0], [math.cos(angle), math.sin(angle)]]], dtype=torch.float64)
    torch.testing.assert_close(geocross(w), torch.tensor([64 * angle**2 / 2], dtype=torch.float64), rtol=1e-6, atol=1e-15)


def test_every_pair_written_out():
    w = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = [[torch.atan2((u - v).norm(), (u + v).norm()) * 2 for u in item for v in item] for item in w]
    expected = torch.tensor([[512 * float(theta) ** 2 / 8 for theta in item] for item in pairs]).double().mean(1)
    torch.testing.assert_close(geocross(w), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [torch.ones(1, 1, 4), torch.ones(2, 3, 4), torch.zeros(2, 3, 4)])
def test_equal_rows_give_zero_with_zero_gradient(rows):
    w = rows.clone().requires_grad_()
    value = geocross(w)
    (gradient,) = torch.autograd.grad(value.sum(), w)
    assert torch.equal(value, torch.zeros(len(rows)))
    assert torch.equal(gradient, torch.zeros_like(rows))


def test_gradient():
    w = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(geocross, w)


def at(latents, **lift):
    nothing = torch.zeros(2)
    return Evaluation(latents, {"v": SpherePrior()}, nothing, nothing, nothing, nothing, **lift)


def test_term_looks_at_the_block_lifted():
    w = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    seen = at({"v": w}, lift={"w_plus": 2 * w, "other": w[:, :1]}.__getitem__)
    torch.testing.assert_close(Geocross(weight=0.05)(seen), geocross(w))
    assert torch.equal(Geocross(block="other")(seen), torch.zeros(2))


def test_evaluation_without_a_lift():
    with pytest.raises(ValueError, match="expected a way to express the latents as 'w_plus', got none"):
        Geocross()(at({"v": torch.zeros(2, 3)}))
