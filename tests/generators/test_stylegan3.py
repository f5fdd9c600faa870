"""StyleGAN3 against the published implementation's images and gradients, and against the definitions written out."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from generators._stylegan3_layers import _Up, plan_layers
from generators.stylegan3 import StyleGAN3
from pulse_framework.testing import GeneratorContract
from tests.generators.small_stylegan3 import NAMES, R, T, random_tensors, read

PLAIN = replace(T, lrelu_upsampling=1, filter_size=4, conv_clamp=0.5)  # some layers have no filter, and the clamp acts


def random_fit(a):
    rng = torch.Generator().manual_seed(5)
    return torch.randn(a.w_dim, generator=rng), torch.rand(a.w_dim, generator=rng) + 0.5


def spread(x, up):
    """Zeros between the pixels, and after the last."""
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, h * up, w * up)
    out[:, :, ::up, ::up] = x
    return out


def filtered(x, taps):
    """A true convolution, where the filter lies within the picture."""
    kernel = (torch.outer(taps, taps) if taps.ndim == 1 else taps).flip(0, 1)
    return F.conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def written_out(a, tensors, w_plus):
    """The network of Karras et al. for one item, nothing folded: weights are modulated, filters padded as they define it."""
    tensors = {name: value.double() for name, value in tensors.items()}
    w_plus, plans = w_plus.double(), plan_layers(a)

    def affine(name, w):
        weight = tensors[f"{name}.affine.weight"]
        return weight @ w / math.sqrt(a.w_dim) + tensors[f"{name}.affine.bias"]

    p = {name: tensors[f"synthesis.input.{name}"] for name in ("weight", "transform", "freqs", "phases")}
    turn = affine("synthesis.input", w_plus[0])
    cos, sin, right, down = turn / turn[:2].norm()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one]).view(3, 3)
    shift = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one]).view(3, 3)
    motion = rotation @ shift @ p["transform"]
    size, rate = plans[0].in_size, plans[0].rate
    fade = (1 - ((p["freqs"] @ motion[:2, :2]).norm(dim=1) - a.first_cutoff) / (rate / 2 - a.first_cutoff)).clamp(0, 1)
    pixels = []
    for row in range(size):
        for column in range(size):
            place = torch.tensor([column + 0.5 - size / 2, row + 0.5 - size / 2, rate], dtype=torch.float64) / rate
            waves = (2 * math.pi * (p["freqs"] @ (motion @ place)[:2] + p["phases"])).sin() * fade
            pixels.append(p["weight"] @ waves / math.sqrt(len(fade)))
    x = torch.stack(pixels, 1).view(1, -1, size, size)

    for plan, w in zip(plans, w_plus[1:], strict=True):
        name = f"synthesis.{plan.name}"
        weight, style = tensors[f"{name}.weight"], affine(name, w)
        if plan.rgb:
            weight = weight * style[:, None, None] / math.sqrt(plan.in_channels)
        else:
            weight = (
                weight
                / weight.square().mean((1, 2, 3), keepdim=True).sqrt()
                * (style / style.square().mean().sqrt())[:, None, None]
            )
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        x = F.conv2d(x / tensors[f"{name}.magnitude_ema"].sqrt(), weight, padding=plan.kernel - 1)
        x = x + tensors[f"{name}.bias"][:, None, None]
        if not plan.rgb:
            one = torch.ones(1, dtype=torch.float64)
            up, down = tensors.get(f"{name}.up_filter", one), tensors.get(f"{name}.down_filter", one)
            total = (plan.out_size - 1) * plan.down + len(down) + len(up) - 1 - x.shape[2] * plan.up
            before = (total + plan.up) // 2
            x = filtered(F.pad(spread(x, plan.up), (before, total - before) * 2), up) * plan.up**2
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        x = x if a.conv_clamp is None else x.clamp(-a.conv_clamp, a.conv_clamp)
        x = x if plan.rgb else filtered(x, down)[:, :, :: plan.down, :: plan.down]
        assert x.shape[1:] == (plan.out_channels, plan.out_size, plan.out_size)
    return (x[0] * a.output_scale + 1) / 2


def mapped(a, tensors, z, label=None):
    x = z.double() / (z.double().square().mean() + 1e-8).sqrt()
    if label is not None:
        embedded = (
            tensors["mapping.embed.weight"].double() @ label.double() / math.sqrt(a.c_dim)
            + tensors["mapping.embed.bias"].double()
        )
        x = torch.cat([x, embedded / (embedded.square().mean() + 1e-8).sqrt()])
    for index in range(a.mapping_layers):
        weight, bias = (tensors[f"mapping.fc{index}.{part}"].double() * 0.01 for part in ("weight", "bias"))
        x = F.leaky_relu(weight @ x / math.sqrt(len(x)) + bias, 0.2) * math.sqrt(2)
    return x


class Contract(GeneratorContract):
    architecture = T
    lifts = (("w", "w_plus"), ("v", "w"), ("v", "w_plus"), ("v", "v_plus"), ("v_plus", "w_plus"))

    def make(self):
        return StyleGAN3(random_tensors(self.architecture), self.architecture, random_fit(self.architecture))


class TestContractOfT(Contract):
    pass


class TestContractOfR(Contract):
    architecture = R


class TestContractWithClasses(Contract):
    architecture = replace(T, c_dim=3, mapping_layers=1, conv_clamp=None)


class TestContractOfPlainNonlinearity(Contract):
    architecture = replace(PLAIN, conv_clamp=256)


class TestContractOfTruncated(GeneratorContract):
    def make(self):
        return StyleGAN3(random_tensors(T), T, psi=0.5, cutoff=3)


del Contract


@pytest.mark.parametrize(
    "a",
    [
        T,
        R,
        replace(T, conv_clamp=None, output_scale=1, first_cutoff=1.5, first_stopband=3, last_stopband_rel=1.2, num_critical=1),
        PLAIN,
    ],
    ids=["T", "R", "other numbers", "plain nonlinearity"],
)
def test_folded_network_is_the_one_written_out(a):
    tensors = {name: value.double() for name, value in random_tensors(a).items()}
    w_plus = torch.randn(2, len(plan_layers(a)) + 1, a.w_dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = StyleGAN3(tensors, a)({"w_plus": w_plus})
    for image, row in zip(ours, w_plus, strict=True):
        torch.testing.assert_close(image, written_out(a, tensors, row), rtol=0, atol=1e-12)


def test_gradient_is_that_of_the_one_written_out():
    tensors = {name: value.double() for name, value in random_tensors(T).items()}
    w_plus = torch.randn(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    images = StyleGAN3(tensors, T)({"w_plus": w_plus[None]})[0], written_out(T, tensors, w_plus)
    ours, theirs = (torch.autograd.grad(image.square().sum(), w_plus)[0] for image in images)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_and_gradients_are_those_published(name, dtype):
    a, weights, golden = read(name)
    generator = StyleGAN3(weights, a).to(dtype)
    w = golden["w_plus"].to(dtype).requires_grad_()
    native = 2 * generator({"w_plus": w}) - 1
    (gradient,) = torch.autograd.grad(native.square().mean(), w)
    for got, expected in ((native.detach(), golden["image"]), (gradient, golden["grad"])):
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_w_is_that_published(name):
    a, weights, golden = read(name)
    for psi, key in ((1.0, "w"), (0.6, "w_psi")):
        generator = StyleGAN3(weights, a, psi=psi)
        w_plus = generator.lift({"z": golden["z"]}, "w_plus")
        torch.testing.assert_close(w_plus, golden[key], rtol=1e-5, atol=1e-5)
        assert torch.equal(generator.lift({"z": golden["z"]}, "w"), w_plus[:, 0])


def test_truncation_of_some_rows():
    torch.manual_seed(0)
    tensors, z = random_tensors(T), torch.randn(2, 6)
    generator = StyleGAN3(tensors, T, psi=0.25, cutoff=3)
    whole = StyleGAN3(tensors, T).lift({"z": z}, "w_plus")
    mean = tensors["mapping.w_avg"]
    w_plus = generator.lift({"z": z}, "w_plus")
    torch.testing.assert_close(w_plus[:, :3], mean + 0.25 * (whole[:, :3] - mean))
    assert torch.equal(w_plus[:, 3:], whole[:, 3:])
    assert [block.name for block in generator.blocks] == ["z", "w_plus"]
    for cutoff in (-1, 8):
        with pytest.raises(ValueError, match="expected 0 to 7 rows"):
            StyleGAN3(tensors, T, cutoff=cutoff)


def test_mapping_with_classes():
    torch.manual_seed(0)
    a = replace(T, c_dim=3)
    tensors, z, label = random_tensors(a), torch.randn(6), torch.eye(3)[1]
    generator = StyleGAN3({name: value.double() for name, value in tensors.items()}, a)
    w = generator.lift({"z": z[None].double(), "label": label[None].double()}, "w")[0]
    torch.testing.assert_close(w, mapped(a, tensors, z, label), rtol=1e-12, atol=1e-12)
    anyone = generator.lift({"z": z[None].double()}, "w")[0]
    torch.testing.assert_close(
        anyone, mapped(a, tensors, z, torch.full((3,), 1 / 3, dtype=torch.float64)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("up", "start"), [(1, 0), (2, 3), (4, 1)])
def test_derivatives_of_upsampling(up, start):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 3, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(1, 1, 7, 7, generator=rng, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _Up.apply(x, kernel, up, start), x)
    assert torch.autograd.gradgradcheck(lambda x: _Up.apply(x, kernel, up, start), x)


@pytest.mark.parametrize("a", [T, R], ids="TR")
def test_network_is_exportable(a):
    generator = StyleGAN3(random_tensors(a), a)
    w_plus = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(generator, ({"w_plus": w_plus},))
    other = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(program.module()({"w_plus": other}), generator({"w_plus": other}))


def test_weights_are_frozen():
    generator = StyleGAN3(random_tensors(T), T)
    assert not generator.training
    assert list(generator.parameters()) == []
