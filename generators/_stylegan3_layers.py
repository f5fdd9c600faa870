r"""StyleGAN3's synthesis for frozen weights: the schedule of its layers, and the layers.

Features are samples of a continuous signal on the plane, in cycles per image. Layer i of 0, ..., N, the last of which gives RGB,
has a signal of cutoff :math:`f_i`, stopband :math:`t_i` and sampling rate :math:`s_i`,

.. math:: f_i = f_0 (f_N / f_0)^{e_i}, \qquad t_i = t_0 (t_N / t_0)^{e_i}, \qquad e_i = \min(i / (N - N_\mathrm{crit}), 1), \qquad
          s_i = 2^{\lceil \log_2 \min(2 t_i, s_N) \rceil},

with :math:`s_N` the side of the image, :math:`f_N = s_N / 2` and :math:`t_N = f_N \cdot` ``last_stopband_rel``. Its
:math:`\min(c_b / 2 f_i, c_\mathrm{max})` channels are sampled on the image and a margin around it, but for the critically sampled
last two. From x, of rate s, and a style :math:`\sigma = A w + a` it makes

.. math:: y = D\, \mathrm{clamp}(\rho_{0.2}(U (d \odot W (\sigma \odot x) + b))), \qquad
          d_o^{-2} = \textstyle\sum_{ik} (W_{oik} \sigma_i)^2,

where U pads with zeros, inserts zeros up to the rate :math:`2 \max(s, s_i)` and filters, D filters and keeps each
:math:`2 \max(s, s_i) / s_i`-th sample: thus what the nonlinearity adds beyond a cutoff is gone before it can alias. The last
layer has neither d, U, :math:`\rho` nor D.

Done once, when the weights are read: the normalisation of W, the gains of the learning rate, of U and of :math:`\rho`
(:math:`\sqrt 2`, which passes through it), the running magnitude of the input, and the sums of squares from which d is one
matrix product: it scales features, not the weights of every item. Separable and radial filters alike are kernels of a depthwise
convolution, channels last, which on a CPU takes less time than the two passes of a separable one. Of U's result only what D reads
is made.

References: Karras et al., Alias-Free Generative Adversarial Networks, NeurIPS 2021, arXiv 2106.12423, section 3 and appendix D;
Karras et al., CVPR 2020, arXiv 1912.04958, section 2.2 (demodulation).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from generators._stylegan_ops import Linear

__all__ = ["Architecture", "FourierInput", "Layer", "LayerPlan", "plan_layers"]

_SLOPE = 0.2
_EPS = 1e-8


@dataclass(frozen=True)
class Architecture:
    """The numbers that a StyleGAN3 is built from, under the names of NVIDIA's constructors; the defaults are configuration T.

    R has ``conv_kernel=1``, ``use_radial_filters=True`` and twice ``channel_base`` and ``channel_max``.
    """

    img_resolution: int
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    img_channels: int = 3
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    channel_base: float = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256


@dataclass(frozen=True)
class LayerPlan:
    """What one layer does. ``cutoff``, ``half_width`` (of the transition band) and ``rate`` are those of its output."""

    name: str
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    cutoff: float
    half_width: float
    rate: int
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool
    rgb: bool

    @property
    def start(self) -> int:
        """Where U's result begins in the unpadded convolution of upsampled features and filter.

        D reads ``down * (out_size - 1) + down_taps`` samples of U's. The pads that make them of all of U's are split so that the
        samples of x, in the middle of the ``up`` pixels that each becomes, lie where they were.
        """
        read = self.down * (self.out_size - 1) + self.down_taps
        pad = read + self.up_taps - 1 - self.up * (self.in_size + self.kernel - 1)
        return self.up_taps - 1 - (pad + self.up) // 2


def plan_layers(a: Architecture) -> tuple[LayerPlan, ...]:
    """The schedule above; the first layer's input is that of the Fourier features.

    Raises:
        ValueError: There is no such schedule.
    """
    if not 1 <= a.num_critical < a.num_layers or a.img_resolution <= 2 * a.first_cutoff or a.first_cutoff <= 0:
        raise ValueError(
            f"StyleGAN3: expected 1 <= num_critical < num_layers and 0 < 2 first_cutoff < img_resolution, got {a.num_critical},"
            f" {a.num_layers}, {a.first_cutoff}, {a.img_resolution}; use the numbers that the network was trained with"
        )
    last = a.img_resolution / 2
    cutoffs, halves, rates, sizes, channels = [], [], [], [], []
    for index in range(a.num_layers + 1):
        exponent = min(index / (a.num_layers - a.num_critical), 1)
        cutoff = a.first_cutoff * (last / a.first_cutoff) ** exponent
        stopband = a.first_stopband * (last * a.last_stopband_rel / a.first_stopband) ** exponent
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, a.img_resolution)))
        cutoffs.append(cutoff)
        rates.append(rate)
        halves.append(max(stopband, rate / 2) - cutoff)
        sizes.append(a.img_resolution if index >= a.num_layers - 1 else rate + 2 * a.margin_size)
        channels.append(round(min(a.channel_base / 2 / cutoff, a.channel_max)))
    channels[-1] = a.img_channels
    plans = []
    for index in range(a.num_layers + 1):
        before, rgb = max(index - 1, 0), index == a.num_layers
        middle = max(rates[before], rates[index]) * (1 if rgb else a.lrelu_upsampling)
        up, down = middle // rates[before], middle // rates[index]
        plans.append(
            LayerPlan(
                name=f"L{index}_{sizes[index]}_{channels[index]}",
                in_channels=channels[before],
                out_channels=channels[index],
                in_size=sizes[before],
                out_size=sizes[index],
                cutoff=cutoffs[index],
                half_width=halves[index],
                rate=rates[index],
                kernel=1 if rgb else a.conv_kernel,
                up=up,
                down=down,
                up_taps=1 if up == 1 or rgb else a.filter_size * up,
                down_taps=1 if down == 1 or rgb else a.filter_size * down,
                radial=a.use_radial_filters and index < a.num_layers - a.num_critical,
                rgb=rgb,
            )
        )
    return tuple(plans)


class FourierInput(nn.Module):
    r"""Sines of fixed frequencies f and phases :math:`\phi`, on a plane that w turns by R and moves by t.

    .. math:: M\, \frac{\alpha(f) \sin 2 \pi (\langle f, R (x - t)\rangle + \phi)}{\sqrt{C}}

    at pixel centres x, the image being [-1/2, 1/2] in both directions; M mixes the C sines, and :math:`\alpha` fades out from the
    cutoff to half the rate.

    Args:
        tensors: ``weight``, ``transform``, ``freqs``, ``phases``, ``affine.weight`` and ``affine.bias``, as in the file.
        plan: Of the first layer, whose input this is.
    """

    weight: Tensor
    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], plan: LayerPlan) -> None:
        super().__init__()
        self.size, self.rate, self.cutoff = plan.in_size, plan.rate, plan.cutoff
        for name in ("transform", "freqs", "phases"):
            self.register_buffer(name, tensors[name].clone())
        self.register_buffer("weight", _scaled(tensors["weight"]))
        self.affine = Linear(_scaled(tensors["affine.weight"]), tensors["affine.bias"])

    def forward(self, w: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Features, laid out channels last."""
        t = self.affine(w)
        cos, sin, right, down = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).unflatten(1, (3, 3))
        move = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one], 1).unflatten(1, (3, 3))
        motion = turn @ move @ self.transform
        freqs = self.freqs @ motion[:, :2, :2]  # N C 2
        phases = self.phases + (self.freqs @ motion[:, :2, 2:])[..., 0]
        fade = ((self.rate / 2 - freqs.norm(dim=2)) / (self.rate / 2 - self.cutoff)).clamp(0, 1)
        axis = (torch.arange(self.size, dtype=w.dtype, device=w.device) + 0.5 - self.size / 2) / self.rate
        x, y = freqs[:, None, None].unbind(-1)  # N 1 1 C
        angles = axis[:, None] * x + axis[:, None, None] * y + phases[:, None, None]
        waves = (2 * math.pi * angles).sin() * fade[:, None, None]
        return (waves @ self.weight.mT).permute(0, 3, 1, 2)


