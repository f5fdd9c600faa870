r"""EfficientNet-Lite0, a small network trained on ImageNet, as features (Tan and Le, ICML 2019, arXiv:1905.11946; Lite: 2020).

A stem, then inverted residual blocks: a convolution 1 x 1 that widens, one of k x k for each channel, and one 1 x 1 that narrows,
each with batch norm (folded into it here), the first two with :math:`\min(\max(\cdot, 0), 6)`; what comes in is added where the
shape stays. Padding is TensorFlow's "same". The network was trained on :math:`(255 x - 127) / 128`.

Weights: ``cards/efficientnet-lite0.yaml``. The features are those behind the blocks 0, 2, 4 and 10, at strides 2, 4, 8 and 16.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pulse_framework.features.distance import FeatureDistance, read_tensors

__all__ = ["LAYERS", "EfficientNetLite0", "efficientnet_lite0"]

LAYERS = (0, 2, 4, 10)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, widening, channels."""


class EfficientNetLite0(nn.Module):
    """Features (N, C, h, w) behind some of the blocks, of images (N, 3, H, W) as the network was trained on them.

    Args:
        layers: Numbers of the blocks, from 0 to 15; what comes behind the last of them is not built.
    """

    def __init__(self, layers: tuple[int, ...] = LAYERS) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        self.stem = _Convolution(3, 32, 3, 2)
        blocks, width = [], 32
        for count, kernel, stride, widening, channels in _STAGES:
            for index in range(count):
                blocks.append(_Block(width, channels, kernel, stride if index == 0 else 1, widening))
                width = channels
        self.blocks = nn.ModuleList(blocks[: max(layers) + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """From the first of the blocks to the last."""
        x, found = functional.relu6(self.stem(x)), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.layers:
                found.append(x)
        return found


class _Convolution(nn.Module):
    """A convolution and its batch norm, under TensorFlow's padding: what an uneven number leaves over comes last."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(after, eps=1e-3)

    def fold(self) -> None:
        """The same function in one convolution."""
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
        x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.norm(self.conv(x))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = before * widening
        self.widen = _Convolution(before, wide, 1) if widening > 1 else None
        self.filter = _Convolution(wide, wide, kernel, stride, groups=wide)
        self.narrow = _Convolution(wide, after, 1)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.widen is None else functional.relu6(self.widen(x))
        y = self.narrow(functional.relu6(self.filter(y)))
        return x + y if self.adds else y


def efficientnet_lite0(path: str | Path) -> FeatureDistance:
    """The distance in the features of a pretrained EfficientNet-Lite0, every channel of weight 1.

    Args:
        path: Its weights as the card names them: ``torch.save``'s, ``_conv_stem.weight`` and so on.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or is not that of an EfficientNet-Lite0.
    """
    network = EfficientNetLite0().eval()
    own = _renamed(read_tensors(path), len(network.blocks))
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: expected the tensors of an EfficientNet-Lite0, got others ({why}); use another file"
        ) from error
    for module in network.modules():
        if isinstance(module, _Convolution):
            module.fold()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FeatureDistance(network, [127 / 255] * 3, [128 / 255] * 3)


def _renamed(tensors: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The published names to those of this file; what the first ``count`` blocks do not need is left out."""
    parts = {"_expand_conv": "widen.conv", "_bn0": "widen.norm", "_depthwise_conv": "filter.conv", "_bn1": "filter.norm"}
    parts |= {"_project_conv": "narrow.conv", "_bn2": "narrow.norm"}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        first, *rest = name.split(".")
        if first in ("_conv_stem", "_bn0"):
            own[".".join(["stem", "conv" if first == "_conv_stem" else "norm", *rest])] = tensor
        elif first == "_blocks" and len(rest) == 3 and rest[0].isdigit() and int(rest[0]) < count:
            own[".".join(["blocks", rest[0], parts.get(rest[1], rest[1]), rest[2]])] = tensor
    return own
