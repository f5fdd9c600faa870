"""Formats that come with plug-ins, and the limit of pixels."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_framework import formats as module
from pulse_framework.formats import formats
from pulse_framework.images import ReadError, peek, read_image
from pulse_framework.runtime import MeasurementData

LARGEST = 300_000_000
X, Y = np.meshgrid(np.arange(40) * 5, np.arange(30) * 7)
SMOOTH = np.stack([X, Y, np.full((30, 40), 90)], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_avif_and_heic_are_pictures(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    formats()  # registers what writes them
    Image.fromarray(SMOOTH).save(path, quality=95)
    assert peek(path) == (30, 40)
    found = read_image(path)
    assert float((found - torch.from_numpy(SMOOTH).movedim(-1, 0) / 255).abs().mean()) < 0.01
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / path.name).write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ReadError, match=r"damaged or truncated|something else"):
        read_image(tmp_path / "torn" / path.name)
    data = MeasurementData([tmp_path])
    assert [source.path for source in data.sources if source.path.parent == tmp_path] == [path]


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    formats()
    Image.fromarray(SMOOTH).save(tmp_path / "a.heic")
    Image.fromarray(SMOOTH).save(tmp_path / "a.avif")
    formats.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module.features, "check", lambda name: False)
    try:
        for suffix, cure in ((".heic", r"pip install pulse-latent\[heic\]"), (".avif", "install a Pillow with AVIF")):
            with pytest.raises(ReadError, match=f"expected an image .*, got something else; {cure}"):
                read_image(tmp_path / f"a{suffix}")
    finally:
        formats.cache_clear()


def test_the_limit_can_be_moved_both_ways(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(SMOOTH).save(path)
    assert peek(path, 1200) == (30, 40)
    with pytest.raises(ReadError, match=r"expected at most 1,199 pixels, got 30 x 40 = 1,200 .* allow more"):
        read_image(path, 1199)
    before = Image.MAX_IMAGE_PIXELS
    Image.new("1", (20_000, 10_000)).save(path)  # more than Pillow itself reads
    with pytest.raises(ReadError):
        peek(path)
    assert peek(path, LARGEST) == (10_000, 20_000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_a_setting_of_the_inputs(tmp_path):
    Image.fromarray(SMOOTH).save(tmp_path / "a.png")
    Image.fromarray(SMOOTH[:10, :10]).save(tmp_path / "b.png")
    data = MeasurementData([tmp_path], max_pixels=1000)
    assert [source.name for source in data.sources] == ["b"]
    assert "at most 1,000 pixels" in data.rejected[0].error
    with pytest.raises(ValueError, match="max_pixels >= 1"):
        MeasurementData([tmp_path], max_pixels=0)
