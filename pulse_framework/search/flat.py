"""All blocks that move as one vector for each row, for optimisers that need inner products of whole latents."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pulse_framework.latents import Latents
from pulse_framework.manifolds import Manifold

__all__ = ["flatten", "part", "tangent", "wide"]


def flatten(latents: Latents) -> Float[Tensor, "N D"]:
    """All blocks side by side."""
    return torch.cat([value.flatten(1) for value in latents.values()], 1)


def part(flat: Float[Tensor, "*lead D"], like: Latents) -> Latents:
    """The blocks of vectors as ``flatten`` makes them; ``like`` gives names, shapes and order."""
    parts = flat.split([value[0].numel() for value in like.values()], -1)
    return {name: value.reshape(*flat.shape[:-1], *like[name].shape[1:]) for name, value in zip(like, parts, strict=True)}


def tangent(manifolds: Mapping[str, Manifold], at: Latents, flat: Float[Tensor, "N *m D"]) -> Float[Tensor, "N *m D"]:
    """Every vector projected onto the tangent space at its row's point; vectors may be several for each row."""
    found = []
    for name, vectors in part(flat, at).items():
        x = at[name]
        if flat.ndim == 3:
            x = x[:, None].expand(-1, flat.shape[1], *[-1] * (x.ndim - 1))
        found.append(manifolds[name].tangent(x, vectors).flatten(flat.ndim - 1))
    return torch.cat(found, -1)


def wide(rows: Shaped[Tensor, " N"], like: Tensor) -> Tensor:
    """One number for each row, with as many axes as ``like``."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))
