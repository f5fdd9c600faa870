"""Toy worlds with known answers: generators and an operator small enough to solve by hand."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_framework.interfaces import Degradation, Generator, LinearDegradation
from pulse_framework.latents import UNKNOWN, LatentBlock, Latents, Normal, OneHot, PushForward
from pulse_framework.testing.checks import rng, uniform

__all__ = ["ConvToy", "GainToy", "LabelToy", "LinearToy", "LinearWorld", "PoolToy", "StyleToy"]


def _normal(*shape: int, seed: int, std: float = 1.0) -> nn.Parameter:
    return nn.Parameter(std * torch.randn(shape, generator=rng(seed), dtype=torch.float64).float())


class LinearToy(Generator):
    """An affine decoder, x = W z + b.

    Args:
        weight: W of shape (C, H, W, d); by default random.
        bias: b of shape (C, H, W); by default mid-grey.
    """

    def __init__(self, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = _normal(1, 4, 4, 3, seed=0, std=0.1) if weight is None else nn.Parameter(weight)
        self.bias = nn.Parameter(torch.full(self.weight.shape[:3], 0.5) if bias is None else bias)
        channels, height, width, size = self.weight.shape
        self.image_shape = (channels, height, width)
        self.blocks = (LatentBlock("z", (size,)),)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """W z + b."""
        return (latents["z"] @ self.weight.flatten(0, 2).T).unflatten(1, self.image_shape) + self.bias


class StyleToy(Generator):
    r"""A StyleGAN in small: alternatives for the style, noise, and features at a layer where synthesis may start.

    :math:`w = \tanh(M z) + m`, :math:`f = F w_0`, :math:`x = 1/2 + f \cdot (1 + g^T w_1) / 4 + s \epsilon / 8` with noise
    :math:`\epsilon`.
    """

    image_shape = (1, 4, 4)
    blocks = (
        LatentBlock("z", (6,), slot="style"),
        LatentBlock("w", (6,), PushForward("z"), slot="style"),
        LatentBlock("w_plus", (2, 6), PushForward("z"), slot="style"),
        LatentBlock("noise", (1, 4, 4), Normal()),
        LatentBlock("features", (1, 4, 4), PushForward("z"), optional=True),
    )

    def __init__(self) -> None:
        super().__init__()
        self.mapping = _normal(6, 6, seed=1, std=0.5)
        self.centre = _normal(6, seed=2, std=0.2)
        self.first = _normal(16, 6, seed=3, std=0.4)
        self.second = _normal(6, seed=4, std=0.4)
        self.strength = nn.Parameter(torch.tensor(0.5))

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Features, then gain and noise."""
        styles = self.lift(latents, "w_plus")
        gain = 1 + (styles[:, 1] @ self.second).reshape(-1, 1, 1, 1)
        return 0.5 + self.lift(latents, "features") * gain / 4 + self.strength * latents["noise"] / 8

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """From z to w, w to w_plus, and any of them to features."""
        if name in latents:
            return latents[name]
        if name == "w" and "z" in latents:
            return torch.tanh(latents["z"] @ self.mapping) + self.centre
        if name == "w_plus" and ("z" in latents or "w" in latents):
            return self.lift(latents, "w")[:, None].repeat(1, 2, 1)
        if name == "features":
            return (self.lift(latents, "w_plus")[:, 0] @ self.first.T).unflatten(1, self.image_shape)
        return super().lift(latents, name)


class LabelToy(Generator):
    """A class-conditional decoder, x = b + sum over classes of label_c W_c z; the label is not searched."""

    image_shape = (1, 4, 4)
    blocks = (LatentBlock("label", (3,), OneHot(), searchable=False), LatentBlock("z", (4,)))

    def __init__(self) -> None:
        super().__init__()
        self.weight = _normal(3, 16, 4, seed=5, std=0.2)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """The class's own basis."""
        basis = torch.einsum("nc,cpd->npd", latents["label"], self.weight)
        return 0.5 + (basis @ latents["z"][:, :, None]).reshape(-1, *self.image_shape)


