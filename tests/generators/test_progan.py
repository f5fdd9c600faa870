"""ProGAN against the network written out as TensorFlow's variables lie: NHWC, HWIO, weights scaled at run time."""

import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generators._checkpoints import read_checkpoint
from generators.progan import ProGAN, load, progan_network
from pulse_framework.testing import GeneratorContract
from tests.generators.written import fake_module, write_tensorflow

WIDTHS = {4: 6, 8: 5, 16: 3}


def variables(fused=True, z_dim=7, channels=3, widths=WIDTHS):
    """Those of G_paper, by name, float64; what full-size images do not need is there too."""
    rng, side, before = np.random.default_rng(0), max(widths), z_dim
    out = {"lod": np.float32(0)}
    for r, width in widths.items():
        if r == 4:
            shapes = {"Dense": (z_dim, 16 * width), "Conv": (3, 3, width, width)}
        elif fused:
            shapes = {"Conv0_up": (3, 3, width, before), "Conv1": (3, 3, width, width)}
        else:
            shapes = {"Conv0": (3, 3, before, width), "Conv1": (3, 3, width, width)}
        for name, shape in shapes.items():
            out[f"{r}x{r}/{name}/weight"], out[f"{r}x{r}/{name}/bias"] = rng.normal(size=shape), rng.normal(size=width)
        lod = (side // r).bit_length() - 1
        out[f"ToRGB_lod{lod}/weight"], out[f"ToRGB_lod{lod}/bias"] = (
            rng.normal(size=(1, 1, width, channels)),
            rng.normal(size=channels),
        )
        before = width
    return out


def tensors(**options):
    return {name: torch.from_numpy(np.asarray(array, np.float64)) for name, array in variables(**options).items()}


def written_out(tensors, z):
    """G_paper at lod 0, in [0, 1]."""

    def scaled(name, gain):
        weight = tensors[f"{name}/weight"]
        inputs = weight.shape[-1] if name.endswith("_up") else weight.shape[-2]
        fan_in = inputs * (weight.shape[0] * weight.shape[1] if weight.ndim == 4 else 1)
        return weight * (gain / math.sqrt(fan_in))

    def normalise(x):  # the last axis is that of the channels
        return x / (x.square().mean(-1, keepdim=True) + 1e-8).sqrt()

    def activate(x, name):
        x = x + tensors[f"{name}/bias"]
        return normalise(torch.where(x > 0, x, 0.2 * x))

    def convolve(x, weight):
        side, reach = x.shape[1], weight.shape[0] // 2
        padded = torch.nn.functional.pad(x, (0, 0, reach, reach, reach, reach))
        taps = [(i, j) for i in range(len(weight)) for j in range(len(weight))]
        return sum(padded[:, i : i + side, j : j + side] @ weight[i, j] for i, j in taps)

    def convolve_doubled(x, weight):
        """The gradient of a convolution of stride 2 whose 4 x 4 taps (HWOI) are sums of neighbours."""
        wide = torch.nn.functional.pad(weight, (0, 0, 0, 0, 1, 1, 1, 1))
        wide = wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1]
        side = 2 * x.shape[1]
        out = x.new_zeros(len(x), side + 2, side + 2, weight.shape[2])
        for i in range(4):
            for j in range(4):
                out[:, i : i + side : 2, j : j + side : 2] += x @ wide[i, j].T
        return out[:, 1:-1, 1:-1]

    x = normalise(z) @ scaled("4x4/Dense", math.sqrt(2) / 4)
    x = activate(x.reshape(len(z), -1, 4, 4).movedim(1, -1), "4x4/Dense")
    x = activate(convolve(x, scaled("4x4/Conv", math.sqrt(2))), "4x4/Conv")
    r = 8
    while f"{r}x{r}/Conv1/weight" in tensors:
        if f"{r}x{r}/Conv0_up/weight" in tensors:
            x = activate(convolve_doubled(x, scaled(f"{r}x{r}/Conv0_up", math.sqrt(2))), f"{r}x{r}/Conv0_up")
        else:
            doubled = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
            x = activate(convolve(doubled, scaled(f"{r}x{r}/Conv0", math.sqrt(2))), f"{r}x{r}/Conv0")
        x = activate(convolve(x, scaled(f"{r}x{r}/Conv1", math.sqrt(2))), f"{r}x{r}/Conv1")
        r *= 2
    x = convolve(x, scaled("ToRGB_lod0", 1.0)) + tensors["ToRGB_lod0/bias"]
    return (x.movedim(-1, 1) + 1) / 2


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def write_first(monkeypatch, path, variables, **static):
    """A pickle as ProGAN's own code writes it: another module, version 2, no components."""

    class Network:
        def __getstate__(self):
            return {
                "version": 2,
                "name": "Gs",
                "static_kwargs": static,
                "build_module_src": "raise SystemExit",
                "build_func_name": "G_paper",
                "variables": list(variables.items()),
            }

    fake_module(monkeypatch, "tfutil", Network=Network)
    path.write_bytes(pickle.dumps((Network(), Network(), Network()), 4))
    monkeypatch.undo()


