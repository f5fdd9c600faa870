"""Files that are not JPEG: A is the identity; ``measure`` saves the image as PNG or WebP with Pillow and reads it again.

PNG keeps 8 bits exactly, as WebP does with ``lossless``. Lossy WebP (https://developers.google.com/speed/webp) predicts blocks,
transforms them by 4x4, and keeps chroma at half the size; there is no derivative here, so a search takes its loss for noise.
"""

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pulse_framework.interfaces import LinearDegradation

__all__ = ["Codec"]


class Codec(LinearDegradation):
    """A file of RGB or grey images: (C, H, W) to (C, H, W), C of 3 or 1; grey WebP is RGB whose mean is taken.

    Args:
        form: ``png`` or ``webp``.
        quality: Of lossy WebP, from 0 to 100.
        lossless: Whether WebP is.
        gap: Root mean square gap, in image units. None is half of a level if nothing else is lost, and for lossy WebP 0.08: no
            bound holds for every image (fine coloured patterns lose their chroma), but uniform noise of 0.2 of the range around
            grey, far from what photos are, stays below it at every quality.

    Raises:
        ValueError: There is no such form or quality.
    """

    def __init__(self, form: str = "webp", quality: int = 50, lossless: bool = False, gap: float | None = None) -> None:
        super().__init__()
        if form not in ("png", "webp"):
            raise ValueError(f"Codec form: expected png or webp, got {form!r}; for JPEG use degradations.jpeg.JPEG")
        if isinstance(quality, bool) or not isinstance(quality, int) or not 0 <= quality <= 100:
            raise ValueError(f"Codec quality: expected an integer from 0 to 100, got {quality!r}")
        self.form, self.quality, self.lossless = form, quality, lossless
        exact = 0.5 / 255 if form == "png" or lossless else 0.08
        self.gap = exact if gap is None else gap

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape.

        Raises:
            ValueError: The images are neither RGB nor grey.
        """
        if image_shape[0] not in (1, 3):
            raise ValueError(f"Codec: expected images of 3 channels or 1, got {image_shape[0]}; convert them to RGB or grey")
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The images themselves."""
        return x

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """``y`` itself.

        Raises:
            ValueError: ``y`` is not of this image shape.
        """
        if tuple(y.shape[1:]) != tuple(image_shape):
            raise ValueError(f"Codec adjoint: expected y of shape (N, *{image_shape}), got {tuple(y.shape)}")
        return y

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Saved by Pillow and read again; nothing is drawn from ``rng``.

        Raises:
            ValueError: The images are neither RGB nor grey.
        """
        del rng
        self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        read = [self._read(image) for image in (x.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)]
        return torch.stack(read).to(x) / 255 if read else x

    def extra_repr(self) -> str:
        """Form, quality and whether it is lossless."""
        return f"form={self.form}, quality={self.quality}, lossless={self.lossless}"

    def _read(self, image: Tensor) -> Tensor:
        """Levels of one image, after the file."""
        file = io.BytesIO()
        settings = {"quality": self.quality, "lossless": self.lossless, "exact": True} if self.form == "webp" else {}
        Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy()).save(file, self.form.upper(), **settings)
        levels = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).double()
        return levels if len(image) == 3 else levels.mean(0, keepdim=True).round()
