r"""An encoder: a small network, trained on what the generator itself draws, that guesses latents from a measurement.

Pairs are made, not collected: :math:`z \sim p`, :math:`y = \text{measure}(G(z))`; the network learns the posterior mean
:math:`E[z \mid y]` by least squares and knows the measurement alone. A guess is no answer, but a search that begins there
often ends at the truth, where one that begins at the nearest of many draws ends elsewhere.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents
from pulse_framework.search.streams import draw, stream

__all__ = ["Encoder", "Training", "encoder_card", "encoder_probes", "encoder_tensors", "read_encoder", "train_encoder"]

_PROBES = 4
_SIDE = 32  # pixels to which a larger measurement is averaged


def _ignore(what: str, done: int, of: int) -> None:
    del what, done, of


class Encoder(nn.Module):
    """A perceptron of three hidden layers from a measurement to the blocks that a search moves.

    Args:
        shape: Of a measurement, without N.
        blocks: Name to shape of each block, without N.
        width: Units of a hidden layer.
    """

    centre: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...], blocks: Mapping[str, tuple[int, ...]], width: int = 1024) -> None:
        super().__init__()
        self.shape, self.blocks, self.width = tuple(shape), {name: tuple(size) for name, size in blocks.items()}, width
        self.pooled = (min(shape[1], _SIDE), min(shape[2], _SIDE)) if len(shape) == 3 else None
        entries = math.prod((shape[0], *self.pooled) if self.pooled else shape)
        self.register_buffer("centre", torch.zeros(entries))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("spread", torch.ones(()))
        sizes = [entries, width, width, width]
        hidden = [
            layer for one, other in itertools.pairwise(sizes) for layer in (nn.Linear(one, other), nn.LayerNorm(other), nn.GELU())
        ]
        self.network = nn.Sequential(*hidden, nn.Linear(width, sum(map(math.prod, self.blocks.values()))))

    def entries(self, y: Float[Tensor, "N *m"]) -> Float[Tensor, "N E"]:
        """What the network sees of measurements."""
        return (nn.functional.adaptive_avg_pool2d(y, self.pooled) if self.pooled else y).flatten(1)

    def forward(self, y: Float[Tensor, "N *m"]) -> dict[str, Tensor]:
        """The guess, block by block; not on a manifold yet."""
        return self.parted(self.network((self.entries(y) - self.centre) / self.scale))

    def parted(self, flat: Float[Tensor, "N D"]) -> dict[str, Tensor]:
        """Blocks that stand side by side, one by one."""
        parts = flat.split([math.prod(size) for size in self.blocks.values()], 1)
        return {name: part.unflatten(1, size) for part, (name, size) in zip(parts, self.blocks.items(), strict=True)}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How an encoder is trained; the result depends on these, generator, operator and priors alone.

    Attributes:
        samples: Pairs drawn from the generator.
        steps: Of AdamW, on a cosine from ``rate`` to 0.
        batch: Pairs in a step.
        rate: First learning rate.
        decay: Weight decay.
        width: Units of a hidden layer.
        held_out: Pairs kept aside, on which the error is told.
        seed: Of everything random.
    """

    samples: int = 40_000
    steps: int = 4_000
    batch: int = 256
    rate: float = 1e-3
    decay: float = 0.05
    width: int = 1024
    held_out: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "steps", "batch", "width", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder {name}: expected at least 1, got {getattr(self, name)}")
        if not (0 < self.rate < math.inf and 0 <= self.decay < math.inf):
            raise ValueError(f"encoder rate and decay: expected finite numbers above 0, got {self.rate} and {self.decay}")