class ConvToy(Generator):
    """A small DCGAN without training: float32 arithmetic as in real generators."""

    image_shape = (3, 16, 16)
    blocks = (LatentBlock("z", (8,)),)

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
        )
        for number, value in enumerate(self.network.parameters()):
            value.data.copy_(_normal(*value.shape, seed=10 + number, std=0.15))

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Three transposed convolutions and a sigmoid."""
        return torch.sigmoid(self.network(latents["z"][:, :, None, None]))


class PoolToy(LinearDegradation):
    """Mean of each square of ``factor`` by ``factor`` pixels."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """(C, H / factor, W / factor)."""
        channels, height, width = image_shape
        if height % self.factor or width % self.factor:
            raise ValueError(f"PoolToy: expected sides that {self.factor} divides, got {height} x {width}")
        return channels, height // self.factor, width // self.factor

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """Means."""
        return nn.functional.avg_pool2d(x, self.factor)

    def adjoint(self, y: Float[Tensor, "N *measurement"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Each mean, shared out equally."""
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2) / self.factor**2


class GainToy(Degradation):
    """The same means, times a gain that nobody knows; it is in [0, 2], and 1 as far as is known."""

    blocks: tuple[LatentBlock, ...] = (LatentBlock(f"{UNKNOWN}gain", (1,)),)

    def __init__(self, factor: int = 2, gain: Tensor | None = None) -> None:
        super().__init__()
        self.pool, self.gain = PoolToy(factor), gain

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """(C, H / factor, W / factor)."""
        return self.pool.measurement_shape(image_shape)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """Means times the gain."""
        y: Tensor = self.pool(x)
        return y if self.gain is None else self.gain * y

    def given(self, latents: Latents) -> Degradation:
        """With the gain of one item."""
        known = GainToy(self.pool.factor, self.natural(latents[f"{UNKNOWN}gain"]))
        known.blocks = ()
        return known

    def unknowns(self, latents: Latents) -> dict[str, Float[Tensor, "N *value"]]:
        """The gain of every item."""
        return {"gain": torch.stack([self.natural(u) for u in latents[f"{UNKNOWN}gain"]])}

    def natural(self, u: Float[Tensor, "1"]) -> Float[Tensor, ""]:
        """Uniform in [0, 2] for a normal u."""
        return 2 * torch.special.ndtr(u[0])


@dataclass(frozen=True)
class LinearWorld:
    """A linear generator under a linear operator, whose best latent is known.

    The basis is chosen so that A W has the singular values 1, ..., 2 times the root of the number of measurements: the
    mean square error has curvature 2 to 8, and any sound optimiser finds the bottom.

    Attributes:
        generator: x = W z + b, float64.
        degradation: A.
    """

    generator: LinearToy
    degradation: PoolToy

    @classmethod
    def make(cls, latent: int = 3, side: int = 8, factor: int = 2) -> "LinearWorld":
        """A world of grey images."""
        degradation, count = PoolToy(factor), (side // factor) ** 2
        weight = torch.randn((side * side, latent), generator=rng(7), dtype=torch.float64)
        seen = degradation(weight.T.reshape(latent, 1, side, side)).flatten(1).T
        triangle = torch.linalg.qr(seen).R
        weight = weight @ torch.linalg.inv(triangle) * torch.linspace(1, 2, latent, dtype=torch.float64) * count**0.5
        bias = torch.full((1, side, side), 0.5, dtype=torch.float64)
        return cls(LinearToy(weight.reshape(1, side, side, latent), bias), degradation)

    def measurements(self, count: int, seed: int = 0) -> list[tuple[str, Tensor]]:
        """Keys and measurements; no latent explains them fully, so the optimum has an error left."""
        shape = self.degradation.measurement_shape(self.generator.image_shape)
        return [(f"image {number}", uniform((count, *shape), seed)[number]) for number in range(count)]

    def optimum(self, measurement: Tensor, energy: float = 0.0) -> Tensor:
        """The latent of least mean square error plus ``energy`` times half its squared length."""
        size = self.generator.blocks[0].size
        basis = self.degradation(self.generator.weight.detach().movedim(-1, 0)).flatten(1).T
        rest = measurement.flatten() - self.degradation(self.generator.bias.detach()[None]).flatten()
        hessian = 2 * basis.T @ basis / len(rest) + energy * torch.eye(size, dtype=torch.float64)
        return torch.linalg.solve(hessian, 2 * basis.T @ rest / len(rest))
