"""Measurements by a matrix: the product, and files as NumPy and safetensors write them."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from degradations.matrix import MatrixSensing, load
from degradations.sensing import GaussianSensing
from pulse_framework.testing import LinearDegradationContract
from tests.degradations.dense import check_bits, check_dense

SHAPE = (3, 3, 5)
MATRIX = torch.randn(7, 45, generator=torch.Generator().manual_seed(0))


def test_is_the_matrix():
    check_dense(MatrixSensing(MATRIX), SHAPE, MATRIX.double())
    check_bits(MatrixSensing(MATRIX), SHAPE)


def test_pixels_are_counted_channels_first_then_rows():
    rows = torch.zeros(2, 24)
    rows[0, 12 + 1 * 4 + 2] = 1  # channel 1, row 1, column 2 of (2, 3, 4)
    rows[1, 11] = 1
    x = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert MatrixSensing(rows)(x).tolist() == [[float(x[0, 1, 1, 2]), float(x[0, 0, 2, 3])]]


def test_files_give_the_same_operator(tmp_path):
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "a.npy", MATRIX.numpy().astype(np.float64))
    save_file({"M": MATRIX}, tmp_path / "a.safetensors")
    save_file({"M": MATRIX, "other": torch.zeros(3)}, tmp_path / "b.safetensors")
    for path, key in (("a.npy", None), ("a.safetensors", None), ("a.safetensors", "M"), ("b.safetensors", "M")):
        assert torch.equal(load(tmp_path / path, key=key)(x), MatrixSensing(MATRIX)(x)), path


def test_whole_numbers_are_read_and_numbers_of_fortran_order(tmp_path):
    np.save(tmp_path / "i.npy", np.asfortranarray(np.arange(90, dtype=np.int16).reshape(2, 45)))
    assert torch.equal(load(tmp_path / "i.npy").matrix, torch.arange(90).reshape(2, 45).float())


def test_a_dense_gaussian_operator_can_be_kept_as_a_file(tmp_path):
    operator, x = GaussianSensing(9, seed=4), torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "a.npy", operator.matrix(SHAPE).numpy())
    assert torch.equal(load(tmp_path / "a.npy")(x), operator(x))


def test_files_that_hold_no_matrix_are_told(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.zeros((2, 3), complex))
    np.save(tmp_path / "vector.npy", np.zeros(3))
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan))
    (tmp_path / "short.npy").write_bytes((tmp_path / "vector.npy").read_bytes()[:-4])
    (tmp_path / "noise.safetensors").write_bytes(b"no such file")
    save_file({"M": MATRIX, "other": torch.zeros(3)}, tmp_path / "two.safetensors")
    cases = {
        "objects.npy": r"expected a \.npy file of numbers",
        "complex.npy": "expected real numbers, got torch.complex128",
        "vector.npy": r"expected the shape \(m, n\), got \(3,\)",
        "nan.npy": "expected finite numbers",
        "short.npy": r"expected a \.npy file of numbers",
        "noise.safetensors": r"expected a \.safetensors file of numbers",
        "two.safetensors": r"expected one tensor, got \['M', 'other'\]; name the matrix with key",
        "matrix.csv": r"expected a \.npy or \.safetensors file",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
            load(tmp_path / name)
    with pytest.raises(ValueError, match="expected a tensor 'N', got"):
        load(tmp_path / "two.safetensors", key="N")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npy")


def test_mistakes_are_told():
    with pytest.raises(TypeError, match=r"MatrixSensing matrix: expected a tensor of floats, got torch\.int64"):
        MatrixSensing(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=r"expected images of 45 numbers, for a matrix of shape \(7, 45\), got 48 in \(3, 4, 4\)"
    ):
        MatrixSensing(MATRIX).measurement_shape((3, 4, 4))
    with pytest.raises(ValueError, match="MatrixSensing sigma: expected"):
        MatrixSensing(MATRIX, sigma=math.nan)


class TestContractOfMatrixSensing(LinearDegradationContract):
    image_shapes = (SHAPE, (1, 9, 5))

    def make(self):
        return MatrixSensing(MATRIX, sigma=0.05)

    def oracle(self, x):
        return x.flatten(1) @ MATRIX.double().T
