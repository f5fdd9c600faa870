"""The table and the sheet of docs/degradations.md: every degradation on the example photo.

`python docs/degradations_page.py` puts the table between its marks in the page and draws docs/degradations.png; a test runs it.
What `pulse degradations check` runs measures the gap between the two faces.
"""

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image, ImageDraw
from torch import Tensor

from pulse_framework.cli.check import check
from pulse_framework.cli.compose import build, choices, configs_folder, load
from pulse_framework.cli.draws import resolve
from pulse_framework.grid import grid
from pulse_framework.images import read_image
from pulse_framework.interfaces import Degradation
from pulse_framework.search import stream

HERE = Path(__file__).parent
PHOTO = HERE.parent / "examples" / "face.png"
SIDE, COLUMNS, CELL, CAPTION = 64, 8, 96, 14


@dataclass(frozen=True)
class Entry:
    """What the code of an operator cannot say of itself: A as a formula, and what it was compared with in the tests."""

    formula: str
    compared: str


MATRIX, PARTS, MOMENTS, DEFINITION = (
    "its dense matrix",
    "its parts in turn",
    "moments of the noise",
    "the formula, number by number",
)
MASKED, BLURRED, FILES = "$m \\odot x$", "$k * x$", "its known operator"
ENTRIES = {
    "affine_colour": Entry("$g_c x_c + o_c$", DEFINITION),
    "bayer": Entry("$x_{c(p) p}$", MATRIX),
    "bicubic": Entry("$R x C^\\top$", "PULSE's program"),
    "blind_exposure": Entry("`exposure`, stops unknown", FILES),
    "blind_gamma": Entry("`gamma`, gamma unknown", FILES),
    "blind_gaussian_blur": Entry("`gaussian_blur`, sigma unknown", FILES),
    "blind_gaussian_noise": Entry("$x$, sigma unknown", FILES),
    "blind_jpeg": Entry("`jpeg`, quality unknown", FILES),
    "blind_motion_blur": Entry("`motion_blur`, length and angle unknown", FILES),
    "blind_psf": Entry("$k * x$, k unknown", FILES),
    "box_blur": Entry(BLURRED, MATRIX),
    "box_mask": Entry(MASKED, MATRIX),
    "bsrgan": Entry("blurs, resizing, JPEG in random order", PARTS),
    "callable": Entry("yours", "kornia's modules"),
    "chain": Entry("$A_n(\\dots A_1(x))$", PARTS),
    "circulant_sensing": Entry("$S\\,(h * (\\pm x))$", MATRIX),
    "clip": Entry("$\\min(\\max(x, l), h)$", DEFINITION),
    "deepinv": Entry("deepinv's", "stand-ins of its protocol, since it needs torchvision"),
    "defocus": Entry(BLURRED, MATRIX),
    "downscale": Entry("$R x C^\\top$", "Pillow, PyTorch, MATLAB's published algorithm"),
    "downscale_kernel": Entry("$(k * x)_{f p}$", MATRIX),
    "dropout": Entry("$x$", MOMENTS),
    "exposure": Entry("$g x + o$ of coded values", "the curve of IEC 61966-2-1"),
    "fourier_rows": Entry("$S F x$", MATRIX),
    "gamma": Entry("$x^\\gamma$", DEFINITION),
    "gaussian_blur": Entry(BLURRED, MATRIX),
    "gaussian_noise": Entry("$x$", MOMENTS),
    "gaussian_sensing": Entry("$M x$, entries $N(0, 1/m)$", MATRIX),
    "gfpgan": Entry("blur, resizing, JPEG, colour", PARTS),
    "greyscale": Entry("$\\sum_c w_c x_c$", MATRIX),
    "identity": Entry("$x$", MATRIX),
    "jpeg": Entry("$C^{-1} Q [Q^{-1} C x]$", "Pillow's codec"),
    "mask_file": Entry(MASKED, MATRIX),
    "matrix": Entry("$M x$", MATRIX),
    "motion_blur": Entry(BLURRED, MATRIX),
    "poisson_noise": Entry("$x$", MOMENTS),
    "psf": Entry(BLURRED, MATRIX),
    "quantise": Entry("$x$ rounded, or its stand-in", DEFINITION),
    "random_mask": Entry(MASKED, MATRIX),
    "real_esrgan": Entry("two rounds of blur, resizing, JPEG, and a sinc filter", PARTS),
    "rusir": Entry("$P A N U x$", "its published levels"),
    "salt_and_pepper": Entry("$x$", MOMENTS),
    "sinc_blur": Entry(BLURRED, MATRIX),
    "speckle": Entry("$x$", MOMENTS),
    "stroke_mask": Entry(MASKED, MATRIX),
    "trajectory_blur": Entry(BLURRED, MATRIX),
    "uncrop": Entry(MASKED, MATRIX),
    "varying_blur": Entry("$\\sum_k m_k \\odot (k_k * x)$", MATRIX),
    "warp": Entry("$\\sum_q k(F(q - L p - t))\\, x(q)$", "Pillow, PyTorch, its dense matrix"),
    "webp": Entry("$x$", "Pillow's codec is `measure`"),
    "white_balance": Entry("$g_c x_c$", DEFINITION),
}


