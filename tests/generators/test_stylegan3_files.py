"""Files of StyleGAN3: the schedule against their shapes and filters, how the architecture is read, and what is refused."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from generators._stylegan3_layers import plan_layers
from generators.stylegan3 import StyleGAN3, load, tensor_shapes
from tests.generators.small_stylegan3 import GOLDEN, NAMES, read


@pytest.mark.parametrize("name", NAMES)
def test_schedule_gives_the_names_and_shapes_published(name):
    a, weights, _ = read(name)
    assert tensor_shapes(a) == {key: tuple(value.shape) for key, value in weights.items()}


@pytest.mark.parametrize("name", NAMES)
def test_schedule_gives_the_filters_published(name):
    """Windowed sincs and jincs (Kaiser 1974) of the schedule's cutoffs and transition bands are the filters in the files."""
    a, weights, _ = read(name)
    plans = plan_layers(a)
    for before, plan in zip((plans[0], *plans), plans, strict=False):
        rate = plan.rate * plan.down
        for key, source in (("up_filter", before), ("down_filter", plan)):
            stored = weights.get(f"synthesis.{plan.name}.{key}")
            if stored is not None:
                designed = lowpass(stored.shape[0], source.cutoff, source.half_width, rate, radial=stored.ndim == 2)
                np.testing.assert_allclose(stored.numpy(), designed, atol=1e-6, err_msg=f"{plan.name}.{key}")


def lowpass(count, cutoff, half_width, rate, radial):
    attenuation = 2.285 * (count - 1) * math.pi * 4 * half_width / rate + 7.95
    beta = 0.1102 * (attenuation - 8.7) if attenuation > 50 else 0.5842 * max(0, attenuation - 21) ** 0.4
    beta += 0.07886 * max(0, attenuation - 21) if attenuation <= 50 else 0
    window, x = np.kaiser(count, beta), (np.arange(count) - (count - 1) / 2) / rate
    if radial:
        r = np.hypot(x, x[:, None])
        taps = torch.special.bessel_j1(torch.from_numpy(2 * math.pi * cutoff * r)).numpy() / r * np.outer(window, window)
    else:
        taps = np.sinc(2 * cutoff * x) * window
    return taps / taps.sum()


def test_file_of_nvidia_gives_the_same_bits():
    a, weights, golden = read("stylegan3_t")
    generator = load(GOLDEN / "stylegan3_t.pkl", fit_samples=1000)
    w_plus = golden["w_plus"]
    assert torch.equal(generator({"w_plus": w_plus}), StyleGAN3(weights, a)({"w_plus": w_plus}))
    assert generator.image_shape == (3, 32, 32)
    assert [block.name for block in generator.blocks] == ["z", "w", "w_plus", "v", "v_plus", "p_n", "p_n_plus"]
    w = generator.lift({"z": torch.randn(4096, 32, generator=torch.Generator().manual_seed(1))}, "w")
    before = F.leaky_relu(w, 5)
    torch.testing.assert_close(generator.styles.mean, before.mean(0), rtol=0, atol=0.3)
    torch.testing.assert_close(generator.styles.std, before.std(0), rtol=0.2, atol=0)


def test_metadata_gives_the_architecture(tmp_path):
    a, weights, golden = read("stylegan3_r")
    told = {"channel_base": "256", "channel_max": "16", "use_radial_filters": "true"}
    save_file(weights, tmp_path / "r.safetensors", told)
    generator = load(tmp_path / "r.safetensors", fit_samples=0)
    w_plus = golden["w_plus"]
    assert torch.equal(generator({"w_plus": w_plus}), StyleGAN3(weights, a)({"w_plus": w_plus}))
    assert [block.name for block in generator.blocks] == ["z", "w", "w_plus"]


def test_gaussian_fit_of_a_file(tmp_path):
    torch.manual_seed(0)
    mean, std = torch.randn(32), torch.rand(32) + 0.5
    torch.save({"mean": mean, "std": std}, tmp_path / "fit.pt")
    generator, v = load(GOLDEN / "stylegan3_t.pkl", tmp_path / "fit.pt"), torch.randn(2, 10, 32)
    torch.testing.assert_close(generator.lift({"v_plus": v}, "w_plus"), F.leaky_relu(std * v + mean, 0.2))
    torch.save({"mean": mean, "std": std[1:]}, tmp_path / "fit.pt")
    with pytest.raises(ValueError, match=r"fit\.pt, tensor 'std': expected shape \(32,\), got \(31,\)"):
        load(GOLDEN / "stylegan3_t.pkl", tmp_path / "fit.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("synthesis.L2_36_16.bias"), r"missing synthesis\.L2_36_16\.bias, unexpected none"),
        (lambda t: t.update(extra=torch.zeros(1)), "missing none, unexpected extra"),
        (
            lambda t: t.update({"synthesis.L2_36_16.down_filter": torch.zeros(11)}),
            r"'synthesis\.L2_36_16\.down_filter': expected shape \(12,\), got \(11,\)",
        ),
    ],
)
def test_other_tensors_are_refused(tmp_path, change, message):
    a, weights, _ = read("stylegan3_t")
    change(weights)
    with pytest.raises(ValueError, match=message):
        StyleGAN3(weights, a)
    path = tmp_path / "bad.safetensors"
    save_file(weights, path, {"channel_base": "256", "channel_max": "16"})
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("told", [{"channel_base": "0"}, {"num_critical": "8"}, {"first_cutoff": "16"}, {"margin_size": '"ten"'}])
def test_other_numbers_are_refused(tmp_path, told):
    save_file(read("stylegan3_t")[1], tmp_path / "bad.safetensors", {"channel_base": "256", "channel_max": "16"} | told)
    with pytest.raises(ValueError, match=r"bad\.safetensors.*expected"):
        load(tmp_path / "bad.safetensors")


def test_other_families_are_refused():
    with pytest.raises(ValueError, match=r"expected a stylegan3, got stylegan2; use the loader of that family"):
        load(GOLDEN / "stylegan2_ada_skip.pkl")
