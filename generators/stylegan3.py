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
- Slot ``style``, with L = N + 2 rows, 16 in the networks that NVIDIA published: ``z`` (Z,); ``w`` (D,), one for all rows;
  ``w_plus`` (L, D); with a Gaussian fit ``v`` (D,) and ``v_plus`` (L, D), standard normal, the spaces that PULSE searches.
  Truncation acts on z alone. Where it spares some of the rows, z is no one w, and there is no block ``w``.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators._checkpoints import read_checkpoint
from generators._gaussian_fit import chart, fit_gaussian
from generators._stylegan3_layers import Architecture, FourierInput, Layer, plan_layers
from generators._stylegan_ops import Mapping as MappingNetwork
from generators._stylegan_ops import truncate
from generators._tensors import check_tensors, read_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal, OneHot, PushForward

__all__ = ["Architecture", "StyleGAN3", "load", "tensor_shapes"]


class StyleGAN3(Generator):
    """A StyleGAN3, frozen.

    Args:
        tensors: Named and shaped as ``tensor_shapes`` says, as they are in the file. The network is in float32, unless they
            are in float64.
        architecture: Theirs.
        fit: Mean and standard deviation of each entry before M's last activation; without them there are no blocks ``v``.
        psi: Truncation of z; 1 is none, 0 the mean w.
        cutoff: How many rows of w+ are truncated; None means all.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape, or a setting does not fit the architecture.
    """

    w_avg: Tensor
    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        architecture: Architecture,
        fit: tuple[Float[Tensor, " D"], Float[Tensor, " D"]] | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> None:
        super().__init__()
        a, plans = architecture, plan_layers(architecture)
        rows, one = len(plans) + 1, (a.w_dim,)
        _check("StyleGAN3", tensor_shapes(a), tensors)
        if fit is not None:
            _check("StyleGAN3 fit", {"mean": one, "std": one}, dict(zip(("mean", "std"), fit, strict=True)))
        if cutoff is not None and not 0 <= cutoff <= rows:
            raise ValueError(f"StyleGAN3 cutoff: expected 0 to {rows} rows of w_plus, or None for all of them, got {cutoff}")
        dtype = torch.promote_types(tensors["mapping.w_avg"].dtype, torch.float32)
        tensors = {name: tensor.detach().double() for name, tensor in tensors.items()}
        self.psi, self.cutoff, self.rows = psi, rows if cutoff is None or psi == 1 else cutoff, rows
        self.c_dim, self.output_scale = a.c_dim, a.output_scale
        own = _within(tensors, "mapping.")
        self.mapping = MappingNetwork(own, a.mapping_lr_multiplier)
        self.register_buffer("w_avg", own["w_avg"].clone())
        self.features = FourierInput(_within(tensors, "synthesis.input."), plans[0])
        self.layers = nn.ModuleList(Layer(_within(tensors, f"synthesis.{plan.name}."), plan, a.conv_clamp) for plan in plans)
        mean, std = (None, None) if fit is None else (part.detach().clone() for part in fit)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        styles = [LatentBlock("z", (a.z_dim,), Normal(), "style")]
        if self.cutoff == rows:
            styles.append(LatentBlock("w", one, PushForward("z"), "style"))
        styles.append(LatentBlock("w_plus", (rows, *one), PushForward("z"), "style"))
        if fit is not None:
            styles += [LatentBlock("v", one, Normal(), "style"), LatentBlock("v_plus", (rows, *one), Normal(), "style")]
        label = [LatentBlock("label", (a.c_dim,), OneHot(), searchable=False)] if a.c_dim else []
        self.blocks = (*label, *styles)
        self.ladder = () if fit is None else ("v", "v_plus")
        self.image_shape = (a.img_channels, a.img_resolution, a.img_resolution)
        self.to(dtype).eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of a style."""
        first, *others = self.lift(latents, "w_plus").unbind(1)
        x = self.features(first)
        for layer, w in zip(self.layers, others, strict=True):
            x = layer(x, w)
        return (x * (self.output_scale / 2) + 0.5).contiguous()

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """Every style as ``w_plus``; ``z`` and ``v`` as ``w``; ``v`` as ``v_plus``."""
        if name in latents:
            return latents[name]
        if name in {block.name for block in self.blocks}:
            if name == "v_plus" and "v" in latents:
                return self._repeated(latents["v"])
            if name == "w_plus" and "v_plus" in latents:
                return self._charted(latents["v_plus"])
            if name in ("w", "w_plus") and "z" in latents:
                w_plus = self._mapped(latents["z"], latents.get("label"))
                return w_plus if name == "w_plus" else w_plus[:, 0]
            if name == "w" and "v" in latents:
                return self._charted(latents["v"])
            if name == "w_plus" and latents.keys() & {"w", "v"}:
                return self._repeated(latents["w"] if "w" in latents else self._charted(latents["v"]))
        return super().lift(latents, name)

    def _mapped(self, z: Tensor, label: Tensor | None) -> Tensor:
        """w+ of z, truncated."""
        if self.c_dim and label is None:
            label = z.new_full((len(z), self.c_dim), 1 / self.c_dim)
        w_plus = self._repeated(self.mapping(z, label))
        return w_plus if self.psi == 1 else truncate(w_plus, self.w_avg, self.psi, self.cutoff)

    def _charted(self, v: Tensor) -> Tensor:
        assert self.mean is not None
        assert self.std is not None
        return chart(v, self.mean, self.std)

    def _repeated(self, style: Tensor) -> Tensor:
        return style[:, None].expand(-1, self.rows, -1)


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
        gaussian_fit: A file of ``mean`` and ``std``, as PULSE has it for its network.
        psi: See ``StyleGAN3``.
        cutoff: See ``StyleGAN3``.
        fit_samples: Without a file of it, the Gaussian is fitted to so many samples of the mapping, of the mean label if there
            are classes; 0 makes no fit.

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
        fitted = read_tensors(gaussian_fit)
        _check(gaussian_fit, dict.fromkeys(("mean", "std"), (architecture.w_dim,)), fitted)
        fit = fitted["mean"], fitted["std"]
    elif fit_samples:
        mapping = MappingNetwork(_within(checkpoint.tensors, "mapping."), architecture.mapping_lr_multiplier)
        label = torch.full((1, architecture.c_dim), 1 / max(1, architecture.c_dim))
        fit = fit_gaussian(lambda z: mapping(z, label.expand(len(z), -1)), architecture.z_dim, fit_samples)
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
