r"""The slot ``style`` of every StyleGAN: its spaces, and the way from one to the next.

A style is one vector for the whole network, one for each of its L rows (w+; Abdal et al., ICCV 2019), or one for each
convolution filter (W++; RUSIR, arXiv:2302.06733, section 3):

========== ============== ============================================================================
one        each row       what it is
========== ============== ============================================================================
``z``                     what the network was trained on
``w``      ``w_plus``     after the mapping M, truncated
``v``      ``v_plus``     PULSE's chart of w, standard normal; see ``_gaussian_fit``
``p_n``    ``p_n_plus``   II2S's chart of w, standard normal, its entries uncorrelated
========== ============== ============================================================================

and ``w_plus_plus`` (F, D), where the filters of row 0 come first, then those of row 1. A block can be lifted to every block of
at least as many vectors but ``z``. Besides, for a search that couples w+ to the image of the mapping (L-BRGM, arXiv:2012.04567,
section 3), ``z_anchor`` (Z,) and ``w_anchor`` (D,) or (L, D), :math:`M` of it: the picture does not depend on them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from generators._gaussian_fit import GaussianFit, chart, pre_activation
from generators._stylegan_ops import Linear, truncate
from pulse_framework.latents import LatentBlock, Latents, Normal, PushForward

__all__ = ["ANCHOR", "Styles", "check_styles"]

ANCHOR = "anchor"


class Styles(nn.Module):
    """Turns any style into any other that the picture allows.

    Args:
        mapping: M, from z and perhaps a label to w; None if there is none.
        z_dim: Entries of z.
        w_dim: D.
        rows: L.
        fit: The Gaussian; without one there are no charts, and without its components no ``p_n``.
        w_avg: The mean w, of truncation; it may be missing if unused.
        psi: Truncation of z; 1 is none, 0 the mean w.
        cutoff: How many rows are truncated; None means all.
        filters: For each row the vectors that ``w_plus_plus`` has of it; none: no such block.
        anchor: Whether the anchors are declared.

    Attributes:
        blocks: Declared, in order.
        ladder: Of a generator with these styles.
    """

    mean: Tensor | None
    std: Tensor | None
    scales: Tensor | None
    w_avg: Tensor | None
    colour: Linear | None
    whiten: Linear | None

    def __init__(
        self,
        mapping: nn.Module | None,
        z_dim: int,
        w_dim: int,
        rows: int,
        *,
        fit: GaussianFit | None = None,
        w_avg: Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        filters: Sequence[int] = (),
        anchor: bool = False,
    ) -> None:
        super().__init__()
        self.mapping, self.rows, self.filters, self.psi = mapping, rows, tuple(filters), psi
        self.cutoff = rows if cutoff is None or psi == 1 else cutoff
        fit = GaussianFit(None, None) if fit is None else GaussianFit(*fit)  # type: ignore[arg-type]
        kept = {"mean": fit.mean, "std": fit.std, "scales": fit.scales, "w_avg": w_avg}
        for name, value in kept.items():
            self.register_buffer(name, None if value is None else value.detach().clone())
        u = fit.components
        self.colour, self.whiten = (None, None) if u is None else (Linear(u.T), Linear(u))
        self.blocks = (*self._declared(z_dim, w_dim), *(self._anchors(z_dim, w_dim) if anchor else ()))
        self.names = frozenset(block.name for block in self.blocks if block.slot == "style")
        self.ladder = () if fit.mean is None else ("v", "v_plus")

    def lift(self, latents: Latents, name: str) -> Tensor | None:
        """The style of an input as the block ``name``; None if there is no way."""
        if name in latents:
            return latents[name]
        if name in ("z_anchor", "w_anchor"):
            return self._anchor(latents, name)
        given = next((other for other in latents if other in self.names), None)
        if given is None or name not in self.names or name == "z":
            return None
        value, level = latents[given], _level(given)
        if _space(given) != _space(name):
            value = self._w(latents, given)
            level = 1 if given == "z" and self.cutoff != self.rows else level
        if level > _level(name):
            return None
        value = self._spread(value, level, _level(name))
        return value if _space(name) in (_space(given), "w") else self._charted(value, _space(name))

    def each(self, latents: Latents) -> list[Tensor]:
        """What every row takes, as w: (N, D), or (N, filters, D) where each filter has a style of its own."""
        if "w_plus_plus" in latents:
            return list(latents["w_plus_plus"].split(self.filters, 1))
        w_plus = self.lift(latents, "w_plus")
        assert w_plus is not None
        return list(w_plus.unbind(1))

    def _declared(self, z_dim: int, w_dim: int) -> list[LatentBlock]:
        one, each = (w_dim,), (self.rows, w_dim)
        source = "v" if self.mapping is None else "z"
        trained = [] if self.mapping is None else [LatentBlock("z", (z_dim,), Normal(), "style")]
        mapped = [("w", one)] if self.cutoff == self.rows else []
        own = [LatentBlock(name, shape, PushForward(source), "style") for name, shape in (*mapped, ("w_plus", each))]
        names = [name for name, part in (("v", self.mean), ("p_n", self.scales)) if part is not None]
        drawn = [(kind, shape) for name in names for kind, shape in ((name, one), (f"{name}_plus", each))]
        charts = [LatentBlock(name, shape, Normal(), "style") for name, shape in drawn]
        shape = (sum(self.filters), w_dim)
        wide = [LatentBlock("w_plus_plus", shape, PushForward(source), "style")] if self.filters else []
        return [*charts, *own, *wide] if self.mapping is None else [*trained, *own, *charts, *wide]

    def _anchors(self, z_dim: int, w_dim: int) -> list[LatentBlock]:
        shape = (w_dim,) if self.cutoff == self.rows else (self.rows, w_dim)
        z = LatentBlock("z_anchor", (z_dim,), Normal(), ANCHOR, optional=True, auxiliary=True)
        w = LatentBlock("w_anchor", shape, PushForward("z_anchor"), ANCHOR, optional=True, auxiliary=True)
        return [z, w]

    def _anchor(self, latents: Latents, name: str) -> Tensor | None:
        z = latents.get("z_anchor", latents.get("z"))
        if z is None or not any(block.slot == ANCHOR for block in self.blocks):
            return None
        return z if name == "z_anchor" else self._mapped(z, latents.get("label"))

    def _w(self, latents: Latents, given: str) -> Tensor:
        """The block given as w, of as many vectors as it has; z as w+ where truncation spares some rows."""
        value = latents[given]
        if given == "z":
            return self._mapped(value, latents.get("label"))
        if _space(given) == "w":
            return value
        assert self.mean is not None
        assert self.std is not None
        if _space(given) == "v":
            return chart(value, self.mean, self.std)
        assert self.scales is not None
        assert self.colour is not None
        return chart(_rowwise(self.colour, value * self.scales), self.mean, torch.ones_like(self.mean))

    def _charted(self, w: Tensor, space: str) -> Tensor:
        assert self.mean is not None
        assert self.std is not None
        p = pre_activation(w) - self.mean
        if space == "v":
            return p / self.std.clamp(min=torch.finfo(self.std.dtype).tiny)
        assert self.scales is not None
        assert self.whiten is not None
        assert self.colour is not None
        white = _rowwise(self.whiten, p)
        white = white + _rowwise(self.whiten, p - _rowwise(self.colour, white))  # components are orthonormal but for rounding
        return white / self.scales

    def _mapped(self, z: Tensor, label: Tensor | None) -> Tensor:
        """M, truncated; of the mean of all labels if there are labels and none is given."""
        assert self.mapping is not None
        classes = getattr(self.mapping, "c_dim", 0)
        if classes:
            w: Tensor = self.mapping(z, z.new_full((len(z), classes), 1 / classes) if label is None else label)
        else:
            w = self.mapping(z)
        if self.psi == 1:
            return w
        assert self.w_avg is not None
        if self.cutoff == self.rows:
            return self.w_avg.lerp(w, self.psi)
        return truncate(w[:, None].expand(-1, self.rows, -1), self.w_avg, self.psi, self.cutoff)

    def _spread(self, value: Tensor, level: int, wanted: int) -> Tensor:
        """One vector for each row, and then each row's for each of its filters."""
        value = value[:, None].expand(-1, self.rows, -1) if level == 0 < wanted else value
        if level == wanted or wanted < 2:
            return value
        rows = zip(value.split(1, 1), self.filters, strict=True)
        return torch.cat([row.expand(-1, count, -1) for row, count in rows], 1)


