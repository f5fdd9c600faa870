"""Downscaling as other libraries do it: against the libraries themselves, and MATLAB's documented algorithm written out."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from degradations.downscale import Downscale
from pulse_framework.testing import LinearDegradationContract

PIL = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}
SIZES = [((64, 48), 8), ((33, 50), Fraction(33, 8)), ((37, 29), Fraction(7, 2)), ((30, 30), 3)]


def picture(height, width, seed=0):
    """A noisy gradient; float64 of three channels."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, height)[:, None, None] * np.linspace(0.2, 1, width)[None, :, None]
    return np.clip(0.7 * ramp + 0.3 * rng.random((height, width, 3)), 0, 1)


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("kernel", PIL)
@pytest.mark.parametrize(("size", "factor"), SIZES, ids=str)
def test_pillow(kernel, size, factor):
    """In floats to rounding; in 8 bits, where Pillow rounds between the axes too, within one level."""
    x = picture(*size)
    y = Downscale(factor, kernel, "pil")(tensor(x))[0].permute(1, 2, 0).numpy()
    shape = (y.shape[1], y.shape[0])
    bands = [Image.fromarray(x[..., c].astype(np.float32)).resize(shape, PIL[kernel]) for c in range(3)]
    np.testing.assert_allclose(y, np.stack([np.asarray(band) for band in bands], -1), atol=2e-6)
    levels = (x * 255).round().astype(np.uint8)
    known = np.asarray(Image.fromarray(levels).resize(shape, PIL[kernel])).astype(float)
    ours = Downscale(factor, kernel, "pil").measure(tensor(levels / 255), torch.Generator())[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - known).max() <= 1 + 1e-9


@pytest.mark.parametrize(
    ("kernel", "mode", "library"),
    [
        ("nearest", "nearest", "torch"),
        ("box", "area", "torch"),
        ("bilinear", "bilinear", "torch"),
        ("bicubic", "bicubic", "torch"),
        ("bilinear", "bilinear", "torch_antialias"),
        ("bicubic", "bicubic", "torch_antialias"),
    ],
)
@pytest.mark.parametrize(("size", "factor"), SIZES, ids=str)
def test_torch(kernel, mode, library, size, factor):
    x = tensor(picture(*size))
    y = Downscale(factor, kernel, library)(x)
    more = {"antialias": library == "torch_antialias"} if mode in ("bilinear", "bicubic") else {}
    torch.testing.assert_close(y, functional.interpolate(x, y.shape[-2:], mode=mode, **more), rtol=0, atol=1e-12)


def imresize(x, scale, kernel, width):
    """MATLAB's imresize along the first axis, as documented: one-based, window by window, mirrored at the edges."""
    length = len(x)
    stretched = width / scale
    mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    rows = []
    for i in range(1, math.ceil(length * scale) + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - stretched / 2)
        index = np.arange(left, left + math.ceil(stretched) + 2)
        weights = np.array([scale * kernel(scale * (u - p)) for p in index])
        rows.append(np.tensordot(weights / weights.sum(), x[mirror[(index - 1) % len(mirror)]], 1))
    return np.stack(rows)


def keys(t, a=-0.5):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def lanczos(lobes):
    return lambda t: float(np.sinc(t) * np.sinc(t / lobes)) if abs(t) < lobes else 0.0


MATLAB = {
    "bilinear": (lambda t: max(1 - abs(t), 0.0), 2),
    "bicubic": (keys, 4),
    "lanczos2": (lanczos(2), 4),
    "lanczos3": (lanczos(3), 6),
}


@pytest.mark.parametrize("kernel", MATLAB)
@pytest.mark.parametrize(("size", "factor"), [((24, 16), 4), ((23, 17), 4), ((30, 21), 3)], ids=str)
def test_matlab(kernel, size, factor):
    x = picture(*size)
    known = imresize(imresize(x, 1 / factor, *MATLAB[kernel]).swapaxes(0, 1), 1 / factor, *MATLAB[kernel]).swapaxes(0, 1)
    operator = Downscale(factor, kernel, "matlab")
    assert operator.measurement_shape((3, *size))[1:] == known.shape[:2]
    np.testing.assert_allclose(operator(tensor(x))[0].permute(1, 2, 0).numpy(), known, atol=1e-12)


def test_bicubic_parameter():
    """On an impulse, a sample 1 1/2 samples away reads the kernel there."""
    x = torch.zeros(1, 1, 1, 16, dtype=torch.float64)
    x[..., 8] = 1
    for a in (-0.5, -0.75):
        y = Downscale(Fraction(1), "bicubic", "pil", a=a)(x)
        assert torch.equal(y, x)
        row = Downscale(2, "bicubic", "pil", a=a)(x.expand(1, 1, 2, 16))[0, 0, 0]
        expected = [keys((8 - (2 * i + 0.5)) / 2, a) for i in (2, 3, 4, 5)]
        total = sum(keys((p - 8.5) / 2, a) for p in range(3, 15))
        np.testing.assert_allclose(row[2:6].numpy(), np.array(expected) / total, atol=1e-12)


def test_gaussian_is_its_own_standard_deviation():
    """The variance of the row's weights is sigma squared, in pixels of the image."""
    for sigma in (0.5, 1.0):
        row = Downscale(8, "gaussian", "pil", sigma=sigma)._matrices((1, 256, 256), torch.zeros((), dtype=torch.float64))[0][16]
        p = torch.arange(256, dtype=torch.float64)
        mean = (row * p).sum()
        assert float(mean) == pytest.approx(16.5 * 8 - 0.5, abs=1e-9)
        assert float((row * (p - mean).square()).sum().sqrt()) == pytest.approx(8 * sigma, rel=2e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "lanczos3", "library": "torch"}, r"one that the library torch has \(nearest, box, bilinear, bicubic\)"),
        ({"kernel": "cubic"}, "got 'cubic'"),
        ({"library": "opencv"}, "expected one of pulse, pil, torch, torch_antialias, matlab, got 'opencv'"),
        ({"kernel": "gaussian", "sigma": 0.0}, "expected a positive standard deviation"),
    ],
)
def test_what_no_library_has_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Downscale(2, **settings)


class _Contract(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 11, 9))
    keeps_constants = True
    kernel, library, factor = "bicubic", "pil", 4

    def make(self):
        return Downscale(self.factor, self.kernel, self.library)


class TestPillowLanczos(_Contract):
    kernel = "lanczos3"


class TestTorchBox(_Contract):
    kernel, library = "box", "torch"


class TestTorchBicubic(_Contract):
    library, factor = "torch", "5/2"


class TestMatlabBicubic(_Contract):
    library, factor = "matlab", 3


class TestNearest(_Contract):
    kernel, factor = "nearest", "7/3"


class TestGaussian(_Contract):
    kernel = "gaussian"
