r"""Several codes for one image, blended at a layer of any generator whose features are blocks (mGANprior).

.. math:: x = G_2 \Big( \sum_{n=1}^N \alpha_n \odot G_1(z_n) \Big)

with :math:`G = G_2 \circ G_1` cut at the layer, and :math:`\alpha_n` one number for each channel there (Gu, Shen and Zhou, CVPR
2020, arXiv:1912.07116, section 3.1). The published program divides the sum by N besides, although alpha begins at 1 / N; here
it does not, so that the start is the mean of the features.

Weights: those of the generator. Latent blocks: ``codes`` (N, Z), each distributed as the generator's z; ``alpha`` (N, C), 1 / N;
and whatever else the generator takes.
"""

from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal, PushForward

__all__ = ["MultiCode"]


class MultiCode(Generator):
    """A generator of several codes.

    Args:
        generator: G, whose image depends on features of a layer alone once these are given, as a DCGAN's or a ProGAN's does.
        layer: The block of these features, such as ``features_8``.
        codes: N.

    Raises:
        ValueError: The generator has no such block, its z is no vector, or there is no code.
    """

    def __init__(self, generator: Generator, layer: str = "features_8", codes: int = 20) -> None:
        super().__init__()
        first, *others = generator.blocks
        known = {block.name: block for block in others if block.optional and len(block.shape) == 3}
        if layer not in known:
            raise ValueError(
                f"MultiCode layer: expected one of {sorted(known)}, got {layer!r}; use a generator that has features"
            )
        if len(first.shape) != 1 or isinstance(first.native, PushForward):
            raise ValueError(f"MultiCode generator: expected one that takes a vector, got {first.name!r} of shape {first.shape}")
        if codes < 1:
            raise ValueError(f"MultiCode codes: expected at least 1, got {codes}")
        self.generator, self.layer, self.source, self.codes = generator, layer, first.name, codes
        alpha = Normal(1 / codes, 0.0)
        self.blocks = (
            LatentBlock("codes", (codes, *first.shape), first.native),
            LatentBlock("alpha", (codes, known[layer].shape[0]), alpha),
            *(block for block in others if not block.optional),
        )
        self.image_shape = generator.image_shape

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of codes, blended."""
        codes, alpha = latents["codes"], latents["alpha"]
        rest = {name: value for name, value in latents.items() if name not in ("codes", "alpha")}
        each = {name: value.repeat_interleave(self.codes, 0) for name, value in rest.items()}
        features = self.generator.lift({**each, self.source: codes.flatten(0, 1)}, self.layer).unflatten(0, codes.shape[:2])
        blended = (features * alpha[..., None, None]).sum(1)
        return self.generator({**rest, self.source: codes[:, 0], self.layer: blended})
