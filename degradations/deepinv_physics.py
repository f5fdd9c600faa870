r"""Operators of deepinv (Tachella et al., doi:10.21105/joss.08923) as degradations, and degradations as operators of deepinv.

A ``Physics`` measures :math:`y = \eta(N(A(x)))` with noise N and a sensor :math:`\eta`. ``from_deepinv`` takes its A for A and
all of it for ``measure``, one image at a time. ``to_deepinv`` makes a ``LinearPhysics`` of a linear degradation, else a
``Physics``. Only the latter needs deepinv. The former knows operators by what they have: ``A``; ``A_adjoint``, where
``LinearPhysics`` is among the bases of the class; ``noise_model``; ``rng`` of noise models (deepinv 0.5.0).

Complex measurements get a last axis of real and imaginary part; lists of tensors (stacked operators) become one vector.

deepinv cannot be imported without torchvision, so the tests of this project try both directions on stand-ins for its classes.
"""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degradations._rows import freeze, kind, one_by_one
from pulse_framework.interfaces import Degradation, LinearDegradation

__all__ = ["DeepinvDegradation", "LinearDeepinvDegradation", "from_deepinv", "to_deepinv"]


class DeepinvDegradation(Degradation):
    """An operator of deepinv; ``measure`` is a call of it.

    Args:
        physics: A ``Physics``, with parameters for one image or for any. It is put in evaluation mode and frozen, in place.
        gap: Largest root mean square difference between A and ``measure``. None knows it for Gaussian noise of one sigma (and a
            quarter more) and for none, and takes sensors for exact.
        complex_images: Whether it is given images of complex numbers, as operators for phase retrieval want them.

    Raises:
        TypeError: It is no such operator.
        ValueError: The gap is negative, or None for another noise.
    """

    def __init__(self, physics: nn.Module, gap: float | None = None, complex_images: bool = False) -> None:
        super().__init__()
        if not isinstance(physics, nn.Module) or not callable(getattr(physics, "A", None)):
            raise TypeError(f"{self._name}: expected a Physics of deepinv, got {type(physics).__name__}; build it first")
        self.physics: Any = physics
        self.parts, self.complex_images = nn.ModuleList(_parts(physics)), complex_images
        freeze(self)
        self.gap = _gap(physics) if gap is None else gap
        if not 0 <= self.gap < math.inf:
            raise ValueError(f"{self._name} gap: expected a finite number of at least 0, got {gap}; give it in units of A(x)")

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """What A makes of a black image.

        Raises:
            ValueError: It cannot take such an image.
        """
        return tuple(_pack(self._black(image_shape)).shape[1:])

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """A of every image, in the dtype of x."""
        return one_by_one(lambda image: self._one(self.physics.A(self._image(image))).to(x.dtype), x)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N *measurement"]:
        """Calls of the operator, one for every image.

        The random streams of its noise, and the global one, start at a number of ``rng`` for each call, and are put back.
        """

        def call(image: Tensor) -> Tensor:
            with self._streams(rng, x.device):
                return self._one(self.physics(self._image(image))).to(x.dtype)

        return one_by_one(call, x)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _black(self, image_shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - a tensor or a list of them
        try:
            with torch.no_grad():
                y = self.physics.A(self._image(kind(self).new_zeros(1, *image_shape)))
                self._one(y)
        except Exception as error:  # somebody else's operator may fail in every way there is
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ValueError(
                f"{self._name}: expected an operator that takes images of shape {(1, *image_shape)} to one measurement each, got"
                f" {why}; give {type(self.physics).__name__} the parameters for this image"
            ) from error
        return y

    def _image(self, x: Tensor) -> Tensor:
        return torch.complex(x, torch.zeros_like(x)) if self.complex_images else x

    def _one(self, y: Any) -> Tensor:  # noqa: ANN401 - a tensor or a list of them
        packed = _pack(y)
        if len(packed) != 1:
            raise ValueError(
                f"{self._name}: expected one measurement of one image, got {len(packed)}; give"
                f" {type(self.physics).__name__} the parameters of one image, not of a batch"
            )
        return packed

    @contextmanager
    def _streams(self, rng: torch.Generator, device: torch.device) -> Iterator[None]:
        seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
        noises = [module for module in self.modules() if isinstance(getattr(module, "rng", None), torch.Generator)]
        before = [noise.rng for noise in noises]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.random.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.default_generators[device.index].manual_seed(seed)
            try:
                for number, noise in enumerate(noises):
                    noise.rng = torch.Generator(device).manual_seed(seed + 1 + number)  # type: ignore[assignment]
                yield
            finally:
                for noise, stream in zip(noises, before, strict=True):
                    noise.rng = stream


class LinearDeepinvDegradation(DeepinvDegradation, LinearDegradation):
    """A linear operator of deepinv, with its adjoint.

    Args:
        physics: A ``LinearPhysics``, as for ``DeepinvDegradation``.
        gap: As for ``DeepinvDegradation``.
        complex_images: As for ``DeepinvDegradation``.

    Raises:
        TypeError: It is no such operator.
        ValueError: The gap is negative, or None for another noise.
    """

    def __init__(self, physics: nn.Module, gap: float | None = None, complex_images: bool = False) -> None:
        super().__init__(physics, gap, complex_images)
        if not callable(getattr(physics, "A_adjoint", None)):
            raise TypeError(
                f"{self._name}: expected A_adjoint, got {type(physics).__name__}, which has none; use DeepinvDegradation"
            )

    def adjoint(self, y: Float[Tensor, "N *measurement"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A; of a complex image it is the real part.

        Raises:
            ValueError: ``y`` is not of the measurement shape of such images, or the operator's adjoint gives others.
        """
        like = self._black(image_shape)
        expected = tuple(_pack(like).shape[1:])
        if tuple(y.shape[1:]) != expected:
            raise ValueError(
                f"{self._name} adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape"
            )

        def back(row: Tensor) -> Tensor:
            x = self.physics.A_adjoint(_unpack(row, like))
            if tuple(x.shape) != (1, *image_shape):
                raise ValueError(
                    f"{self._name} adjoint: expected images of shape {(1, *image_shape)}, got {tuple(x.shape)}; give"
                    f" {type(self.physics).__name__} this img_size"
                )
            return (x.real if x.is_complex() else x).to(y.dtype)

        return one_by_one(back, y)


def from_deepinv(physics: nn.Module, gap: float | None = None, complex_images: bool = False) -> DeepinvDegradation:
    """An operator of deepinv as a degradation, a linear one if ``LinearPhysics`` is among the bases of its class.

    Args:
        physics: A ``Physics``. It is put in evaluation mode and frozen, in place.
        gap: Largest root mean square difference between A and ``measure``; None knows it for Gaussian noise and for none.
        complex_images: Whether it is given images of complex numbers.

    Raises:
        TypeError: It is no such operator.
        ValueError: The gap is negative, or None for another noise.
    """
    linear = any(base.__name__ == "LinearPhysics" for base in type(physics).__mro__)
    return (LinearDeepinvDegradation if linear else DeepinvDegradation)(physics, gap, complex_images)


def to_deepinv(degradation: Degradation, image_shape: tuple[int, int, int], rng: torch.Generator | None = None) -> nn.Module:
    """A degradation as an operator of deepinv, for images of one shape.

    Args:
        degradation: Any; it is not copied.
        image_shape: (C, H, W).
        rng: If given, a call of the operator is ``measure`` with it. If None, a call is A and then deepinv's noise, which is none
            until its ``noise_model`` is set.

    Raises:
        ImportError: deepinv is not installed.
        ValueError: The degradation cannot take such images.
    """
    try:
        module: Any = importlib.import_module("deepinv.physics")
    except ImportError as error:
        raise ImportError(
            f"to_deepinv: expected the package deepinv, got {error}; install it with `pip install pulse-latent[deepinv]`"
        ) from error
    degradation.measurement_shape(image_shape)
    linear = isinstance(degradation, LinearDegradation)
    base = module.LinearPhysics if linear else module.Physics
    if rng is not None:
        base = type(f"Measuring{base.__name__}", (base,), {"forward": _measured})
    if isinstance(degradation, LinearDegradation):
        adjoint = partial(degradation.adjoint, image_shape=image_shape)
        physics = base(A=degradation, A_adjoint=adjoint, img_size=image_shape, device=kind(degradation).device)
    else:
        physics = base(A=degradation)
    physics.degradation, physics.stream = degradation, rng
    return physics


def _measured(self: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - an operator of deepinv
    return self.degradation.measure(x, self.stream)


def _parts(physics: nn.Module) -> list[nn.Module]:
    """Parts of a stacked operator, which keeps them in a plain list, where PyTorch does not find them."""
    parts = getattr(physics, "physics_list", None)
    return list(parts) if isinstance(parts, list) else []


def _gap(physics: nn.Module) -> float:
    """Of noise whose size can be read off; of a stacked operator the largest of its parts."""
    if parts := _parts(physics):
        return max(_gap(part) for part in parts)
    noise: Any = getattr(physics, "noise_model", None)
    name = type(noise).__name__
    if noise is None or name == "ZeroNoise":
        return 0.0
    if name == "GaussianNoise":
        return 1.25 * float(torch.as_tensor(noise.sigma).max())
    raise ValueError(f"{type(physics).__name__} gap: expected a number, got none for the noise {name}; say how large it is")


def _pack(y: Any) -> Tensor:  # noqa: ANN401 - a tensor or a list of them
    """A measurement as one real tensor."""
    if isinstance(y, Tensor):
        return torch.view_as_real(y) if y.is_complex() else y
    return torch.cat([_pack(part).flatten(1) for part in y], 1)


def _unpack(packed: Tensor, like: Any) -> Any:  # noqa: ANN401 - a tensor or a list of them
    """The reverse, of the form of ``like``."""
    if isinstance(like, Tensor):
        y = packed.reshape(_pack(like).shape)
        return torch.view_as_complex(y) if like.is_complex() else y
    sizes = [_pack(part).numel() for part in like]
    return type(like)([_unpack(part, one) for part, one in zip(packed.split(sizes, 1), like, strict=True)])
