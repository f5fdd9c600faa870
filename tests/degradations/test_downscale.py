"""PULSE's downscaler against golden values, a convolution written out, and the dense matrix of the operator."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from degradations.downscale import Downscale
from pulse_framework.testing import LinearDegradationContract

GOLDEN = Path(__file__).parents[1] / "golden" / "pulse_bicubic.npz"
CASES = ["x_div2", "x_div4", "x_div8", "x_div16", "y_div2", "y_div3", "y_div4"]
factors = st.fractions(min_value=1, max_value=9, max_denominator=12)
sides = st.integers(1, 40)


def keys(t):
    t = abs(t)
    if t <= 1:
        return (1.5 * t - 2.5) * t * t + 1
    return ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0


def published(x, f):
    """PULSE's operator for an integer factor: pad by reflection, convolve with stride, columns first."""
    taps = torch.tensor([keys((j - 2 * f + 0.5) / f) for j in range(4 * f)], dtype=x.dtype)
    taps = (taps / taps.sum())[None, None]
    before, after = 3 * f // 2, 3 * f - 3 * f // 2
    n, c, h, w = x.shape
    x = torch.nn.functional.pad(x.reshape(n * c, 1, h, w), (before, after, before, after), mode="reflect")
    x = torch.nn.functional.conv2d(x, taps[..., None], stride=(f, 1))
    x = torch.nn.functional.conv2d(x, taps[..., None, :], stride=(1, f))
    return x.reshape(n, c, *x.shape[-2:])


def one_row(signal, factor, i):
    """Entry i of a signal scaled down by a rational factor that is no odd integer, summed tap by tap."""
    centre, total, weights = (i + 0.5) * float(factor) - 0.5, 0.0, 0.0
    for p in range(math.floor(centre - 2 * factor), math.ceil(centre + 2 * factor) + 1):
        q = p
        while not 0 <= q < len(signal):
            q = -q if q < 0 else 2 * (len(signal) - 1) - q
            q = 0 if len(signal) == 1 else q
        weight = keys((p - centre) / float(factor))
        total, weights = total + weight * float(signal[q]), weights + weight
    return total / weights


