"""Pictures and tables of docs/faces.md.

`python docs/faces.py` draws the pictures and puts two tables between their marks in the page; with `--restored` also restored
photos of several sizes, and with `--searches` what the search leaves for other framings; both take some minutes. A test draws the
others.
"""

import argparse
import json
import math
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

import pulse_framework
from degradations.downscale import Downscale
from degradations.warp import Warp
from pulse_framework.cli.latents import sample
from pulse_framework.cli.photos import restore
from pulse_framework.faces import FFHQ, Face, Framing, Square, crop, detector, place
from pulse_framework.faces.dlib_landmarks import DlibDetector
from pulse_framework.images import read_image, write_png
from pulse_framework.interfaces import Degradation

HERE = Path(__file__).parent
PORTRAIT = HERE.parent / "examples" / "portrait.jpg"
DEFAULT = Framing(scale=0.8)
CELL, GAP, CAPTION = 256, 6, 16
RESTORED = (32, 48, 64, 96, 128)
"""Sides of the portrait, reduced, that are restored."""
CLOSE = Framing(scale=1.3)
"""What is shown of them."""
SCALES, DOWNS = (0.7, 0.8, 0.9, 1.0, 1.2), (-0.04, 0.0, 0.04)


def found() -> tuple[Tensor, Face]:
    """The portrait and its face."""
    photo = read_image(PORTRAIT)
    return photo, DlibDetector()(photo)[0]


def outlined() -> Image.Image:
    """The upper part of the portrait with box, landmarks and squares."""
    photo, face = found()
    top, side = 0, CELL * 2
    picture = shown(photo[:, top : top + 256, 96:352], side)
    pen, scale = ImageDraw.Draw(picture), side / 256

    def at(point: np.ndarray) -> tuple[float, float]:
        return ((point[0] - 96) * scale, (point[1] - top) * scale)

    left, upper, right, lower = face.box
    pen.rectangle([*at(np.array([left, upper])), *at(np.array([right, lower]))], outline="white", width=2)
    for point in face.landmarks if face.landmarks is not None else ():
        x, y = at(point)
        pen.ellipse([x - 2, y - 2, x + 2, y + 2], fill="yellow")
    for framing, colour in ((FFHQ, "cyan"), (DEFAULT, "lime")):
        first, second, third = framing.square(face).corners
        pen.polygon([at(p) for p in (first, second, second + third - first, third)], outline=colour, width=3)
    return picture


def crops() -> dict[str, Image.Image]:
    """The face as the alignments cut it out, and from a photo that is turned and cut off."""
    photo, face = found()
    turned = Square((215.0, 120.0), (128 * math.cos(-0.5), 128 * math.sin(-0.5)))
    tilted = crop(photo, turned, 256).clamp(0, 1)[:, 50:]
    (other,) = DlibDetector()(tilted)
    return {
        "ffhq": shown(crop(photo, FFHQ.square(face), CELL), CELL),
        "generator": shown(crop(photo, DEFAULT.square(face), CELL), CELL),
        "generator, at its 64 x 64": shown(crop(photo, DEFAULT.square(face), 64), CELL),
        "a turned photo, cut off": padded(tilted),
        "ffhq of that": shown(crop(tilted, FFHQ.square(other), CELL), CELL),
    }


