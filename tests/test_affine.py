"""Affine resampling against Pillow, PyTorch and the formula itself."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_framework.affine import Taps, apply, covered, invert, resample, taps, transpose
from pulse_framework.testing.checks import uniform

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos3": Image.Resampling.LANCZOS}


def turned(scale, degrees, shift=(0.0, 0.0)):
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def wave(x, y):
    return 0.5 + 0.2 * torch.sin(0.21 * x + 0.1) * torch.cos(0.17 * y) + 0.1 * torch.cos(0.1 * x + 0.15 * y)


def sampled(height, width, matrix=((1, 0, 0), (0, 1, 0))):
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = x.double(), y.double()
    (a, b, c), (d, e, f) = np.asarray(matrix).tolist()
    return wave(a * x + b * y + c, d * x + e * y + f)


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize(("made", "source"), [((7, 5), (21, 20)), ((9, 12), (20, 31)), ((30, 23), (21, 20))])
def test_upright_it_is_pillow(kernel, made, source):
    x = uniform((3, *source), 1)
    matrix = [[source[1] / made[1], 0, 0], [0, source[0] / made[0], 0]]
    got = apply(x, taps(matrix, source, made, kernel))
    for channel in range(3):
        expected = Image.fromarray(x[channel].float().numpy()).resize(made[::-1], FILTERS[kernel])
        assert np.abs(got[channel].numpy() - np.asarray(expected)).max() < 3e-6
    assert bool(taps(matrix, source, made, kernel).covered.all())


def test_turned_and_enlarged_it_is_grid_sample():
    matrix, x = turned(0.7, 20, (6.3, 2.1)), uniform((1, 3, 24, 22), 2)
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None].double(), [1, 1, 15, 13], align_corners=False)[0]
    points = torch.stack([(grid[..., 0] + 1) / 2 * 13, (grid[..., 1] + 1) / 2 * 15, torch.ones(15, 13).double()], -1)
    at = points @ torch.from_numpy(matrix).T / torch.tensor([22, 24]) * 2 - 1
    expected = torch.nn.functional.grid_sample(x, at[None], mode="bilinear", align_corners=False)[0]
    made = taps(matrix, (24, 22), (15, 13), "bilinear")
    assert bool(made.covered[2:-2, 2:-2].all())
    assert torch.allclose(apply(x[0], made)[:, made.covered], expected[:, made.covered], atol=1e-12)


@pytest.mark.parametrize("matrix", [turned(2.7, 33, (12, -4)), [[2.5, 0.4, -1], [0.2, 1.6, 2]], turned(1.1, -70, (1, 20))])
def test_turned_and_shrunk_it_is_the_formula(matrix):
    x, size = uniform((1, 25, 27), 3), (8, 9)
    made, inverse = taps(matrix, (25, 27), size), np.linalg.inv(np.asarray(matrix)[:, :2])
    y, columns = torch.zeros(1, *size).double(), list(range(27))
    for i in range(size[0]):
        for j in range(size[1]):
            u = np.asarray(matrix) @ [j + 0.5, i + 0.5, 1]
            weights = np.array([[cubic(*(inverse @ (np.array([c + 0.5, r + 0.5]) - u))) for c in columns] for r in range(25)])
            if abs(weights.sum()) > 1e-9:
                y[0, i, j] = float((weights / weights.sum() * x[0].numpy()).sum())
    assert torch.allclose(apply(x, made), y, atol=1e-10)


def cubic(*ts):
    near = (1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0 for d in map(abs, ts))
    return math.prod(near)


@pytest.mark.parametrize("scale", [0.4, 1, 1.9])
@pytest.mark.parametrize("degrees", [0, 12, 45, 180])
def test_a_smooth_picture_is_sampled_where_the_map_says(scale, degrees):
    """No half pixel is lost, neither way."""
    centre = turned(scale, degrees, (0, 0))[:, :2] @ [10, 10]
    matrix = turned(scale, degrees, (30 - centre[0], 30 - centre[1]))
    made = taps(matrix, (60, 60), (20, 20))
    assert bool(made.covered.all())
    expected = sampled(20, 20, matrix)
    assert float((apply(sampled(60, 60)[None], made)[0] - expected).abs().max()) < (2e-3 if scale <= 1 else 1.5e-2)
    # the point where a pixel would have to be if it were sampled half a pixel away is much further off
    wrong = sampled(20, 20, np.column_stack([matrix[:, :2], matrix[:, 2] + 0.5]))
    assert float((wrong - expected).abs().max()) > 1.5e-2


def test_a_map_may_enlarge_one_side_and_shrink_the_other():
    matrix = [[0.5, 0, 2], [0, 2.0, 1]]
    got = apply(sampled(45, 30)[None], taps(matrix, (45, 30), (20, 40)))[0]
    assert float((got - sampled(20, 40, matrix))[2:-2].abs().max()) < 1.5e-2


def test_rows_sum_to_one_and_nothing_comes_from_outside():
    matrix = turned(1.3, 25, (-6, -3))
    made = taps(matrix, (12, 12), (16, 16))
    total = made.weight.sum(1)
    assert bool((((total - 1).abs() < 1e-12) | (total == 0)).all())
    assert bool((total[made.covered.flatten()] > 0).all())
    assert 0 < int(made.covered.sum()) < int((total != 0).sum()) < 256
    far = taps(turned(1, 0, (50, 50)), (4, 4), (3, 3))
    assert bool((far.weight == 0).all())
    assert not bool(far.covered.any())


def test_covered_pixels_lie_inside_as_a_whole():
    assert covered([[1, 0, -0.4], [0, 1, 0]], (4, 4), (4, 5)).int().tolist() == [[0, 1, 1, 1, 0]] * 4
    diamond = taps(turned(1, 45, (4, -2)), (8, 8), (9, 9)).covered
    y, x = np.meshgrid(range(9), range(9), indexing="ij")
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = turned(1, 45, (4, -2)) @ np.stack([x + dx, y + dy, np.ones((9, 9))]).reshape(3, -1)
        assert bool(((at >= 0) & (at <= 8)).all(0)[diamond.flatten().numpy()].all())


def test_transpose_and_chunks(monkeypatch):
    made = taps(turned(1.7, 30, (8, 2)), (24, 20), (11, 10))
    x, y = uniform((3, 24, 20), 4), uniform((3, 11, 10), 5)
    whole, back = apply(x, made), transpose(y, made)
    assert float((whole * y).sum()) == pytest.approx(float((x * back).sum()), rel=1e-12)
    monkeypatch.setattr("pulse_framework.affine._CHUNK", 1000)
    monkeypatch.setattr("pulse_framework.affine._BLOCK", 1000)
    again = taps(turned(1.7, 30, (8, 2)), (24, 20), (11, 10))
    assert torch.equal(again.index, made.index)
    assert torch.equal(again.weight, made.weight)
    assert torch.allclose(apply(x, made), whole, atol=1e-14)
    assert torch.allclose(resample(x, turned(1.7, 30, (8, 2)), (11, 10)), whole, atol=1e-14)
    assert torch.allclose(transpose(y, made), back, atol=1e-13)


def test_inverse():
    matrix = turned(2.3, 40, (5, -7))
    there = invert(matrix)
    assert np.allclose(matrix[:, :2] @ (there @ [3, 4, 1]) + matrix[:, 2], [3, 4])


@pytest.mark.parametrize("matrix", [[[1, 0], [0, 1]], [[1, 1, 0], [1, 1, 0]], [[float("nan"), 0, 0], [0, 1, 0]]])
def test_wrong_maps(matrix):
    for call in (lambda: invert(matrix), lambda: taps(matrix, (4, 4), (4, 4))):
        with pytest.raises(ValueError, match=r"affine map: expected a matrix \(2, 3\) of finite numbers"):
            call()


def test_wrong_kernel():
    with pytest.raises(ValueError, match="affine kernel: expected one of bilinear, bicubic, lanczos3, got 'box'"):
        taps(turned(1, 0), (4, 4), (4, 4), "box")
    assert isinstance(taps(turned(1, 0), (4, 4), (4, 4)), Taps)
