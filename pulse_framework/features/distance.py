r"""The distance of two images in the features of a network, as LPIPS has it (Zhang et al., CVPR 2018, arXiv:1801.03924, eq. 1).

For features :math:`\phi^l` of shape (C_l, h_l, w_l), brought to unit length at every pixel, and weights :math:`\omega^l_c \ge 0`,

.. math:: d(x, y) = \sum_l \frac{1}{h_l w_l} \sum_{h, w} \sum_c \omega^l_c \, (\hat\phi^l_{chw}(x) - \hat\phi^l_{chw}(y))^2 .
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["FeatureDistance", "read_tensors"]

_EPS = 1e-8


class FeatureDistance(nn.Module):
    """Distance of images in [0, 1], one number for each pair; frozen.

    Args:
        network: Takes (N, 3, h, w) and gives a feature map (N, C_l, h_l, w_l) for every layer that counts. It is put in
            evaluation mode and frozen, in place.
        mean: What each channel of an image in [0, 1] is lessened by before the network sees it.
        std: What it is divided by then.
        weights: Omega, of shape (C_l,) for each layer; None: 1 for every channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        weights: Iterable[Float[Tensor, " C"]] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.weights = None if weights is None else nn.ParameterList([weight.detach().clone() for weight in weights])
        self.eval().requires_grad_(False)

    def forward(self, x: Float[Tensor, "N C h w"], y: Float[Tensor, "N C h w"]) -> Float[Tensor, " N"]:
        """Distance of each pair; grey images are taken for images of three equal channels.

        Raises:
            ValueError: Images have neither one channel nor three.
        """
        parts = []
        for layer, (one, other) in enumerate(zip(self._unit(x), self._unit(y), strict=True)):
            apart = (one - other).square()
            if self.weights is not None:
                apart = apart * self.weights[layer].to(apart)[:, None, None]
            parts.append(apart.sum(1).flatten(1).mean(1))
        return torch.stack(parts).sum(0)

    def _unit(self, x: Tensor) -> list[Tensor]:
        """Features of unit length, in the precision of the image."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"feature distance: expected images of shape (N, 1 or 3, h, w), got {tuple(x.shape)}")
        features = self.network((x.expand(-1, 3, -1, -1) - self.mean) / self.std)
        return [f * (f.square().sum(1, keepdim=True) + _EPS).rsqrt() for f in (feature.to(x.dtype) for feature in features)]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name to tensor of a file that ``torch.save`` wrote; nothing in it is run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or holds other things than tensors.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file makes the reader fail in every way there is
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: expected tensors that torch.save wrote, got a file that cannot be read ({why})") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: expected names and tensors, got other things; use the file that the card names")
    return dict(content)
