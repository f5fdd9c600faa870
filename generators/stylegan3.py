r"""StyleGAN3: alias-free synthesis from Fourier features, in its configurations T (translation) and R (also rotation).

.. math:: x = \tfrac12 + \tfrac{\gamma}{2}\, L_N(\dots L_0(F(w_0), w_1) \dots, w_{N+1}), \qquad
          w = \bar w + \psi (M(z, c) - \bar w), \quad z \sim N(0, I)
          \qquad \text{or} \qquad w_l = \rho_{0.2}(\sigma v_l + \mu), \quad v_l \sim N(0, I)

F is the Fourier features and :math:`L_i` the layers, see ``_stylegan3_layers``, and :math:`\gamma` is 1/4; M is the mapping
network, see ``_stylegan_ops``, c a class label if there are classes, and :math:`\psi` the truncation of the first rows (all of
them by default) to the mean :math:`\bar w`; :math:`(\mu, \sigma)` is PULSE's Gaussian fit, see ``_gaussian_fit`` (Karras et al.,
Alias-Free Generative Adversarial Networks, NeurIPS 2021, arXiv:2106.12423; Menon et al., CVPR 2020, arXiv:2003.03808).

Weights: NVIDIA's ``.pkl`` files, for non-commercial use. The network's native range is [-1, 1].

Latent blocks:

- ``label`` (K,), with classes alone: one-hot, not searched. A z lifted without one is taken to have the mean of all labels.
- Slot ``style``, see ``_styles``, with L = N + 2 rows, 16 in the networks that NVIDIA published: ``z``, ``w``, ``w_plus``; with a
  Gaussian fit ``v`` and ``v_plus``, the spaces that PULSE searches, and ``p_n`` and ``p_n_plus``. Truncation acts on z alone.
  Where it spares some of the rows, z is no one w, and there is no block ``w``.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators._checkpoints import read_checkpoint
from generators._gaussian_fit import GaussianFit, cached_fit, read_fit
from generators._stylegan3_layers import Architecture, FourierInput, Layer, plan_layers
from generators._stylegan_ops import Mapping as MappingNetwork
from generators._styles import Styles, check_styles
from generators._tensors import check_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, OneHot

__all__ = ["Architecture", "StyleGAN3", "load", "tensor_shapes"]


class StyleGAN3(Generator):
    """A StyleGAN3, frozen.

    Args:
        tensors: Named and shaped as ``tensor_shapes`` says, as they are in the file. The network is in float32, unless they
            are in float64.
        architecture: Theirs.
        fit: The Gaussian before M's last activation, or its mean and standard deviation alone; without one there are no charts.
        psi: Truncation of z; 1 is none, 0 the mean w.
        cutoff: How many rows of w+ are truncated; None means all.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape, or a setting does not fit the architecture.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        architecture: Architecture,
        fit: GaussianFit | tuple[Float[Tensor, " D"], Float[Tensor, " D"]] | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> None:
        super().__init__()
        a, plans = architecture, plan_layers(architecture)
        rows = len(plans) + 1
        _check("StyleGAN3", tensor_shapes(a), tensors)
        check_styles("StyleGAN3", a.w_dim, rows, fit, psi, cutoff)
        dtype = torch.promote_types(tensors["mapping.w_avg"].dtype, torch.float32)
        tensors = {name: tensor.detach().double() for name, tensor in tensors.items()}
        self.output_scale = a.output_scale
        own = _within(tensors, "mapping.")
        self.styles = Styles(
            MappingNetwork(own, a.mapping_lr_multiplier),
            a.z_dim,
            a.w_dim,
            rows,
            fit=None if fit is None else GaussianFit(*fit),
            w_avg=own["w_avg"],
            psi=psi,
            cutoff=cutoff,
        )
        self.features = FourierInput(_within(tensors, "synthesis.input."), plans[0])
        self.layers = nn.ModuleList(Layer(_within(tensors, f"synthesis.{plan.name}."), plan, a.conv_clamp) for plan in plans)
        label = [LatentBlock("label", (a.c_dim,), OneHot(), searchable=False)] if a.c_dim else []
        self.blocks = (*label, *self.styles.blocks)
        self.ladder = self.styles.ladder
        self.image_shape = (a.img_channels, a.img_resolution, a.img_resolution)
        self.to(dtype).eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of a style."""
        first, *others = self.styles.each(latents)
        x = self.features(first)
        for layer, w in zip(self.layers, others, strict=True):
            x = layer(x, w)
        return (x * (self.output_scale / 2) + 0.5).contiguous()

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """Any style as ``_styles`` tells."""
        style = self.styles.lift(latents, name)
        return super().lift(latents, name) if style is None else style


def load(
    path: str | Path,
    gaussian_fit: str | Path | None = None,
    *,
    psi: float = 1.0,
    cutoff: int | None = None,
    fit_samples: int = 100_000,
) -> StyleGAN3:
    """Read a StyleGAN3 from any file that ``_checkpoints`` reads, on the CPU in float32.

    Args:
        path: The file.
        gaussian_fit: A file as ``_gaussian_fit.read_fit`` takes it.
        psi: See ``StyleGAN3``.
        cutoff: See ``StyleGAN3``.
        fit_samples: Without a file of it, the Gaussian is fitted to so many samples of the mapping, of the mean label if there
            are classes, and kept on this machine; 0 makes no fit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, or its tensors are not those of a StyleGAN3.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.family != "stylegan3":
        got = checkpoint.family or "tensors of no family that is known"
        raise ValueError(f"{path}: expected a stylegan3, got {got}; use the loader of that family")
    names = {field.name for field in fields(Architecture)}
    told = {name: value for name, value in checkpoint.architecture.items() if name in names}
    try:
        architecture = Architecture(**told)  # type: ignore[arg-type]
        shapes = tensor_shapes(architecture)
    except (TypeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{path}: expected the numbers of a StyleGAN3, got {told} ({error}); fetch the file again") from error
    _check(path, shapes, checkpoint.tensors)
    fit = None
    if gaussian_fit is not None:
        fit = read_fit(gaussian_fit, architecture.w_dim)
    elif fit_samples:
        own = _within(checkpoint.tensors, "mapping.")
        mapping = MappingNetwork(own, architecture.mapping_lr_multiplier)
        label = torch.full((1, architecture.c_dim), 1 / max(1, architecture.c_dim))
        fit = cached_fit(own, lambda z: mapping(z, label.expand(len(z), -1)), architecture.z_dim, fit_samples)
    return StyleGAN3(checkpoint.tensors, architecture, fit, psi=psi, cutoff=cutoff)


def tensor_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a file of this architecture has."""
    plans, w = plan_layers(a), a.w_dim
    parts: dict[str, tuple[int, ...]]
    first = plans[0].in_channels
    shapes: dict[str, tuple[int, ...]] = {"mapping.w_avg": (w,)}
    if a.c_dim:
        shapes |= {"mapping.embed.weight": (w, a.c_dim), "mapping.embed.bias": (w,)}
    for index in range(a.mapping_layers):
        width = w if index else a.z_dim + (w if a.c_dim else 0)
        shapes |= {f"mapping.fc{index}.weight": (w, width), f"mapping.fc{index}.bias": (w,)}
    parts = {"weight": (first, first), "transform": (3, 3), "freqs": (first, 2), "phases": (first,)}
    parts |= {"affine.weight": (4, w), "affine.bias": (4,)}
    shapes |= {f"synthesis.input.{name}": shape for name, shape in parts.items()}
    for plan in plans:
        parts = {
            "weight": (plan.out_channels, plan.in_channels, plan.kernel, plan.kernel),
            "bias": (plan.out_channels,),
            "magnitude_ema": (),
            "affine.weight": (plan.in_channels, w),
            "affine.bias": (plan.in_channels,),
        }
        if plan.up_taps > 1:
            parts["up_filter"] = (plan.up_taps,)
        if plan.down_taps > 1:
            parts["down_filter"] = (plan.down_taps,) * (2 if plan.radial else 1)
        shapes |= {f"synthesis.{plan.name}.{name}": shape for name, shape in parts.items()}
    return shapes


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check(where: str | Path, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    check_tensors(where, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, tensors)
