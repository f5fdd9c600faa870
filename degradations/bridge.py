r"""Any differentiable function of images as a degradation: a callable or a module, your own or of a library such as kornia.

A(x) is what the function gives, for one image at a time, whatever its kernels do in a batch. Of a linear one the adjoint is a
vector-Jacobian product, :math:`A^\top y = \partial \langle f(x), y \rangle / \partial x`, at x = 0. In a configuration:

.. code-block:: yaml

    _target_: degradations.bridge.wrap
    function: {_target_: kornia.filters.BoxBlur, kernel_size: 5}
    linear: true

with ``--allow kornia`` on the command line; a function, rather than a class, takes ``_partial_: true`` besides. Lists of a
configuration are lists; what insists on a tuple is given ``{_target_: degradations.bridge.as_tuple, values: [1.5, 1.5]}``.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degradations._rows import freeze, kind, one_by_one
from pulse_framework.interfaces import Degradation, LinearDegradation

__all__ = ["CallableDegradation", "LinearCallable", "as_tuple", "wrap"]


class CallableDegradation(Degradation):
    """A function as A.

    Args:
        function: Takes one image (1, C, H, W) to its measurement (1, ...), both of floats; deterministic, differentiable,
            without a memory. A module is put in evaluation mode and frozen, in place. The shape of the measurement is found by a
            run on a black image, on the device of the module's numbers; on the CPU for what is no module.
        bits: Of the file a picture is saved in: ``measure`` clamps to [0, 1] and rounds. None does neither.
        process: What really happens, if it is not A: an image (1, C, H, W) and an ``rng`` to a measurement (1, ...), before it is
            rounded to ``bits``.
        gap: Largest root mean square difference between A and ``measure``; None is that of rounding, which is all without a
            ``process``.

    Raises:
        TypeError: The function or the process cannot be called.
        ValueError: There is a process and no gap, the gap is negative, or bits are not from 1 to 16.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        bits: int | None = None,
        process: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        gap: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("function", function), ("process", process)):
            if value is not None and not callable(value):
                raise TypeError(
                    f"{self._name} {name}: expected something to call, got {type(value).__name__}; in a configuration, a function"
                    " needs _partial_: true"
                )
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16):
            raise ValueError(f"{self._name} bits: expected an integer from 1 to 16, or None for no rounding, got {bits!r}")
        if gap is None and process is not None:
            raise ValueError(f"{self._name} gap: expected a number, got none; say how far the process is from the function")
        if gap is not None and not 0 <= gap < math.inf:
            raise ValueError(f"{self._name} gap: expected a finite number of at least 0, got {gap}; give it in units of A(x)")
        self.function, self.process, self.bits = function, process, bits
        rounding = 0.5 / (2**bits - 1) if bits else 0.0
        self.gap = rounding if gap is None else gap
        for module in (function, process):
            if isinstance(module, nn.Module):
                freeze(module)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """What the function makes of a black image.

        Raises:
            ValueError: It cannot take such an image, or gives no measurement of floats with a leading axis of 1.
        """
        try:
            with torch.no_grad():
                y = self._one(kind(self).new_zeros(1, *image_shape))
        except Exception as error:  # somebody else's function may fail in every way there is
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ValueError(
                f"{self._name}: expected a function that takes images of shape {(1, *image_shape)} to measurements (1, ...) of"
                f" floats, got {why}; correct the function or resize the image"
            ) from error
        return tuple(y.shape[1:])

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """The function of every image.

        Raises:
            ValueError: It gives no measurement of floats with a leading axis of 1.
        """
        return one_by_one(self._one, x)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N *measurement"]:
        """The process of every image, in turn, or else A(x); clamped and rounded to ``bits``, if so many are given."""
        process = self.process
        y = self(x) if process is None else one_by_one(lambda image: self._checked(process(image, rng)), x)
        levels = 2**self.bits - 1 if self.bits else 0
        return (y.clamp(0, 1) * levels).round() / levels if levels else y

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _one(self, image: Tensor) -> Tensor:
        return self._checked(self.function(image))

    def _checked(self, y: Any) -> Tensor:  # noqa: ANN401 - whatever somebody else's function gives
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim == 0 or len(y) != 1 or not y.numel():
            got = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{self._name}: expected a tensor of floats of shape (1, ...) for one image, got {got}; correct it")
        return y


