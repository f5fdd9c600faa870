r"""Synthesis of StyleGAN1 for frozen weights: one layer, and the stack of them.

Layer k takes features x, a style and a noise map n to

.. math:: y = s_0 \, \frac{a - \mathrm{mean}(a)}{\sqrt{\mathrm{var}(a) + \epsilon}} + s_1, \qquad
          a = \rho_{0.2}(C_k(x) + b + \eta n), \qquad (s_0, s_1) = (1, 0) + S_k w_k + t_k,

mean and variance over the pixels of each channel of each image (adaptive instance normalisation). :math:`C_k` is a 3 x 3
convolution, or in the first layer of each resolution a doubling of the size followed by a blur, or at 4 x 4 a constant.

Everything that does not depend on the input is done once, when the weights are read: the gains of the equalised learning rate,
the constant's bias, the ones of :math:`s_0`, the output range, and the doubling. The nearest neighbours of a convolution with
taps :math:`c_0, c_1, c_2` make, along each axis, a transposed convolution of stride 2 with the four taps
:math:`c_2, c_2 + c_1, c_1 + c_0, c_0`, hence with 16 products per channel pair in place of 36. NVIDIA's fused variant, used where
the result has 128 pixels or more a side, is the transposed convolution with the taps the other way round.

A layer is one autograd function. It keeps only a, its per-channel statistics and the scales, takes memory that is fresh to the
process (page faults cost more than the arithmetic) once per tensor kept or handed on, and works in it in place otherwise. A CPU
does the large layers row by row, so that one row's memory serves the next. With
:math:`\hat a` the normalised a, :math:`\langle\cdot\rangle` the mean over the pixels and g the gradient of y,

.. math:: \frac{\partial}{\partial a} = \frac{s_0}{\sigma} \left(g - \langle g \rangle - \hat a \langle g \hat a \rangle\right),
          \qquad \frac{\partial}{\partial s_0} = \sum g \hat a, \qquad \frac{\partial}{\partial s_1} = \sum g.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["Synthesis", "doubling", "layer_names", "rows_of_linear", "scaled", "side"]

_SLOPE = 0.2
_EPS = 1e-5
_FUSED_FROM = 128  # pixels a side from which the trained networks use the transposed convolution as it is
_TOGETHER = 8  # layers (up to 32 pixels a side) that a CPU does for all rows at once; for the others it is faster row by row
_SMALL = 32_768  # entries; below 20,480 PyTorch convolves a single row by another algorithm
_PIXELS = (2, 3)


def side(layer: int) -> int:
    """Pixels a side after layer k, and of its noise map: two layers for each resolution, from 4 on."""
    return 4 * 2 ** (layer // 2)


def layer_names(layer: int) -> tuple[str, str]:
    """Where a file has the convolution (or the constant's block) of layer k, and its epilogue."""
    block = f"blocks.{side(layer)}x{side(layer)}"
    within = ("", ".conv")[layer] if layer < 2 else (".conv0_up", ".conv1")[layer % 2]
    return block + within, f"{block}.epi{1 + layer % 2}"


def rows_of_linear(x: Float[Tensor, "N D"], weight: Float[Tensor, "O D"], bias: Float[Tensor, " O"]) -> Float[Tensor, "N O"]:
    """A linear map of every row by itself, so that the bits of a row do not depend on how many there are."""
    return torch.cat([functional.linear(row, weight, bias) for row in x.split(1)])


class Synthesis(nn.Module):
    """The frozen network from w, one for each layer, to images in [0, 1]; float64 until it is cast, as the folding is.

    Args:
        tensors: Named as in PULSE's ``synthesis.pt``, complete and of matching shapes, as they are in the file: unscaled.
        count: Number of layers L; the images have ``side(L - 1)`` pixels a side.

    Attributes:
        layers: L of them.
        w_dim: Entries of w.
    """

    rgb_weight: Tensor
    rgb_bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], count: int) -> None:
        super().__init__()
        tensors = {name: tensor.detach().double() for name, tensor in tensors.items()}
        self.layers = nn.ModuleList(_Layer(tensors, layer) for layer in range(count))
        self.w_dim = tensors[layer_names(0)[1] + ".style_mod.lin.weight"].shape[1]
        self.register_buffer("rgb_weight", scaled(tensors["torgb.weight"]) / 2)
        self.register_buffer("rgb_bias", (tensors["torgb.bias"] + 1) / 2)

    def forward(self, w_plus: Float[Tensor, "N L D"], noise: Iterable[Tensor | None]) -> Float[Tensor, "N 3 H W"]:
        """Images; ``noise`` has a map of shape (N, 1, r, r), or None for zeros, for every layer."""
        inputs = list(zip(self.layers, w_plus.unbind(1), noise, strict=True))
        together = inputs if len(w_plus) == 1 or w_plus.device.type != "cpu" else inputs[:_TOGETHER]
        x: Tensor | None = None
        for layer, w, map_ in together:
            x = layer(x, w, map_)
        assert x is not None
        alone, images = inputs[len(together) :], []
        for row, features in enumerate(x.split(1) if alone else [x]):
            for layer, w, map_ in alone:
                features = layer(features, w[row, None], None if map_ is None else map_[row, None])
            images.append(functional.conv2d(features, self.rgb_weight, self.rgb_bias))
        return torch.cat(images).contiguous()


