"""Kernels of one's own: the operator's matrix by NumPy, PULSE's bicubic from its taps, means of blocks, and files."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from degradations.downscale import Downscale
from degradations.kernel_downscale import KernelDownscale, load
from pulse_framework.testing import LinearDegradationContract
from pulse_framework.testing.checks import uniform
from tests.degradations.dense import check_bits, check_dense
from tests.degradations.test_downscale import keys

MODES = {"reflect": "reflect", "circular": "wrap", "replicate": "edge", "zero": "constant"}
ODD = uniform((5, 3), 1) - 0.1
EVEN = uniform((4, 6), 2)


def written_out(image, kernel, factor, phase, mode):
    """(k * x) at every f-th pixel, summed tap by tap over a padded image."""
    (h, w), (height, width) = kernel.shape, image.shape
    padded = np.pad(image, ((h, h), (w, w)), mode=mode)
    y = np.zeros((height // factor, width // factor))
    for i, j in np.ndindex(y.shape):
        for q, r in np.ndindex(h, w):
            row, column = phase + factor * i - (q - h // 2), phase + factor * j - (r - w // 2)
            y[i, j] += kernel[q, r] / kernel.sum() * padded[h + row, w + column]
    return y


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize(("kernel", "factor", "phase"), [(ODD, 2, 0), (ODD, 3, 2), (EVEN, 2, 1), (EVEN, 1, 0)])
def test_the_matrix_of_the_definition(kernel, factor, phase, boundary):
    height, width = 7, 8
    basis = np.eye(height * width).reshape(-1, height, width)
    columns = [written_out(image, kernel.numpy(), factor, phase, MODES[boundary]).ravel() for image in basis]
    A = torch.from_numpy(np.stack(columns, 1))
    check_dense(KernelDownscale(kernel, factor, phase, boundary), (1, height, width), A)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_ones_give_means_of_blocks(factor):
    x = uniform((2, 3, 13, 16), 1)
    known = torch.nn.functional.avg_pool2d(x, factor)
    for kernel in (np.ones(factor), torch.ones(factor, factor), [[1] * factor] * factor):
        torch.testing.assert_close(KernelDownscale(kernel, factor, (factor - 1) // 2)(x), known, rtol=0, atol=1e-14)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_pulses_taps_give_pulses_downscaler(factor):
    taps = [keys((j - 2 * factor + 0.5) / factor) for j in range(4 * factor)]
    x = uniform((1, 3, 40, 26), 2)
    made = KernelDownscale(taps, str(factor), (factor - 1) // 2)
    torch.testing.assert_close(made(x), Downscale(factor)(x), rtol=0, atol=1e-14)
    y = uniform(tuple(made(x).shape), 3)
    torch.testing.assert_close(made.adjoint(y, (3, 40, 26)), Downscale(factor).adjoint(y, (3, 40, 26)), rtol=0, atol=1e-14)
    assert repr(made).startswith(f"KernelDownscale(\n  factor={factor}, phase={(factor - 1) // 2}")


def test_the_phase_moves_the_image():
    x = uniform((1, 1, 12, 12), 1)
    for phase in range(3):
        assert torch.equal(KernelDownscale([1.0], 3, phase)(x), x[..., phase::3, phase::3])


def test_the_kernel_has_a_gradient():
    kernel, x = ODD.clone().requires_grad_(), uniform((1, 1, 6, 7), 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda k, x: KernelDownscale(k, 2)(x), (kernel, x))
    y = uniform((1, 1, 3, 3), 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: KernelDownscale(ODD, 2).adjoint(y, (1, 6, 7)), y)


def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    for kernel in (ODD, uniform((9, 9), 3)):
        check_bits(KernelDownscale(kernel, 2), (3, 12, 17))


def test_files_give_the_same_operator(tmp_path):
    x = uniform((1, 3, 9, 9), 1)
    np.save(tmp_path / "k.npy", ODD.numpy())
    save_file({"any": ODD}, tmp_path / "k.safetensors")
    np.savetxt(tmp_path / "k.txt", ODD.numpy())
    np.savetxt(tmp_path / "k.csv", ODD.numpy(), delimiter=",")
    for path in sorted(tmp_path.iterdir()):
        torch.testing.assert_close(load(path, 3, 1)(x), KernelDownscale(ODD, 3, 1)(x), rtol=0, atol=1e-15)
        turned = load(path, 3, 1, flip=True)(x)
        torch.testing.assert_close(turned, KernelDownscale(ODD.numpy()[::-1, ::-1], 3, 1)(x), rtol=0, atol=1e-15)


def test_one_row_or_column_of_taps_serves_both_axes(tmp_path):
    x = uniform((1, 1, 8, 10), 1)
    known = KernelDownscale(torch.outer(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 2, 3])), 2)(x)
    (tmp_path / "row.txt").write_text("1 2 3\n")
    (tmp_path / "column.csv").write_text("1\n2\n3\n")
    np.save(tmp_path / "whole.npy", np.array([1, 2, 3], dtype=np.uint8))
    for path in tmp_path.iterdir():
        torch.testing.assert_close(load(path, 2)(x), known, rtol=0, atol=1e-15)
    torch.testing.assert_close(load(tmp_path / "row.txt", 2, flip=True)(x), KernelDownscale([3, 2, 1], 2)(x), rtol=0, atol=1e-15)


def test_files_that_hold_no_kernel_are_told(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.ones(3, complex))
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "zero.npy", np.zeros(3))
    (tmp_path / "words.txt").write_text("one two\n")
    (tmp_path / "noise.safetensors").write_bytes(b"no such file")
    save_file({"k": ODD, "other": EVEN}, tmp_path / "two.safetensors")
    cases = {
        "objects.npy": "expected one kernel of real numbers",
        "complex.npy": "expected one kernel of real numbers",
        "cube.npy": "expected a matrix",
        "zero.npy": "expected a matrix of finite numbers with a positive sum",
        "words.txt": "expected one kernel of real numbers",
        "noise.safetensors": "expected one kernel of real numbers",
        "two.safetensors": "expected one kernel of real numbers",
        "kernel.mat": r"expected a file that ends in .*, got '\.mat'; convert it",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=rf"{name}: {message}|{name}: .*{message}"):
            load(tmp_path / name, 2)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npy", 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: KernelDownscale(ODD, "5/2"), ValueError, "KernelDownscale factor: expected an integer, got 5/2"),
        (lambda: KernelDownscale(ODD, 0), ValueError, "KernelDownscale factor: expected at least 1"),
        (lambda: KernelDownscale(ODD, None), TypeError, "KernelDownscale factor: expected a number"),
        (lambda: KernelDownscale(ODD, 2, 2), ValueError, "KernelDownscale phase: expected an integer from 0 to 1, got 2"),
        (lambda: KernelDownscale(ODD, 2, boundary="mirror"), ValueError, "boundary: expected one of"),
        (lambda: KernelDownscale(torch.ones(2, 2, dtype=torch.complex64), 2), TypeError, "kernel: expected real numbers"),
        (lambda: KernelDownscale(ODD, 4)(torch.zeros(1, 1, 8, 3)), ValueError, "expected images of at least 4 pixels"),
        (
            lambda: KernelDownscale(ODD, 2).adjoint(torch.zeros(1, 1, 4, 4), (1, 8, 10)),
            ValueError,
            "adjoint: expected y of shape",
        ),
    ],
)
def test_mistakes_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


class TestContract(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 9, 12))
    keeps_constants = True

    def make(self):
        return KernelDownscale(uniform((7, 6), 1), 3)


class TestContractOfASmallKernel(TestContract):
    def make(self):
        return KernelDownscale([1, 2, 1], 2, 1)
