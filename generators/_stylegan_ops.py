r"""What the StyleGANs share: mapping network, truncation, doubling of images, and the modulated convolution with its gradient.

A style modulated convolution followed by noise, bias and leaky ReLU takes features x, a style s (one number per input channel), a
demodulation d (one per output channel) and a noise map n to

.. math:: u_o = \mathrm{clamp}\, \rho(d_o \, c_o + n + b_o), \qquad c = F \sum_i W_{oi} * (s_i x_i), \qquad
          \rho(t) = \max(t, 0) + 0.2 \min(t, 0),

where F is the identity or the smoothing filter after a convolution that doubles the size. It scales features, not weights, so the
weights are the same for all rows and one ordinary convolution serves them all; and since the weights are frozen,
:math:`d_o = (\sum_i s_i^2 \sum_k W_{oik}^2 + \epsilon)^{-1/2}` needs only the sums over the kernel, found once
(Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, section 2.2).

Positive factors pass through :math:`\rho`, so the gains after activations are moved into d, b and n. For the same reason
:math:`\rho'(p) p = \rho(p)`: with :math:`p = d c + n + b` and g the gradient of u (zero where u is clamped),

.. math:: d_o \frac{\partial}{\partial d_o} = \sum \rho'(p) g (p - n - b_o) = \sum g u - b_o \sum \rho'(p) g - \sum \rho'(p) g n,

so u is all that has to be kept, and the next layer keeps it anyway. Memory fresh to the process costs more than the arithmetic
on it (page faults), so each pass below works in place where it can.

Rows are independent to the last bit on a CPU as far as the libraries allow: what they compute differently for one row
and for several is done for eight rows (linear maps), in short sums (products over the pixels) or twice (small convolutions).
"""

import math
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["Linear", "Mapping", "double", "modulated_layer", "normalise", "to_image", "truncate"]

_SLOPE = 0.2
_EPS = 1e-8
_PIXELS = (2, 3)
_MANY = 1024
_SMALL = 32_768  # entries; PyTorch convolves one row with fewer than 20,480 of them by another algorithm than several


def normalise(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Each row at a mean square of one."""
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


def truncate(w_plus: Float[Tensor, "N L D"], centre: Float[Tensor, " D"], psi: float, cutoff: int) -> Float[Tensor, "N L D"]:
    r"""The first ``cutoff`` layers drawn to the centre: :math:`\bar w + \psi (w - \bar w)`."""
    return torch.cat([centre.lerp(w_plus[:, :cutoff], psi), w_plus[:, cutoff:]], 1)


class Linear(nn.Module):
    """A frozen linear map, of eight rows at a time, so that the bits of a row do not depend on how many there are."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Float[Tensor, "O D"], bias: Float[Tensor, " O"] | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N O"]:
        """The rows mapped."""
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "N D"], weight: Float[Tensor, "O D"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "N O"]:
    """Rows mapped, eight at a time on a CPU. Very many, which are no searches, are mapped at once."""
    if x.device.type != "cpu" or len(x) > _MANY:
        return functional.linear(x, weight, bias)
    eights = functional.pad(x, (0, 0, 0, -len(x) % 8)).split(8)
    return torch.cat([functional.linear(eight, weight, bias) for eight in eights])[: len(x)]


class Mapping(nn.Module):
    r"""The frozen mapping network of StyleGAN2 and StyleGAN3, from z, and a class label if it has one, to w.

    .. math:: w = \sqrt 2 \rho(A_m \cdots \sqrt 2 \rho(A_1 \nu(z)) \cdots)

    with :math:`\nu` the normalisation; with classes, :math:`\nu(z)` is followed by :math:`\nu(E c)`.

    Args:
        tensors: ``fc0.weight``, ``fc0.bias``, ..., and with classes ``embed.weight`` and ``embed.bias``, as they are in the file,
            without the gains of the equalised learning rate.
        lr_multiplier: Learning rate of the dense layers relative to the rest, by which they are multiplied.

    Attributes:
        z_dim: Entries of z.
        c_dim: Classes.
    """

    def __init__(self, tensors: MappingType[str, Tensor], lr_multiplier: float = 0.01) -> None:
        super().__init__()
        count = sum(name.startswith("fc") and name.endswith(".weight") for name in tensors)
        gain = math.sqrt(2) * lr_multiplier
        self.layers = nn.ModuleList(_equalised(tensors, f"fc{index}", gain, gain) for index in range(count))
        self.embed = _equalised(tensors, "embed") if "embed.weight" in tensors else None
        embedded, self.c_dim = (0, 0) if self.embed is None else self.embed.weight.shape
        self.z_dim = tensors["fc0.weight"].shape[1] - embedded

    def forward(self, z: Float[Tensor, "N Z"], label: Float[Tensor, "N K"] | None = None) -> Float[Tensor, "N D"]:
        """One w for each row, not truncated."""
        x = normalise(z)
        if self.embed is not None:
            assert label is not None, "a label for every z"
            x = torch.cat([x, normalise(self.embed(label))], 1)
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _SLOPE)
        return x


