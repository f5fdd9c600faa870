"""Methods of ``pulse bench``: from names and overrides to plans and generators that fit what all methods share."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pulse_framework.cli.comparison import Method
from pulse_framework.cli.compose import ConfigError, build_as, configs_folder, load, plain
from pulse_framework.cli.options import split_overrides
from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search import Plan
from pulse_framework.search.joint import join

__all__ = ["Chosen", "Entry", "Shared", "chosen", "composed", "default_entries", "fitting", "parsed"]

SHARED = ("degradation", "trainer", "data")
"""Parts of the configuration that no method may change."""

_TOKEN = re.compile(r"(?:'[^']*'|\"[^\"]*\"|\S)+")


@dataclass(frozen=True)
class Entry:
    """A method as it is written.

    Attributes:
        name: What it is called.
        tries: Lists of overrides, of which the first counts that the generator takes.
        most_numbers: Latent numbers that its searches may move at most; None: as many as there are.
    """

    name: str
    tries: tuple[tuple[str, ...], ...]
    most_numbers: int | None = None


@dataclass(frozen=True)
class Shared:
    """What all methods have in common.

    Attributes:
        config: The configuration without any method's own settings.
        overrides: Those that make it, the names of generator and degradation among them.
        config_dir: The user's own folder of groups.
        allow: Packages, beyond this project's own, whose targets may be called.
    """

    config: DictConfig
    overrides: Sequence[str]
    config_dir: Path | None = None
    allow: Sequence[str] = ()


@dataclass
class Chosen:
    """Methods that fit, and the overrides of each; those that do not, and why."""

    methods: dict[str, Method] = field(default_factory=dict)
    overrides: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def default_entries() -> list[Entry]:
    """The methods of ``configs/bench/default.yaml``."""
    written = OmegaConf.to_container(OmegaConf.load(configs_folder() / "bench" / "default.yaml"))
    assert isinstance(written, dict)
    return [_entry(str(name), value) for name, value in written.items()]


def _entry(name: str, value: Any) -> Entry:  # noqa: ANN401
    settings, most = (value["settings"], value["most_numbers"]) if isinstance(value, Mapping) else (value, None)
    several = all(isinstance(item, list) for item in settings)
    return Entry(name, tuple(map(tuple, settings)) if several else (tuple(settings),), most)


def parsed(text: str) -> Entry:
    """A method of the command line, ``NAME: KEY=VALUE KEY=VALUE ...``; spaces within quotes are part of a value.

    Raises:
        ConfigError: It has no name, or something else than overrides.
    """
    name, colon, rest = text.partition(":")
    tokens = tuple(_TOKEN.findall(rest))
    others, _ = split_overrides(list(tokens))
    if not name.strip() or not colon or others:
        got = f"{others[0]!r} in {text!r}" if others and colon else repr(text)
        raise ConfigError(f"--method: expected NAME: KEY=VALUE KEY=VALUE ..., got {got}; correct it")
    return Entry(name.strip(), (tokens,))


def chosen(own: Sequence[str], only: str | None) -> list[Entry]:
    """The default methods and those of the command line, which replace defaults of their name; of them, those whose name fits.

    Args:
        own: See ``parsed``.
        only: A regular expression that is searched for in the names; None: all of them.

    Raises:
        ConfigError: A method cannot be read or is there twice, the expression is none, or fits none.
    """
    entries = [parsed(text) for text in own]
    names = [entry.name for entry in entries]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--method: expected methods of different names, got {doubled[0]!r} twice; rename one")
    entries = [*(entry for entry in default_entries() if entry.name not in names), *entries]
    try:
        found = [entry for entry in entries if re.search(only or "", entry.name)]
    except re.error as error:
        raise ConfigError(f"--only: expected a regular expression, got {only!r} ({error}); correct it") from error
    if not found:
        known = ", ".join(repr(entry.name) for entry in entries)
        raise ConfigError(f"--only: expected a pattern of {known}, got {only!r}, which fits none; correct it")
    return found


def composed(entries: Sequence[Entry], shared: Shared) -> dict[str, list[tuple[DictConfig, Plan]]]:
    """Configuration and plan of every try of every method, before anything that is expensive.

    Raises:
        ConfigError: A method cannot be composed, its plan cannot be built, or it changes what all methods share.
    """
    found: dict[str, list[tuple[DictConfig, Plan]]] = {}
    for entry in entries:
        found[entry.name] = []
        for overrides in entry.tries:
            try:
                config = load([*shared.overrides, *overrides], shared.config_dir)
                plan = build_as(Plan, config.search, shared.allow)
            except ConfigError as error:
                raise ConfigError(f"method {entry.name!r}: {error}") from error
            for part in SHARED:
                if plain(config[part]) != plain(shared.config[part]):
                    raise ConfigError(
                        f"method {entry.name!r}: expected the {part} of all methods, got another; give its settings beside the"
                        " methods, or compare in runs of their own"
                    )
            named = config.choices.generator
            if named != shared.config.choices.generator:
                raise ConfigError(
                    f"method {entry.name!r}: expected the generator of all methods, {shared.config.choices.generator}, got"
                    f" {named}; compare generators in runs of their own"
                )
            found[entry.name].append((config, plan))
    return found


def fitting(
    entries: Sequence[Entry],
    plans: Mapping[str, Sequence[tuple[DictConfig, Plan]]],
    shared: Shared,
    generator: Generator,
    operator: Degradation,
    device: torch.device,
) -> Chosen:
    """The methods that generator and operator take.

    A method whose experiment gives the generator settings of its own (the original's, on a StyleGAN, has the last noise map zero)
    gets it once more with those.

    Args:
        entries: The methods.
        plans: What ``composed`` made of them.
        shared: What all have in common.
        generator: That of the shared configuration, where the searches run.
        operator: A, where the searches run.
        device: Where that is.
    """
    made, result = [(plain(shared.config.generator), generator)], Chosen()
    for entry in entries:
        for overrides, (config, plan) in zip(entry.tries, plans[entry.name], strict=True):
            try:
                node = plain(config.generator)
                own = next((other for settings, other in made if settings == node), None)
                if own is None:
                    own = build_as(Generator, config.generator, shared.allow).to(device)
                    made.append((node, own))
                plan.check(own, [operator])
                _check_size(plan, own, operator, entry.most_numbers)
            except (ValueError, TypeError) as error:
                result.refused[entry.name] = " ".join(str(error).split())
                continue
            result.methods[entry.name], result.overrides[entry.name] = Method(plan, own), overrides
            result.refused.pop(entry.name, None)
            break
    return result


def _check_size(plan: Plan, generator: Generator, operator: Degradation, most: int | None) -> None:
    """Refuse searches that move more numbers than a method is for."""
    joint = join(generator, operator)
    sizes = {block.name: math.prod(block.shape) for block in joint.blocks}
    moved = max(sum(sizes[name] for name in rung.priors(joint)) for phase in plan.phases for rung in phase.on(joint))
    if most is not None and moved > most:
        raise ValueError(
            f"expected searches that move at most {most} latent numbers, got {moved}, which can take minutes an image; give it by"
            " --method to run it even so"
        )