class _Layer(nn.Module):
    """One layer, folded."""

    weight: Tensor
    bias: Tensor | None
    blur: Tensor | None
    strength: Tensor
    style_weight: Tensor
    style_bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], layer: int) -> None:
        super().__init__()
        convolution, epilogue = layer_names(layer)
        bias: Tensor | None = tensors[f"{convolution}.bias"]
        blur = None
        if layer == 0:
            weight, bias = tensors[f"{convolution}.const"] + tensors[f"{convolution}.bias"][:, None, None], None
        else:
            weight = scaled(tensors[f"{convolution}.weight"], math.sqrt(2))
        if layer > 0 and layer % 2 == 0:
            weight = doubling(weight if side(layer) >= _FUSED_FROM else weight.flip(_PIXELS))
            blur = tensors[f"{convolution}.intermediate.kernel"].expand(weight.shape[1], 1, -1, -1).contiguous()
        channels = weight.shape[1] if blur is not None or layer == 0 else weight.shape[0]
        ones = torch.arange(2 * channels) < channels
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.register_buffer("blur", blur)
        self.register_buffer("strength", tensors[f"{epilogue}.noise.weight"][None, :, None, None].clone())
        self.register_buffer("style_weight", scaled(tensors[f"{epilogue}.style_mod.lin.weight"]))
        self.register_buffer("style_bias", tensors[f"{epilogue}.style_mod.lin.bias"] + ones)

    def forward(self, x: Tensor | None, w: Tensor, noise: Tensor | None) -> Tensor:
        """The layer's features, laid out channels last."""
        scale, shift = rows_of_linear(w, self.style_weight, self.style_bias)[:, :, None, None].chunk(2, 1)
        out: Tensor = _LayerFunction.apply(x, scale, shift, noise, self.strength, self.weight, self.bias, self.blur)
        return out


class _LayerFunction(torch.autograd.Function):
    """The formulae above; the weights get no gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        noise: Tensor | None,
        strength: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        blur: Tensor | None,
    ) -> Tensor:
        y = None
        if x is None:
            a = weight.expand(len(scale), -1, -1, -1).clone(memory_format=torch.channels_last)
        elif blur is None:
            a = _of_rows(functional.conv2d, x, weight, bias, padding=1)
        else:
            y = _of_rows(functional.conv_transpose2d, x, weight, stride=2, padding=1)
            a = _of_rows(functional.conv2d, y, blur, bias, padding=1, groups=len(blur))
        if noise is not None:
            a.addcmul_(strength.to(a.dtype), noise.to(a.dtype))
        functional.leaky_relu_(a, _SLOPE)
        wide = torch.promote_types(a.dtype, torch.float32)
        mean = a.mean(_PIXELS, keepdim=True, dtype=wide)
        y = torch.sub(a, mean.to(a.dtype), out=y)
        inverse = y.square_().mean(_PIXELS, keepdim=True, dtype=wide).add_(_EPS).rsqrt_()
        factor = inverse * scale
        torch.addcmul((shift - mean * factor).to(a.dtype), a, factor.to(a.dtype), out=y)
        ctx.save_for_backward(a, mean, inverse, scale, strength, weight, blur)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        a, mean, inverse, scale, strength, weight, blur = ctx.saved_tensors
        wide, pixels = mean.dtype, a.shape[2] * a.shape[3]
        total = g.sum(_PIXELS, keepdim=True, dtype=wide)
        d = g * a
        inner = (d.sum(_PIXELS, keepdim=True, dtype=wide) - mean * total) * inverse
        grads: list[Tensor | None] = [None] * 8
        grads[1:3] = inner.to(scale.dtype), total.to(scale.dtype)
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[3]):
            return tuple(grads)
        factor = scale * inverse
        slope = -factor * inverse * inner / pixels
        offset = -factor * total / pixels - slope * mean
        torch.addcmul(offset.to(a.dtype), a, slope.to(a.dtype), out=d)
        d.addcmul_(g, factor.to(a.dtype))
        torch.ops.aten.leaky_relu_backward.grad_input(d, a, _SLOPE, True, grad_input=d)
        if ctx.needs_input_grad[3]:
            grads[3] = _of_rows(functional.conv2d, d, strength.to(a.dtype))
        if ctx.needs_input_grad[0]:
            weight = weight.to(a.dtype)
            if blur is None:
                grads[0] = _of_rows(functional.conv_transpose2d, d, weight, padding=1)
            else:
                d = _of_rows(functional.conv2d, d, blur.to(a.dtype).flip(_PIXELS), padding=1, groups=len(blur))
                grads[0] = _of_rows(functional.conv2d, d, weight, stride=2, padding=1)
        return tuple(grads)


def _of_rows(convolve: Callable[..., Tensor], x: Tensor, *weights: Tensor | None, **options: int) -> Tensor:
    """A convolution whose rows have the same bits in any N: a small one of one row is otherwise another algorithm."""
    if len(x) == 1 and x.numel() < _SMALL and x.device.type == "cpu":
        return convolve(torch.cat([x, x]), *weights, **options)[:1]
    return convolve(x, *weights, **options)


def scaled(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Equalised learning rate: stored with unit variance, used with ``gain`` over the root of the fan-in."""
    return weight * (gain / math.sqrt(weight[0].numel()))


def doubling(weight: Tensor) -> Tensor:
    """The four-tap kernel of the transposed convolution that doubles the size, (I, O, 4, 4)."""
    padded = functional.pad(weight.transpose(0, 1), (1, 1, 1, 1))
    return padded[:, :, 1:, 1:] + padded[:, :, :-1, 1:] + padded[:, :, 1:, :-1] + padded[:, :, :-1, :-1]
