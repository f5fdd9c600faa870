"""LPIPS: a distance in features of VGG16 or AlexNet, weighed to agree with people (Zhang et al., CVPR 2018, arXiv:1801.03924).

The networks are those of Simonyan and Zisserman (ICLR 2015) and Krizhevsky (2014) in torchvision's files, read here without
torchvision; the weights of version 0.1 come with torchmetrics, with whose LPIPS a test compares every number.
"""

import importlib.util
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from pulse_framework.features.distance import FeatureDistance, read_tensors

__all__ = ["lpips"]

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class _Slices(nn.Module):
    """A feature map behind every slice."""

    def __init__(self, slices: list[list[nn.Module]]) -> None:
        super().__init__()
        self.slices = nn.ModuleList([nn.Sequential(*layers) for layers in slices])

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for part in self.slices:
            x = part(x)
            found.append(x)
        return found


def lpips(path: str | Path, net: Literal["vgg", "alex"] = "vgg", heads: str | Path | None = None) -> FeatureDistance:
    """LPIPS of images in [0, 1].

    Args:
        path: Torchvision's ``vgg16-....pth`` or ``alexnet-....pth``: the tensors ``features.0.weight`` and so on.
        net: Which of the two it is.
        heads: The weights of the channels, ``lin0.model.1.weight`` and so on; None: those that come with torchmetrics.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read or holds another network, or there is no such net.
    """
    if net not in ("vgg", "alex"):
        raise ValueError(f"lpips net: expected vgg or alex, got {net!r}")
    slices = _vgg() if net == "vgg" else _alexnet()
    own = read_tensors(path)
    layers = [layer for part in slices for layer in part]
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            try:
                layer.load_state_dict({name: own[f"features.{index}.{name}"] for name in ("weight", "bias")})
            except (KeyError, RuntimeError) as error:
                why = " ".join(str(error).split())[:200]
                raise ValueError(
                    f"{path}: expected features.{index} of {net}, got other tensors ({why}); use another file"
                ) from error
    heads = _bundled(net) if heads is None else heads
    weights = [tensor for name, tensor in sorted(read_tensors(heads).items()) if name.startswith("lin")]
    widths = [next(layer.out_channels for layer in reversed(part) if isinstance(layer, nn.Conv2d)) for part in slices]
    if [tensor.numel() for tensor in weights] != widths:
        got = [tuple(tensor.shape) for tensor in weights]
        raise ValueError(f"{heads}: expected weights of {widths} channels, for {net}, got {got}; use the file of this net")
    mean, std = [(shift + 1) / 2 for shift in _SHIFT], [scale / 2 for scale in _SCALE]
    return FeatureDistance(_Slices(slices), mean, std, [weight.flatten() for weight in weights])


def _vgg() -> list[list[nn.Module]]:
    """VGG16 up to each of its five features, behind a ReLU; torchvision's numbering."""
    slices: list[list[nn.Module]] = []
    width = 3
    for stage, widths in enumerate(_VGG):
        part: list[nn.Module] = [nn.MaxPool2d(2)] if stage else []
        for after in widths:
            part += [nn.Conv2d(width, after, 3, padding=1), nn.ReLU()]
            width = after
        slices.append(part)
    return slices


def _alexnet() -> list[list[nn.Module]]:
    return [
        [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def _bundled(net: str) -> Path:
    """The file inside torchmetrics, which is found, not imported."""
    found = importlib.util.find_spec("torchmetrics")
    places = found.submodule_search_locations if found is not None else None
    if not places:
        raise ValueError("lpips heads: expected torchmetrics, which carries them, got none; pip install torchmetrics")
    return Path(places[0], "functional", "image", "lpips_models", f"{net}.pth")