class Layer(nn.Module):
    """One layer, folded.

    Args:
        tensors: ``weight``, ``bias``, ``magnitude_ema``, ``affine.weight``, ``affine.bias``, and the filters that it has, as in
            the file.
        plan: What it does.
        clamp: Largest magnitude after the nonlinearity.
    """

    weight: Tensor
    bias: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], plan: LayerPlan, clamp: float | None) -> None:
        super().__init__()
        self.rgb, self.up, self.down, self.size, self.clamp = plan.rgb, plan.up, plan.down, plan.out_size, clamp
        gain = 1 if plan.rgb else math.sqrt(2)
        weight, bias = tensors["weight"], tensors["bias"]
        if not plan.rgb:
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        style_gain = 1 / math.sqrt(plan.in_channels) if plan.rgb else 1
        self.affine = Linear(_scaled(tensors["affine.weight"]) * style_gain, tensors["affine.bias"] * style_gain)
        self.power = None if plan.rgb else Linear(weight.square().sum((2, 3)))
        weight = weight * gain * tensors["magnitude_ema"].rsqrt()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", (bias * gain)[:, None, None])
        self.register_buffer("up_filter", _kernel(tensors.get("up_filter")) * plan.up**2)
        self.register_buffer("down_filter", _kernel(tensors.get("down_filter")).flip(2, 3))
        # Rows of features that no result of U reads, at each side, are not made: the convolution's own zeros come off first.
        unread = max(0, -((plan.up_taps - 1 - plan.start) // plan.up))
        self.margin = plan.kernel - 1 - unread
        self.start = plan.start - plan.up * unread
        assert self.start >= 0, "U pads by less than its filter"

    def forward(self, x: Float[Tensor, "N C H W"], w: Float[Tensor, "N D"]) -> Float[Tensor, "N c h w"]:
        """Features of the next rate, laid out channels last."""
        style = self.affine(w)
        cut = max(0, -self.margin)
        x = x[:, :, cut : x.shape[2] - cut, cut : x.shape[3] - cut] * style[:, :, None, None]
        x = functional.conv2d(x, self.weight, padding=max(0, self.margin))
        if self.power is None:
            x = x + self.bias
        else:
            squares = style.square()
            scale = (self.power(squares) + _EPS * squares.mean(1, keepdim=True)).rsqrt()
            x = torch.addcmul(self.bias, x, scale[:, :, None, None])
        if not self.rgb:
            x = functional.leaky_relu_(_Up.apply(x, self.up_filter, self.up, self.start), _SLOPE)
        if self.clamp is not None:
            x = functional.hardtanh(x, -self.clamp, self.clamp)  # as clamp, but its gradient is one pass over memory, not five
        return x if self.rgb else _filtered(x, self.down_filter, self.down)[:, :, : self.size, : self.size]


class _Up(torch.autograd.Function):
    """U without ``start`` samples at each side. Its gradient is a convolution like D; PyTorch's own takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, up: int, start: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(kernel)
        ctx.up, ctx.start = up, start
        return functional.conv_transpose2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=up, padding=start, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (kernel,) = ctx.saved_tensors
        return _filtered(gradient, kernel, ctx.up, ctx.start), None, None, None


def _filtered(x: Tensor, kernel: Tensor, stride: int, padding: int = 0) -> Tensor:
    """Each channel by itself, correlated with one kernel."""
    return functional.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=stride, padding=padding, groups=x.shape[1])


def _kernel(taps: Tensor | None) -> Tensor:
    """A filter of shape (1, 1, k, k), from its taps in one dimension or in two, or from none."""
    taps = torch.ones(1) if taps is None else taps
    return (torch.outer(taps, taps) if taps.ndim == 1 else taps)[None, None]


def _scaled(weight: Tensor) -> Tensor:
    """A weight with the gain of the equalised learning rate: one over the root of its fan-in."""
    return weight / math.sqrt(weight.shape[1])
