"""Rows of the Fourier transform against its definition, Parseval's identity and NumPy."""

import math

import numpy as np
import pytest
import torch

from degradations.fourier import FourierRows
from pulse_framework.testing import LinearDegradationContract
from tests.degradations.dense import check_bits, check_dense, norm_of

ODD = (3, 7, 5)
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


def transform(side):
    """The unitary transform of one axis: exp(-2 pi i j k / side) / sqrt(side)."""
    grid = torch.outer(torch.arange(side), torch.arange(side)).double()
    return torch.exp(-2j * math.pi * grid / side) / math.sqrt(side)


def dense(operator, image_shape):
    """Kronecker products of the definition."""
    channels, height, width = image_shape
    one = torch.kron(transform(height)[list(operator.rows(height))], transform(width))
    colours = LUMA[None] if operator.grey and channels == 3 else torch.eye(channels, dtype=torch.float64)
    return torch.cat([torch.kron(colours, part) for part in (one.real, one.imag)])


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("shape", [ODD, (1, 6, 8)])
def test_is_the_definition(grey, shape):
    check_dense(FourierRows(0.5, 0.2, grey, seed=1), shape, dense(FourierRows(0.5, 0.2, grey, seed=1), shape))


def test_rows_do_not_meet_by_a_bit():
    check_bits(FourierRows(0.5, grey=True), ODD)
    check_bits(FourierRows(0.5), ODD)


def test_all_rows_keep_lengths_and_the_adjoint_is_the_inverse():
    x = torch.rand(2, *ODD, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = FourierRows(1.0)
    torch.testing.assert_close(operator(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(operator.adjoint(operator(x), ODD), x, rtol=0, atol=1e-12)


def test_norm_is_one_with_the_constant_row():
    assert norm_of(FourierRows(0.3, 0.1), (1, 10, 6)) == pytest.approx(1, abs=1e-9)


def test_agrees_with_numpy_on_a_grey_image():
    x = torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = FourierRows(0.4, grey=True)
    spectrum = np.fft.fft2(np.tensordot(LUMA.numpy(), x[0].numpy(), 1), norm="ortho")[list(operator.rows(9))]
    np.testing.assert_allclose(operator(x)[0].numpy(), np.stack([spectrum.real, spectrum.imag]), rtol=0, atol=1e-12)


def test_rows_are_the_lowest_and_some_of_the_others():
    seeds = [FourierRows(0.25, 0.08, seed=seed).rows(64) for seed in range(30)]
    assert all(len(set(rows)) == 16 and list(rows) == sorted(rows) for rows in seeds)
    assert set.intersection(*map(set, seeds)) == {0, 1, 2, 62, 63}  # frequencies 0, 1, -1, 2, -2
    assert set.union(*map(set, seeds)) == set(range(64))
    assert FourierRows(1.0).rows(5) == (0, 1, 2, 3, 4)
    assert len(FourierRows(0.01, 0.0).rows(8)) == 1
    assert FourierRows(0.01, 0.001).rows(8) == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FourierRows(0.0), "FourierRows fraction"),
        (lambda: FourierRows(1.1), "FourierRows fraction"),
        (lambda: FourierRows(0.2, 0.3), "FourierRows centre"),
        (lambda: FourierRows(0.2, -0.1), "FourierRows centre"),
        (lambda: FourierRows(seed=1.5), "FourierRows seed"),
        (lambda: FourierRows(grey=True).measurement_shape((2, 8, 8)), "FourierRows"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=f"{message}: expected .* got"):
        make()


class TestContractOfFourierRows(LinearDegradationContract):
    image_shapes = (ODD, (1, 16, 16))

    def make(self):
        return FourierRows(0.5, sigma=0.05)

    def oracle(self, x):
        operator = self.make()
        return (x.flatten(1) @ dense(operator, tuple(x.shape[1:])).T).reshape(len(x), *operator.measurement_shape(x.shape[1:]))


class TestContractOfGreyFourierRows(TestContractOfFourierRows):
    def make(self):
        return FourierRows(0.5, grey=True)
