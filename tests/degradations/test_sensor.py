"""A sensor: the mosaic pixel by pixel, saturation and levels by their definitions, and the derivatives that stand in."""

import pytest
import torch

from degradations.sensor import Bayer, Clip, Quantise
from pulse_framework.testing import DegradationContract, LinearDegradationContract
from pulse_framework.testing.checks import close, uniform
from tests.degradations.dense import check_bits, check_dense

FIRST_PIXELS = {"RGGB": "RG/GB", "BGGR": "BG/GR", "GRBG": "GR/BG", "GBRG": "GB/RG"}


def rng():
    return torch.Generator().manual_seed(0)


def column(*values):
    """An image of some values, and its derivative wanted."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1, 1).requires_grad_()


def slopes(operator, x):
    """The derivative of every pixel."""
    return torch.autograd.grad(operator(x).sum(), x)[0].flatten()


@pytest.mark.parametrize("pattern", FIRST_PIXELS)
@pytest.mark.parametrize("size", [(4, 6), (3, 5)])
def test_every_pixel_has_the_colour_of_its_filter(pattern, size):
    height, width = size
    A = torch.zeros(height, width, 3, height, width, dtype=torch.float64)
    for row in range(height):
        for col in range(width):
            colour = FIRST_PIXELS[pattern].split("/")[row % 2][col % 2]
            A[row, col, "RGB".index(colour), row, col] = 1
    check_dense(Bayer(pattern), (3, height, width), A.reshape(height * width, -1))


def test_a_mosaic_has_twice_as_much_green_and_loses_nothing_that_it_has():
    bayer, y = Bayer("GRBG"), uniform((2, 1, 8, 10), 1)
    filled = bayer.adjoint(y, (3, 8, 10))
    assert (filled > 0).sum((0, 2, 3)).tolist() == [40, 80, 40]
    assert torch.equal(bayer(filled), y)


def test_clipping():
    x = column(-0.5, 0.1, 0.2, 0.4, 0.7, 0.9)
    clip = Clip(0.2, 0.7)
    assert clip(x).flatten().tolist() == [0.2, 0.2, 0.2, 0.4, 0.7, 0.7]
    assert torch.equal(clip(clip(x)), clip(x))
    levels = clip.measure(x, rng()).flatten() * 255
    assert levels.round().tolist() == [51, 51, 51, 102, 178, 178]


def test_clamped_pixels_that_are_wrong_are_moved_unless_the_derivative_is_exact():
    for name, known in (("exact", [0, 1, 0]), ("straight_through", [1, 1, 1]), ("sigmoid", [0.21, 0.5, 0.21])):
        clip = Clip(0.2, 0.8, name)
        torch.testing.assert_close(slopes(clip, column(-0.1, 0.5, 1.1)), column(*known).detach().flatten(), rtol=0, atol=5e-4)
        assert clip.surrogate == (name != "exact")
        assert repr(clip) == f"Clip(low=0.2, high=0.8, surrogate={name})"


@pytest.mark.parametrize("surrogate", ["straight_through", "leaky_cubic"])
def test_levels_of_few_bits(surrogate):
    x = column(-0.2, 0.1, 0.2, 0.49, 0.51, 0.8, 0.9, 1.3)
    known = {1: [0, 0, 0, 0, 1, 1, 1, 1], 2: [0, 0, 1, 1, 2, 2, 3, 3], 3: [0, 1, 1, 3, 4, 6, 6, 7]}
    for bits, levels in known.items():
        quantise = Quantise(bits, surrogate)
        expected = torch.tensor(levels, dtype=torch.float64) / (2**bits - 1)
        assert torch.equal(quantise(x).flatten(), expected)
        assert torch.equal(quantise.measure(x, rng()), quantise(x))
        assert torch.equal(quantise(quantise(x)), quantise(x))
        assert quantise.gap == 0


def test_there_are_two_to_the_n_levels_and_those_of_a_file_stay():
    x = torch.linspace(-0.1, 1.1, 4001, dtype=torch.float64).reshape(1, 1, 1, -1)
    for bits in (1, 2, 5, 8):
        assert len(Quantise(bits)(x).unique()) == 2**bits
    for bits in (1, 2, 4, 8):
        levels = 255 * Quantise(bits)(x)
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-12)


def test_derivatives_of_quantising():
    x = column(0.0, 1 / 3, 0.4, 0.4999999999, 1.4)
    away = [0, 0, 0.2, 0.5]
    assert slopes(Quantise(2), x).tolist() == [1] * 5
    torch.testing.assert_close(slopes(Quantise(2, "leaky_cubic"), x)[:4], 0.2 + 2.4 * torch.tensor(away).double() ** 2)
    cubic = Quantise(2, "cubic")
    torch.testing.assert_close(slopes(cubic, x)[:4], 3 * torch.tensor(away).double() ** 2)
    torch.testing.assert_close(cubic(x)[0, 0, 2, 0], torch.tensor((1 + 0.2**3) / 3, dtype=torch.float64))
    assert [Quantise(2, name).surrogate for name in ("straight_through", "leaky_cubic", "cubic")] == [True, True, False]


def test_the_gap_of_the_cubic_is_that_of_values_between_levels():
    cubic, x = Quantise(3, "cubic"), torch.full((1, 1, 2, 2), 2.4999999 / 7, dtype=torch.float64)
    found = float((cubic(x) - cubic.measure(x, rng())).square().mean().sqrt())
    assert found == pytest.approx(cubic.gap, rel=1e-5)


def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    operators = [Bayer(), *(Clip(0.3, 0.6, name) for name in ("straight_through", "sigmoid", "exact"))]
    operators += [Quantise(3, name) for name in ("straight_through", "leaky_cubic", "cubic")]
    for operator in operators:
        check_bits(operator, (3, 5, 7))
        check_bits(operator, (3, 16, 33))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bayer("RGBG"), "Bayer pattern: expected one of RGGB, BGGR, GRBG, GBRG, got 'RGBG'"),
        (lambda: Bayer()(torch.zeros(1, 1, 4, 4)), "Bayer: expected RGB images, of 3 channels, got 1"),
        (lambda: Bayer().adjoint(torch.zeros(1, 1, 4, 5), (3, 4, 4)), r"Bayer adjoint: expected y of shape \(N, \*\(1, 4, 4\)\)"),
        (lambda: Clip(0.5, 0.5), "Clip: expected 0 <= low < high <= 1, got 0.5 and 0.5"),
        (lambda: Clip(0, 1.5), "Clip: expected 0 <= low < high <= 1, got 0 and 1.5"),
        (lambda: Clip(surrogate="none"), "Clip surrogate: expected one of straight_through, sigmoid, exact, got 'none'"),
        (lambda: Quantise(0), "Quantise bits: expected an integer from 1 to 16, got 0"),
        (lambda: Quantise(True), "Quantise bits: expected an integer from 1 to 16, got True"),
        (lambda: Quantise(8, "exact"), "Quantise surrogate: expected one of straight_through, cubic, leaky_cubic, got 'exact'"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestContractOfBayer(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (3, 5, 9))

    def make(self):
        return Bayer("GBRG")


class TestContractOfClip(DegradationContract):
    image_shapes = ((3, 16, 16), (1, 5, 9))
    surrogate = "exact"

    def make(self):
        return Clip(0.45, 0.55, self.surrogate)

    def oracle(self, x):
        return torch.where(x < 0.45, 0.45, torch.where(x > 0.55, 0.55, x))


class TestContractOfClipStraightThrough(TestContractOfClip):
    surrogate = "straight_through"

    def test_gradient_is_true(self):
        """It is not: it is that of the identity."""
        for shape in self.image_shapes:
            x, weight = self.images(shape, 1).requires_grad_(), uniform((1, *shape), 5)
            close(torch.autograd.grad(self.make()(x), x, weight)[0], weight, "gradient")


class TestContractOfClipSigmoid(TestContractOfClip):
    surrogate = "sigmoid"

    def test_gradient_is_true(self):
        """It is not: it is that of a sigmoid, which comes near to the clamp."""
        for shape in self.image_shapes:
            x, weight = self.images(shape, 1).requires_grad_(), uniform((1, *shape), 5)
            y = 0.1 / (1 + torch.exp(-2 * ((x - 0.45) / 0.1 - 0.5)))
            close(torch.autograd.grad(self.make()(x), x, weight)[0], torch.autograd.grad(y, x, weight)[0], "gradient")


class TestContractOfQuantiseCubic(DegradationContract):
    image_shapes = ((3, 16, 16), (1, 5, 9))

    def make(self):
        return Quantise(4, "cubic")


class TestContractOfQuantise(TestContractOfClipStraightThrough):
    def make(self):
        return Quantise(4)

    def oracle(self, x):
        return torch.floor(15 * x + 0.5) / 15
