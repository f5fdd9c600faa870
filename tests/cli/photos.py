"""Photos for ``pulse restore``, and what it makes of them."""

import numpy as np
from PIL import Image

FAST = ["search.start.draws=1", "--steps", "2", "--device", "cpu"]
BOX = [22, 20, 42, 42]


def gradient(mode="RGB", size=(64, 60)):
    """A smooth picture with no two pixels alike."""
    x, y = np.meshgrid(np.linspace(40, 200, size[0]), np.linspace(30, 180, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).round().astype(np.uint8)).convert(mode)


def opened(path):
    """A picture, its file closed."""
    image = Image.open(path)
    image.load()
    return image


def files(folder, name="*"):
    """Bytes of the pictures and latents of a run, but for its overview."""
    made = (path for path in folder.rglob(name) if path.suffix in (".png", ".safetensors") and path.name != "grid.png")
    return {str(path.relative_to(folder)): path.read_bytes() for path in made}
