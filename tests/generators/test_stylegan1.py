"""StyleGAN1 against the published implementation's images and gradients, and against the formulae written out."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generators._gaussian_fit import fit_gaussian
from generators.stylegan1 import StyleGAN1, load, mapping_network, synthesis_network
from pulse_framework.testing import GeneratorContract

GOLDEN = Path(__file__).parent.parent / "golden"


def read(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file if key != "meta"}
        weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
        return weights, tensors, json.loads(bytes(file["meta"]))


def random(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def noise_of(tensors):
    return {f"noise_{key.removeprefix('noise/')}": value for key, value in tensors.items() if key.startswith("noise/")}


@pytest.fixture
def files(tmp_path):
    """The three files of the original program, of one tiny network."""
    paths = {name: tmp_path / f"{name}.pt" for name in ("synthesis", "mapping", "gaussian_fit")}
    torch.save(read("stylegan1_pulse_32")[0], paths["synthesis"])
    torch.save(read("stylegan1_pulse_mapping")[0], paths["mapping"])
    torch.save({"mean": random(64) * 0.1, "std": random(64, 1).abs() + 0.1}, paths["gaussian_fit"])
    return paths


class TestContract(GeneratorContract):
    lifts = (("z", "w_plus"), ("w", "w_plus"), ("v", "w"), ("v", "v_plus"), ("v", "w_plus"), ("v_plus", "w_plus"))

    def make(self):
        torch.manual_seed(0)
        weights, _, _ = read("stylegan1_pulse_32")
        weights = {name: value for name, value in weights.items() if "16x16" not in name and "32x32" not in name}
        weights["torgb.weight"] = random((3, 32, 1, 1))
        fit = random((64,)) * 0.1, random((64,), 1).abs() + 0.1
        mapping = mapping_network(read("stylegan1_pulse_mapping")[0], "golden")
        return StyleGAN1(synthesis_network(weights, "golden"), mapping, fit, zero_noise=[-1]).float()


@pytest.mark.parametrize("name", ["stylegan1_pulse_32", "stylegan1_pulse_128"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_and_gradients_are_those_published(tmp_path, name, dtype):
    weights, golden, meta = read(name)
    torch.save(weights, tmp_path / "synthesis.pt")
    torch.save({"mean": torch.zeros(64), "std": torch.ones(64)}, tmp_path / "fit.pt")
    generator = load(tmp_path / "synthesis.pt", gaussian_fit=tmp_path / "fit.pt").to(dtype)
    assert generator.image_shape == (3, meta["kwargs"]["resolution"], meta["kwargs"]["resolution"])
    w = golden["w"].to(dtype).requires_grad_()
    image = generator({"w_plus": w} | {key: value.to(dtype) for key, value in noise_of(golden).items()})
    native = 2 * image - 1
    (gradient,) = torch.autograd.grad(native.square().mean(), w)
    assert float((native.detach() - golden["image"]).abs().max() / golden["image"].abs().max()) < 1e-4
    assert float((gradient - golden["grad"]).abs().max() / golden["grad"].abs().max()) < 1e-3


def test_w_is_that_published(files):
    golden = read("stylegan1_pulse_mapping")[1]
    w = load(**files).lift({"z": golden["z"]}, "w")
    torch.testing.assert_close(w, golden["w"], rtol=1e-4, atol=1e-5)


def written_out(tensors, w, noise, resolution):
    """The network layer by layer as it was trained: weights scaled at run time, neighbours repeated, nothing folded."""

    def scaled(name, gain=1.0):
        return tensors[name] * gain / math.sqrt(tensors[name][0].numel())

    def epilogue(x, name, k):
        if noise.get(f"noise_{k}") is not None:
            x = x + tensors[f"{name}.noise.weight"][:, None, None] * noise[f"noise_{k}"]
        x = F.instance_norm(F.leaky_relu(x, 0.2), eps=1e-5)
        style = F.linear(w[:, k], scaled(f"{name}.style_mod.lin.weight"), tensors[f"{name}.style_mod.lin.bias"])
        gain, shift = style.reshape(len(w), 2, -1, 1, 1).unbind(1)
        return x * (gain + 1) + shift

    x = (tensors["blocks.4x4.const"] + tensors["blocks.4x4.bias"][:, None, None]).expand(len(w), -1, -1, -1)
    x = epilogue(x, "blocks.4x4.epi1", 0)
    x = F.conv2d(x, scaled("blocks.4x4.conv.weight", math.sqrt(2)), tensors["blocks.4x4.conv.bias"], padding=1)
    x = epilogue(x, "blocks.4x4.epi2", 1)
    for stage in range(1, resolution.bit_length() - 2):
        side = 4 * 2**stage
        name = f"blocks.{side}x{side}"
        weight = scaled(f"{name}.conv0_up.weight", math.sqrt(2))
        if side < 128:
            x = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, padding=1)
        else:
            weight = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
            weight = sum(weight[:, :, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1))
            x = F.conv_transpose2d(x, weight, stride=2, padding=1)
        blur = tensors[f"{name}.conv0_up.intermediate.kernel"].expand(x.shape[1], 1, 3, 3)
        x = F.conv2d(x, blur, tensors[f"{name}.conv0_up.bias"], padding=1, groups=x.shape[1])
        x = epilogue(x, f"{name}.epi1", 2 * stage)
        x = F.conv2d(x, scaled(f"{name}.conv1.weight", math.sqrt(2)), tensors[f"{name}.conv1.bias"], padding=1)
        x = epilogue(x, f"{name}.epi2", 2 * stage + 1)
    x = F.conv2d(x, scaled("torgb.weight"), tensors["torgb.bias"][:, None, None].flatten())
    return (x + 1) / 2


@pytest.mark.parametrize("name", ["stylegan1_pulse_32", "stylegan1_pulse_128"])
def test_folding_is_exact(name):
    """Image and gradients, also those of the noise, in float64; one map left out."""
    weights, golden, meta = read(name)
    weights = {key: value.double() for key, value in weights.items()}
    weights = {
        key: value + 0.1 * random(value.shape, dtype=torch.float64) for key, value in weights.items()
    }  # not even symmetric
    fit = torch.zeros(64, dtype=torch.float64), torch.ones(64, dtype=torch.float64)
    generator = StyleGAN1(synthesis_network(weights, "golden"), None, fit, zero_noise=[3])
    latents = {"w_plus": golden["w"].double().requires_grad_()}
    latents |= {key: value.double().requires_grad_() for key, value in noise_of(golden).items() if key != "noise_3"}
    images = generator(latents), written_out(weights, latents["w_plus"], latents, meta["kwargs"]["resolution"])
    torch.testing.assert_close(*images, rtol=1e-9, atol=1e-9)
    weigh = random(images[0].shape, 1, torch.float64)
    gradients = [torch.autograd.grad((image * weigh).sum(), list(latents.values())) for image in images]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


def test_the_benchmark_s_yardstick_is_the_same_network():
    path = Path(__file__).parents[2] / "benchmarks" / "_reference_stylegan1.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    tensors = {key: value.double() for key, value in reference.random_tensors(128, 256, 16, 12).items()}
    generator = StyleGAN1(synthesis_network(tensors, "random"), None, (torch.zeros(12), torch.ones(12)))
    noise = [random((2, 1, 4 << k // 2, 4 << k // 2), k, torch.float64) for k in range(12)]
    w = random((2, 12, 12), dtype=torch.float64)
    image = generator({"w_plus": w} | {f"noise_{k}": map_ for k, map_ in enumerate(noise)})
    torch.testing.assert_close(2 * image - 1, reference.synthesis(tensors, w, noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_same_bits_alone_and_in_a_batch(count):
    weights, golden, _ = read("stylegan1_pulse_128")
    generator = StyleGAN1(synthesis_network(weights, "golden"), None, (torch.zeros(64), torch.ones(64))).float()
    style = random((count, 12, 64))
    noise = {key: value[:1].expand(count, -1, -1, -1) for key, value in noise_of(golden).items()}
    together = style.clone().requires_grad_()
    image = generator({"w_plus": together} | noise)
    (gradient,) = torch.autograd.grad(image.square().sum(), together)
    for row in range(count):
        alone = style[row : row + 1].clone().requires_grad_()
        image_alone = generator({"w_plus": alone} | {key: value[:1] for key, value in noise.items()})
        assert torch.equal(image_alone[0], image[row])
        assert torch.equal(torch.autograd.grad(image_alone.square().sum(), alone)[0][0], gradient[row])


def test_blocks(files):
    generator = load(**files, zero_noise=[-1])
    shapes = {block.name: block.shape for block in generator.blocks}
    assert {name: shapes[name] for name in ("z", "w", "w_plus", "v", "v_plus")} == {
        "z": (64,),
        "w": (64,),
        "w_plus": (8, 64),
        "v": (64,),
        "v_plus": (8, 64),
    }
    assert generator.blocks[0].name == "z"
    sides = (4, 4, 8, 8, 16, 16, 32)
    assert {name: shape for name, shape in shapes.items() if "noise" in name} == {
        f"noise_{k}": (1, side, side) for k, side in enumerate(sides)
    }
    assert not [block.name for block in load(**files, noise="none").blocks if "noise" in block.name]


def test_zero_noise_is_a_map_of_zeros(files):
    style = {"v_plus": random((2, 8, 64))}
    noise = {f"noise_{k}": random((2, 1, 4 * 2 ** (k // 2), 4 * 2 ** (k // 2)), k) for k in range(8)}
    whole = load(**files)
    silent = {key: torch.zeros_like(value) for key, value in noise.items()}
    torch.testing.assert_close(load(**files, noise="none")(style), whole(style | silent))
    some = {key: value for key, value in noise.items() if key not in ("noise_2", "noise_7")}
    zeros = {key: silent[key] for key in ("noise_2", "noise_7")}
    torch.testing.assert_close(load(**files, zero_noise=[2, -1])(style | some), whole(style | some | zeros))
    assert not torch.allclose(whole(style | noise), whole(style | some | zeros))


def test_v_goes_through_the_fit(files):
    fit, v = torch.load(files["gaussian_fit"], weights_only=True), random((2, 8, 64))
    expected = F.leaky_relu(v * fit["std"] + fit["mean"], 0.2)
    torch.testing.assert_close(load(**files).lift({"v_plus": v}, "w_plus"), expected)


def test_without_a_mapping_styles_are_drawn_from_the_fit(files):
    generator = load(files["synthesis"], gaussian_fit=files["gaussian_fit"])
    assert [block.name for block in generator.blocks if block.slot == "style"] == ["v", "v_plus", "w", "w_plus"]
    assert {block.native.source for block in generator.blocks if block.name in ("w", "w_plus")} == {"v"}


def test_single_file_is_the_two_files(files, tmp_path):
    tensors = {f"g_mapping.{name}": tensor for name, tensor in torch.load(files["mapping"]).items()}
    for name, tensor in torch.load(files["synthesis"]).items():
        tensors[f"g_synthesis.{name}".replace(".noise.", ".top_epi.noise.")] = tensor
    torch.save(tensors, tmp_path / "all.pt")
    latents = {"z": random((2, 64))}
    options = {"gaussian_fit": files["gaussian_fit"], "noise": "none"}
    one, two = load(tmp_path / "all.pt", **options), load(files["synthesis"], files["mapping"], **options)
    assert torch.equal(one(latents), two(latents))
    with pytest.raises(ValueError, match="expected no other mapping, since this file holds one"):
        load(tmp_path / "all.pt", files["mapping"])


def test_half_precision_files_give_a_float32_generator(files):
    assert torch.load(files["synthesis"])["torgb.weight"].dtype == torch.float16
    assert {tensor.dtype for tensor in load(**files).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.8x8.conv1.bias"), "missing blocks.8x8.conv1.bias, unexpected none"),
        (lambda t: t.pop("blocks.32x32.epi2.noise.weight"), "missing blocks.32x32.epi2.noise.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "missing none, unexpected extra"),
        (lambda t: t.update({"torgb.bias": torch.zeros(1)}), r"'torgb.bias': expected shape \(3,\), got \(1,\)"),
        (lambda t: [t.pop(name) for name in list(t) if "epi" in name], r"expected torgb.weight, .* of a StyleGAN1, got"),
    ],
)
def test_other_synthesis_files_are_refused(files, change, message):
    tensors = torch.load(files["synthesis"])
    change(tensors)
    torch.save(tensors, files["synthesis"])
    with pytest.raises(ValueError, match=message) as error:
        load(**files)
    assert str(files["synthesis"]) in str(error.value)


def test_other_mappings_and_fits_are_refused(files, tmp_path):
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"expected dense0.weight, dense0.bias, ... of a mapping network, got linear.weight"):
        load(files["synthesis"], tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"missing mean, std, unexpected linear\.weight"):
        load(files["synthesis"], files["mapping"], tmp_path / "bad.pt")
    torch.save({"dense0.weight": torch.zeros(9, 9), "dense0.bias": torch.zeros(9)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="w of 64 entries, got 9"):
        load(files["synthesis"], tmp_path / "other.pt", fit_samples=10)


def test_settings_are_checked(files):
    with pytest.raises(ValueError, match="expected a mapping or a Gaussian fit, got neither"):
        load(files["synthesis"])
    with pytest.raises(ValueError, match=r"expected maps from -8 to 7, got \[8\]"):
        load(**files, zero_noise=[8])


def test_fit_is_made_when_no_file_gives_it(files):
    generator = load(files["synthesis"], files["mapping"], fit_samples=1000)
    fit = fit_gaussian(generator.styles.mapping, 64, 1000)
    assert torch.equal(generator.styles.mean, fit.mean)
    assert torch.equal(generator.styles.std, fit.std)
    names = {block.name for block in load(files["synthesis"], files["mapping"], fit_samples=0).blocks}
    assert not names & {"v", "v_plus"}
