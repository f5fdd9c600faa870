"""Inpainting from the command line: where pixels were observed, the picture has those of the input."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from degradations import mask
from generators.linear import load
from pulse_framework.images import read_image, write_png
from pulse_framework.provenance import COMPOSITE, SYNTHETIC, XMP

HOLE = "_target_: degradations.mask.box\ntop: 4\nleft: 4\nheight: 8\nwidth: 8\n"
NOISE = "{_target_: degradations.noise.GaussianNoise, sigma: 0.05}"
CHAINS = {
    "hole": HOLE,
    "twice": "_target_: degradations.compose.compose\nparts:\n  - {_target_: degradations.identity.Identity}\n  - "
    + HOLE.replace("\n", "\n    ").strip(),
    "noisy": f"_target_: degradations.compose.compose\nparts:\n  - {NOISE}\n  - " + HOLE.replace("\n", "\n    ").strip(),
    "bleached": "_target_: degradations.compose.compose\nparts:\n  - {_target_: degradations.colour.Exposure, gain: 1.1}\n  - "
    + HOLE.replace("\n", "\n    ").strip(),
    "low": "_target_: degradations.compose.compose\nparts:\n  - {_target_: degradations.downscale.Downscale, factor: 2}\n  - "
    "{_target_: degradations.mask.box, top: 2, left: 2, height: 4, width: 4}",
}
OBSERVED = mask.box(top=4, left=4, height=8, width=8).mask((3, 16, 16)) > 0


@pytest.fixture
def restored(pulse, linear, linear_file, records, tmp_path):
    """Degrade an image of the generator's and search for it; gives the input, the written picture and the raw answer."""
    (tmp_path / "configs" / "degradation").mkdir(parents=True)
    for name, text in CHAINS.items():
        (tmp_path / "configs" / "degradation" / f"{name}.yaml").write_text(text)
    generator = load(linear_file)
    z = torch.randn(1, 12, generator=torch.Generator().manual_seed(2))
    write_png(generator({"z": z})[0], tmp_path / "x.png")

    def run(name, *options):
        own = ["--config-dir", tmp_path / "configs"]
        low, out = tmp_path / f"low {name}", tmp_path / f"out {name} {' '.join(options)}"
        pulse("degrade", tmp_path / "x.png", "-o", low, "--degradation", name, *own, "--overwrite")
        done = pulse("upsample", low, "-o", out, *linear, *own, *options)
        if done.status:
            return done
        raw = generator({"z": load_file(out / "x.safetensors")["z"][None]})[0]
        (line,) = records(out)
        return read_image(low / "x.png"), read_image(out / "x.png"), raw, line

    return run


def same(one, other):
    return bool(((one - other.clamp(0, 1)).abs() <= 0.51 / 255).all())


@pytest.mark.parametrize("name", ["hole", "twice"])
def test_where_the_degradation_only_hides_the_rest_is_kept(name, restored):
    y, picture, raw, line = restored(name)
    observed = OBSERVED.expand_as(y)
    assert torch.equal(picture[observed], y[observed])
    assert same(picture[~observed], raw[~observed])
    assert not same(picture[observed], raw[observed])
    mse = (torch.where(observed, raw, 0) - y).square().mean().item()
    assert line["mse"] == pytest.approx(mse, rel=1e-4)


@pytest.mark.parametrize(("option", "term"), [("--keep-known", COMPOSITE), ("--invent-all", SYNTHETIC)])
def test_a_picture_that_keeps_pixels_is_called_a_composite(option, term, restored, tmp_path):
    restored("hole", option)
    with Image.open(tmp_path / f"out hole {option}" / "x.png") as image:
        image.load()
        assert f">{term}<" in image.text[XMP]


@pytest.mark.parametrize(
    ("name", "option"), [("hole", "--invent-all"), ("noisy", ""), ("bleached", ""), ("noisy", "--invent-all")]
)
def test_pixels_that_are_not_the_images_are_not_kept(name, option, restored):
    _, picture, raw, _ = restored(name, *filter(None, [option]))
    assert same(picture, raw)


def test_noisy_pixels_are_kept_if_asked_for(restored):
    y, picture, raw, _ = restored("noisy", "--keep-known")
    observed = OBSERVED.expand_as(y)
    assert torch.equal(picture[observed], y[observed])
    assert same(picture[~observed], raw[~observed])


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("low", "--keep-known", "keep_known: expected a degradation with a mask that keeps the image's size"),
        ("hole", "keep_known=sometimes", "keep_known: expected true, false or null"),
    ],
)
def test_what_cannot_be_kept_is_refused(name, option, message, restored):
    done = restored(name, option)
    assert done.status == 2
    assert message in done.err


def test_a_small_measurement_with_a_mask_is_no_known_picture(restored):
    _, picture, raw, _ = restored("low")
    assert same(picture, raw)
