r"""``pulse degradations``: what there is, and whether operators keep what they declare.

Of each operator, on one photo x whose range is squeezed to [0.1, 0.9], in float64:

- gap: the root mean square of ``measure(x) - A(x)`` in dB, :math:`-20 \log_{10}`, beside the declared one;
- adjoint: :math:`|\langle A x, y \rangle - \langle x, A^\top y \rangle| / (\|A x\| \|y\|)` for noise y, if A is linear;
- gradient: :math:`|\langle w, d \rangle - \langle A'^\top w, v \rangle| / (\|w\| \|d\|)` for noise v and w, with d the central
  difference of A along v; not if the derivative is a stand-in.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import torch
import typer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional

from pulse_framework.cli.compose import ConfigError, build_as, choices, configs_folder, load
from pulse_framework.cli.draws import is_random, resolve
from pulse_framework.cli.options import Allow, ConfigDir, example_photo, planning, say, split_overrides
from pulse_framework.images import read_image
from pulse_framework.interfaces import Degradation, LinearDegradation
from pulse_framework.search import stream

__all__ = ["Checked", "check", "degradations"]

STEP = 1e-8
"""Of the central difference: smaller than what rounds to other coefficients, larger than float64 resolves by far."""
ADJOINT, GRADIENT = 1e-10, 1e-4
"""Largest relative errors."""
FACTOR = "4"
"""Where a configuration leaves the factor to be inferred."""

degradations = typer.Typer(help="Degradations: what there is, and whether they keep what they declare.", no_args_is_help=True)


@dataclass(frozen=True)
class Checked:
    """What was found of one operator.

    Attributes:
        shape: Of its measurement.
        linear: Whether it declares an adjoint.
        declared: Root mean square gap that it declares, in image units.
        measured: The gap that was found.
        adjoint: Relative error; None if it is not linear.
        gradient: Relative error; None if the derivative is a stand-in.
        wrong: What it breaks.
    """

    shape: tuple[int, ...]
    linear: bool
    declared: float
    measured: float
    adjoint: float | None
    gradient: float | None
    wrong: tuple[str, ...]

    @property
    def margin_db(self) -> float:
        """By how much the measured gap is smaller than the declared one."""
        return _db(self.measured) - _db(self.declared) if self.measured > 0 else math.inf


@degradations.command("list")
def list_degradations(config_dir: ConfigDir = None) -> None:
    """List the degradations and what they are."""
    for name in choices("degradation", config_dir):
        folders = [*([config_dir] if config_dir else []), configs_folder()]
        files = [path for folder in folders if (path := folder / "degradation" / f"{name}.yaml").exists()]
        first = files[0].read_text().splitlines()[0] if files else ""
        sys.stdout.write(f"{name}\t{first.removeprefix('#').strip() if first.startswith('#') else ''}\n")


@degradations.command("check")
def check_degradations(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...] [KEY=VALUE...]", help="Degradations; all if none is named.")
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", help="The photo; the bundled one if left out.")] = None,
    side: Annotated[int, typer.Option("--side", min=8, help="The photo's smaller side is reduced to so many pixels.")] = 64,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Measurements of each, with parameters of their own.")] = 3,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Measure the gap between what happens to a picture and what the search knows of it; check adjoints and gradients.

    Prints a line for each; ends with 1 if one breaks what it declares.
    """
    names, overrides = split_overrides(arguments or [])
    broken = 0
    with planning():
        x = _photo(image or example_photo(), side)
        found = list(_all(names, overrides, x, draws, config_dir, allow or []))
    rows: list[tuple[str, ...]] = [("degradation", "measurement", "linear", "gap", "declared", "adjoint", "gradient", "")]
    for name, checked in found:
        broken += bool(checked.wrong)
        rows.append((name, *_row(checked)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n")
    if broken:
        raise typer.Exit(1)


def check(operator: Degradation, x: Tensor, rng: torch.Generator) -> Checked:
    """Hold an operator to what it declares, on one image.

    Args:
        operator: Any degradation.
        x: An image of shape (C, H, W), float64.
        rng: Gives the noise of ``measure`` and the directions that are tried.

    Raises:
        ValueError: The operator cannot take such images.
    """
    image_shape = (x.shape[0], x.shape[1], x.shape[2])
    shape = tuple(operator.measurement_shape(image_shape))
    x = x[None]
    wrong: list[str] = []
    with torch.no_grad():
        ax, y = operator(x), operator.measure(x, rng)
        if tuple(ax.shape) != (1, *shape) or tuple(y.shape) != (1, *shape):
            return Checked(shape, isinstance(operator, LinearDegradation), operator.gap, math.nan, None, None, ("shape",))
        if not torch.equal(ax, operator(x)):
            wrong.append("A is not deterministic")
        measured = float((y - ax).square().mean().sqrt())
    if not measured <= operator.gap * (1 + 1e-6) + 1e-7:
        wrong.append("gap")
    adjoint = _adjoint_error(operator, x, rng) if isinstance(operator, LinearDegradation) else None
    if adjoint is not None and not adjoint <= ADJOINT:
        wrong.append("adjoint")
    gradient = None if operator.surrogate else _gradient_error(operator, x, rng)
    if gradient is not None and not gradient <= GRADIENT:
        wrong.append("gradient")
    return Checked(shape, isinstance(operator, LinearDegradation), operator.gap, measured, adjoint, gradient, tuple(wrong))


def _all(
    names: Sequence[str], overrides: Sequence[str], x: Tensor, draws: int, config_dir: Path | None, allow: Sequence[str]
) -> Iterator[tuple[str, Checked]]:
    """The worst of what was found of each degradation; those that lack a value are left out unless they were named."""
    for name in names or choices("degradation", config_dir):
        node = load([f"degradation={name}", *overrides], config_dir).degradation
        if OmegaConf.is_missing(node, "factor"):
            node.factor = FACTOR
        missing = sorted(OmegaConf.missing_keys(node))
        if missing and not names:
            say(f"pulse: {name} is left out: degradation.{missing[0]} has no value; give it by name, with the value")
            continue
        yield name, _worst(node, name, x, draws, allow)


def _worst(node: DictConfig, name: str, x: Tensor, draws: int, allow: Sequence[str]) -> Checked:
    """Of some measurements, each with parameters of its own if they are random, the one whose gap is nearest to the declared."""
    found = []
    operator = None if is_random(node) else build_as(Degradation, node, allow)
    for seed in range(draws):
        made = operator or build_as(Degradation, resolve(node, seed, name), allow)
        try:
            found.append(check(made.double(), x, stream(seed, name)))
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
    return min(found, key=lambda checked: (not checked.wrong, checked.margin_db))


def _photo(path: Path, side: int) -> Tensor:
    """A photo whose smaller side has so many pixels (or its own, if those are fewer), with values in [0.1, 0.9]; float64."""
    image = read_image(path).double()
    scale = Fraction(min(*image.shape[1:], side), min(image.shape[1:]))
    size = [round(length * scale) for length in image.shape[1:]]
    return 0.1 + 0.8 * functional.interpolate(image[None], size, mode="area")[0]


def _noise(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, dtype=like.dtype)


def _adjoint_error(operator: LinearDegradation, x: Tensor, rng: torch.Generator) -> float:
    ax = operator(x)
    y = _noise(ax, rng)
    back = operator.adjoint(y, (x.shape[1], x.shape[2], x.shape[3]))
    return float(((ax * y).sum() - (x * back).sum()).abs() / (ax.norm() * y.norm()))


def _gradient_error(operator: Degradation, x: Tensor, rng: torch.Generator) -> float:
    leaf = x.clone().requires_grad_()
    ax = operator(leaf)
    v, w = _noise(x, rng), _noise(ax, rng)
    (gradient,) = torch.autograd.grad(ax, leaf, w)
    with torch.no_grad():
        difference = (operator(x + STEP * v) - operator(x - STEP * v)) / (2 * STEP)
    return float(((w * difference).sum() - (gradient * v).sum()).abs() / (w.norm() * difference.norm()).clamp(min=1e-30))


def _db(rms: float) -> float:
    return -20 * math.log10(rms) if rms > 0 else math.inf


def _row(checked: Checked) -> tuple[str, ...]:
    """What is printed of one, but for its name."""
    gaps = [f"{_db(gap):.1f} dB" if gap > 0 else "exact" for gap in (checked.measured, checked.declared)]
    errors = "-" if checked.adjoint is None else f"{checked.adjoint:.0e}"
    slope = "stand-in" if checked.gradient is None else f"{checked.gradient:.0e}"
    shape = "x".join(map(str, checked.shape))
    return (
        shape,
        "yes" if checked.linear else "no",
        *gaps,
        errors,
        slope,
        f"BROKEN: {', '.join(checked.wrong)}" if checked.wrong else "kept",
    )