class TestContract(GeneratorContract):
    def make(self):
        return ProGAN(progan_network(tensors(), "toy").float())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("options", [{}, {"widths": {4: 4}}, {"widths": {4: 6, 8: 6, 16: 6, 32: 2}, "channels": 1}])
def test_folding_is_exact(fused, options):
    """Image and gradient, in float64."""
    weights, z = tensors(fused=fused, **options), random(3, 7).requires_grad_()
    images = ProGAN(progan_network(weights, "toy"))({"z": z}), written_out(weights, z)
    torch.testing.assert_close(*images, rtol=1e-9, atol=1e-9)
    weigh = random(*images[0].shape)
    torch.testing.assert_close(*(torch.autograd.grad((image * weigh).sum(), z)[0] for image in images), rtol=1e-9, atol=1e-9)


def test_same_bits_alone_and_in_a_batch():
    generator, z = TestContract().make(), random(4, 7, dtype=torch.float32)
    batch = generator({"z": z})
    assert all(torch.equal(generator({"z": row[None]})[0], image) for row, image in zip(z, batch, strict=True))


@pytest.mark.parametrize("fused", [True, False])
def test_pickles_of_both_codebases_and_what_is_made_of_them(monkeypatch, tmp_path, fused):
    static = {"num_channels": 3, "resolution": 16, "label_size": 0, "fused_scale": fused, "use_wscale": True, "latent_size": 7}
    given = {name: np.float32(array) for name, array in variables(fused).items()}
    write_first(monkeypatch, tmp_path / "first.pkl", given, **static)
    write_tensorflow(monkeypatch, tmp_path / "later.pkl", {"": list(given.items())}, 3, **static)
    read = read_checkpoint(tmp_path / "first.pkl")
    assert (read.family, read.source_format) == ("progan", "nvidia-tensorflow")
    assert {name: read.architecture[name] for name in ("z_dim", "img_resolution", "img_channels")} == {
        "z_dim": 7,
        "img_resolution": 16,
        "img_channels": 3,
    }
    save_file(read.tensors, tmp_path / "first.safetensors")
    z = random(2, 7, dtype=torch.float32)
    expected = written_out({name: torch.from_numpy(np.asarray(array, np.float64)) for name, array in given.items()}, z.double())
    for name in ("first.pkl", "later.pkl", "first.safetensors"):
        generator = load(tmp_path / name)
        assert (generator.image_shape, generator.blocks[0].shape) == ((3, 16, 16), (7,))
        assert {tensor.dtype for tensor in generator.state_dict().values()} == {torch.float32}
        torch.testing.assert_close(generator({"z": z}).double(), expected, rtol=0, atol=1e-5)


def rename(weights, old, new):
    weights[new] = weights.pop(old)


@pytest.mark.parametrize(
    ("change", "static", "message"),
    [
        (lambda v: v.pop("8x8/Conv1/bias"), {}, "missing 8x8/Conv1/bias, unexpected none"),
        (lambda v: v.pop("8x8/Conv0_up/weight"), {}, "missing 8x8/Conv0_up/weight, unexpected none"),
        (lambda v: rename(v, "16x16/Conv0_up/weight", "16x16/Conv0/weight"), {}, "missing 16x16/Conv0_up/weight, unexpected 16"),
        (lambda v: v.update(other=np.zeros(1, "f4")), {}, "missing none, unexpected other"),
        (
            lambda v: v.update({"8x8/Conv0_up/weight": np.zeros((3, 3, 6, 5), "f4")}),
            {},
            r"expected shape \(3, 3, 5, 6\), got \(3, 3, 6",
        ),
        (lambda v: v.update({"4x4/Dense/weight": np.zeros((7, 97), "f4")}), {}, r"Dense/weight': expected shape \(7, 96\), got"),
        (lambda v: v.update({"4x4/Dense/weight": np.zeros(7, "f4")}), {}, "expected 4x4/Dense/weight, ToRGB_lod0/bias, ... of a"),
        (lambda v: v.update(lod=np.float32(1.5)), {}, "expected a network grown to its full size, 'lod' to be 0"),
        (lambda v: None, {"label_size": 10}, "expected a ProGAN made with c_dim=0, got 10"),
        (lambda v: None, {"use_pixelnorm": False}, "made with use_pixelnorm=True, got False"),
        (lambda v: None, {"resolution": 32}, "expected img_resolution to be 32, as the file says, got tensors that make it 16"),
    ],
)
def test_other_networks_are_refused(monkeypatch, tmp_path, change, static, message):
    given = {name: np.float32(array) for name, array in variables().items()}
    change(given)
    write_first(monkeypatch, tmp_path / "g.pkl", given, **static)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path / "g.pkl")
    assert str(tmp_path / "g.pkl") in str(error.value)


def test_other_families_are_refused(tmp_path):
    torch.save({"mean": torch.zeros(2), "std": torch.ones(2)}, tmp_path / "fit.pt")
    with pytest.raises(ValueError, match="expected a ProGAN, got gaussian-fit; use the generator of that family"):
        load(tmp_path / "fit.pt")
