r"""Several degradations one after the other, :math:`A = A_n \circ \dots \circ A_1`, in the order given.

The adjoint of linear parts is :math:`A^\top = A_1^\top \circ \dots \circ A_n^\top`. A mask is carried along: a pixel of the
measurement counts as observed if all that it lies on was observed after every part.
"""

from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from degradations.resize import Fit
from pulse_framework.interfaces import Degradation, LinearDegradation
from pulse_framework.latents import Latents

__all__ = ["Compose", "LinearCompose", "compose"]


class Compose(Degradation):
    """Apply the parts in turn; all but the last must give images, (C, H, W). A ``Fit`` takes its size from the first image.

    Args:
        parts: The first is applied first.
        gap: The root mean square gap of the whole, in image units. By default it is the sum of the parts' gaps. The sum is
            a bound if no part after the first enlarges root mean square differences (masks and blurs do not; downscalers
            average rounding errors) and if every intermediate image, too, stays inside [0, 1]. Give a number where that fails.

    Raises:
        TypeError: A part is not a degradation.
        ValueError: There are no parts, or unknown parameters of two have the same name.
    """

    def __init__(self, parts: Iterable[Degradation], gap: float | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_checked(parts))
        chain = cast("list[Degradation]", list(self.parts))
        self.gap = sum(part.gap for part in chain) if gap is None else gap
        self.surrogate = any(part.surrogate for part in chain)
        self.blocks = tuple(block for part in chain for block in part.blocks)
        names = [block.name for block in self.blocks]
        if len(set(names)) < len(names):
            raise ValueError(f"compose: expected unknown parameters of different names, got {names}; give the parts a name")

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Shape after the last part.

        Raises:
            ValueError: A part cannot take what the one before it gives.
        """
        return self._shapes(image_shape)[-1]

    def mask(self, image_shape: tuple[int, int, int]) -> Float[Tensor, "1 h w"] | None:
        """Product of the masks of the parts, each carried through the parts after it; None if no part has one.

        Where a part changes the size, a pixel is observed if every pixel of the area that it covers was. Parts that keep the size
        keep the mask, although blur and JPEG let what is hidden, black, bleed across its edge: so does their A.

        Raises:
            ValueError: A part cannot take what the one before it gives.
        """
        shapes, known = self._shapes(image_shape), None
        for part, (channels, height, width), after in zip(self._chain(image_shape), shapes, shapes[1:], strict=False):
            own = part.mask((channels, height, width))
            if known is not None:
                own = known if own is None else own * known
            known = _carried(own, after)
        return known

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """A of every part in turn."""
        for part in self._chain((x.shape[1], x.shape[2], x.shape[3])):
            x = part(x)
        return x

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N *measurement"]:
        """``measure`` of every part in turn, all of them drawing from the same ``rng``."""
        for part in self._chain((x.shape[1], x.shape[2], x.shape[3])):
            x = part.measure(x, rng)
        return x

    def given(self, latents: Latents) -> Degradation:
        """The chain of the parts with their unknown parameters given."""
        if not self.blocks:
            return self
        parts = cast("list[Degradation]", list(self.parts))
        return compose([part.given({block.name: latents[block.name] for block in part.blocks}) for part in parts], self.gap)

    def unknowns(self, latents: Latents) -> dict[str, Float[Tensor, "N *value"]]:
        """Those of all parts."""
        found = [part.unknowns(latents) for part in cast("list[Degradation]", list(self.parts))]
        return {name: value for part in found for name, value in part.items()}

    def errors(self, latents: Latents) -> dict[str, Float[Tensor, " N"]]:
        """Those of all parts."""
        found = [part.errors(latents) for part in cast("list[Degradation]", list(self.parts))]
        return {name: value for part in found for name, value in part.items()}

    def _chain(self, image_shape: tuple[int, int, int]) -> list[Degradation]:
        """The parts as they act on images of this shape."""
        chain = cast("list[Degradation]", list(self.parts))
        return [part.of(image_shape) if isinstance(part, Fit) else part for part in chain]

    def _shapes(self, image_shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
        """Shapes without N before the first part, between the parts and after the last."""
        shapes: list[tuple[int, ...]] = [tuple(image_shape)]
        for i, part in enumerate(self._chain(image_shape)):
            if len(shapes[-1]) != 3:
                raise ValueError(
                    f"compose: expected part {i} ({type(part).__name__}) to be given images (C, H, W), got {shapes[-1]}"
                    f" from part {i - 1}; put the part that does not give images last"
                )
            channels, height, width = shapes[-1]
            shapes.append(part.measurement_shape((channels, height, width)))
        return shapes


class LinearCompose(Compose, LinearDegradation):
    """The same for linear parts, with the adjoint.

    Args:
        parts: The first is applied first.
        gap: As for ``Compose``.

    Raises:
        TypeError: A part is not a linear degradation.
        ValueError: There are no parts.
    """

    def __init__(self, parts: Iterable[LinearDegradation], gap: float | None = None) -> None:
        chain = _checked(parts)
        for i, part in enumerate(chain):
            if not isinstance(part, LinearDegradation):
                raise TypeError(f"LinearCompose: expected part {i} to be linear, got {type(part).__name__}; use Compose")
        super().__init__(chain, gap)

    def adjoint(self, y: Float[Tensor, "N *measurement"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Adjoints of the parts, last part first.

        Raises:
            ValueError: The parts do not fit such images.
        """
        shapes = self._shapes(image_shape)[:-1]
        for part, (channels, height, width) in zip(reversed(self._chain(image_shape)), reversed(shapes), strict=True):
            assert isinstance(part, LinearDegradation)
            y = part.adjoint(y, (channels, height, width))
        return y


def compose(parts: Iterable[Degradation], gap: float | None = None) -> Compose:
    """Chain degradations: a ``LinearCompose`` when all parts are linear, else a ``Compose``.

    Args:
        parts: The first is applied first.
        gap: As for ``Compose``.

    Raises:
        TypeError: A part is not a degradation.
        ValueError: There are no parts.
    """
    chain = _checked(parts)
    linear = [part for part in chain if isinstance(part, LinearDegradation)]
    return LinearCompose(linear, gap) if len(linear) == len(chain) else Compose(chain, gap)


def _carried(known: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """A mask of the measurement of a part, where it has one; of other measurements all of the numbers count."""
    if known is None or len(shape) != 3:
        return None
    return known if known.shape[1:] == shape[1:] else (functional.adaptive_avg_pool2d(known, shape[1:]) == 1).to(known)


def _checked(parts: Iterable[Degradation]) -> list[Degradation]:
    chain = list(parts)
    if not chain:
        raise ValueError("compose: expected at least one part, got none; use degradations.identity.Identity for no degradation")
    for i, part in enumerate(chain):
        if not isinstance(part, Degradation):
            raise TypeError(f"compose: expected part {i} to be a Degradation, got {type(part).__name__}; build it first")
    return chain
