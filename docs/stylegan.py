"""What each part of the StyleGAN search does to realism and consistency: the pictures and tables of docs/stylegan.md.

`python docs/stylegan.py` searches 8 targets with each setting and 32 with the original's; a text between two marks in the page is
replaced by what came out. `--real FILE.npy` adds real faces: an array (count, h, w) or (count, h, w, 3) of floats in [0, 1].
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from degradations.downscale import Downscale
from generators.stylegan2 import StyleGAN2
from pulse_framework.cli.compose import build, load
from pulse_framework.grid import grid
from pulse_framework.search import SearchResult, draw, psnr_db, stream
from pulse_framework.search.geocross import geocross

HERE = Path(__file__).parent
ORIGINAL = ["experiment=pulse_stylegan"]
MAPS = [f"noise_{k}" for k in range(5)]
SPHERE = "{_target_:pulse_framework.priors.SpherePrior,radius:initial,ndim:1}"
FLAT = "{_target_:pulse_framework.priors.FlatPrior}"
STYLE_ALONE = [*ORIGINAL, *(f"~prior.{name}" for name in MAPS)]


def on(block: str, prior: str = SPHERE) -> list[str]:
    """The original's settings with another style block."""
    return [*ORIGINAL, "~prior.v_plus", f"+prior.{block}={prior}"]


SHEETS: dict[str, dict[str, list[str]]] = {
    "fit": {
        "v+ on spheres": ORIGINAL,
        "w+ flat, rate 0.1": [*on("w_plus", FLAT), "search.optimiser.rate=0.1"],
        "w+ flat, rate 0.4": on("w_plus", FLAT),
    },
    "geocross": {
        f"weight {weight}": [*ORIGINAL, f"objective.terms.geocross.weight={weight}"] for weight in (0.0, 0.05, 0.5, 5.0)
    },
    "noise": {
        "none": [*STYLE_ALONE, "generator.noise=none"],
        "stored": [*STYLE_ALONE, "generator.noise=stored"],
        "drawn, kept": STYLE_ALONE,
        "five searched": ORIGINAL,
        "all searched": ["search.blocks=[v_plus," + ",".join(f"noise_{k}" for k in range(9)) + "]", "search.steps=100"],
    },
    "spaces": {
        "z": on("z"),
        "v (one w)": on("v"),
        "v+": ORIGINAL,
        "P_N+": on("p_n_plus"),
        "ladder v, v+": ["search.steps=100", "search.at_target=false"],
        "W++ flat, rate 0.02": [
            *on("w_plus_plus", FLAT),
            "search.optimiser.rate=0.02",
            "~objective.terms.geocross",
        ],
    },
}


def targets(count: int, seed: str) -> tuple[Tensor, Tensor]:
    """Faces of the generator itself, each pixel in [0, 1], and their 8-bit measurements of 8x8."""
    generator, operator = build(load().generator), Downscale(8)
    with torch.no_grad():
        drawn = [draw(generator, {}, stream(5, f"{seed}{i}"), torch.zeros(1)) for i in range(count)]
        faces = torch.cat([generator(latents) for latents in drawn]).clamp(0, 1)
        return faces, operator.measure(faces, stream(5, "measure"))


def search(overrides: Sequence[str], measurements: Tensor) -> tuple[StyleGAN2, list[SearchResult]]:
    """The answer to every measurement."""
    config = load(list(overrides))
    generator, plan = build(config.generator), build(config.search)
    engine = plan.engine(generator, Downscale(8))
    found = {a.index: a.samples[0] for a in plan.run(engine, ((str(i), y) for i, y in enumerate(measurements)))}
    return generator, [found[i] for i in range(len(measurements))]


def row(generator: StyleGAN2, results: Sequence[SearchResult], truth: Tensor | None) -> list[str]:
    """A line of a table."""
    latents = {name: torch.stack([result.latents[name] for result in results]) for name in results[0].latents}
    db = sorted(result.psnr_db for result in results)
    cells = [f"{sum(result.mse <= 2e-3 for result in results)} of {len(results)}", f"{np.median(db):.1f}"]
    if truth is not None:
        errors = [psnr_db(float((r.image.clamp(0, 1) - x).square().mean())) for r, x in zip(results, truth, strict=True)]
        cells.append(f"{np.median(errors):.1f}")
    with torch.no_grad():
        if "w_plus_plus" in latents:
            return [*cells, "", ""]
        spread = geocross(generator.lift(latents, "w_plus")).mean()
        norm = generator.lift(latents, "v_plus").square().mean()
    return [*cells, f"{float(spread):.1f}", f"{float(norm):.2f}"]