def train_encoder(
    generator: Generator,
    degradation: Degradation,
    priors: Mapping[str, LatentPrior],
    like: Tensor,
    training: Training,
    observe: Callable[[str, int, int], None] = _ignore,
) -> tuple[Encoder, dict[str, float]]:
    """Draw pairs and fit an encoder to them.

    Args:
        generator: G, joint with the unknown parameters of A.
        degradation: A and ``measure``.
        priors: Of every block that the first phase moves; those are what is guessed.
        like: Gives device and dtype.
        training: Settings.
        observe: Told what is done, how much of it, and of how much.

    Returns:
        The encoder, ready; and the mean cosine between guess and truth of every block, on pairs held out.
    """
    total, chunk = training.samples + training.held_out, 64
    latents, measurements = [], []
    for first in range(0, total, chunk):
        z, y = _pairs(generator, degradation, priors, like, min(chunk, total - first), f"{training.seed} {first}")
        latents.append(z)
        measurements.append(y)
        observe("pairs", min(first + chunk, total), total)
    z, y = torch.cat(latents), torch.cat(measurements)
    shapes = {name: tuple(value.shape[1:]) for name, value in _moved(generator, priors).items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        encoder = Encoder(tuple(y.shape[1:]), shapes, training.width).to(like)
    seen = encoder.entries(y)
    encoder.centre.copy_(seen.mean(0))
    encoder.scale.copy_((seen - encoder.centre).std().clamp(min=1e-6))
    known, kept = (z[: training.samples], y[: training.samples]), (z[training.samples :], y[training.samples :])
    rng = stream(training.seed, "encoder batches")
    optimiser = torch.optim.AdamW(encoder.parameters(), training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
    with torch.enable_grad():
        for step in range(training.steps):
            index = torch.randint(training.samples, (training.batch,), generator=rng).to(z.device)
            loss = (_flat(encoder(known[1][index])) - known[0][index]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            observe("steps", step + 1, training.steps)
    with torch.no_grad():
        guess = encoder(kept[1])
        encoder.spread.copy_((_flat(guess) - kept[0]).square().mean().sqrt())
        truth = encoder.parted(kept[0])
        cosines = {
            name: float(nn.functional.cosine_similarity(value.flatten(1), truth[name].flatten(1)).mean())
            for name, value in guess.items()
        }
    return encoder.eval().requires_grad_(False), cosines


def encoder_tensors(encoder: Encoder, probes: Tensor) -> dict[str, Tensor]:
    """What a file holds: the weights, and the measurements of fixed draws, by which generator and operator are known again."""
    return {name: value.contiguous() for name, value in encoder.state_dict().items()} | {"probes": probes.contiguous()}


def encoder_card(encoder: Encoder, cosines: Mapping[str, float], about: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file: the shapes, how well each block is guessed, and what else is told of the training."""
    card = {"shape": encoder.shape, "blocks": encoder.blocks, "width": encoder.width, "cosines": dict(cosines), **about}
    return {"format": "pulse encoder", **{key: json.dumps(value) for key, value in card.items()}}


def read_encoder(path: str | Path) -> tuple[Encoder, Tensor, dict[str, Any]]:
    """The encoder of a file, its probes and its card.

    Raises:
        ValueError: The file is missing or is none that ``pulse encoder train`` wrote.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        if metadata.pop("format", None) != "pulse encoder":
            raise KeyError("format")
        card = {key: json.loads(value) for key, value in metadata.items()}
        blocks = {name: tuple(size) for name, size in card["blocks"].items()}
        if not blocks or set(card["cosines"]) != set(blocks):
            raise KeyError("blocks")
        encoder = Encoder(tuple(card["shape"]), blocks, card["width"])
        probes = tensors.pop("probes")
        encoder.load_state_dict(tensors)
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"encoder {path}: expected a file that `pulse encoder train` wrote, got: {why}; train one") from error
    return encoder.eval().requires_grad_(False), probes, card


def encoder_probes(generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior], like: Tensor) -> Tensor:
    """Measurements of fixed draws: what generator, operator and priors come to."""
    latents = _draws(generator, priors, like, _PROBES, "probes")
    with torch.no_grad():
        return degradation.at(generator(latents).to(like.dtype), latents)


def _moved(generator: Generator, priors: Mapping[str, LatentPrior]) -> Latents:
    return {block.name: torch.empty(1, *block.shape) for block in generator.blocks if block.name in priors}


def _draws(generator: Generator, priors: Mapping[str, LatentPrior], like: Tensor, count: int, key: str) -> Latents:
    rng = stream(0, f"encoder {key}")
    drawn = [draw(generator, dict(priors), rng, like) for _ in range(count)]
    return {name: torch.cat([item[name] for item in drawn]) for name in drawn[0]}


def _pairs(
    generator: Generator, degradation: Degradation, priors: Mapping[str, LatentPrior], like: Tensor, count: int, key: str
) -> tuple[Tensor, Tensor]:
    """Latents that move, side by side, and measurements of their images."""
    latents = _draws(generator, priors, like, count, key)
    with torch.no_grad():
        image = generator(latents).to(like.dtype)
        if degradation.blocks:
            y = degradation.at(image, latents)
        else:
            y = degradation.measure(image.clamp(0, 1), stream(0, f"encoder noise {key}"))
    return _flat({name: latents[name] for name in _moved(generator, priors)}), y


def _flat(latents: Latents) -> Tensor:
    return torch.cat([value.flatten(1) for value in latents.values()], 1)
