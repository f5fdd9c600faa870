r"""StyleGAN1, from the files of PULSE, of lernapparat's port and of NVIDIA.

.. math:: G(w_1, \dots, w_L, n_0, \dots, n_{L-1}), \qquad w = \bar w + \psi (M(z) - \bar w), \quad z \sim N(0, I)
          \qquad \text{or} \qquad w_l = \rho_{0.2}(\sigma v_l + \mu), \quad v_l \sim N(0, I)

M is eight (or any number of) dense layers of leaky ReLU after z is scaled to a mean square of 1, see ``_stylegan1_networks``, and
:math:`\psi` the truncation of the first rows (all of them by default; NVIDIA's program took 0.7 for the first 8); G is the
synthesis of ``_stylegan1_synthesis``; :math:`(\mu, \sigma)` is PULSE's Gaussian fit, see ``_gaussian_fit`` (Karras et al., CVPR
2019, arXiv:1812.04948; Menon et al., CVPR 2020, arXiv:2003.03808).

Weights: ``synthesis.pt``, ``mapping.pt`` and ``gaussian_fit.pt`` of PULSE; or one file: lernapparat's, which prefixes the same
tensors with ``g_synthesis.`` and ``g_mapping.``, NVIDIA's TensorFlow pickle of (G, D, Gs), or what ``pulse weights convert``
makes of any of these, see ``_stylegan1_layout``; NVIDIA's FFHQ weights are CC BY-NC 4.0. Resolution, widths and the number of
layers of both networks are read from the shapes. The mean w and stored noise maps come with NVIDIA's file; PULSE's have neither.
The network's native range is [-1, 1].

Latent blocks, of the slot ``style``, see ``_styles``: ``z`` when there is a mapping; ``w`` and ``w_plus``; ``v``, ``v_plus``,
``p_n`` and ``p_n_plus`` when there is a fit. One v (or w) for all layers is PULSE's tiled latent. Truncation acts on z alone;
where it spares some of the rows, z is no one w, and there is no block ``w``. Besides, if noise is random, every layer
has a noise map in a slot of its own: ``noise_<k>`` (1, r, r), standard normal, with r = 4, 4, 8, 8, ....
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from generators._checkpoints import read_checkpoint
from generators._gaussian_fit import GaussianFit, cached_fit, fit_of, read_fit
from generators._layouts import STYLEGAN1, check_settings
from generators._stylegan1_layout import Parts, is_tensorflow, split
from generators._stylegan1_networks import MappingNetwork, mapping_network, synthesis_network
from generators._stylegan1_synthesis import Synthesis, side
from generators._styles import Styles, check_styles
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal

__all__ = ["MappingNetwork", "StyleGAN1", "load", "mapping_network", "synthesis_network"]

Noise = Literal["random", "stored", "none"]


class StyleGAN1(Generator):
    """A StyleGAN1, frozen.

    Args:
        synthesis: G.
        mapping: M; without one there are no blocks ``z``.
        fit: The Gaussian before M's last activation, or its mean and standard deviation alone; without one there are no charts.
        w_avg: The mean w, of truncation; it may be missing if unused.
        stored: Noise maps, by layer; they may be missing if unused.
        psi: Truncation of z; 1 is none, 0 the mean w.
        cutoff: How many rows of w+ are truncated; None means all.
        noise: ``"random"``: every noise map is a block; ``"stored"``: the maps in the file; ``"none"``: every one is zero.
        zero_noise: Maps that are zero even so, as PULSE has the last one; a negative number counts from the end.

    Raises:
        ValueError: There is neither a mapping nor a fit, sizes differ, or there is no such noise map, row or mean w.
    """

    def __init__(
        self,
        synthesis: Synthesis,
        mapping: MappingNetwork | None = None,
        fit: GaussianFit | tuple[Float[Tensor, " D"], Float[Tensor, " D"]] | None = None,
        *,
        w_avg: Float[Tensor, " D"] | None = None,
        stored: Mapping[int, Float[Tensor, "1 1 r r"]] | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "random",
        zero_noise: Sequence[int] = (),
    ) -> None:
        super().__init__()
        size, count = synthesis.w_dim, len(synthesis.layers)
        if mapping is None and fit is None:
            raise ValueError(
                "StyleGAN1: expected a mapping or a Gaussian fit, got neither; w alone has no distribution to draw from"
            )
        _check(synthesis, mapping, fit, w_avg, psi, cutoff)
        stored = stored or {}
        zero = _zero_maps(count, stored, noise, zero_noise)
        self.synthesis = synthesis
        self.styles = Styles(
            mapping,
            0 if mapping is None else mapping.z_dim,
            size,
            count,
            fit=None if fit is None else GaussianFit(*fit),
            w_avg=w_avg,
            psi=psi,
            cutoff=cutoff,
        )
        present = [k for k in range(count) if k not in zero]
        maps = [LatentBlock(f"noise_{k}", (1, side(k), side(k)), Normal()) for k in present if noise == "random"]
        for k in present if noise == "stored" else ():
            self.register_buffer(f"noise_{k}", stored[k].detach().clone())
        self.blocks = (*self.styles.blocks, *maps)
        self.ladder = self.styles.ladder
        self.image_shape = (3, side(count - 1), side(count - 1))
        self.eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N 3 H W"]:
        """Images of a style and the noise maps."""
        w_plus = self.lift(latents, "w_plus")
        noise: list[Tensor | None] = []
        for name in (f"noise_{k}" for k in range(len(self.synthesis.layers))):
            kept: Tensor | None = getattr(self, name, None)
            noise.append(latents.get(name) if kept is None else kept.expand(len(w_plus), -1, -1, -1))
        images: Tensor = self.synthesis(w_plus, noise)
        return images

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """Any style as ``_styles`` tells."""
        style = self.styles.lift(latents, name)
        return super().lift(latents, name) if style is None else style


def load(
    synthesis: str | Path,
    mapping: str | Path | None = None,
    gaussian_fit: str | Path | None = None,
    *,
    psi: float = 1.0,
    cutoff: int | None = None,
    noise: Noise = "random",
    zero_noise: Sequence[int] = (),
    fit_samples: int = 100_000,
) -> StyleGAN1:
    """Read a StyleGAN1, on the CPU in float32.

    Args:
        synthesis: PULSE's ``synthesis.pt``; or one file that holds the mapping too, and perhaps the fit.
        mapping: PULSE's ``mapping.pt``.
        gaussian_fit: PULSE's ``gaussian_fit.pt``, or another file as ``_gaussian_fit.read_fit`` takes it.
        psi: See ``StyleGAN1``.
        cutoff: See ``StyleGAN1``.
        noise: See ``StyleGAN1``.
        zero_noise: See ``StyleGAN1``.
        fit_samples: Without a file of it, the Gaussian is fitted to so many samples of the mapping, and kept on this
            machine; 0 makes no fit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, or its tensors are not those of a StyleGAN1.
    """
    parts = _read(synthesis)
    for name, given, held in (("mapping", mapping, parts.mapping), ("Gaussian fit", gaussian_fit, parts.fit)):
        if given is not None and held is not None:
            raise ValueError(f"{synthesis}: expected no other {name}, since this file holds one, got {given}; leave it out")
    dense, w_avg = parts.mapping, parts.w_avg
    if mapping is not None:
        dense = read_checkpoint(mapping).tensors
        w_avg = dense.pop("w_avg", w_avg)
    network = synthesis_network(parts.synthesis, synthesis)
    mapper = None if dense is None else mapping_network(dense, mapping or synthesis).float()
    fit = None if gaussian_fit is None else read_fit(gaussian_fit, network.w_dim)
    fit = fit_of(synthesis, network.w_dim, parts.fit) if parts.fit is not None else fit
    try:
        _check(network, mapper, fit, w_avg, psi, cutoff)
        _zero_maps(len(network.layers), parts.noise, noise, zero_noise)
        if fit is None and mapper is not None and fit_samples:
            fit = cached_fit(dict(mapper.named_buffers()), mapper, mapper.z_dim, fit_samples)
        return StyleGAN1(
            network,
            mapper,
            fit,
            w_avg=w_avg,
            stored=parts.noise,
            psi=psi,
            cutoff=cutoff,
            noise=noise,
            zero_noise=zero_noise,
        ).float()
    except ValueError as error:
        raise ValueError(f"{synthesis}: {error}") from error


def _check(
    synthesis: Synthesis,
    mapping: MappingNetwork | None,
    fit: GaussianFit | tuple[Tensor, Tensor] | None,
    w_avg: Tensor | None,
    psi: float,
    cutoff: int | None,
) -> None:
    """Refuse styles that do not go together, before anything is fitted."""
    size, lacks = synthesis.w_dim, "mapping" if mapping is None else "mean w" if w_avg is None else ""
    if mapping is not None and mapping.w_dim != size:
        raise ValueError(f"StyleGAN1: expected a mapping to w of {size} entries, got {mapping.w_dim}; use files of one network")
    if w_avg is not None and w_avg.shape != (size,):
        raise ValueError(f"StyleGAN1: expected a mean w of {size} entries, got {tuple(w_avg.shape)}; use files of one network")
    check_styles("StyleGAN1", size, len(synthesis.layers), fit, psi, cutoff, lacks)


def _zero_maps(count: int, stored: Mapping[int, Tensor], noise: Noise, zero_noise: Sequence[int]) -> set[int]:
    """The layers whose noise is zero; refuses maps that are not there."""
    if any(not -count <= k < count for k in zero_noise):
        raise ValueError(f"StyleGAN1 zero_noise: expected maps from {-count} to {count - 1}, got {list(zero_noise)}")
    shapes = {k: (1, 1, side(k), side(k)) for k in range(count)}
    if noise == "stored" and {k: tuple(stored[k].shape) for k in sorted(stored)} != shapes:
        got = {k: tuple(stored[k].shape) for k in sorted(stored)}
        raise ValueError(
            f"StyleGAN1 noise: expected {count} stored maps of 4, 4, ..., {side(count - 1)} a side, got {got or 'none'}; set"
            " noise to random or none"
        )
    return set(range(count)) if noise == "none" else {k % count for k in zero_noise}


def _read(path: str | Path) -> Parts:
    """What any file holds."""
    read = read_checkpoint(path)
    try:
        if is_tensorflow(read.tensors):
            check_settings("StyleGAN1", STYLEGAN1, read.architecture)
        return split(read.tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