def table(rows: dict[str, list[str]], *, truth: bool = True) -> str:
    """In Markdown."""
    head = ["", "within 2e-3", "consistency, dB", *(["image, dB"] if truth else []), "GEOCROSS", "mean v²"]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sheet(name: str, rows: dict[str, Tensor]) -> None:
    """Pictures in rows, the name of each to the left."""
    laid = grid([list(row) for row in rows.values()])
    pictures = Image.fromarray((laid * 255).round().byte().permute(1, 2, 0).numpy())
    page = Image.new("RGB", (pictures.width + 130, pictures.height), "white")
    page.paste(pictures, (130, 0))
    pen, step = ImageDraw.Draw(page), (pictures.height + 4) // len(rows)
    for index, text in enumerate(rows):
        pen.text((4, index * step + step // 2 - 6), text, fill="black")
    page.save(HERE / f"stylegan-{name}.png", optimize=True)


def replace(name: str, text: str) -> None:
    """Put a text between the marks of its name."""
    page = (HERE / "stylegan.md").read_text()
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert marks.search(page), f"no marks of {name} in stylegan.md"
    (HERE / "stylegan.md").write_text(marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page))


def truncation(count: int) -> None:
    """Samples at several truncations, and how much they differ."""
    rows, lines = {}, {}
    for psi in (1.0, 0.7, 0.5, 0.3):
        generator = build(load([f"generator.psi={psi}"]).generator)
        with torch.no_grad():
            z = torch.cat([draw(generator, {}, stream(9, str(i)), torch.zeros(1))["z"] for i in range(256)])
            noise = draw(generator, {}, stream(9, "0"), torch.zeros(1))
            latents = {name: value.expand(256, *value.shape[1:]) for name, value in noise.items()} | {"z": z}
            images = generator(latents).clamp(0, 1)
            v = generator.lift(latents, "v").square().mean()
        rows[f"psi {psi}"] = images[:count]
        lines[f"psi {psi}"] = [f"{float(images.std(0).mean()):.3f}", f"{float(v):.2f}"]
    sheet("truncation", rows)
    head = [["", "deviation between faces, per pixel", "mean v²"], ["---"] * 3]
    body = [[name, *cells] for name, cells in lines.items()]
    replace("truncation", "\n".join("| " + " | ".join(line) + " |" for line in [*head, *body]))


def real_faces(path: Path, count: int) -> Tensor:
    """Measurements of 8x8 of the first faces of an array."""
    faces = torch.from_numpy(np.load(path)[:count]).float()
    faces = (faces[..., None].expand(*faces.shape, 3) if faces.ndim == 3 else faces).permute(0, 3, 1, 2)
    return Downscale(f"{faces.shape[-1]}/8").measure(faces, stream(5, "measure"))


def main() -> None:
    """Write the page's pictures and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=8, help="for each setting")
    parser.add_argument("--many", type=int, default=32, help="for the original's settings")
    parser.add_argument("--real", type=Path, help="an array of real faces")
    options = parser.parse_args()
    faces, measurements = targets(options.targets, "sheet")
    for name, settings in SHEETS.items():
        lines, pictures = {}, {"truth": faces, "measured, 8x8": measurements}
        for label, overrides in settings.items():
            generator, results = search(overrides, measurements)
            lines[label] = row(generator, results, faces)
            pictures[label] = torch.stack([result.image for result in results])
        sheet(name, {label: images[:8] for label, images in pictures.items()})
        replace(name, table(lines))
    truncation(8)
    faces, measurements = targets(options.many, "many")
    generator, results = search(ORIGINAL, measurements)
    replace("generated", table({f"{options.many} generated faces": row(generator, results, faces)}))
    if options.real:
        measurements = real_faces(options.real, options.many)
        generator, results = search(ORIGINAL, measurements)
        replace("real", table({f"{options.many} real faces": row(generator, results, None)}, truth=False))
        sheet("real", {"measured, 8x8": measurements[:8], "found": torch.stack([r.image for r in results[:8]])})


if __name__ == "__main__":
    main()
