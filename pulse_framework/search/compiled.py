"""The generator compiled: the part of a step that costs time, as one graph forwards and one backwards (``torch.compile``).

A compiler fuses what the eager path does in passes over memory, at the price of some tens of seconds for every batch width and
every choice of blocks. Sums are in another order, so images differ from the eager ones in the last digits; a search says with
its settings which of the two it ran. The operator and the terms are matrix products and sums, and stay as they are.
"""

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pulse_framework.interfaces import Generator
from pulse_framework.latents import Latents, check_latents

__all__ = ["Compile", "compiler_fault", "synthesis"]

Compile = bool | Literal["auto"]

_LOG = logging.getLogger(__name__)
_GRAPHS = 64  # batch widths times choices of blocks of one search, at most


def compiler_fault(device: str | torch.device = "cpu") -> str:
    """Why nothing can be compiled for a device, found by compiling a line; empty if it can."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        return " ".join(str(error).split())[:200]
    return ""


def synthesis(generator: Generator, compile: Compile, device: torch.device) -> Callable[[Latents], Tensor]:  # noqa: A002
    """The generator as a search calls it.

    Args:
        generator: G.
        compile: Whether it is compiled; ``"auto"``: if this machine can, and else a warning is logged.
        device: Where the search runs.

    Raises:
        ValueError: It is to be compiled, and this machine cannot.
    """
    if not compile:
        return generator
    if fault := compiler_fault(device):
        if compile != "auto":
            raise ValueError(
                f"search compile: expected a compiler for {device.type}, got none ({fault}); install g++ (and Triton for CUDA) or"
                " set search.compile=auto or false"
            )
        _LOG.warning("search compile: no compiler for %s (%s); the search runs uncompiled", device.type, fault)
        return generator
    traced = torch.compile(generator.synthesize, fullgraph=True, dynamic=False)

    def compiled(latents: Latents) -> Tensor:
        check_latents(generator.blocks, latents)
        with torch._dynamo.config.patch(recompile_limit=_GRAPHS, accumulated_recompile_limit=4 * _GRAPHS):
            image: Tensor = traced(dict(latents))
        return image

    return compiled