class LinearCallable(CallableDegradation, LinearDegradation):
    """A linear function as A, with its adjoint. That it is linear is tried once for every image shape, at its first use.

    Args:
        function: As for ``CallableDegradation``; linear, so :math:`f(0) = 0`, for all numbers: it must not clamp.
        bits: As for ``CallableDegradation``.
        process: As for ``CallableDegradation``.
        gap: As for ``CallableDegradation``.

    Raises:
        TypeError: The function or the process cannot be called.
        ValueError: There is a process and no gap, the gap is negative, or bits are not from 1 to 16.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        bits: int | None = None,
        process: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        gap: float | None = None,
    ) -> None:
        super().__init__(function, bits, process, gap)
        self._tried: set[tuple[int, ...]] = set()  # a memory that no result depends on

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """What the function makes of a black image.

        Raises:
            ValueError: It cannot take such an image, gives no measurement of floats with a leading axis of 1, or is not linear.
        """
        shape = super().measurement_shape(image_shape)
        self._try_linear(tuple(image_shape))
        return shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """The function of every image.

        Raises:
            ValueError: It gives no measurement of floats with a leading axis of 1, or is not linear.
        """
        self._try_linear(tuple(x.shape[1:]))
        return super().forward(x)

    def adjoint(self, y: Float[Tensor, "N *measurement"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A; differentiable in y.

        Raises:
            ValueError: ``y`` is not of the measurement shape of such images, or the function is not linear.
        """
        expected = self.measurement_shape(image_shape)
        if tuple(y.shape[1:]) != expected:
            raise ValueError(
                f"{self._name} adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape"
            )
        further = y.requires_grad and torch.is_grad_enabled()

        def pull(row: Tensor) -> Tensor:
            zero = row.new_zeros(1, *image_shape).requires_grad_()
            (x,) = torch.autograd.grad(self._one(zero), zero, row, create_graph=further, materialize_grads=True)
            return x

        with torch.inference_mode(False), torch.enable_grad():
            x = one_by_one(pull, y.clone())  # a copy, since what inference made has no derivatives
        return x if further else x.detach()

    def _try_linear(self, image_shape: tuple[int, ...]) -> None:
        like = kind(self)
        if image_shape in self._tried or like.device.type == "meta":
            return
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            a, b = (torch.randn(1, *image_shape, generator=rng).to(like) for _ in range(2))
            fa, fb, mixed, origin = (self._one(x) for x in (a, b, 2 * a - 3 * b, 0 * a))
        allowed = math.sqrt(torch.finfo(fa.dtype).eps) * max(float(fa.abs().max()), float(fb.abs().max()))
        for what, off in (("f(2a - 3b) to be 2f(a) - 3f(b)", mixed - (2 * fa - 3 * fb)), ("f(0) to be 0", origin)):
            if not off.abs().max() <= allowed:
                raise ValueError(
                    f"{self._name}: expected {what} within {allowed:.1e}, got {float(off.abs().max()):.1e}; a function that is"
                    " not linear for all numbers needs linear to be false"
                )
        self._tried.add(image_shape)


def wrap(
    function: Callable[[Tensor], Tensor],
    linear: bool = False,
    bits: int | None = None,
    process: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    gap: float | None = None,
) -> CallableDegradation:
    """A function as a degradation: ``LinearCallable`` if it is said to be linear, else ``CallableDegradation``.

    Args:
        function: Takes one image (1, C, H, W) to its measurement (1, ...).
        linear: Whether it is linear; that is tried.
        bits: Of the file a picture is saved in.
        process: What really happens, if it is not A.
        gap: Largest root mean square difference between A and ``measure``.

    Raises:
        TypeError: The function or the process cannot be called.
        ValueError: There is a process and no gap, the gap is negative, or bits are not from 1 to 16.
    """
    return (LinearCallable if linear else CallableDegradation)(function, bits, process, gap)


def as_tuple(values: Iterable[Any]) -> tuple[Any, ...]:
    """A tuple, of which configurations have none."""
    return tuple(values)
