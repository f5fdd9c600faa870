"""JPEG against Pillow's codec: tables, pixels, declared gap; and its gradients against closed forms and finite differences."""

import io

import pytest
import torch
from PIL import Image

from degradations.jpeg import JPEG, quantisation
from pulse_framework.testing import DegradationContract
from pulse_framework.testing.checks import close, uniform

QUALITIES = [5, 10, 25, 50, 75, 95]
SIZES = [(64, 64), (37, 50), (15, 33), (8, 5), (3, 4), (1, 1), (17, 2)]


def picture(height, width, channels=3, seed=0, noise=0.1):
    """Smooth blobs of colour with some noise; float64."""
    small = uniform((1, channels, max(2, height // 6), max(2, width // 6)), seed)
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")
    return (0.2 + 0.6 * smooth + noise * (uniform((1, channels, height, width), seed + 1) - 0.5)).clamp(0, 1)


@pytest.mark.parametrize("quality", [1, *QUALITIES, 49, 51, 100])
def test_tables_are_those_that_pillow_writes(quality):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    written = Image.open(file).quantization
    assert [tuple(written[i]) for i in (0, 1)] == list(quantisation(quality))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_rounded_it_is_pillows_codec(quality, subsampling, channels):
    """In levels, over all sizes and five images of each: nearly all numbers agree; what does not is a coefficient on a tie."""
    jpeg = JPEG(quality, subsampling)
    images = [picture(*size, channels, 10 * seed) for size in SIZES for seed in range(5)]
    error = torch.cat([255 * (jpeg(x) - jpeg.measure(x, torch.Generator())).abs().flatten() for x in images])
    assert float(error.mean()) <= 0.06
    assert float((error > 1.5).double().mean()) <= 0.01
    assert float((error > 0.5).double().mean()) <= 0.04


@pytest.mark.parametrize("rounding", ["straight_through", "cubic"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("quality", QUALITIES)
def test_the_declared_gap_holds_for_smooth_and_for_noisy_images(quality, subsampling, rounding):
    jpeg = JPEG(quality, subsampling, rounding)
    for noise in (0.0, 0.1, 0.4):
        for side in (16, 33):
            x = torch.cat([picture(side, side, 3, seed, noise) for seed in range(0, 20, 2)])
            x = 0.25 + x / 2  # A(x) stays inside [0, 1]
            gap = (jpeg(x) - jpeg.measure(x, torch.Generator())).square().flatten(1).mean(1).sqrt()
            assert float(gap.max()) <= jpeg.gap, (noise, side, float(255 * gap.max()), 255 * jpeg.gap)


def test_a_constant_keeps_its_level_but_for_the_step_of_the_mean():
    """Coefficient 0 is 8 (levels - 128), the step at quality 50 is 16: levels go in steps of 2, ties away from 128."""
    x = torch.arange(256, dtype=torch.float64)[:, None, None, None].expand(-1, 1, 8, 8) / 255
    centred = torch.arange(256) - 128
    expected = 128 + 2 * centred.sign() * ((centred.abs() + 1) // 2)
    levels = (255 * JPEG(50)(x)).round()
    assert torch.equal(levels, expected.clamp(max=255).double()[:, None, None, None].expand_as(levels))


def test_straight_through_is_differentiated_as_if_nothing_were_rounded():
    """In 4:4:4 the codec without rounding is the identity; libjpeg's colour constants have 16 bits."""
    for shape, tolerance in (((1, 3, 16, 24), 5e-5), ((1, 1, 8, 16), 1e-12)):
        x, weight = uniform(shape, 1).requires_grad_(), uniform(shape, 2)
        (gradient,) = torch.autograd.grad(JPEG(10, "4:4:4")(x), x, weight)
        close(gradient, weight, "gradient", tolerance)


def test_straight_through_keeps_the_sum_of_the_gradient_when_chroma_is_halved():
    """Averages and the triangle filter keep constants, so moving all pixels alike moves all pixels alike."""
    x = uniform((1, 3, 16, 32), 1).requires_grad_()
    (gradient,) = torch.autograd.grad(JPEG(10)(x).sum(), x)
    assert float(gradient.sum()) == pytest.approx(x.numel(), rel=1e-4)


def test_cubic_rounding_is_the_formula():
    """A grey constant is one coefficient, 8 (levels - 128) / 16 = c: r + (c - r)^3."""
    level = 128 + 2 * 3.3
    x = torch.full((1, 1, 8, 8), level / 255, dtype=torch.float64).requires_grad_()
    y = JPEG(50, rounding="cubic")(x)
    close(255 * y, torch.full_like(y, 128 + 2 * (3 + 0.3**3)), "A of a constant", 1e-12)
    (gradient,) = torch.autograd.grad(y.mean(), x)
    assert float(gradient.sum()) == pytest.approx(3 * 0.3**2)


def test_an_image_has_the_same_bits_alone_and_in_any_batch():
    x = torch.cat([picture(24, 33, 3, seed) for seed in range(7)]).float()
    for rounding in ("straight_through", "cubic"):
        jpeg = JPEG(20, rounding=rounding)
        alone = torch.cat([jpeg(image) for image in x.split(1)])
        assert torch.equal(jpeg(x), alone)
        assert torch.equal(jpeg(x.to(memory_format=torch.channels_last)), alone)
    assert JPEG()(x[:0]).shape == JPEG().measure(x[:0], torch.Generator()).shape == (0, 3, 24, 33)


@pytest.mark.parametrize("quality", [2.4, 50.0, 61.7, 99.6])
def test_a_quality_that_is_searched_for_is_the_nearest_and_its_derivative_a_secant(quality):
    x, searched, nearest = picture(16, 24), torch.tensor(quality, requires_grad=True), round(quality)
    y, plain = JPEG(searched)(x), JPEG(nearest)
    assert torch.equal(y, plain(x))
    assert torch.equal(JPEG(searched).measure(x, torch.Generator()), plain.measure(x, torch.Generator()))
    low, high = max(nearest - 5, 1), min(nearest + 5, 100)
    weight = uniform((1, 3, 16, 24), 3)
    (gradient,) = torch.autograd.grad((weight * y).sum(), searched)
    secant = (weight * (JPEG(high)(x) - JPEG(low)(x))).sum() / (high - low)
    assert float(gradient) == pytest.approx(float(secant), rel=1e-5)
    at = x.clone().requires_grad_()
    one, other = (torch.autograd.grad(jpeg(at), at, weight)[0] for jpeg in (JPEG(searched), plain))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JPEG(0), "JPEG quality"),
        (lambda: JPEG(50.0), "JPEG quality"),
        (lambda: JPEG(torch.tensor([50.0])), "JPEG quality"),
        (lambda: JPEG(torch.tensor(120.0)), "JPEG quality"),
        (lambda: JPEG(50, "4:1:1"), "JPEG subsampling"),
        (lambda: JPEG(50, rounding="none"), "JPEG rounding"),
        (lambda: JPEG()(torch.zeros(1, 2, 8, 8)), "JPEG"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=f"{message}: expected .* got"):
        make()


class TestContract(DegradationContract):
    image_shapes = ((3, 16, 16), (1, 8, 12), (3, 21, 19))

    def make(self):
        return JPEG(30, rounding="cubic")


class TestContractOf444(TestContract):
    def make(self):
        return JPEG(75, "4:4:4", "cubic")


class TestContractOfStraightThrough(TestContract):
    def make(self):
        return JPEG(30)

    def test_gradient_is_true(self):
        """It is not: A is constant almost everywhere. It is that of the same codec whose steps are too small to round."""
        for shape in self.image_shapes:
            x, weight = self.images(shape, 1).requires_grad_(), uniform((1, *shape), 5)
            fine, coarse = JPEG(100), JPEG(5)
            gradients = [torch.autograd.grad(jpeg(x), x, weight)[0] for jpeg in (fine, coarse)]
            assert float(gradients[0].abs().max()) > 0.1
            close(gradients[1], gradients[0], "gradient", 1e-9)