def _equalised(tensors: MappingType[str, Tensor], name: str, gain: float = 1.0, bias_gain: float = 1.0) -> Linear:
    """A linear map with the equalised learning rate's factor, ``gain`` over the root of the fan-in, folded in."""
    weight = tensors[f"{name}.weight"]
    return Linear(weight * (gain / math.sqrt(weight.shape[1])), tensors[f"{name}.bias"] * bias_gain)


def double(x: Float[Tensor, "N C h w"], taps: Float[Tensor, "1 1 4 4"]) -> Float[Tensor, "N C H W"]:
    """Twice the size: zeros put between the pixels, then the filter, whose sum is 4."""
    channels = x.shape[1]
    return functional.conv_transpose2d(x, taps.expand(channels, 1, -1, -1), stride=2, padding=1, groups=channels)


def to_image(
    x: Float[Tensor, "N C h w"], s: Float[Tensor, "N C"], weight: Float[Tensor, "O C"], bias: Float[Tensor, " O"]
) -> Float[Tensor, "N O h w"]:
    """A modulated 1 x 1 convolution to few channels, where it is the weights that are cheap to scale; no demodulation."""
    v = s[:, :, None] * weight.T
    compiling = torch.compiler.is_compiling()
    y: Tensor = (_pixels_last(x) @ v.to(x.dtype)).mT.unflatten(2, x.shape[2:]) if compiling else _ToImage.apply(x, v)
    return y + bias[:, None, None]


def modulated_layer(
    x: Float[Tensor, "#N I h w"],
    s: Float[Tensor, "N I"],
    d: Float[Tensor, "N O"],
    noise: Float[Tensor, "#N 1 H W"] | None,
    weight: Float[Tensor, "_ _ 3 3"],
    bias: Float[Tensor, " O"],
    taps: Float[Tensor, "1 1 4 4"] | None = None,
    limit: float | None = None,
) -> Float[Tensor, "N O H W"]:
    """The layer above, laid out channels last.

    Only x, s, d and the noise get gradients, and only first ones; all get them where the weights want one (``generators.tuned``),
    which takes more memory.

    Args:
        x: Features.
        s: Style.
        d: Demodulation times gain.
        noise: Noise map times strength and gain; None for zeros.
        weight: (O, I, 3, 3); or (I, O, 3, 3), transposed, where the size doubles.
        bias: Times gain.
        taps: The filter after a convolution that doubles the size, its sum 4; None keeps the size.
        limit: Where the result is clamped, on either side; None for nowhere.
    """
    wanted = torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad)
    if wanted or torch.compiler.is_compiling():  # a compiler fuses the formulae by itself, and sees no further than it traces
        return _traced_layer(x, s, d, noise, weight, bias, taps, limit)
    u: Tensor = _ModulatedLayer.apply(x, s[:, :, None, None], d[:, :, None, None], noise, weight, bias, taps, limit)
    return u


def _traced_layer(
    x: Tensor,
    s: Tensor,
    d: Tensor,
    noise: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    taps: Tensor | None,
    limit: float | None,
) -> Tensor:
    """The same, written down for a compiler."""
    scaled = x * s[:, :, None, None].to(x.dtype)
    if taps is None:
        c = functional.conv2d(scaled, weight, padding=1)
    else:
        c = functional.conv_transpose2d(scaled, weight, stride=2)
        c = functional.conv2d(c, taps.to(c.dtype).flip(_PIXELS).expand(c.shape[1], 1, -1, -1), padding=1, groups=c.shape[1])
    u = c * d[:, :, None, None].to(c.dtype) + bias.to(c.dtype)[:, None, None]
    u = functional.leaky_relu(u if noise is None else u + noise.to(u.dtype), _SLOPE)
    return u if limit is None else u.clamp(-limit, limit)