def measured() -> dict[str, Image.Image]:
    """A face of 20 pixels in a photo, the operator's view of the aligned image, and the mask."""
    photo, face = found()
    side = round(photo.shape[-1] * 20 / face.size)
    small = functional.interpolate(photo[None], (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
    square = FFHQ.square(face).scaled(small.shape[-1] / photo.shape[-1])
    top, left, bottom, right = square.window(*small.shape[1:])
    inside = square.moved(-left, -top)
    operator = Warp(inside.corners.tolist(), bottom - top, right - left)
    image = crop(photo, FFHQ.square(face), 256)[None]
    window = small[:, top:bottom, left:right]
    seen = operator(image)[0]
    mask = operator.mask((3, 256, 256))
    return {
        f"the photo: {window.shape[1]} x {window.shape[2]}": shown(window, CELL),
        "A(aligned image of 256 x 256)": shown(seen, CELL),
        "its mask": shown(mask.expand(3, -1, -1), CELL),
        "20 |A(x) - photo| where it is 1": shown(20 * (seen - window).abs() * mask, CELL),
    }


def shown(picture: Tensor, side: int) -> Image.Image:
    """Enlarged without interpolation, or as it is."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def padded(picture: Tensor) -> Image.Image:
    """On a white square."""
    page = Image.new("RGB", (CELL, CELL), "white")
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    page.paste(Image.fromarray(pixels), (0, (CELL - picture.shape[1]) // 2))
    return page


def row(cells: dict[str, Image.Image]) -> Image.Image:
    """Pictures side by side, captions below."""
    page = Image.new("RGB", (len(cells) * (CELL + GAP) - GAP, CELL + CAPTION), "white")
    pen = ImageDraw.Draw(page)
    for index, (name, picture) in enumerate(cells.items()):
        page.paste(picture, (index * (CELL + GAP), 0))
        pen.text((index * (CELL + GAP) + 2, CELL + 2), name, fill="black")
    return page


def there_and_back() -> str:
    """Mean difference of the portrait and its crop put back, by the crop's side."""
    photo, face = found()
    square = FFHQ.square(face)
    top, left, bottom, right = square.window(*photo.shape[1:])
    lines = ["| pixels a side | mean difference, of 255 |", "| --- | --- |"]
    for size in (64, 128, 256):
        back, mask = place(crop(photo, square, size), square.moved(-left, -top), bottom - top, right - left)
        error = float(((back - photo[:, top:bottom, left:right]).abs() * mask).sum() / mask.sum() / 3) * 255
        lines.append(f"| {size} | {error:.2f} |")
    return "\n".join(lines)


def apart(first: Face, second: Face) -> float:
    """How far the landmarks of two backends lie apart in the mean, over the distance of the eyes of the first."""
    one, other = np.asarray(first.landmarks), np.asarray(second.landmarks)
    eyes = np.asarray(first.five)
    return float(np.linalg.norm(one - other, axis=1).mean() / np.linalg.norm(eyes[1] - eyes[0]))


def of_samples(count: int = 200) -> str:
    """How FFHQ's square lies in images that the default generator draws."""
    look, rows = DlibDetector(), []
    with TemporaryDirectory() as folder:
        with redirect_stdout(StringIO()):
            sample(output=Path(folder), number=count)
        images = [read_image(path) for path in sorted(Path(folder).glob("sample_*.png"))]
    for image in images:
        large = functional.interpolate(image[None], scale_factor=4, mode="bicubic")[0].clamp(0, 1)
        if faces := [face for face in look(large) if face.size > 80]:
            square = FFHQ.square(faces[0])
            rows.append([256 / square.side, *(np.subtract(128, square.centre) / square.side), square.degrees])
    values = np.array(rows)
    lines = ["| of an image, over FFHQ's square | median | standard deviation |", "| --- | --- | --- |"]
    for name, column in zip(("side", "right of its centre", "below its centre", "degrees turned"), values.T, strict=True):
        lines.append(f"| {name} | {round(float(np.median(column)), 2) + 0.0:.2f} | {column.std():.2f} |")
    return "\n".join([*lines, "", f"Faces were found in {len(values)} of {count} images."])


def left_by_searches(steps: int = 100) -> str:
    """Consistency in dB after a short search, for crops of the portrait with other framings."""
    photo, face = found()
    keys = [(scale, down) for scale in SCALES for down in DOWNS]
    images = [crop(photo, Framing(scale=scale, down=down).square(face), 64).clamp(0, 1) for scale, down in keys]
    db: dict[tuple[int, float, float], float] = {}
    for factor in (1, 4):
        operator: Degradation = Downscale(factor)
        answers = pulse_framework.upsample_all(
            [operator(image[None])[0] for image in images],
            degradation=operator,
            keys=[str(key) for key in keys],
            steps=steps,
            samples=1,
            target_db=60,
            device="cpu",
        )
        db |= {(factor, *key): answer.psnr_db[0] for key, answer in zip(keys, answers, strict=True)}
    lines = ["| scale | " + " | ".join(f"{64 // f} x {64 // f}, down {d:g}" for f in (1, 4) for d in DOWNS) + " |"]
    lines.append("| --- |" + " --- |" * 2 * len(DOWNS))
    cells = ([f"{scale:g}", *(f"{db[f, scale, d]:.1f}" for f in (1, 4) for d in DOWNS)] for scale in SCALES)
    return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in cells)])