def check_styles(
    where: str,
    w_dim: int,
    rows: int,
    fit: GaussianFit | tuple[Tensor, Tensor] | None,
    psi: float,
    cutoff: int | None,
    lacks: str = "",
) -> None:
    """Refuse styles that do not go together, before anything is fitted.

    Args:
        where: Which generator, for messages.
        w_dim: D.
        rows: L.
        fit: As ``Styles`` takes it.
        psi: As ``Styles`` takes it.
        cutoff: As ``Styles`` takes it.
        lacks: What truncation lacks, if anything.

    Raises:
        ValueError: They do not.
    """
    if fit is not None and any(part is not None and part.shape[-1:] != (w_dim,) for part in fit):
        got = [tuple(part.shape) for part in fit if part is not None]
        raise ValueError(f"{where}: expected a Gaussian fit of {w_dim} entries, got {got}; use the fit of this network")
    if psi != 1 and lacks:
        raise ValueError(f"{where} psi: expected a mapping and the mean w, to truncate z, got no {lacks}; leave psi at 1")
    if cutoff is not None and not 0 <= cutoff <= rows:
        raise ValueError(f"{where} cutoff: expected 0 to {rows} rows of w_plus, got {cutoff}; None truncates all")


def _space(name: str) -> str:
    return name.removesuffix("_plus").removesuffix("_plus")


def _level(name: str) -> int:
    return name.count("_plus")


def _rowwise(linear: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    return linear(value.flatten(0, -2)).unflatten(0, value.shape[:-1])
