"""Varying blur: each row of its matrix is a mixture of rows of the blurs' matrices; maps from tensors and files."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from degradations.blur import Blur, box_blur, defocus, gaussian_blur, motion_blur
from degradations.varying_blur import VaryingBlur, between, gaussian, labelled, load
from pulse_framework.testing import LinearDegradationContract


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def matrix(operator, shape):
    """Column j is A of basis image j."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return operator(basis).flatten(1).T


def blurs():
    return [Blur(numbers(3, 3), "zero"), motion_blur(3.1, 0.7), defocus(2.1, "circular")]


def mixture(blurs, weights, shape):
    """The matrix row by row: pixel p has the mean, by its weights, of what the blurs give there."""
    rows = weights.flatten(1).T.tolist()
    parts = [matrix(blur, shape) for blur in blurs]
    return torch.stack([sum(m * part[p] for m, part in zip(row, parts, strict=True)) for p, row in enumerate(rows)])


@pytest.mark.parametrize("shape", [(1, 5, 6), (1, 7, 4)])
def test_rows_of_the_matrix_are_mixed_by_the_weights(shape):
    weights = numbers(3, *shape[1:])
    weights = weights / weights.sum(0)
    A, operator = mixture(blurs(), weights, shape), VaryingBlur(blurs(), weights)
    x, y = numbers(4, *shape), numbers(4, *shape, seed=1)
    torch.testing.assert_close(operator(x).flatten(1), x.flatten(1) @ A.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(operator.adjoint(y, shape).flatten(1), y.flatten(1) @ A, rtol=0, atol=1e-14)
    v = numbers(1, *shape)
    for _ in range(300):
        v = operator.adjoint(operator(v), shape)
        v = v / v.norm()
    assert float(operator(v).norm()) == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-6)


def test_labels_choose():
    labels = (numbers(6, 8) * 3).long()
    operator, x = VaryingBlur(blurs(), labelled(labels, 3)), numbers(2, 3, 6, 8)
    all_of_them = torch.stack([blur(x) for blur in blurs()])
    assert torch.equal(operator(x), all_of_them.gather(0, labels.expand(1, 2, 3, 6, 8))[0])


