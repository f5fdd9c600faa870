"""Blur against matrices written down pixel by pixel from the definition, against PyTorch's padding, and in frequencies."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from degradations import _convolution
from degradations.blur import Blur, box_blur, defocus, gaussian_blur, motion_blur, sinc_blur, trajectory_blur
from pulse_framework.testing import LinearDegradationContract

BOUNDARIES = ("reflect", "circular", "replicate", "zero")
# (h, w) of the PSF, (H, W) of the image: even sides, both sides of where the Fourier transform begins, PSFs larger than the image
SIZES = [
    ((3, 3), (4, 5)),
    ((4, 6), (7, 7)),
    ((5, 5), (6, 5)),
    ((8, 3), (9, 4)),
    ((9, 12), (4, 5)),
    ((2, 11), (1, 2)),
    ((1, 1), (2, 3)),
]


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rng():
    return torch.Generator().manual_seed(0)


def inside(p, side, boundary):
    """Which pixel of a row stands at p, or None if there is nothing."""
    if boundary == "circular":
        return p % side
    if boundary == "replicate":
        return min(max(p, 0), side - 1)
    while boundary == "reflect" and side > 1 and not 0 <= p < side:
        p = -p if p < 0 else 2 * (side - 1) - p
    return 0 if boundary == "reflect" and side == 1 else p if 0 <= p < side else None


def dense(psf, boundary, height, width):
    """The matrix of the sum over q of k_q times the image at p - (q - c), for one channel."""
    h, w = psf.shape
    A = np.zeros((height, width, height, width))
    for p in np.ndindex(height, width):
        for q in np.ndindex(h, w):
            row = inside(p[0] - q[0] + h // 2, height, boundary)
            column = inside(p[1] - q[1] + w // 2, width, boundary)
            if row is not None and column is not None:
                A[(*p, row, column)] += float(psf[q])
    return torch.from_numpy(A.reshape(height * width, height * width)) / psf.sum()


def signed(h, w):
    """A PSF with no symmetry and some negative entries."""
    return numbers(h, w, seed=h + w) - 0.1


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("psf", "size"), SIZES)
def test_the_matrix_of_the_definition(psf, size, boundary):
    k = signed(*psf)
    A, blur = dense(k, boundary, *size), Blur(k, boundary)
    x, y = numbers(2, 3, *size), numbers(2, 3, *size, seed=1)
    torch.testing.assert_close(blur(x).flatten(2), x.flatten(2) @ A.T, rtol=0, atol=1e-13)
    torch.testing.assert_close(blur.adjoint(y, (3, *size)).flatten(2), y.flatten(2) @ A, rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_padding_of_pytorch(boundary):
    for h, w in ((3, 4), (9, 8)):
        k, x = signed(h, w), numbers(2, 3, 12, 10)
        margins = (w - 1 - w // 2, w // 2, h - 1 - h // 2, h // 2)
        wide = functional.pad(x, margins, "constant" if boundary == "zero" else boundary)
        expected = functional.conv2d(wide.reshape(6, 1, *wide.shape[2:]), (k / k.sum()).flip(0, 1)[None, None]).reshape(x.shape)
        torch.testing.assert_close(Blur(k, boundary)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_both_ways_to_convolve_agree(boundary, monkeypatch):
    k, x = signed(7, 6), numbers(1, 2, 11, 13)
    blur, both = Blur(k, boundary), []
    for first in (1, 10_000):
        monkeypatch.setattr(_convolution, "_FOURIER", first)
        both.append((blur(x), blur.adjoint(x, (2, 11, 13))))
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-13)


def test_fourier_sizes():
    for side in range(1, 200):
        size, rest = _convolution._fast(side), _convolution._fast(side)
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        assert rest == 1
        assert side <= size < max(side + 2, 1.25 * side)
    assert [_convolution._fast(side) for side in (7, 11, 257)] == [8, 12, 270]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_operator_norm(boundary):
    size = (6, 7)
    k = torch.tensor([[0, -1, 0, 0.5], [-1, 4, -0.8, 0], [0, -0.6, 0, 0]], dtype=torch.float64)  # it sharpens: its norm is not 1
    blur, A = Blur(k, boundary), dense(k, boundary, *size)
    v = numbers(1, 1, *size)
    for _ in range(300):
        v = blur.adjoint(blur(v), (1, *size))
        v = v / v.norm()
    norm = float(blur(v).norm())
    assert norm == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-6)
    if boundary == "circular":
        wrapped = torch.fft.fft2(k / k.sum(), s=size)
        assert norm == pytest.approx(float(wrapped.abs().max()), rel=1e-6)
        assert norm > 2


def test_a_positive_circular_blur_shrinks_every_image():
    x = numbers(4, 1, 9, 8) - 0.5
    for blur in (gaussian_blur(1.3, 0.5, 0.4, "circular"), motion_blur(4.5, 0.3, "circular"), defocus(2.2, "circular")):
        assert bool((blur(x).flatten(1).norm(dim=1) <= x.flatten(1).norm(dim=1)).all())


def test_a_white_pixel_becomes_the_psf():
    k = signed(4, 5)
    x = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    x[0, 0, 10, 10] = 1
    expected = torch.zeros_like(x)
    expected[0, 0, 8:12, 8:13] = k / k.sum()
    torch.testing.assert_close(Blur(k)(x), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("psf", [(3, 4), (9, 7)])
def test_an_image_has_the_same_bits_and_gradient_alone_and_in_any_batch(psf, dtype):
    blur, shape = Blur(signed(*psf)), (3, 13, 11)
    x = numbers(9, *shape, dtype=dtype).requires_grad_()
    weight = numbers(9, *shape, dtype=dtype, seed=1)
    alone = torch.cat([blur(x[i : i + 1].detach().clone()) for i in range(9)])
    gradients = [torch.autograd.grad(blur(x[i : i + 1]), x, weight[i : i + 1])[0][i] for i in range(9)]
    back = torch.cat([blur.adjoint(weight[i : i + 1].clone(), shape) for i in range(9)])
    for rows in (slice(2), slice(5), slice(4, 9), slice(9)):
        y = blur(x[rows])
        assert torch.equal(y, alone[rows])
        assert torch.equal(torch.autograd.grad(y, x, weight[rows])[0][rows], torch.stack(gradients[rows]))
        assert torch.equal(blur.adjoint(weight[rows], shape), back[rows])
    assert torch.equal(blur(x.detach().to(memory_format=torch.channels_last)), alone)
    assert blur(x[:0]).shape == (0, *shape)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("psf", [(3, 4), (6, 5)])
def test_derivatives_by_image_and_psf(psf, boundary):
    k, x = signed(*psf).requires_grad_(), numbers(2, 1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, k: Blur(k, boundary)(x), (x, k))
    assert torch.autograd.gradcheck(lambda y, k: Blur(k, boundary).adjoint(y, (1, 4, 5)), (x, k))
    assert torch.autograd.gradgradcheck(lambda x, k: Blur(k, boundary)(x), (x, k))


def test_the_gradient_by_the_image_is_the_adjoint():
    for psf in ((4, 3), (7, 6)):
        for boundary in BOUNDARIES:
            x, y = numbers(2, 2, 5, 6).requires_grad_(), numbers(2, 2, 5, 6, seed=1)
            blur = Blur(signed(*psf), boundary)
            gradient = torch.autograd.grad(blur(x), x, y)[0]
            torch.testing.assert_close(blur.adjoint(y, (2, 5, 6)), gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_summed_in_float32(dtype):
    for psf in ((3, 3), (41, 41)):
        x = numbers(1, 1, 12, 12).to(dtype)
        blur = Blur(signed(*psf))
        for got, expected in ((blur(x), blur(x.double())), (blur.adjoint(x, (1, 12, 12)), blur.adjoint(x.double(), (1, 12, 12)))):
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_measure_is_a_clamped_to_8_bits():
    x = (numbers(2, 3, 16, 16) > 0.5).double()
    for blur in (gaussian_blur(1.1), sinc_blur(1.5, 9)):
        y, exact = blur.measure(x, rng()), blur(x)
        torch.testing.assert_close(y * 255, (y * 255).round(), rtol=0, atol=1e-12)
        assert float((y - exact.clamp(0, 1)).abs().max()) <= blur.gap + 1e-12
        assert float(y.min()) >= 0
        assert float(y.max()) <= 1
    assert float(exact.max()) > 1.01  # so that something is clamped


def test_the_psf_given_is_left_alone():
    k = signed(3, 3)
    blur, before = Blur(k), k.clone()
    y = blur(numbers(1, 1, 5, 5))
    assert torch.equal(k, before)
    k.zero_()
    assert torch.equal(blur(numbers(1, 1, 5, 5)), y)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Blur(torch.ones(3)), ValueError, r"Blur psf.*\(3,\)"),
        (lambda: Blur(torch.ones(0, 3)), ValueError, "Blur psf"),
        (lambda: Blur(torch.full((3, 3), math.nan)), ValueError, "Blur psf"),
        (lambda: Blur(torch.tensor([[1.0, math.inf]])), ValueError, "Blur psf"),
        (lambda: Blur(torch.tensor([[1.0, -1.0]])), ValueError, "positive sum"),
        (lambda: Blur(torch.ones(1, 1), "mirror"), ValueError, "reflect, circular, replicate, zero, got 'mirror'"),
        (lambda: box_blur(3)(torch.ones(1, 1, 4, 4, dtype=torch.int64)), TypeError, "floats, got torch.int64"),
        (lambda: box_blur(3).adjoint(torch.ones(1, 1, 4, 4, dtype=torch.int64), (1, 4, 4)), TypeError, "floats"),
        (lambda: box_blur(3).adjoint(torch.ones(1, 1, 4, 4), (1, 4, 5)), ValueError, "check image_shape"),
    ],
)
def test_mistakes(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


class Case(LinearDegradationContract):
    image_shapes = ((3, 9, 7), (1, 4, 6))
    keeps_constants = True

    def oracle(self, x):
        blur = self.make()
        return (x.flatten(2) @ dense(blur.psf, blur.boundary, *x.shape[2:]).T).reshape(x.shape)


class TestReflect(Case):
    def make(self):
        return Blur(signed(3, 4), "reflect")


class TestCircular(Case):
    def make(self):
        return Blur(signed(5, 6), "circular")


class TestReplicate(Case):
    def make(self):
        return Blur(signed(5, 6), "replicate")


class TestZero(Case):
    keeps_constants = False

    def make(self):
        return Blur(signed(5, 6), "zero")


class TestGaussian(Case):
    def make(self):
        return gaussian_blur(0.7, 2.0, 0.5)


class TestMotion(Case):
    def make(self):
        return motion_blur(3.3, 0.5, "replicate")


class TestTrajectory(Case):
    def make(self):
        return trajectory_blur(4.0, seed=1, boundary="circular")


class TestDefocus(Case):
    def make(self):
        return defocus(1.2)


class TestBox(Case):
    def make(self):
        return box_blur(4)


class TestSinc(Case):
    def make(self):
        return sinc_blur(2.0, 5)