def images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("case", CASES)
def test_golden_values(case):
    golden = np.load(GOLDEN)
    name, factor = case.split("_div")
    x, y = torch.from_numpy(golden[name]), torch.from_numpy(golden[case])
    torch.testing.assert_close(Downscale(int(factor))(x), y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("size", [(64, 64), (41, 27)])
def test_integer_factors_are_the_published_convolution(factor, size):
    x = images(2, 3, *size)
    torch.testing.assert_close(Downscale(factor)(x), published(x, factor), rtol=0, atol=1e-13)


@given(side=sides, factor=factors.filter(lambda f: f.denominator > 1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_fractions_sample_the_stretched_kernel_at_the_pixel_centres(side, factor, seed):
    count = side // factor
    if count == 0:
        return
    signal = images(side, seed=seed)
    expected = [one_row(signal, factor, i) for i in range(count)]
    across = Downscale(factor)(signal.expand(1, 1, math.ceil(factor), side))
    down = Downscale(factor)(signal[:, None].expand(1, 1, side, math.ceil(factor)))
    torch.testing.assert_close(across[0, 0, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(down[0, 0, :, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_factor_one_is_the_identity():
    x = images(2, 3, 5, 7, dtype=torch.float32)
    assert torch.equal(Downscale(1)(x), x)


@given(height=sides, width=sides, factor=factors, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_shape_constants_and_adjoint_for_any_size_and_factor(height, width, factor, seed):
    degradation, shape = Downscale(factor), (2, height, width)
    if min(height, width) < factor:
        with pytest.raises(ValueError, match="smaller factor"):
            degradation.measurement_shape(shape)
        return
    expected = (2, math.floor(height / factor), math.floor(width / factor))
    assert degradation.measurement_shape(shape) == expected
    x, y = images(3, *shape, seed=seed), images(3, *expected, seed=seed + 1)
    ax, aty = degradation(x), degradation.adjoint(y, shape)
    assert ax.shape == y.shape
    assert aty.shape == x.shape
    assert abs((ax * y).sum() - (x * aty).sum()) <= 1e-13 * (ax.norm() * y.norm())
    torch.testing.assert_close(degradation(torch.full_like(x, 0.3)), torch.full_like(y, 0.3), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("size", "factor"), [((6, 5), 2), ((7, 9), 3), ((5, 8), "5/2"), ((1, 4), 1), ((3, 3), 3)])
def test_adjoint_is_the_transpose_of_the_dense_matrix(size, factor):
    degradation, shape = Downscale(factor), (1, *size)
    basis = torch.eye(math.prod(size), dtype=torch.float64).reshape(-1, *shape)
    dense = degradation(basis).flatten(1).T  # column j is A of basis image j
    x = images(4, *shape)
    y = images(4, *degradation.measurement_shape(shape), seed=1)
    torch.testing.assert_close(degradation(x).flatten(1), x.flatten(1) @ dense.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(degradation.adjoint(y, shape).flatten(1), y.flatten(1) @ dense, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "factor"), [((3, 64, 64), 8), ((1, 64, 64), 64), ((3, 17, 19), "7/3"), ((1, 7, 5), 3)])
def test_an_image_has_the_same_bits_and_gradient_alone_and_in_any_batch(shape, factor, dtype):
    degradation = Downscale(factor)
    x = images(40, *shape, dtype=dtype).requires_grad_()
    alone = [degradation(x[i : i + 1].detach().clone()) for i in range(40)]
    weight = images(40, *alone[0].shape[1:], dtype=dtype, seed=1)
    gradients = [torch.autograd.grad(degradation(x[i : i + 1]), x, weight[i : i + 1])[0][i] for i in range(40)]
    for n in range(1, 41):
        for rows in (slice(n), slice(40 - n, 40)):
            y = degradation(x[rows])
            assert torch.equal(y, torch.cat(alone[rows]))
            assert torch.equal(torch.autograd.grad(y, x, weight[rows])[0][rows], torch.stack(gradients[rows]))
    assert torch.equal(degradation(x.detach().to(memory_format=torch.channels_last)), torch.cat(alone))


def test_gradients_of_first_and_second_order():
    degradation = Downscale("5/2")
    x = images(2, 1, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(degradation, x)
    assert torch.autograd.gradgradcheck(lambda x: degradation(x).square(), x)


def test_measure_is_a_clamped_to_8_bits():
    degradation, rng = Downscale(4), torch.Generator()
    x = images(2, 3, 32, 32)
    y = degradation.measure(x, rng)
    levels = y * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-12)
    assert (y - degradation(x)).abs().max() <= degradation.gap + 1e-12
    step = (torch.arange(64) < 32).double().expand(1, 1, 64, 64)
    a = degradation(step)
    assert a.min() < 0 < 1 < a.max()
    assert degradation.measure(step, rng).aminmax() == (0, 1)


def test_dtype_is_kept_and_no_images_are_no_error():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert Downscale(2)(torch.zeros(1, 3, 4, 4, dtype=dtype)).dtype == dtype
    assert Downscale(2)(torch.zeros(0, 3, 8, 6)).shape == (0, 3, 4, 3)


def test_first_use_in_inference_mode_does_not_spoil_later_gradients():
    degradation = Downscale("13/11")
    with torch.inference_mode():
        degradation(torch.zeros(1, 1, 13, 13))
    x = torch.zeros(1, 1, 13, 13, requires_grad=True)
    degradation(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("given", "exact"),
    [(4, Fraction(4)), (6.4, Fraction(32, 5)), (64 / 12, Fraction(16, 3)), ("32/5", Fraction(32, 5)), ("2.5", Fraction(5, 2))],
)
def test_the_factor_is_exact(given, exact):
    assert Downscale(given).factor == exact
    assert f"factor={exact}" in repr(Downscale(given))


@pytest.mark.parametrize("bad", [0, 0.5, -2, "1/0", "two", math.nan, math.inf, 0.9999999])
def test_impossible_factors_are_refused(bad):
    with pytest.raises(ValueError, match=r"Downscale factor: expected .* got"):
        Downscale(bad)


@pytest.mark.parametrize("bad", [True, None, [2]])
def test_other_types_of_factor_are_refused(bad):
    with pytest.raises(TypeError, match=r"Downscale factor: expected .* got"):
        Downscale(bad)


def test_wrong_inputs_are_refused():
    with pytest.raises(TypeError, match="floats"):
        Downscale(2)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="adjoint"):
        Downscale(2).adjoint(torch.zeros(1, 3, 4, 4), (3, 10, 8))


class TestContract(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 8, 12))
    keeps_constants = True
    factor: int | str = 4

    def make(self):
        return Downscale(self.factor)


class TestContractOfAnOddFactor(TestContract):
    factor = 3


class TestContractOfARationalFactor(TestContract):
    factor = "8/5"
