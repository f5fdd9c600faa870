"""Inputs and outputs of a configuration that are URLs: what is worked with instead, on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from pulse_framework.runtime import Source, Store, bring_inputs, is_url

__all__ = ["Describe", "with_urls_nearby"]

Describe = Callable[[Source, dict[str, Any]], dict[str, Any]]
"""Takes an input and one of its lines, and gives the line that is written."""


def with_urls_nearby(config: DictConfig) -> tuple[DictConfig, Store | None, Describe | None]:
    """The configuration with paths in place of URLs.

    Returns:
        It; where its answers are to be sent, if that is a URL; and what adds the URL of an input to its lines, if one is.

    Raises:
        ValueError: A URL cannot be opened or read.
    """
    config, store, origins = config.copy(), None, dict[Path, str]()
    inputs = None if OmegaConf.is_missing(config.data, "inputs") else config.data.get("inputs")
    given = [str(text) for text in inputs] if isinstance(inputs, ListConfig) else [inputs] if isinstance(inputs, str) else []
    if any(map(is_url, given)):
        config.data.inputs, origins = bring_inputs(given)
    if not OmegaConf.is_missing(config, "output") and is_url(str(config.output)):
        store = Store(str(config.output))
        config.output = str(store.folder)

    def describe(source: Source, line: dict[str, Any]) -> dict[str, Any]:
        return line | ({"url": origins[source.path]} if source.path in origins else {})

    return config, store, describe if origins else None
