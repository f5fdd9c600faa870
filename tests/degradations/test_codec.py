"""PNG and lossless WebP keep every bit of 8; lossy WebP loses more at lower quality, and grey stays grey."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from degradations.codec import Codec
from pulse_framework.testing import LinearDegradationContract
from pulse_framework.testing.checks import uniform


@pytest.mark.parametrize("codec", [Codec("png"), Codec("webp", lossless=True)], ids=["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_but_rounding_is_lost(codec, channels):
    x = uniform((2, channels, 17, 9)) * 1.4 - 0.2
    y = codec.measure(x, torch.Generator())
    torch.testing.assert_close(y, (x.clamp(0, 1) * 255).round() / 255, rtol=0, atol=1e-15)


def test_webp_is_pillows_file():
    levels = (uniform((1, 3, 21, 30)) * 255).round()
    file = io.BytesIO()
    Image.fromarray(levels[0].permute(1, 2, 0).byte().numpy()).save(file, "WEBP", quality=40)
    known = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    assert torch.equal((Codec("webp", 40).measure(levels / 255, torch.Generator())[0] * 255).round(), known.double())


def test_less_quality_loses_more():
    x = torch.nn.functional.interpolate(uniform((1, 3, 8, 8)), (64, 64), mode="bicubic").clamp(0, 1)
    lost = [float((Codec("webp", q).measure(x, torch.Generator()) - x).square().mean()) for q in (95, 50, 5)]
    assert lost[0] < lost[1] < lost[2]


@pytest.mark.parametrize("quality", [0, 5, 30, 60, 90, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_declared_gap_at_every_quality(quality, channels):
    codec, x = Codec("webp", quality), 0.4 + 0.2 * uniform((8, channels, 32, 32))
    assert float((codec.measure(x, torch.Generator()) - x).square().flatten(1).mean(1).sqrt().max()) <= codec.gap
    assert Codec("webp", quality, gap=0.3).gap == 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Codec("jpeg"), "Codec form"),
        (lambda: Codec("webp", 101), "Codec quality"),
        (lambda: Codec("webp", True), "Codec quality"),
        (lambda: Codec().measurement_shape((2, 4, 4)), "Codec"),
        (lambda: Codec().adjoint(torch.zeros(1, 3, 4, 4), (3, 4, 5)), "Codec adjoint"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=f"{message}: expected .* got"):
        make()


class TestContractOfWebP(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 9, 12))
    keeps_constants = True

    def make(self):
        return Codec("webp", 50)

    def oracle(self, x):
        return x


class TestContractOfPNG(TestContractOfWebP):
    def make(self):
        return Codec("png")