class _ModulatedLayer(torch.autograd.Function):
    """The formulae above."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        s: Tensor,
        d: Tensor,
        noise: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        taps: Tensor | None,
        limit: float | None,
    ) -> Tensor:
        scaled = x * s.to(x.dtype)
        if taps is None:
            c = _paired(functional.conv2d, scaled, weight, padding=1)
        else:
            c = _paired(functional.conv_transpose2d, scaled, weight, stride=2)
            del scaled
            filters = taps.to(c.dtype).flip(_PIXELS).expand(c.shape[1], 1, -1, -1)
            c = functional.conv2d(c, filters, padding=1, groups=c.shape[1])
        u = torch.addcmul(bias.to(c.dtype)[:, None, None], c, d.to(c.dtype), out=c)
        if noise is not None:
            u.add_(noise.to(u.dtype))
        functional.leaky_relu_(u, _SLOPE)
        if limit is not None:
            u.clamp_(-limit, limit)
        ctx.limit = limit
        ctx.save_for_backward(x, s, d, noise, weight, bias, taps, u)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, s, d, noise, weight, bias, taps, u = ctx.saved_tensors
        grads: list[Tensor | None] = [None] * 8
        if ctx.limit is not None:
            g = g * (u.abs() < ctx.limit)
        t = g * u
        inner = t.sum(_PIXELS, keepdim=True)
        torch.ops.aten.leaky_relu_backward.grad_input(g, u, _SLOPE, True, grad_input=t)
        inner = inner - bias.to(t.dtype)[:, None, None] * t.sum(_PIXELS, keepdim=True)
        if noise is not None:
            maps = noise.to(t.dtype).expand(len(t), -1, -1, -1)
            inner = inner - _over_pixels(t, maps)[..., None]
            if ctx.needs_input_grad[3]:
                grads[3] = t.sum(1, keepdim=True).sum_to_size(noise.shape).to(noise.dtype)
        grads[2] = (inner / d.to(t.dtype)).to(d.dtype)
        t.mul_(d.to(t.dtype))
        weight = weight.to(t.dtype)
        if taps is None:
            t = _paired(functional.conv_transpose2d, t, weight, padding=1)
        else:
            t = functional.conv2d(t, taps.to(t.dtype).expand(t.shape[1], 1, -1, -1), padding=2, groups=t.shape[1])
            t = _paired(functional.conv2d, t, weight, stride=2)
        grads[1] = (t * x).sum(_PIXELS, keepdim=True).to(s.dtype)
        if ctx.needs_input_grad[0]:
            grads[0] = t.mul_(s.to(t.dtype)).sum_to_size(x.shape).to(x.dtype)
        return tuple(grads)


class _ToImage(torch.autograd.Function):
    """One matrix product a row; v is (N, C, O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor) -> Tensor:  # noqa: ANN401
        v = v.to(x.dtype)
        ctx.save_for_backward(x, v)
        return (_pixels_last(x) @ v).mT.unflatten(2, x.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        x, v = ctx.saved_tensors
        back = (g.flatten(2).mT @ v.mT).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return back, _over_pixels(x, g)


def _pixels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C): a view, channels last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _over_pixels(x: Tensor, g: Tensor) -> Tensor:
    """Sum over the pixels of x_c g_o, (N, C, O): products of short sums, each a job of its own, so of the same bits in any N."""
    return (x.transpose(1, 2) @ g.permute(0, 2, 3, 1)).sum(1)


def _paired(convolve: Callable[..., Tensor], x: Tensor, weight: Tensor, **options: int) -> Tensor:
    """A convolution; a small one of one row is done as that of two, which may be another algorithm."""
    if len(x) == 1 and x.numel() < _SMALL and x.device.type == "cpu":
        return convolve(torch.cat([x, x]), weight, **options)[:1]
    return convolve(x, weight, **options)
