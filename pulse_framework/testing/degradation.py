"""The laws of a degradation. A plug-in's test subclasses one of the two suites and supplies ``make``."""

from abc import abstractmethod

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, LinearDegradation
from pulse_framework.testing.checks import close, equal, left_alone, rng, uniform
from pulse_framework.testing.unknowns import UnknownsContract

__all__ = ["DegradationContract", "LinearDegradationContract"]


class DegradationContract(UnknownsContract):
    """Laws of ``Degradation``, those of its unknown parameters included.

    Attributes:
        image_shapes: (C, H, W) of images it takes; the laws are tried on each.
        keeps_constants: Whether a constant image gives the same constant (blurs and down-scalers).
        tolerance: Relative difference allowed between float32 and float64 measurements.
        device: A second device; ``meta`` finds tensors made on the wrong one without any hardware.
    """

    image_shapes: tuple[tuple[int, int, int], ...] = ((3, 16, 16),)
    keeps_constants: bool = False
    tolerance: float = 1e-5
    device: str = "meta"

    @abstractmethod
    def make(self) -> Degradation:
        """A small instance on the CPU, the same at every call."""

    def oracle(self, x: Tensor) -> Tensor | None:
        """A(x) in closed form, where one exists; float64."""
        return None

    def images(self, shape: tuple[int, int, int], count: int = 3) -> Tensor:
        """Float64 images whose A(x) stays inside [0, 1]: mild contrast around mid-grey."""
        return 0.4 + 0.2 * uniform((count, *shape))

    def test_declared_shapes_are_true(self) -> None:
        """A(x) and ``measure`` have ``measurement_shape`` and the dtype of x."""
        degradation = self.make()
        for shape in self.image_shapes:
            x = self.images(shape).float()
            expected = (len(x), *degradation.measurement_shape(shape))
            for what, y in (("A(x)", degradation(x)), ("measure", degradation.measure(x, rng()))):
                assert tuple(y.shape) == expected, f"{what} of {shape}: expected shape {expected}, got {tuple(y.shape)}"
                assert y.dtype == x.dtype, f"{what} of {shape}: expected {x.dtype}, got {y.dtype}"

    def test_row_is_the_same_alone_or_in_a_batch(self) -> None:
        """Row i of A(x) depends on row i alone."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            x = self.images(shape)
            together = degradation(x)
            for row in range(len(x)):
                close(degradation(x[row : row + 1])[0], together[row], f"row {row} alone")

    def test_same_image_gives_the_same_measurement(self) -> None:
        """A is deterministic, bit for bit."""
        degradation = self.make()
        for shape in self.image_shapes:
            x = self.images(shape).float()
            equal(degradation(x), degradation(x), "second A(x)")

    def test_same_rng_gives_the_same_measure(self) -> None:
        """All randomness of ``measure`` is in its argument."""
        degradation = self.make()
        for shape in self.image_shapes:
            x = self.images(shape).float()
            equal(degradation.measure(x, rng(1)), degradation.measure(x, rng(1)), "second measurement of one stream")

    def test_nothing_is_altered(self) -> None:
        """Neither x nor the operator nor the global random stream, by A, ``measure`` or a backward pass."""
        degradation = self.make()
        for shape in self.image_shapes:
            x = self.images(shape).float()
            with left_alone(degradation, x):
                leaf = x.clone().requires_grad_()
                torch.autograd.grad(degradation(leaf).sum(), leaf)
                degradation(x)
                degradation.measure(x, rng())

    def test_gradient_is_true(self) -> None:
        """Against finite differences, in float64."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            x = self.images(shape, 1).requires_grad_()
            assert torch.autograd.gradcheck(degradation, (x,), fast_mode=True)

    def test_stays_within_the_declared_gap(self) -> None:
        """Root mean square of A(x) - measure(x), for every image."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            x = self.images(shape)
            error = (degradation(x) - degradation.measure(x, rng())).flatten(1).square().mean(1).sqrt()
            assert bool((error <= degradation.gap * (1 + 1e-6) + 1e-7).all()), (
                f"measure of {shape}: expected a root mean square gap of at most {degradation.gap}, got {float(error.max())}"
            )

    def test_constants_stay_constant(self) -> None:
        """Where ``keeps_constants`` says so."""
        degradation = self.make().double()
        for shape in self.image_shapes if self.keeps_constants else ():
            for value in (0.0, 0.3, 1.0):
                y = degradation(torch.full((1, *shape), value, dtype=torch.float64))
                close(y, torch.full_like(y, value), f"A of the constant {value}")

    def test_survives_float64(self) -> None:
        """Doubles in, doubles out, and the same numbers."""
        for shape in self.image_shapes:
            x = self.images(shape)
            y = self.make().double()(x)
            assert y.dtype == torch.float64, f"expected a float64 measurement, got {y.dtype}"
            close(self.make()(x.float()), y, "float32 measurement", self.tolerance)

    def test_survives_another_device(self) -> None:
        """Moved with ``to``, it takes and gives tensors there, and makes none anywhere else."""
        for shape in self.image_shapes:
            y = self.make().to(self.device)(self.images(shape).float().to(self.device))
            assert y.device.type == self.device, f"expected a measurement on {self.device}, got {y.device}"

    def test_agrees_with_the_oracle(self) -> None:
        """Where a closed form is given."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            expected = self.oracle(self.images(shape))
            if expected is not None:
                close(degradation(self.images(shape)), expected, f"A of {shape}")


class LinearDegradationContract(DegradationContract):
    """Laws of ``LinearDegradation``, on top of those of any degradation."""

    @abstractmethod
    def make(self) -> LinearDegradation:
        """A small instance on the CPU, the same at every call."""

    def test_linear(self) -> None:
        """A(2x - 3v) = 2A(x) - 3A(v)."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            x, v = uniform((2, *shape), 1), uniform((2, *shape), 2)
            close(degradation(2 * x - 3 * v), 2 * degradation(x) - 3 * degradation(v), "A of a sum")

    def test_adjoint_by_dot_product(self) -> None:
        """The inner product of A(x) and y is that of x and the adjoint of y; the error is relative."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            for seed in range(3):
                x = uniform((1, *shape), seed) - 0.5
                image = degradation(x)
                y = uniform(tuple(image.shape), seed + 10) - 0.5
                back = degradation.adjoint(y, shape)
                assert back.shape == x.shape, f"adjoint: expected shape {tuple(x.shape)}, got {tuple(back.shape)}"
                error = float(((image * y).sum() - (x * back).sum()).abs() / (image.norm() * y.norm()))
                assert error <= 1e-12, f"adjoint of {shape}: expected a relative error of at most 1e-12, got {error:.1e}"

    def test_adjoint_takes_rows_apart(self) -> None:
        """Row i of the adjoint depends on row i alone."""
        degradation = self.make().double()
        for shape in self.image_shapes:
            y = uniform((3, *degradation.measurement_shape(shape)))
            together = degradation.adjoint(y, shape)
            for row in range(3):
                close(degradation.adjoint(y[row : row + 1], shape)[0], together[row], f"row {row} of the adjoint alone")
