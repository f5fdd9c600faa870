r"""Layers of StyleGAN2 with a style for every filter: the space W++.

With the styles :math:`s_{oi} = (A w_o + a)_i` of filter o, where in w+ all filters of a layer share one,

.. math:: u_o = \mathrm{clamp}\, \rho(d_o \, F \sum_i (s_{oi} W_{oi}) * x_i + n + b_o), \qquad
          d_o = g \Big(\sum_{ik} (s_{oi} W_{oik})^2 + \epsilon\Big)^{-1/2},

in the letters of ``_stylegan_ops`` (Poirier-Ginter and Lalonde, "Robust Unsupervised StyleGAN Image Restoration", CVPR 2023,
arXiv:2302.06733, section 3). Here it is the weights that must be scaled, for each item anew, and every item is a convolution
of its own: so its bits do not depend on the others.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["filtered_image", "filtered_layer"]

_SLOPE = 0.2
_EPS = 1e-8


def filtered_layer(
    x: Float[Tensor, "#N I h w"],
    w: Float[Tensor, "N F D"],
    affine: Callable[[Tensor], Tensor],
    energy: Float[Tensor, "O I"],
    noise: Float[Tensor, "#N 1 H W"] | None,
    weight: Float[Tensor, "_ _ 3 3"],
    bias: Float[Tensor, " O"],
    taps: Float[Tensor, "1 1 4 4"] | None,
    gain: float,
    limit: float | None,
) -> Float[Tensor, "N O H W"]:
    """One modulated convolution; the first O of the F vectors are its filters'.

    Args:
        x: Features.
        w: Vectors.
        affine: From vectors to styles, (O, D) to (O, I).
        energy: Sums of the squared weights over the kernel.
        noise: Noise map times strength and gain; None for zeros.
        weight: (O, I, 3, 3); or (I, O, 3, 3), transposed, where the size doubles.
        bias: Times gain.
        taps: The filter after a convolution that doubles the size, its sum 4; None keeps the size.
        gain: Of the activation.
        limit: Where the result is clamped, on either side; None for nowhere.
    """
    items = zip(_items(x, len(w)), w[:, : len(bias)], _items(noise, len(w)), strict=True)
    kernel = weight if taps is None else weight.transpose(0, 1)
    rows = []
    for item, vectors, map_ in items:
        assert item is not None
        s = affine(vectors)
        d = gain * ((s.square() * energy).sum(1) + _EPS).rsqrt()
        own = kernel * s[:, :, None, None].to(kernel.dtype)
        if taps is None:
            y = functional.conv2d(item, own, padding=1)
        else:
            y = functional.conv_transpose2d(item, own.transpose(0, 1), stride=2)
            filters = taps.to(y.dtype).flip((2, 3)).expand(y.shape[1], 1, -1, -1)
            y = functional.conv2d(y, filters, padding=1, groups=y.shape[1])
        y = y * d.to(y.dtype)[:, None, None] + bias.to(y.dtype)[:, None, None]
        y = functional.leaky_relu(y if map_ is None else y + map_.to(y.dtype), _SLOPE)
        rows.append(y if limit is None else y.clamp(-limit, limit))
    return torch.cat(rows)


def filtered_image(
    x: Float[Tensor, "#N C h w"],
    w: Float[Tensor, "N F D"],
    affine: Callable[[Tensor], Tensor],
    weight: Float[Tensor, "O C"],
    bias: Float[Tensor, " O"],
) -> Float[Tensor, "N O h w"]:
    """A modulated 1 x 1 convolution to few channels, without demodulation; the arguments as above."""
    rows = []
    for item, vectors in zip(_items(x, len(w)), w[:, : len(bias)], strict=True):
        assert item is not None
        rows.append(functional.conv2d(item, (weight * affine(vectors)).to(x.dtype)[:, :, None, None]))
    return torch.cat(rows) + bias[:, None, None]


def _items(x: Tensor | None, count: int) -> list[Tensor | None]:
    """Each item apart; one of all is every item's."""
    if x is None:
        return [None] * count
    return list(x.expand(count, *x.shape[1:]).split(1))