def photo() -> Tensor:
    """The example of 64 x 64 pixels, values in [0.1, 0.9], float64."""
    image = read_image(PHOTO).double()
    return 0.1 + 0.8 * torch.nn.functional.interpolate(image[None], (SIDE, SIDE), mode="area")[0]


@cache
def configured(name: str) -> DictConfig | None:
    """A degradation's configuration, random parameters drawn; None where it needs a file or a function of the user's."""
    node: DictConfig = load([f"degradation={name}"]).degradation
    if OmegaConf.is_missing(node, "factor"):
        node.factor = "4"
    return None if OmegaConf.missing_keys(node) else resolve(node, 0, name)


def operator(name: str) -> Degradation | None:
    """The operator of it."""
    node = configured(name)
    made: Degradation | None = None if node is None else build(node)
    return made


def settings(name: str) -> str:
    """Settings with their defaults and what the configuration says of them."""
    cells, text = [], (configs_folder() / "degradation" / f"{name}.yaml").read_text()
    if "parts:" in text:
        return "`parts`: see the configuration"
    for line in text.splitlines():
        found = re.fullmatch(r"\s*(\w+): (\S.*?)(?: # (.*))?", line)
        if (
            found
            and found[1] not in ("_target_", "_partial_", "operator", "unknown", "truth", "_draw_")
            and "_draw_: choice" not in line
        ):
            cells.append(f"`{found[1]}` {found[2]}" + (f" ({found[3]})" if found[3] else ""))
    return "; ".join(cells).replace("|", "\\|")


def decibel(rms: float) -> str:
    """A root mean square gap in whole dB."""
    return "none" if rms == 0 else f"{-20 * math.log10(rms):.0f} dB"


def table() -> str:
    """One row for each configuration."""
    head = ["degradation", "A(x)", "settings (default)", "linear", "compared with", "gap", "declared"]
    lines = [head, ["---"] * len(head)]
    for name in choices("degradation"):
        made, entry = operator(name), ENTRIES[name]
        cells = ["as it is", "", ""]
        if made is not None:
            found = check(made.double(), photo(), stream(0, name))
            assert not found.wrong, f"{name}: {found.wrong}"
            cells = ["yes" if found.linear else "no", decibel(found.measured), decibel(found.declared)]
        lines.append([f"`{name}`", entry.formula, settings(name), cells[0], entry.compared, *cells[1:]])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sheet() -> Image.Image:
    """What every degradation that gives pictures makes of the photo, its name below."""
    cells = {"the photo": photo()}
    for name in choices("degradation"):
        made = operator(name)
        measured = photo() if made is None else made.measure(photo()[None].float(), stream(0, name))[0]
        if made is not None and measured.ndim == 3 and measured.shape[0] in (1, 3):
            cells[name] = measured
    rows = -(-len(cells) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (CELL + 4), rows * (CELL + CAPTION + 4)), "white")
    pen = ImageDraw.Draw(page)
    for index, (name, picture) in enumerate(cells.items()):
        left, top = index % COLUMNS * (CELL + 4), index // COLUMNS * (CELL + CAPTION + 4)
        pixels = (grid([[picture]], cell=CELL) * 255).round().byte().permute(1, 2, 0).numpy()
        page.paste(Image.fromarray(pixels), (left, top))
        pen.text((left + 2, top + CELL + 1), name, fill="black")
    return page


def replaced(page: str, name: str, text: str) -> str:
    """The page with a text between the marks of its name."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert marks.search(page), f"expected marks of {name}, got none"
    return marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def main() -> None:
    """Write the table and the sheet."""
    path = HERE / "degradations.md"
    path.write_text(replaced(path.read_text(), "table", table()))
    sheet().save(HERE / "degradations.png", optimize=True)


if __name__ == "__main__":
    main()
