"""Distances in features: by hand, and against torchmetrics' LPIPS and another program's EfficientNet."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as theirs

from pulse_framework.features import FeatureDistance, efficientnet_lite0, lpips
from pulse_framework.weights import fetch
from tests.features.networks import NETWORKS, seeded, untrained

GOLDEN = Path(__file__).parents[1] / "golden"
CARD = "pkg://pulse_framework/features/cards/efficientnet-lite0.yaml"


def images(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Two(nn.Module):
    """The image, and the sums of its halves."""

    def forward(self, x):
        return [x, x.unflatten(3, (2, -1)).sum(-1)]


def test_distance_by_hand():
    distance = FeatureDistance(Two(), [0, 0, 0], [1, 1, 1], [torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])])
    x, y = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    x[0, 0], y[0, 1] = 1.0, 1.0  # unit vectors along two axes, at both pixels and in both halves
    assert distance(x, y).tolist() == pytest.approx([(1 + 2) + (1 + 1)], rel=1e-6)
    assert distance(x, x).tolist() == [0.0]


def test_scale_of_features_does_not_matter():
    distance = FeatureDistance(Two(), [0, 0, 0], [1, 1, 1])
    x, y = images(0, 2, 3, 4, 4), images(1, 2, 3, 4, 4)
    assert torch.allclose(distance(x, y), distance(3 * x, y), rtol=1e-5)


@pytest.mark.parametrize("net", NETWORKS)
def test_lpips_is_that_of_torchmetrics(net, tmp_path, monkeypatch):
    """The heads are the trained ones; the network is untrained in both, and torchvision a stand-in."""
    models = types.SimpleNamespace(
        vgg16=lambda weights: types.SimpleNamespace(features=seeded("vgg")),
        alexnet=lambda weights: types.SimpleNamespace(features=seeded("alex")),
    )
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", True)
    other = theirs._NoTrainLpips(net=net, pnet_rand=True)
    own = lpips(untrained(net, tmp_path / "net.pth"), net)
    x, y = images(0, 2, 3, 64, 48), images(1, 2, 3, 64, 48)
    found = own(x, y)
    assert torch.allclose(found, other(x, y, normalize=True).flatten(), rtol=1e-5)
    assert float(found.min()) > 1e-4
    assert own(x, x).tolist() == [0, 0]


def test_files_of_other_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected features.0 of alex, got other tensors"):
        lpips(untrained("vgg", tmp_path / "vgg.pth"), "alex")
    with pytest.raises(ValueError, match="expected weights of"):
        lpips(untrained("vgg", tmp_path / "vgg.pth"), "vgg", heads=untrained("alex", tmp_path / "alex.pth"))
    with pytest.raises(ValueError, match="expected vgg or alex"):
        lpips(tmp_path / "vgg.pth", "squeeze")
    with pytest.raises(ValueError, match="EfficientNet-Lite0"):
        efficientnet_lite0(tmp_path / "vgg.pth")
    (tmp_path / "bad.pth").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        efficientnet_lite0(tmp_path / "bad.pth")
    torch.save({"a": 1}, tmp_path / "number.pth")
    with pytest.raises(ValueError, match="names and tensors"):
        efficientnet_lite0(tmp_path / "number.pth")
    with pytest.raises(FileNotFoundError):
        lpips(tmp_path / "absent.pth")


@pytest.mark.weights
def test_efficientnet_is_that_of_another_program():
    """Features of the package efficientnet-lite-pytorch 0.1.0 on the same weights, every fourth channel."""
    with np.load(GOLDEN / "efficientnet_lite0.npz") as file:
        known = {key: torch.from_numpy(file[key]) for key in file}
    distance = efficientnet_lite0(fetch(CARD))
    found = distance.network((known["image"] - distance.mean) / distance.std)
    for name, feature in zip(("block_0", "block_2", "block_4", "block_10"), found, strict=True):
        scale = float(known[name].abs().max())
        assert torch.allclose(feature[:, ::4], known[name], atol=1e-5 * scale), name


@pytest.mark.weights
def test_what_looks_different_is_farther():
    """Of one mean square error, a blur of the image is farther than a change of its brightness."""
    distance = efficientnet_lite0(fetch(CARD))
    x = torch.nn.functional.interpolate(images(3, 1, 3, 8, 8), size=64)
    blurred = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    brighter = x + (blurred - x).square().mean().sqrt()
    near, far = float(distance(brighter, x)), float(distance(blurred, x))
    assert 0 < 3 * near < far
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(y, blurred).sum(), y)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (3, 8, 8)])
def test_only_images_have_features(shape):
    with pytest.raises(ValueError, match="1 or 3"):
        FeatureDistance(Two())(torch.zeros(shape), torch.zeros(shape))
