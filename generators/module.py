r"""Any decoder-like network as a generator.

.. math:: G(z) = (f(z) - a) / (b - a)

for a network :math:`f` with pixel range :math:`[a, b]`: the decoder of a variational autoencoder, a GAN of your own, or a
TorchScript archive (``generators.torchscript``). Latent blocks: ``z``, of the shape the network takes.

A network whose input is (D, 1, 1) is better wrapped as ``nn.Sequential(nn.Unflatten(1, (D, 1, 1)), network)`` and given the
latent shape (D,): priors such as the sphere then see one vector of D entries.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators._tensors import check_tensors, read_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import Distribution, LatentBlock, Latents, Normal

__all__ = ["ModuleGenerator", "load"]


class ModuleGenerator(Generator):
    """A network, frozen, with one latent block ``z``. Its image shape is found by running it once.

    Args:
        network: Takes (N, *latent_shape) to images (N, C, H, W). It is put in evaluation mode and frozen, in place.
        latent_shape: Shape of one latent.
        pixel_range: The network's values for black and white.
        channels: C of the images; 3 repeats the one channel of a grey network. None takes what the network gives.
        output: Where the images are in what the network returns: an index of a tuple, a key of a mapping or the name of an
            attribute (``"sample"`` for the decoders of diffusers). None when it returns the images themselves.
        native: The distribution of the latents the network was trained on.

    Raises:
        ValueError: The network does not take such latents, or does not return such images.
    """

    def __init__(
        self,
        network: nn.Module,
        latent_shape: Sequence[int],
        pixel_range: Sequence[float | int] = (-1.0, 1.0),
        channels: int | None = None,
        output: str | int | None = None,
        native: Distribution = Normal(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        low, high = pixel_range
        if not low < high:
            raise ValueError(
                f"ModuleGenerator: expected pixel_range = (black, white) with black < white, got {(low, high)}; correct it"
            )
        self.network = network
        self.eval()
        for parameter in network.parameters():  # a ScriptModule has no requires_grad_ of its own
            parameter.requires_grad_(False)
        self.blocks = (LatentBlock("z", tuple(latent_shape), native),)
        self._low, self._high, self._output = low, high, output
        self.image_shape = self._find_image_shape(channels, native)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of ``z``."""
        x = (self._run(latents["z"]) - self._low) / (self._high - self._low)
        return x.expand(-1, self.image_shape[0], -1, -1)

    def _run(self, z: Tensor) -> Any:  # noqa: ANN401 - images only once the constructor has made sure of it
        """What the network returns, or the part of it that ``output`` names."""
        result = self.network(z)
        if self._output is None:
            return result
        if isinstance(self._output, str) and not isinstance(result, Mapping):
            return getattr(result, self._output)
        return result[self._output]

    def _find_image_shape(self, channels: int | None, native: Distribution) -> tuple[int, int, int]:
        rng = torch.Generator().manual_seed(0)
        tensors = chain(self.network.parameters(), self.network.buffers())
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
        z = torch.stack([native.sample(self.blocks[0].shape, rng) for _ in range(2)]).to(like)
        try:
            with torch.no_grad():
                x = self._run(z)
        except (RuntimeError, LookupError, AttributeError, TypeError, ValueError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"ModuleGenerator: expected a network that takes z of shape {tuple(z.shape)} and returns images"
                f"{'' if self._output is None else f' as {self._output!r}'}, got {why}; correct latent_shape or output"
            ) from error
        if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != len(z):
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"ModuleGenerator: expected images of shape (2, C, H, W) for z of shape {tuple(z.shape)}, got {got}; correct"
                " latent_shape, or name the images with output"
            )
        _, produced, height, width = x.shape
        if channels not in (None, produced) and produced != 1:
            raise ValueError(f"ModuleGenerator: expected {channels} or 1 channels, got {produced}; leave channels out")
        return (channels or produced, height, width)


def load(
    network: nn.Module,
    latent_shape: Sequence[int],
    weights: str | Path | None = None,
    key: str | None = None,
    pixel_range: Sequence[float | int] = (-1.0, 1.0),
    channels: int | None = None,
    output: str | int | None = None,
    native: Distribution = Normal(),  # noqa: B008 - frozen
) -> ModuleGenerator:
    """A ``ModuleGenerator``, its weights from a file.

    Args:
        network: The architecture; its weights are replaced, in place.
        latent_shape: Shape of one latent.
        weights: A ``.safetensors`` file, or one that ``torch.save`` wrote, with exactly the tensors of the network; None keeps
            those the network has.
        key: The entry of a ``torch.save`` file that holds the tensors; None when they are at the top.
        pixel_range: The network's values for black and white.
        channels: C of the images.
        output: Where the images are in what the network returns.
        native: The distribution of the latents.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or its tensors are not those of the network.
    """
    if weights is not None:
        tensors = read_tensors(weights, key)
        check_tensors(weights, network.state_dict(), tensors)
        network.load_state_dict(tensors)
    return ModuleGenerator(network, latent_shape, pixel_range, channels, output, native)
