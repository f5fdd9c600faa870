"""Random values in a configuration, resolved to a concrete one for each image.

A mapping with the key ``_draw_`` stands for a value that is drawn:

==================================================== ============================================================
``{_draw_: uniform, low: 0.2, high: 3.0}``           a number
``{_draw_: log_uniform, low: 1, high: 100}``         a number whose logarithm is uniform
``{_draw_: integer, low: 30, high: 95}``             an integer, both ends included
``{_draw_: choice, items: [a, b], weights: [3, 1]}`` one of the items; without ``weights`` all are equally likely
``{_draw_: shuffle, items: [a, b, c]}``              the items in random order; ``ordered: [0, 2]`` keeps a before c
``{_draw_: maybe, p: 0.5, item: a}``                 inside a list: the item, or nothing
==================================================== ============================================================

Inside a list the items of a shuffle take its place one by one, and so do those of a list that is chosen. Items may have random
values of their own. Each draw has its own random stream of (seed, image key, place in the configuration),
so it depends neither on the other images nor on the other draws. Numbers have six significant digits, so that what is written
down is what was used.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pulse_framework.cli.compose import MARK, ConfigError
from pulse_framework.search import stream

__all__ = ["is_random", "resolve"]

_OTHERS = {
    "uniform": ("low", "high"),
    "log_uniform": ("low", "high"),
    "integer": ("low", "high"),
    "choice": ("items", "weights"),
    "shuffle": ("items", "ordered"),
    "maybe": ("p", "item"),
}
_OPTIONAL = {"weights", "ordered"}
"""The other keys of each kind, and those of them that may be left out."""


def is_random(value: Any) -> bool:  # noqa: ANN401
    """Whether a part of a configuration has a value that is to be drawn."""
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value)
    if isinstance(value, Mapping):
        return MARK in value or any(map(is_random, value.values()))
    return isinstance(value, list) and any(map(is_random, value))


def resolve(node: DictConfig, seed: int, key: str) -> DictConfig:
    """The node with everything drawn for one image: plain values, the same every time.

    Args:
        node: Part of a composed configuration; it is not changed.
        seed: Seed of the run; 0 is a seed.
        key: Name of the image.

    Raises:
        ConfigError: Something that is to be drawn is not described as above.
    """
    try:
        value = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    name = str(node._get_full_key(None) or "configuration")

    def draw(where: str) -> torch.Generator:
        return stream(seed, f"{key}\0{where}")

    made: DictConfig = OmegaConf.create({name: _resolved(value, name, draw)})[name]  # keeps its name, for messages
    return made


def _resolved(value: Any, where: str, draw: Callable[[str], torch.Generator]) -> Any:  # noqa: ANN401
    """A value whose random parts have been drawn."""
    if isinstance(value, list):
        made: list[Any] = []
        for i, item in enumerate(value):
            place = f"{where}[{i}]"
            kind = item.get(MARK) if isinstance(item, dict) else None
            if kind == "maybe":
                made += _maybe(item, place, draw)
            elif kind in ("shuffle", "choice"):
                drawn = _drawn(item, place, draw)
                made += drawn if isinstance(drawn, list) else [drawn]
            else:
                made.append(_resolved(item, place, draw))
        return made
    if not isinstance(value, dict):
        return value
    if MARK in value:
        return _drawn(value, where, draw)
    return {name: _resolved(item, f"{where}.{name}", draw) for name, item in value.items()}


def _drawn(spec: dict[str, Any], where: str, draw: Callable[[str], torch.Generator]) -> Any:  # noqa: ANN401
    """What one description gives."""
    _check(spec, where)
    kind, rng = spec[MARK], draw(where)
    if kind == "maybe":
        raise ConfigError(f"{where}: expected {MARK} maybe inside a list, got it elsewhere; use choice with two items")
    if kind in ("choice", "shuffle"):
        items = spec["items"]
        if kind == "choice":
            weights = torch.tensor(spec.get("weights") or [1.0] * len(items), dtype=torch.float64)
            picked = int(torch.multinomial(weights, 1, generator=rng))
            return _resolved(items[picked], f"{where}.items[{picked}]", draw)
        order = torch.randperm(len(items), generator=rng).tolist()
        kept = iter(spec.get("ordered") or [])
        order = [next(kept) if i in (spec.get("ordered") or []) else i for i in order]
        made = [_resolved([items[i]], f"{where}.items[{i}]", draw) for i in order]
        return [part for parts in made for part in parts]
    low, high = spec["low"], spec["high"]
    if kind == "integer":
        return int(torch.randint(low, high + 1, (), generator=rng))
    u = float(torch.rand((), generator=rng, dtype=torch.float64))
    number = low + u * (high - low) if kind == "uniform" else low * (high / low) ** u
    return min(max(float(f"{number:.6g}"), low), high)


def _maybe(spec: dict[str, Any], where: str, draw: Callable[[str], torch.Generator]) -> list[Any]:
    """The item, resolved, or nothing."""
    _check(spec, where)
    there = float(torch.rand((), generator=draw(where), dtype=torch.float64)) < spec["p"]
    return _resolved([spec["item"]], f"{where}.item", draw) if there else []


def _check(spec: dict[str, Any], where: str) -> None:
    """Refuse a description that is not one of those above."""
    kind = spec[MARK]
    if kind not in _OTHERS:
        raise ConfigError(f"{where}: expected {MARK} to be one of {', '.join(_OTHERS)}, got {kind!r}; correct it")
    needed, got = set(_OTHERS[kind]), set(spec) - {MARK}
    if not needed - _OPTIONAL <= got <= needed:
        keys = ", ".join(_OTHERS[kind])
        raise ConfigError(f"{where}: expected {MARK} {kind} with {keys}, got {', '.join(sorted(got)) or 'nothing'}; correct it")
    wrong = {"choice": _wrong_items, "shuffle": _wrong_items, "maybe": _wrong_p}.get(kind, _wrong_range)(spec)
    if wrong:
        raise ConfigError(f"{where}: expected {MARK} {kind} with {wrong}; correct it")


def _wrong_range(spec: dict[str, Any]) -> str:
    low, high, kind = spec["low"], spec["high"], spec[MARK]
    numbers = int if kind == "integer" else (int, float)
    if not all(isinstance(end, numbers) and not isinstance(end, bool) and math.isfinite(end) for end in (low, high)):
        return f"{'integers' if kind == 'integer' else 'numbers'} low and high, got {low!r} and {high!r}"
    if low > high:
        return f"low at most high, got {low} and {high}"
    return f"low above 0, got {low}" if kind == "log_uniform" and low <= 0 else ""


def _wrong_items(spec: dict[str, Any]) -> str:
    items, weights, ordered = spec["items"], spec.get("weights"), spec.get("ordered")
    if not isinstance(items, list) or not items:
        return f"a list of items, got {items!r}"
    if ordered is not None and not (isinstance(ordered, list) and all(type(i) is int and 0 <= i < len(items) for i in ordered)):
        return f"ordered a list of places among {len(items)} items, from 0, got {ordered!r}"
    if ordered is not None and len(set(ordered)) < len(ordered):
        return f"ordered places that differ, got {ordered!r}"
    if weights is None:
        return ""
    numbers = isinstance(weights, list) and all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights)
    if not numbers or len(weights) != len(items) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        return f"{len(items)} weights that are not negative and not all 0, got {weights!r}"
    return ""


def _wrong_p(spec: dict[str, Any]) -> str:
    p = spec["p"]
    return "" if isinstance(p, int | float) and 0 <= p <= 1 else f"a probability p, got {p!r}"
