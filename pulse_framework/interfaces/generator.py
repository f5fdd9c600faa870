"""What a search needs to know of a generator."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from pulse_framework.latents import LatentBlock, Latents, check_latents

__all__ = ["Generator"]


class Generator(nn.Module, ABC):
    """Turns named latent blocks into images.

    A plug-in sets ``blocks`` and ``image_shape`` and writes ``synthesize``. It knows no optimiser, measurement, file or seed;
    it draws nothing at random (random inputs are blocks), and calling it changes nothing in it.

    Attributes:
        blocks: Declared inputs; the first block of each slot is the default of that slot.
        image_shape: (C, H, W) of one image.
        ladder: Blocks to search one after the other when a search names none, each lifted from the one before: the one that holds
            the image closest to what was trained on first. Empty: the first block that a gradient reaches.
    """

    blocks: tuple[LatentBlock, ...]
    image_shape: tuple[int, int, int]
    ladder: tuple[str, ...] = ()

    @abstractmethod
    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of a full, checked input. The plug-in's only mathematics.

        Returns:
            RGB (or grey) images, sRGB-coded, nominally in [0, 1], not clamped; row i depends on row i of the latents alone.
        """

    def forward(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Check the input against ``blocks``, then synthesize.

        Args:
            latents: One block for every slot, each of shape (N, *block.shape).

        Raises:
            ValueError: A block is unknown, missing, doubled or of the wrong shape.
        """
        check_latents(self.blocks, latents)
        return self.synthesize(latents)

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """Express an input as the block ``name``, so that the image stays the same (``z`` as ``w``, ``w`` as ``w_plus``).

        Args:
            latents: A full input.
            name: The block wanted.

        Raises:
            ValueError: There is no way from the blocks given to the one wanted.
        """
        if name in latents:
            return latents[name]
        raise ValueError(f"{type(self).__name__}: expected a block that can be lifted from {sorted(latents)}, got {name!r}")

    def truncated(self, levels: int) -> "Generator":
        """The generator without its finest levels: cheaper, of the same blocks, images as large.

        Args:
            levels: How many are left out, at least 1.

        Raises:
            ValueError: It cannot do without so many, or without any.
        """
        raise ValueError(
            f"{type(self).__name__}: expected a generator that adds up images of several sides, got none; search all of it"
        )
