"""Which operator each input is searched for with: that of its sidecar, or the configured one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf

from pulse_framework.cli.compose import ConfigError, build_as
from pulse_framework.cli.draws import is_random
from pulse_framework.cli.sidecar import Recorded, Sidecars, read_sidecar, sidecar_path
from pulse_framework.images import factor_between
from pulse_framework.interfaces import Degradation
from pulse_framework.runtime import Group, Rejected, Source

__all__ = ["Operators", "operator_for", "operators_for"]


@dataclass
class Operators:
    """Operators of a run.

    Attributes:
        made: A of each group.
        groups: Group of each input, by its index.
        own: What the sidecar says of inputs whose sidecar is used, by index.
        rejected: Inputs that no operator fits.
        notes: What the user should know.
    """

    made: dict[Group, Degradation] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    own: dict[int, Recorded] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def operator_for(
    node: DictConfig,
    shape: tuple[int, ...],
    image_shape: tuple[int, int, int],
    allow: Sequence[str] = (),
    *,
    picture: bool = True,
) -> Degradation:
    """The operator that makes measurements of ``shape`` of the generator's images; a missing factor is inferred.

    Args:
        node: Configuration of the degradation.
        shape: (height, width) of a picture; of another measurement, all of its shape.
        image_shape: (C, H, W) of the generator's images.
        allow: Packages, beyond this project's own, whose targets may be called.
        picture: Whether the measurement is a picture.

    Raises:
        ConfigError: The configuration cannot be built.
        ValueError: No such operator; the message says why and what to do.
    """
    _, full_height, full_width = image_shape
    node = node.copy()
    if OmegaConf.is_missing(node, "factor"):
        height, width = shape[-2:] if len(shape) > 1 else (full_height, full_width)
        if height >= full_height or width >= full_width:
            raise ValueError(
                f"expected an image smaller than the generator's {full_width}x{full_height}, got {_size(shape, picture)}; make a "
                "low-resolution version with `pulse degrade --factor N` first"
            )
        node.factor = str(factor_between((full_height, full_width), (height, width)))
    operator = build_as(Degradation, node, allow)
    made = tuple(operator.measurement_shape(image_shape))
    fits = made[1:] == shape and made[0] in (1, 3) if picture else made == shape
    if not fits:
        cure = "leave the factor out or resize the image" if "factor" in node else "resize the image"
        pictured = len(made) == 3 and made[0] in (1, 3)
        if picture and not pictured:
            cure = "give the measurement that `pulse degrade` writes"
        elif not picture:
            cure = "measure an image of the generator's size"
        wanted = f"{_size(made[1:], True)} pixels" if picture and pictured else f"numbers of shape {made}"
        raise ValueError(
            f"expected {wanted}, which the degradation makes of the generator's {full_width}x{full_height}, got "
            f"{_size(shape, picture)}; {cure}"
        )
    return operator


def operators_for(
    config: DictConfig, sources: Sequence[Source], image_shape: tuple[int, int, int], allow: Sequence[str] = ()
) -> Operators:
    """An operator for every input that one fits.

    Raises:
        ConfigError: The configuration of the run cannot be built.
    """
    mode, found = _mode(config), Operators()
    labels: dict[int, str] = {}
    for source in sources:
        try:
            own = _own(source, config, mode)
        except ConfigError as error:
            found.rejected.append(Rejected(source.path, str(error)))
            continue
        if own is not None:
            found.own[source.index] = own
        labels[source.index] = f"{source.shape} {source.picture} {_text(own)}"
    errors: dict[str, ValueError] = {}
    names: dict[str, Group] = {}
    inferred = 0
    for source in (source for source in sources if source.index in labels):
        label, own = labels[source.index], found.own.get(source.index)
        if label not in names and label not in errors:
            try:
                operator, changed = _fitting(own.node if own else config.degradation, source, image_shape, allow, mend=bool(own))
            except ValueError as error:
                if isinstance(error, ConfigError) and own is None:
                    raise
                errors[label] = error
            else:
                inferred += changed
                names[label] = source.shape if own is None and source.picture else f"operator {len(names)}"
                found.made[names[label]] = operator
        if label in names:
            found.groups[source.index] = names[label]
        else:
            found.own.pop(source.index, None)
            found.rejected.append(Rejected(source.path, f"{source.path}: {errors[label]}"))
    found.notes = _notes(found, sources, mode, inferred)
    return found


def _own(source: Source, config: DictConfig, mode: Sidecars) -> Recorded | None:
    """What the sidecar of an input says, if it counts.

    Raises:
        ConfigError: There is none and one is needed, or it cannot be read.
    """
    drawn = is_random(config.degradation)
    own = None if mode is Sidecars.IGNORE and not drawn else read_sidecar(source.path)
    named = config.choices.degradation
    if own is not None and mode is Sidecars.IGNORE and own.name != named:
        raise ConfigError(f"{sidecar_path(source.path)}: expected the degradation {named}, got {own.name}; leave the name out")
    if own is None and (drawn or mode is Sidecars.REQUIRE):
        why = f" (the degradation {named} has values that are drawn for each image)" if drawn else ""
        cure = "give it values" if drawn else "name a --degradation"
        raise ConfigError(
            f"{source.path}: expected {sidecar_path(source.path).name} beside it{why}, got none; make the input with"
            f" `pulse degrade`, or {cure}"
        )
    return own


def _text(own: Recorded | None) -> str:
    return json.dumps(OmegaConf.to_container(own.node)) if own else ""


def _mode(config: DictConfig) -> Sidecars:
    given = config.get("sidecars", Sidecars.USE.value)
    try:
        return Sidecars(given)
    except ValueError as error:
        raise ConfigError(f"sidecars: expected one of {', '.join(Sidecars)}, got {given!r}; correct it") from error


def _fitting(
    node: DictConfig, source: Source, image_shape: tuple[int, int, int], allow: Sequence[str], *, mend: bool
) -> tuple[Degradation, bool]:
    """The operator of an input, and whether a factor that fits another generator had to be inferred anew."""
    try:
        return operator_for(node, source.shape, image_shape, allow, picture=source.picture), False
    except ConfigError:
        raise
    except ValueError:
        if not mend or "factor" not in node:
            raise
    node = node.copy()
    node.factor = "???"
    return operator_for(node, source.shape, image_shape, allow, picture=source.picture), True


def _notes(found: Operators, sources: Sequence[Source], mode: Sidecars, inferred: int) -> list[str]:
    """What became of the sidecars."""
    if mode is Sidecars.IGNORE and not found.own:
        there = sum(sidecar_path(source.path).exists() for source in sources)
        return [f"the sidecars of {there} inputs are not used, since a degradation was named"] if there else []
    if not found.own:
        return []
    used = ", ".join(sorted({own.name for own in found.own.values()}))
    notes = [f"{len(found.own)} of {len(sources)} inputs have a sidecar, whose degradation is used ({used})"]
    if inferred:
        notes.append("the factor of some sidecars does not fit the generator's images and was inferred from the sizes")
    return notes


def _size(shape: tuple[int, ...], picture: bool) -> str:
    return f"{shape[1]}x{shape[0]}" if picture else f"numbers of shape {shape}"
