"""The chains of GFPGAN, BSRGAN and Real-ESRGAN: what is drawn for many images keeps to the ranges and orders of their sources."""

from collections import Counter
from math import sqrt

import pytest
import torch

from degradations.blur import Blur
from degradations.colour import Exposure
from degradations.downscale import Downscale
from degradations.jpeg import JPEG
from degradations.noise import GaussianNoise, PoissonNoise
from degradations.resize import Fit, Resize
from pulse_framework.cli.compose import build, load
from pulse_framework.cli.draws import resolve

COUNT = 100
KINDS = {
    Blur: "blur",
    Fit: "fit",
    Resize: "resize",
    Downscale: "nearest",
    GaussianNoise: "noise",
    PoissonNoise: "noise",
    JPEG: "jpeg",
    Exposure: "colour",
}


@pytest.fixture(scope="module")
def drawn():
    """Chains of a configuration for many images, as their parts and as the names of these."""
    made = {}

    def get(name):
        if name not in made:
            node = load([f"degradation={name}"]).degradation
            chains = [build(resolve(node, 0, str(i))) for i in range(COUNT)]
            made[name] = [(chain, [KINDS[type(part)] for part in chain.parts]) for chain in chains]
        return made[name]

    return get


def parts(chains, kind):
    return [part for chain, _ in chains for part in chain.parts if type(part) is kind]


def within(values, low, high, reach=0.9):
    """Inside of a range, and nearly filling it."""
    values = [float(value) for value in values]
    assert low <= min(values)
    assert max(values) <= high
    assert max(values) - min(values) >= reach * (high - low)


def often(count, p, of=COUNT):
    assert abs(count - p * of) <= 4 * sqrt(of * p * (1 - p))


@pytest.mark.parametrize(("name", "shape"), [("gfpgan", (3, 64, 64)), ("bsrgan", (3, 16, 16)), ("real_esrgan", (3, 16, 16))])
def test_sizes_faces_and_seeds(name, shape, drawn):
    x = 0.1 + 0.8 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = set()
    for chain, _ in drawn(name)[:8]:
        assert chain.measurement_shape((3, 64, 64)) == shape
        assert chain(x).shape[1:] == shape
        y = chain.measure(x, torch.Generator().manual_seed(1))
        assert torch.equal(y, chain.measure(x, torch.Generator().manual_seed(1)))
        assert float((y - chain(x)).square().mean().sqrt()) <= chain.gap
        seen.add(float(y.sum()))
    assert len(seen) == 8
    assert chain.measurement_shape((3, 66, 71))[1:] == ((66, 71) if name == "gfpgan" else (16, 17))


def test_gfpgan(drawn):
    chains = drawn("gfpgan")
    orders = Counter(tuple(names) for _, names in chains)
    plain = ("blur", "resize", "noise", "jpeg", "fit")
    assert set(orders) == {plain, (*plain, "colour")}
    often(orders[(*plain, "colour")], 0.3)
    within([1 / part.scale for part in parts(chains, Resize)], 0.799, 8.01)
    within([part.sigma for part in parts(chains, GaussianNoise)], 0, 20 / 255)
    within([part.quality for part in parts(chains, JPEG)], 60, 100)
    assert {part.kernel for kind in (Resize, Fit) for part in parts(chains, kind)} == {"bilinear"}


def test_bsrgan(drawn):
    chains = drawn("bsrgan")
    assert len({tuple(names) for _, names in chains}) > COUNT / 2
    halved = 0
    for chain, names in chains:
        assert names[-1] == "jpeg"
        assert Counter(names)["fit"] == Counter(names)["noise"] == 1
        first = names[0] == "resize" and chain.parts[0].scale == 0.5 and Counter(names)["resize"] + Counter(names)["nearest"] == 2
        halved += first
        (reduced,) = [i for i, kind in enumerate(names) if kind in ("resize", "nearest") and not (first and i == 0)]
        assert names.index("fit") > reduced
        assert Counter(names)["blur"] == 2 + ("nearest" in names)
    often(halved, 0.25)
    often(sum("nearest" in names for _, names in chains), 0.25)
    often(sum(Counter(names)["jpeg"] == 2 for _, names in chains), 0.9)
    within([part.quality for part in parts(chains, JPEG)], 30, 95)
    within([255 * part.sigma for part in parts(chains, GaussianNoise)], 1.99, 25.01)
    within([1 / part.scale for part in parts(chains, Resize)], 1, 8.01)
    assert {part.kernel for part in parts(chains, Fit)} == {"bilinear", "bicubic", "box"}
    often(sum(names.index("noise") > names.index("fit") for _, names in chains), 1 / 3)


def test_real_esrgan(drawn):
    chains = drawn("real_esrgan")
    ends = Counter()
    for _, names in chains:
        assert names[:4] == ["blur", "resize", "noise", "jpeg"]
        rest = names[4:]
        ends["second blur"] += rest[0] == "blur"
        rest = rest[1:] if rest[0] == "blur" else rest
        assert rest[:2] == ["fit", "noise"]
        assert rest[2:] in (["fit", "blur", "jpeg"], ["fit", "jpeg"], ["jpeg", "fit", "blur"], ["jpeg", "fit"])
        ends["sinc"] += "blur" in rest
        ends["jpeg last"] += rest[-1] == "jpeg"
    often(ends["second blur"], 0.8)
    often(ends["sinc"], 0.8)
    often(ends["jpeg last"], 0.5)
    scales = [part.scale for part in parts(chains, Resize)]
    within(scales, 0.149, 1.501)
    often(sum(scale < 1 for scale in scales), 0.7)
    often(sum(scale == 1 for scale in scales), 0.1)
    middle = [4 * chain.parts[5 if names[4] == "blur" else 4].scale for chain, names in chains]
    within(middle, 0.299, 1.201)
    often(sum(scale < 1 for scale in middle), 0.4)
    within([255 * part.sigma for part in parts(chains, GaussianNoise)], 0.99, 30.01)
    within([sqrt(256 / part.peak) for part in parts(chains, PoissonNoise)], 0.05, 3.01, reach=0.8)
    often(len(parts(chains, PoissonNoise)), 0.5, of=2 * COUNT)
    within([part.quality for part in parts(chains, JPEG)], 30, 95)