def test_weights_between_levels():
    levels = torch.tensor([[0.0, 0.25, 0.5], [0.6, 0.9, 1.0]], dtype=torch.float64)
    expected = [[[1, 0.5, 0], [0, 0, 0]], [[0, 0.5, 1], [0.8, 0.2, 0]], [[0, 0, 0], [0.2, 0.8, 1]]]
    torch.testing.assert_close(between(levels, 3), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    assert torch.equal(between(levels, 1), torch.ones(1, 2, 3, dtype=torch.float64))


def test_an_even_map_is_one_blur():
    x = numbers(2, 3, 7, 5)
    for k, blur in enumerate(blurs()):
        operator = VaryingBlur(blurs(), between(torch.full((7, 5), k / 2), 3))
        torch.testing.assert_close(operator(x), blur(x), rtol=0, atol=1e-15)


def test_derivatives_by_blurs_and_map():
    x, levels = numbers(1, 1, 4, 5), (0.1 + 0.3 * numbers(4, 5, seed=1)).requires_grad_()
    sigma = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def made(x, sigma, levels):
        return VaryingBlur([box_blur(1), gaussian_blur(sigma), box_blur(3)], between(levels, 3))

    assert torch.autograd.gradcheck(lambda *p: made(*p)(p[0]), (x.requires_grad_(), sigma, levels))
    assert torch.autograd.gradcheck(lambda *p: made(*p).adjoint(p[0], (1, 4, 5)), (x, sigma, levels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_has_the_same_bits_alone_and_in_any_batch(dtype):
    shape = (3, 13, 11)
    operator = VaryingBlur(blurs(), between(numbers(13, 11), 3))
    x, weight = numbers(7, *shape, dtype=dtype).requires_grad_(), numbers(7, *shape, dtype=dtype, seed=1)
    alone = torch.cat([operator(x[i : i + 1].detach().clone()) for i in range(7)])
    gradients = torch.stack([torch.autograd.grad(operator(x[i : i + 1]), x, weight[i : i + 1])[0][i] for i in range(7)])
    back = torch.cat([operator.adjoint(weight[i : i + 1].clone(), shape) for i in range(7)])
    for rows in (slice(2), slice(3, 7), slice(7)):
        y = operator(x[rows])
        assert torch.equal(y, alone[rows])
        assert torch.equal(torch.autograd.grad(y, x, weight[rows])[0][rows], gradients[rows])
        assert torch.equal(operator.adjoint(weight[rows], shape), back[rows])


def test_maps_from_files(tmp_path):
    levels = (numbers(6, 5) * 255).round()
    Image.fromarray(levels.to(torch.uint8).numpy()).save(tmp_path / "map.png")
    np.save(tmp_path / "levels.npy", (levels / 255).numpy())
    labels = (numbers(6, 5) * 3).long()
    np.save(tmp_path / "labels.npy", labels.numpy().astype(np.uint8))
    for name, expected, tolerance in (
        ("map.png", between(levels / 255, 3), 1e-6),
        ("levels.npy", between(levels / 255, 3), 1e-15),
        ("labels.npy", labelled(labels, 3), 0),
    ):
        torch.testing.assert_close(load(tmp_path / name, blurs()).weights, expected, rtol=0, atol=tolerance)


def test_sigma_goes_from_low_to_high(tmp_path):
    np.save(tmp_path / "map.npy", np.linspace(0, 1, 9).repeat(9).reshape(9, 9).T)
    operator = gaussian(tmp_path / "map.npy", 0.5, 1.5, levels=3, boundary="zero")
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 4, :] = 1  # a row, blurred across itself more and more
    for column, sigma in ((0, 0.5), (4, 1.0), (8, 1.5)):
        expected = gaussian_blur(sigma, boundary="zero")(x)[..., column]
        torch.testing.assert_close(operator(x)[..., column], expected, rtol=0, atol=1e-15)
    between_two = (gaussian_blur(0.5, boundary="zero")(x) + gaussian_blur(1.0, boundary="zero")(x))[..., 2] / 2
    torch.testing.assert_close(operator(x)[..., 2], between_two, rtol=0, atol=1e-15)
    assert repr(operator).startswith("VaryingBlur(\n  map=9x9")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: VaryingBlur([], torch.ones(0, 4, 4)), ValueError, "at least one blur"),
        (lambda: VaryingBlur([torch.ones(3, 3)], torch.ones(1, 4, 4)), TypeError, "got Tensor at 0"),
        (lambda: VaryingBlur(blurs(), torch.ones(2, 4, 4) / 2), ValueError, r"expected shape \(3, H, W\).*got \(2, 4, 4\)"),
        (lambda: VaryingBlur(blurs(), torch.ones(3, 4, 4)), ValueError, "sum that is 2 off"),
        (
            lambda: VaryingBlur([box_blur(1)] * 2, torch.stack([torch.full((2, 2), 1.5), torch.full((2, 2), -0.5)])),
            ValueError,
            "-0.5",
        ),
        (lambda: VaryingBlur([box_blur(1)], torch.full((1, 2, 2), math.nan)), ValueError, "nan"),
        (lambda: between(torch.full((2, 2), 1.1), 2), ValueError, r"numbers in \[0, 1\].*1.1 to 1.1"),
        (lambda: between(torch.full((2, 2), math.nan), 2), ValueError, r"numbers in \[0, 1\]"),
        (lambda: between(torch.ones(2), 2), ValueError, r"shape \(2,\)"),
        (lambda: labelled(torch.full((2, 2), 3), 3), ValueError, "integers from 0 to 2"),
        (lambda: labelled(torch.full((2, 2), -1), 3), ValueError, "integers from 0 to 2"),
        (lambda: labelled(torch.ones(2, 2), 3), ValueError, "torch.float32"),
        (lambda: labelled(torch.ones(2, 2, dtype=torch.complex64), 3), ValueError, "torch.complex64"),
    ],
)
def test_mistakes(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_images_of_another_size_are_refused():
    operator = VaryingBlur([box_blur(1)], torch.ones(1, 4, 5))
    assert operator.measurement_shape((3, 4, 5)) == (3, 4, 5)
    for call in (
        lambda: operator.measurement_shape((3, 5, 4)),
        lambda: operator(torch.ones(1, 3, 5, 4)),
        lambda: operator.adjoint(torch.ones(1, 3, 5, 4), (3, 5, 4)),
    ):
        with pytest.raises(ValueError, match="images of 4 x 5, the size of the map, got 5 x 4"):
            call()
    with pytest.raises(ValueError, match=r"adjoint: expected y of shape \(N, \*\(3, 4, 5\)\)"):
        operator.adjoint(torch.ones(1, 1, 4, 5), (3, 4, 5))
    with pytest.raises(TypeError, match=r"floats, got torch\.int64"):
        operator(torch.ones(1, 3, 4, 5, dtype=torch.int64))


def test_files_without_a_map(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.png", blurs())
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "large.npy", np.full((2, 2), 2.0))
    np.save(tmp_path / "many.npy", np.full((2, 2), 3))
    for name, message in (("text.npy", "make it anew"), ("large.npy", "rescale it"), ("many.npy", "number the 3 blurs")):
        with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
            load(tmp_path / name, blurs())
    with pytest.raises(ValueError, match=r"varying_blur\.gaussian levels"):
        gaussian(tmp_path / "large.npy", levels=1)
    with pytest.raises(ValueError, match=r"varying_blur\.gaussian low"):
        gaussian(tmp_path / "large.npy", low=0.0)


class TestVarying(LinearDegradationContract):
    image_shapes = ((3, 9, 7), (1, 9, 7))

    def make(self):
        return VaryingBlur(blurs(), between(numbers(9, 7), 3))


class TestVaryingGaussian(LinearDegradationContract):
    image_shapes = ((3, 9, 7),)
    keeps_constants = True

    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        self.path = tmp_path / "map.npy"
        np.save(self.path, numbers(9, 7).numpy())

    def make(self):
        return gaussian(self.path, low=0.3, high=1.5, levels=3)