def restored(folder: Path) -> tuple[Image.Image, str]:
    """The portrait reduced to several sizes and restored by `pulse restore`: the heads before and after, and the numbers."""
    photo, face = found()
    above, below = {}, {}
    lines = [
        "| photo | box of the face | its square | dB | status | colour |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for side in RESTORED:
        small, scale = folder / f"{side}.png", photo.shape[-1] / side
        write_png(functional.interpolate(photo[None], (side, side), mode="bicubic", antialias=True)[0], small)
        points = np.asarray(face.landmarks) / scale
        entry = {"box": [value / scale for value in face.box], "landmarks": points.tolist()}
        (folder / "faces.json").write_text(json.dumps([entry]))
        factor, out = max(1, 512 // side), folder / f"out {side}"
        with redirect_stdout(StringIO()):
            restore([str(small)], out, boxes=folder / "faces.json", min_size=1, scale=factor, device="cpu", quiet=True)
        line = json.loads((out / "results.jsonl").read_text())
        before, after = read_image(small), read_image(out / f"{side}.png")
        square, close = DEFAULT.square(face).scaled(1 / scale), CLOSE.square(face).scaled(1 / scale)
        tint = [crop(picture, where, 32).mean((1, 2)) for picture, where in ((before, square), (after, square.scaled(factor)))]
        colour = float((tint[0] - tint[1]).abs().max()) * 255
        above[f"{side} x {side}"] = shown(
            crop(before.repeat_interleave(8, 1).repeat_interleave(8, 2), close.scaled(8), CELL), CELL
        )
        below[f"restored: {line['psnr_db']:.1f} dB"] = shown(crop(after, close.scaled(factor), CELL), CELL)
        sizes = f"{side} x {side} | {face.size / scale:.0f} pixels | {square.side:.0f} pixels"
        status = line["status"].replace("_", " ")
        lines.append(f"| {sizes} | {line['psnr_db']:.1f} of {line['target_db']:.1f} | {status} | {colour:.1f} |")
    rows = row(above), row(below)
    page = Image.new("RGB", (rows[0].width, rows[0].height + rows[1].height + GAP), "white")
    for index, picture in enumerate(rows):
        page.paste(picture, (0, index * (picture.height + GAP)))
    return page, "\n".join(lines)


def replaced(page: str, name: str, text: str) -> str:
    """The page with a text between the marks of its name."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert marks.search(page), f"expected marks of {name}, got none"
    return marks.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def pictures() -> dict[str, Image.Image]:
    """All of them, by the names of their files."""
    return {"faces-found": outlined(), "faces-crops": row(crops()), "faces-warp": row(measured())}


def main() -> None:
    """Write pictures and tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--searches", action="store_true", help="Search anew for every framing.")
    arguments.add_argument("--restored", action="store_true", help="Restore the photos anew.")
    arguments.add_argument("--backends", action="store_true", help="Only say how far face-alignment and dlib lie apart.")
    given = arguments.parse_args()
    if given.backends:
        photo, face = found()
        (other,) = detector("face-alignment")(photo)
        sys.stdout.write(f"landmarks of face-alignment and dlib: {apart(face, other):.1%} of the distance of the eyes\n")
        return
    for name, picture in pictures().items():
        picture.quantize(256).save(HERE / f"{name}.png", optimize=True)
    path = HERE / "faces.md"
    page = replaced(replaced(path.read_text(), "back", there_and_back()), "samples", of_samples())
    if given.searches:
        page = replaced(page, "searches", left_by_searches())
    if given.restored:
        with TemporaryDirectory() as folder:
            picture, table = restored(Path(folder))
        picture.quantize(256).save(HERE / "restored-sizes.png", optimize=True)
        page = replaced(page, "sizes", table)
    path.write_text(page)


if __name__ == "__main__":
    main()
