r"""Any generator whose weights may move, too, each image having its own (PTI).

.. math:: x = G_{\theta + \delta}(z)

with :math:`\theta` the weights of the generator, which stay, and :math:`\delta` a latent block (Roich et al., "Pivotal Tuning for
Latent-based Editing of Real Images", ACM TOG 42, 2022, arXiv:2106.05744, section 3.2).

Weights: those of the generator. Latent blocks: the generator's own; and, optional, ``weights`` (P,), the change of all tensors
that move, one after the other in the order of the names. It has no distribution: begin at the zero that a ``lift`` gives. One row
is one generator, so rows are computed one after the other, and an answer has as many numbers as the network.
"""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal

__all__ = ["Tuned"]

WEIGHTS = "weights"


class Tuned(Generator):
    """A generator, frozen, with a change of its weights as a block.

    Args:
        generator: G.
        tensors: Names of the tensors that may change, as in its ``state_dict``, or patterns of them.

    Raises:
        ValueError: A pattern is that of no tensor of floats, or the generator has a block ``weights``.
    """

    def __init__(self, generator: Generator, tensors: Sequence[str] = ("*",)) -> None:
        super().__init__()
        known = {name: value.shape for name, value in generator.state_dict().items() if value.is_floating_point()}
        if idle := [pattern for pattern in tensors if not fnmatch.filter(known, pattern)]:
            raise ValueError(f"Tuned tensors: expected patterns of names such as {next(iter(known), 'none')}, got {idle}")
        if any(block.name == WEIGHTS for block in generator.blocks):
            raise ValueError(f"Tuned generator: expected one without a block {WEIGHTS!r}, got one that has it")
        self.inner = _Named(generator)
        self.shapes = {
            name: shape for name, shape in sorted(known.items()) if any(fnmatch.fnmatchcase(name, pattern) for pattern in tensors)
        }
        self.blocks = (
            *generator.blocks,
            LatentBlock(WEIGHTS, (sum(map(math.prod, self.shapes.values())),), _NEAR, optional=True),
        )
        self.image_shape, self.ladder = generator.image_shape, generator.ladder
        self.eval()

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of a full input under the weights of each row."""
        return self._each("forward", latents)

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """No change of weights where there is none; everything else as the generator with the weights of each row has it."""
        if name == WEIGHTS and name not in latents:
            like = next(iter(latents.values()))
            return like.new_zeros(len(like), self.blocks[-1].size)
        return latents[name] if name in latents else self._each("lift", latents, name)

    def _each(self, method: str, latents: Latents, *arguments: str) -> Tensor:
        rest = {name: value for name, value in latents.items() if name != WEIGHTS}
        if WEIGHTS not in latents:
            return self.inner(method, rest, *arguments)
        own = dict(self.inner.generator.state_dict(keep_vars=True))
        rows = []
        for row, change in enumerate(latents[WEIGHTS]):
            parts = change.split([math.prod(shape) for shape in self.shapes.values()])
            moved = {
                f"generator.{name}": own[name] + part.reshape(shape).to(own[name].dtype)
                for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
            }
            one = {name: value[row : row + 1] for name, value in rest.items()}
            rows.append(torch.func.functional_call(self.inner, moved, (method, one, *arguments)))
        return torch.cat(rows)


_NEAR = Normal(0.0, 1e-3)


class _Named(nn.Module):
    """A method of a generator by its name, as a module that weights can be put into for one call."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, method: str, *arguments: Any) -> Tensor:  # noqa: ANN401
        """What the method gives."""
        found: Tensor = getattr(self.generator, method)(*arguments)
        return found
