"""StyleGAN2 against the published implementations' images and gradients, and against the formulae written out."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from generators._gaussian_fit import chart
from generators._stylegan2_architecture import Architecture, random_tensors
from generators._stylegan_ops import Linear, modulated_layer, to_image
from generators.stylegan2 import StyleGAN2
from pulse_framework.testing import GeneratorContract
from tests.generators.small_stylegan2 import CLASSES, TINY, drawn, near, random, read

ADA = ["stylegan2_ada_skip", "stylegan2_ada_resnet", "stylegan2_ada_orig"]


def tiny(architecture=TINY, fit=False, **settings):
    pair = (random(architecture.w_dim) * 0.1, random(architecture.w_dim, seed=1).abs() + 0.1)
    return StyleGAN2(random_tensors(architecture), architecture, pair if fit else None, **settings)


STYLES = (("z", "w"), ("z", "w_plus"), ("w", "w_plus"), ("z", "w_plus_plus"), ("w_plus", "w_plus_plus"))
FITTED = (("v", "w"), ("v", "v_plus"), ("v", "w_plus"), ("v_plus", "w_plus"), ("w_plus", "v_plus"), ("v_plus", "w_plus_plus"))


class TestSkip(GeneratorContract):
    lifts = STYLES

    def make(self):
        return tiny(Architecture((6, 5, 4, 3), z_dim=5, w_dim=7, mapping_layers=2), noise="stored")


class TestFittedNoise(GeneratorContract):
    lifts = STYLES + FITTED

    def make(self):
        return tiny(fit=True, noise="random", zero_noise=(1, -1))


class TestResnet(GeneratorContract):
    lifts = STYLES

    def make(self):
        return tiny(Architecture((6, 5, 4), z_dim=5, w_dim=7, mapping_layers=2, kind="resnet", conv_clamp=20.0))


class TestOrig(GeneratorContract):
    lifts = STYLES

    def make(self):
        return tiny(Architecture((6, 5), z_dim=5, w_dim=7, mapping_layers=2, kind="orig"), psi=0.6, noise="none")


class TestClasses(GeneratorContract):
    lifts = (("z", "w_plus"),)

    def make(self):
        return tiny(CLASSES, psi=0.6, cutoff=2, checkpoint=True)


@pytest.mark.parametrize("name", [*ADA, "stylegan2_rosinality"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_and_gradients_are_those_published(name, dtype):
    weights, architecture, golden = read(name)
    generator = StyleGAN2(weights, architecture, noise="stored").to(dtype)
    given = {key: golden[key].to(dtype) for key in ("w_plus", "label") if key in golden}
    w_plus = given["w_plus"].requires_grad_()
    image = 2 * generator(given) - 1
    (gradient,) = torch.autograd.grad(image.square().mean(), w_plus)
    near(image, golden["image"], 1e-5)
    near(gradient, golden["grad"], 1e-5)
    w = generator.lift({key: golden[key].to(dtype) for key in ("z", "label") if key in golden}, "w")
    near(w, golden["w"] if golden["w"].ndim == 2 else golden["w"][:, 0], 1e-6)


@pytest.mark.parametrize("name", ADA)
def test_without_noise_and_truncated(name):
    weights, architecture, golden = read(name)
    given = {key: golden[key] for key in ("z", "w_plus", "label") if key in golden}
    z = {key: value for key, value in given.items() if key != "w_plus"}
    rest = {key: value for key, value in given.items() if key != "z"}
    near(2 * StyleGAN2(weights, architecture, noise="none")(rest) - 1, golden["image_nonoise"], 1e-5)
    zero = StyleGAN2(weights, architecture, noise="random", zero_noise=range(architecture.rows - 1))
    near(2 * zero(rest) - 1, golden["image_nonoise"], 1e-5)
    near(StyleGAN2(weights, architecture, psi=0.7, cutoff=4).lift(z, "w_plus"), golden["w_psi"], 1e-6)


def test_noise_blocks_are_what_the_stored_maps_are():
    weights, architecture, golden = read("stylegan2_ada_skip")
    generator = StyleGAN2(weights, architecture, noise="random")
    stored = {
        f"noise_{k}": weights[f"synthesis.b{side}.conv{k % 2 ^ 1}.noise_const"].expand(2, 1, side, side)
        for k, side in enumerate(architecture.noise_sides)
    }
    near(2 * generator({"w_plus": golden["w_plus"], "label": golden["label"]} | stored) - 1, golden["image"], 1e-5)


def test_the_benchmark_s_yardstick_is_the_same_network():
    path = Path(__file__).parents[2] / "benchmarks" / "_reference_stylegan2.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    tensors = {name: tensor.double() for name, tensor in random_tensors(TINY).items()}
    generator = tiny().double()
    latents = drawn(generator, "w_plus", dtype=torch.float64)
    noise = [latents[f"noise_{k}"] for k in range(TINY.rows - 1)]
    near(2 * generator(latents) - 1, reference.synthesis(tensors, latents["w_plus"], noise), 1e-6)


def layer_written_out(x, s, d, noise, weight, bias, taps, limit):
    """Weights of their own for every row, zeros between the pixels, and no custom gradient."""
    rows = []
    for row in range(len(s)):
        own = (weight.transpose(0, 1) if taps is not None else weight) * s[row, :, None, None] * d[row, :, None, None, None]
        y = x[row : row + 1] if len(x) > 1 else x
        if taps is None:
            y = F.conv2d(y, own, padding=1)
        else:
            y = F.conv_transpose2d(y, own.transpose(0, 1), stride=2)
            y = F.conv2d(F.pad(y, (1, 1, 1, 1)), taps.flip(2, 3).expand(y.shape[1], 1, -1, -1), groups=y.shape[1])
        y = y + bias[:, None, None] + (0 if noise is None else noise[row if len(noise) > 1 else 0])
        y = F.leaky_relu(y, 0.2)
        rows.append(y if limit is None else y.clamp(-limit, limit))
    return torch.cat(rows)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("limit", [None, 1.5])
@pytest.mark.parametrize("maps", [None, 1, 2])
@pytest.mark.parametrize("given", [1, 2])
def test_layer_and_its_gradient_are_the_formulae(up, limit, maps, given):
    double = {"dtype": torch.float64}
    x, s, d = random(given, 3, 4, 4, **double), random(2, 3, seed=1, **double), random(2, 5, seed=2, **double).abs() + 0.1
    weight = random(*((3, 5) if up else (5, 3)), 3, 3, seed=3, **double)
    noise = None if maps is None else random(maps, 1, *((8, 8) if up else (4, 4)), seed=4, **double)
    taps = random(1, 1, 4, 4, seed=5, **double) if up else None  # not symmetric: a filter the wrong way round shows
    arguments = (x, s, d, noise, weight, random(5, seed=6, **double), taps, limit)
    moved = [value.requires_grad_() for value in arguments[:4] if value is not None]
    got, expected = modulated_layer(*arguments), layer_written_out(*arguments)
    torch.testing.assert_close(got, expected)
    weighed = random(*got.shape, seed=7, **double)
    for ours, theirs in zip(*(torch.autograd.grad((y * weighed).sum(), moved) for y in (got, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_image_part_and_its_gradient_are_the_formulae():
    double = {"dtype": torch.float64}
    x, s = random(2, 4, 3, 5, **double).requires_grad_(), random(2, 4, seed=1, **double).requires_grad_()
    weight, bias = random(3, 4, seed=2, **double), random(3, seed=3, **double)
    got, expected = to_image(x, s, weight, bias), torch.einsum("nchw,nc,oc->nohw", x, s, weight) + bias[:, None, None]
    torch.testing.assert_close(got, expected)
    weighed = random(*got.shape, seed=7, **double)
    for ours, theirs in zip(*(torch.autograd.grad((y * weighed).sum(), [x, s]) for y in (got, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_linear_maps_any_number_of_rows():
    linear = Linear(random(4, 6), random(4, seed=1))
    for count in (1, 7, 8, 9, 1025):
        x = random(count, 6, seed=2)
        torch.testing.assert_close(linear(x), x @ linear.weight.T + linear.bias)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_features_and_image_together_stand_for_all_before(side):
    """What comes before is not even computed: its weights may be anything."""
    generator = tiny(Architecture((6, 5, 4, 3), z_dim=5, w_dim=7, mapping_layers=2)).double()
    latents = drawn(generator, "w_plus", dtype=torch.float64)
    image = generator(latents)
    way = {name: generator.lift(latents, name) for name in (f"features_{side}", f"rgb_{side}")}
    for block in generator.synthesis.blocks:
        if block.side <= side:
            for layer in block.layers:
                layer.weight.fill_(torch.nan)
    torch.testing.assert_close(generator(latents | way), image)


def test_features_go_on_from_block_to_block():
    """As a search does that moves the features of ever larger blocks."""
    generator = tiny(Architecture((6, 5, 4, 3), z_dim=5, w_dim=7, mapping_layers=2), noise="none").double()
    latents = drawn(generator, "w_plus", "features_4", "rgb_4", dtype=torch.float64)
    image = generator(latents)
    for side in (8, 16):
        w_plus = latents["w_plus"]
        latents = {"w_plus": w_plus} | {name: generator.lift(latents, name) for name in (f"features_{side}", f"rgb_{side}")}
        torch.testing.assert_close(generator(latents), image)


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        (["features_8"], "features_4", "expected an input that computes features_4"),
        (["rgb_8"], "rgb_4", "expected an input that computes rgb_4"),
        (["features_4"], "features_8", "lift it to rgb_4 first"),
        (["features_4", "rgb_4"], "features_16", "lift it to rgb_8 first"),
    ],
)
def test_lifts_that_would_lose_something_are_refused(given, wanted, message):
    generator = tiny(Architecture((6, 5, 4, 3), z_dim=5, w_dim=7, mapping_layers=2), noise="none")
    with pytest.raises(ValueError, match=message):
        generator.lift(drawn(generator, "w", *given), wanted)


def test_features_need_every_noise_map():
    with pytest.raises(ValueError, match="add \\['noise_0', "):
        tiny().lift({"w": random(1, 7)}, "features_4")


@pytest.mark.parametrize("kind", ["skip", "resnet", "orig"])
def test_checkpoints_change_nothing(kind):
    answers = []
    for checkpoint in (False, True):
        generator = tiny(Architecture((6, 5, 4), z_dim=5, w_dim=7, mapping_layers=2, kind=kind), checkpoint=checkpoint)
        latents = {name: value.requires_grad_() for name, value in drawn(generator, "w_plus").items()}
        image = generator(latents)
        answers.append([image, *torch.autograd.grad(image.square().sum(), list(latents.values()))])
    assert all(torch.equal(plain, again) for plain, again in zip(*answers, strict=True))


def test_synthesis_can_be_exported():
    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = tiny()

        def forward(self, w_plus, noise):
            return self.generator.synthesize({"w_plus": w_plus} | {f"noise_{k}": map_ for k, map_ in enumerate(noise)})

    module = Exported()
    latents = drawn(module.generator, "w_plus")
    inputs = (latents["w_plus"], [latents[f"noise_{k}"] for k in range(TINY.rows - 1)])
    torch.testing.assert_close(torch.export.export(module, inputs).module()(*inputs), module(*inputs))


def test_bfloat16_autocast():
    generator = tiny(fit=True)
    latents = {name: value.requires_grad_() for name, value in drawn(generator, "v_plus").items()}
    with torch.autocast("cpu", torch.bfloat16):
        image = generator(latents)
    gradients = torch.autograd.grad(image.float().square().sum(), list(latents.values()))
    near(image, generator(latents), 0.05)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_pulse_space_is_the_chart():
    generator = tiny(fit=True, noise="none")
    v = random(2, TINY.rows, 7)
    assert torch.equal(generator.lift({"v_plus": v}, "w_plus"), chart(v, generator.styles.mean, generator.styles.std))
    assert torch.equal(generator.lift({"v": v[:, 0]}, "w"), chart(v[:, 0], generator.styles.mean, generator.styles.std))


def test_truncation():
    none, all_, some = (tiny(psi=psi, cutoff=cutoff, noise="none") for psi, cutoff in ((1.0, None), (0.0, None), (0.5, 2)))
    z = {"z": random(2, 5)}
    w = none.lift(z, "w")
    assert torch.equal(all_.lift(z, "w"), all_.styles.w_avg.expand(2, -1))
    torch.testing.assert_close(some.lift(z, "w_plus")[:, :2], ((w + some.styles.w_avg) / 2)[:, None].expand(-1, 2, -1))
    assert torch.equal(some.lift(z, "w_plus")[:, 2:], w[:, None].expand(-1, TINY.rows - 2, -1))
    assert "w" not in {block.name for block in some.blocks}
    with pytest.raises(ValueError, match="got 'w'"):
        some.lift(z, "w")
