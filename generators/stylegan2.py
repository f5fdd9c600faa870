r"""StyleGAN2, from every kind of file that ``_checkpoints`` reads.

.. math:: x = (G(w_1, \dots, w_L, n_0, \dots, n_{L-2}) + 1) / 2, \qquad w = \bar w + \psi (M(z, c) - \bar w), \quad z \sim N(0, I)
          \qquad \text{or} \qquad w_l = \rho_{0.2}(\sigma v_l + \mu), \quad v_l \sim N(0, I)

M is the mapping network, see ``_stylegan_ops``, c a class label if there are classes, and :math:`\psi` the truncation of the
first rows (all of them by default); G is the synthesis, see ``_stylegan2_synthesis``; :math:`(\mu, \sigma)` is PULSE's Gaussian
fit, see ``_gaussian_fit`` (Karras et al., CVPR 2020, arXiv:1912.04958, and NeurIPS 2020, arXiv:2006.06676; Menon et al., CVPR
2020, arXiv:2003.03808).

Weights: ``cards/faces-stylegan2-64.yaml``, made for this project; those that NVIDIA published are for non-commercial use.
The network's native range is [-1, 1].

Latent blocks:

- ``label`` (K,), with classes alone: one-hot, not searched. A z lifted without one is taken to have the mean of all labels.
- Slot ``style``, see ``_styles``: ``z``, ``w``, ``w_plus``, ``w_plus_plus``; with a Gaussian fit ``v`` and ``v_plus``, the spaces
  that PULSE searches, and ``p_n`` and ``p_n_plus``. Truncation acts on z alone. Where it spares some of the rows, z is no one w,
  and there is no block ``w``. With ``anchor``, ``z_anchor`` and ``w_anchor`` besides.
- ``noise_<k>`` (1, r, r), standard normal, with r = 4, 8, 8, 16, 16, ...: each in a slot of its own, if noise is random.
- Optional: ``features_<r>`` (C, r, r) in the slot ``features`` and, in the architecture "skip", ``rgb_<r>`` (3, r, r), in the
  native range, in the slot ``rgb``. They stand in for what block r computes; given both at one r, what comes before is not
  computed. Normal for want of a closed form: begin from a ``lift``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from generators._checkpoints import read_checkpoint
from generators._gaussian_fit import GaussianFit, cached_fit, read_fit
from generators._stylegan2_architecture import Architecture, architecture_of, expected_tensors
from generators._stylegan2_synthesis import At, Synthesis
from generators._stylegan_ops import Mapping as MappingNetwork
from generators._styles import Styles, check_styles
from generators._tensors import check_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, OneHot

__all__ = ["StyleGAN2", "load"]

Noise = Literal["random", "stored", "none"]


class StyleGAN2(Generator):
    """A StyleGAN2, frozen.

    Args:
        tensors: By their SG2-ADA names, as they are in the file. The mean w and the noise maps may be missing if unused.
        architecture: Theirs.
        fit: The Gaussian before M's last activation, or its mean and standard deviation alone; without one there are no charts.
        psi: Truncation of z; 1 is none, 0 the mean w.
        cutoff: How many rows of w+ are truncated; None means all.
        noise: ``"random"``: every noise map is a block; ``"stored"``: the maps in the file; ``"none"``: zeros.
        zero_noise: Maps that are zero whatever ``noise`` says; a negative number counts from the end.
        checkpoint: Whether a backward pass computes the inside of each resolution anew instead of keeping it: the same images,
            less memory between resolutions. What a pass needs at its largest, inside of the largest one, falls little.
        anchor: Whether the blocks ``z_anchor`` and ``w_anchor`` are declared, for a coupling of w+ to the mapping.

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
        noise: Noise = "random",
        zero_noise: Sequence[int] = (),
        checkpoint: bool = False,
        anchor: bool = False,
    ) -> None:
        super().__init__()
        a, sides = architecture, architecture.noise_sides
        _check(tensors, a, fit, psi, cutoff, noise, zero_noise)
        tensors = {name: tensor.detach().float() for name, tensor in tensors.items()}
        own = _within(tensors, "mapping.")
        self.synthesis = Synthesis(_within(tensors, "synthesis."), a, checkpoint=checkpoint)
        self.styles = Styles(
            MappingNetwork(own, a.mapping_lr_multiplier),
            a.z_dim,
            a.w_dim,
            a.rows,
            fit=None if fit is None else GaussianFit(*fit),
            w_avg=own.get("w_avg"),
            psi=psi,
            cutoff=cutoff,
            filters=self.synthesis.filters,
            anchor=anchor,
        )
        present = sorted(set(range(len(sides))) - {k % len(sides) for k in zero_noise}) if noise != "none" else []
        maps = [LatentBlock(f"noise_{k}", (1, sides[k], sides[k])) for k in present if noise == "random"]
        for k in present if noise == "stored" else ():
            name = f"synthesis.b{sides[k]}.conv{k % 2 ^ 1}.noise_const"
            self.register_buffer(f"noise_{k}", tensors[name][None, None].clone())
        inner = list(zip(a.sides, a.channels, strict=True))[:-1]
        features = [LatentBlock(f"features_{r}", (c, r, r), slot="features", optional=True) for r, c in inner]
        rgb = [LatentBlock(f"rgb_{r}", (a.image_channels, r, r), slot="rgb", optional=True) for r, _ in inner if a.kind == "skip"]
        label = [LatentBlock("label", (a.c_dim,), OneHot(), searchable=False)] if a.c_dim else []
        self.blocks = (*label, *self.styles.blocks, *maps, *features, *rgb)
        self.ladder = self.styles.ladder
        self.image_shape = (a.image_channels, a.sides[-1], a.sides[-1])
        self.eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of a style, the noise maps, and what stands in for features and image on the way."""
        *_, (_, _, y) = self._states(latents)
        assert y is not None
        return ((y + 1) / 2).contiguous()

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """Any style as ``_styles`` tells; a full input as features or image at r.

        Features given at a smaller side can be lifted if no part of the image is made on the way to r but by an image given;
        so can ``features_<r/2>`` with ``rgb_<r/2>``.
        """
        if (style := self.styles.lift(latents, name)) is not None:
            return style
        if name.startswith(("features_", "rgb_")) and name in {block.name for block in self.blocks}:
            return self._on_the_way(latents, *name.split("_"))
        return super().lift(latents, name)

    def truncated(self, levels: int) -> Generator:
        """Without the blocks of the ``levels`` largest sides: the image so far, enlarged as those would enlarge it."""
        inner = self.synthesis.image_sides[:-1]
        if not 1 <= levels <= len(inner):
            raise ValueError(
                f"StyleGAN2: expected to leave out 1 to {len(inner)} levels of those that make images, got {levels}"
                if inner
                else "StyleGAN2: expected the architecture skip, whose image is a sum over sides; search all of it"
            )
        return _Truncated(self, inner[-levels])

    def _states(self, latents: Latents) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """Side, features and image (in the native range) of every block that an input makes the network compute."""
        declared = {block.name for block in self.blocks}
        names = [f"noise_{k}" for k in range(self.styles.rows - 1)]
        if missing := [name for name in names if name in declared and name not in latents]:
            raise ValueError(f"StyleGAN2: expected every noise map, got {sorted(latents)}; add {missing}")
        noise = [latents[name] if name in latents else getattr(self, name, None) for name in names]
        features, rgb = _given(latents, "features"), _given(latents, "rgb")
        states: Iterator[tuple[int, Tensor, Tensor | None]]
        states = self.synthesis.states(self.styles.each(latents), noise, features, rgb)
        return states

    def _on_the_way(self, latents: Latents, kind: str, where: str) -> Tensor:
        """What block r computes: features or image."""
        side = int(where)
        features, rgb = (0 if given is None else given[0] for given in (_given(latents, "features"), _given(latents, "rgb")))
        lost = [r for r in self.synthesis.image_sides if 0 < features <= r < side and r > rgb] if kind == "features" else []
        if lost or side < (features if kind == "features" else rgb):
            raise ValueError(
                f"StyleGAN2: expected an input whose image {kind}_{side} can keep, got {sorted(latents)}; lift it to"
                f" rgb_{max(lost, default=side)} first"
                if lost
                else f"StyleGAN2: expected an input that computes {kind}_{side}, got {sorted(latents)}, which begin later"
            )
        x, y = next((x, y) for r, x, y in self._states(latents) if r == side)
        value = x if kind == "features" else y
        assert value is not None
        return value.contiguous().expand(len(next(iter(latents.values()))), -1, -1, -1)


class _Truncated(Generator):
    """A StyleGAN2 of the architecture "skip" up to one side."""

    def __init__(self, whole: StyleGAN2, side: int) -> None:
        super().__init__()
        self.whole, self.side = whole, side
        self.blocks, self.image_shape, self.ladder = whole.blocks, whole.image_shape, whole.ladder

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        y = next(y for side, _, y in self.whole._states(latents) if side == self.side)
        if y is None:
            raise ValueError(
                f"StyleGAN2 truncated: expected an input that makes an image of {self.side} pixels a side, got {sorted(latents)}"
            )
        return ((self.whole.synthesis.enlarged(y, self.side) + 1) / 2).contiguous()

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        return self.whole.lift(latents, name)


def load(
    path: str | Path,
    gaussian_fit: str | Path | None = None,
    *,
    psi: float = 1.0,
    cutoff: int | None = None,
    noise: Noise = "random",
    zero_noise: Sequence[int] = (),
    checkpoint: bool = False,
    anchor: bool = False,
    fit_samples: int = 10_000,
) -> StyleGAN2:
    """Read a StyleGAN2, its architecture from the file, on the CPU in float32.

    Args:
        path: A file of any format that ``_checkpoints`` lists: ``.pkl``, ``.pt``, ``.safetensors``.
        gaussian_fit: A file as ``_gaussian_fit.read_fit`` takes it, such as PULSE's ``gaussian_fit.pt``.
        psi: See ``StyleGAN2``.
        cutoff: See ``StyleGAN2``.
        noise: See ``StyleGAN2``.
        zero_noise: See ``StyleGAN2``.
        checkpoint: See ``StyleGAN2``.
        anchor: See ``StyleGAN2``.
        fit_samples: Without a file of it, the Gaussian is fitted to so many samples of the mapping, labels equally likely, and
            kept on this machine; 0 makes no fit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, or its tensors are not those of the StyleGAN2 that it says it is.
    """
    read = read_checkpoint(path)
    if read.family != "stylegan2":
        raise ValueError(f"{path}: expected a StyleGAN2, got {read.family or 'other tensors'}; use the generator of that family")
    fit = None
    if gaussian_fit is not None:
        fit = read_fit(gaussian_fit, read.tensors["synthesis.b4.conv1.affine.weight"].shape[1])
    try:
        architecture = architecture_of(read.architecture)
        if fit is None and fit_samples:
            _check(read.tensors, architecture, fit, psi, cutoff, noise, zero_noise)
            fit = _fit(_within(read.tensors, "mapping."), architecture, fit_samples)
        return StyleGAN2(
            read.tensors,
            architecture,
            fit,
            psi=psi,
            cutoff=cutoff,
            noise=noise,
            zero_noise=zero_noise,
            checkpoint=checkpoint,
            anchor=anchor,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _fit(tensors: Mapping[str, Tensor], architecture: Architecture, samples: int) -> GaussianFit:
    """The Gaussian of a mapping, its labels equally likely."""
    mapping = MappingNetwork({name: tensor.float() for name, tensor in tensors.items()}, architecture.mapping_lr_multiplier)
    rng = torch.Generator().manual_seed(1)

    def mapped(z: Tensor) -> Tensor:
        label = OneHot().sample((len(z), mapping.c_dim), rng) if mapping.c_dim else None
        w: Tensor = mapping(z, label)
        return w

    return cached_fit(tensors, mapped, mapping.z_dim, samples)


def _check(
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    fit: GaussianFit | tuple[Tensor, Tensor] | None,
    psi: float,
    cutoff: int | None,
    noise: Noise,
    zero_noise: Sequence[int],
) -> None:
    """Refuse what does not go together, before anything is built."""
    count = len(architecture.noise_sides)
    needless = {"mapping.w_avg"} if psi == 1 else set()
    expected = expected_tensors(architecture)
    needless |= {name for name in expected if name.endswith("noise_const")} if noise != "stored" else set()
    check_tensors(
        "StyleGAN2", {name: like for name, like in expected.items() if name in tensors or name not in needless}, tensors
    )
    check_styles("StyleGAN2", architecture.w_dim, architecture.rows, fit, psi, cutoff)
    if any(not -count <= k < count for k in zero_noise):
        raise ValueError(f"StyleGAN2 zero_noise: expected maps from {-count} to {count - 1}, got {list(zero_noise)}")


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _given(latents: Latents, kind: str) -> At | None:
    """The side and value of the block of this kind, if the input has one."""
    return next(((int(name.split("_")[1]), value) for name, value in latents.items() if name.startswith(f"{kind}_")), None)
