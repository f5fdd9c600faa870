"""The spaces of the StyleGANs: charts and their fit, W++, anchors; and the fit that is kept on this machine."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from generators._gaussian_fit import GaussianFit, cached_fit, chart, fit_gaussian, pre_activation, read_fit
from generators._stylegan2_architecture import Architecture, random_tensors
from generators._stylegan2_filters import filtered_image, filtered_layer
from generators._stylegan_ops import Linear, modulated_layer, to_image
from generators._styles import Styles
from generators.stylegan2 import StyleGAN2
from pulse_framework.testing import GeneratorContract

TINY = Architecture((6, 5), z_dim=5, w_dim=7, mapping_layers=2)
DOUBLE = {"dtype": torch.float64}


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fitted(**settings):
    """A tiny network with the fit of its own mapping."""
    tensors = random_tensors(TINY)
    mapping = StyleGAN2(tensors, TINY, noise="none").styles.mapping
    return StyleGAN2(tensors, TINY, fit_gaussian(mapping, 5, 2000), noise="none", **settings)


ONE, EACH = ("w", "v", "p_n"), ("w_plus", "v_plus", "p_n_plus")


class TestEverySpace(GeneratorContract):
    lifts = (
        *((one, other) for one in ONE for other in ONE),
        *((one, each) for one in (*ONE, *EACH, "z") for each in EACH),
        *((each, "w_plus_plus") for each in ("z", *ONE, *EACH)),
        ("z", "z_anchor"),
        ("z", "w_anchor"),
        ("z_anchor", "w_anchor"),
    )
    tolerance = 1e-3  # p_n divides by the smallest deviation

    def make(self):
        return fitted(anchor=True)


class TestTruncatedInPart(GeneratorContract):
    lifts = (("z", "v_plus"), ("z", "p_n_plus"), ("z", "w_plus_plus"), ("w_plus", "p_n_plus"), ("z", "w_anchor"))
    tolerance = 1e-3

    def make(self):
        return fitted(anchor=True, psi=0.7, cutoff=2)


@pytest.mark.parametrize(("given", "name"), [("w_plus", "w"), ("w_plus_plus", "w_plus"), ("w", "z"), ("w_plus", "z_anchor")])
def test_no_way_back(given, name):
    generator = fitted(anchor=True)
    shape = next(block.shape for block in generator.blocks if block.name == given)
    with pytest.raises(ValueError, match=f"got '{name}'"):
        generator.lift({given: random(1, *shape)}, name)


def test_p_n_of_the_mapping_is_white():
    """Mean 0, covariance 1: of the very samples that it was fitted to, within float32."""
    generator = fitted()
    z = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    white = generator.lift({"z": z}, "p_n").double()
    torch.testing.assert_close(white.mean(0), torch.zeros(7).double(), rtol=0, atol=2e-3)
    torch.testing.assert_close(white.T.cov(), torch.eye(7).double(), rtol=0, atol=5e-3)
    v = generator.lift({"z": z}, "v").double()
    torch.testing.assert_close(v.std(0), torch.ones(7).double(), rtol=0, atol=1e-4)


def test_charts_are_the_formulae():
    """w = rho(sigma v + mu) = rho(U^T (s p_N) + mu)."""
    fit, styles = fitted().styles, fitted().styles
    parts = fit_gaussian(fit.mapping, 5, 2000)
    v = random(3, 7)
    torch.testing.assert_close(styles.lift({"v": v}, "w"), torch.nn.functional.leaky_relu(parts.std * v + parts.mean, 0.2))
    expected = torch.nn.functional.leaky_relu((v * parts.scales) @ parts.components + parts.mean, 0.2)
    torch.testing.assert_close(styles.lift({"p_n": v}, "w"), expected)
    torch.testing.assert_close(parts.components @ parts.components.T, torch.eye(7), rtol=0, atol=1e-5)
    assert parts.scales.diff().min() >= 0


def test_fit_finds_the_gaussian_it_came_from():
    """A mapping that is the chart itself; the samples are those of one draw, whatever the chunks."""
    mean, std = random(6), random(6, seed=1).abs() + 0.1
    fit = fit_gaussian(lambda z: chart(z, mean, std), 6, 5000)
    p = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0)).double() * std + mean
    torch.testing.assert_close(fit.mean.double(), p.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fit.std.double(), p.std(0), rtol=1e-5, atol=1e-6)
    covariance = fit.components.T.double() @ (fit.scales.double().square()[:, None] * fit.components.double())
    torch.testing.assert_close(covariance, p.T.cov(), rtol=1e-4, atol=1e-5)
    again = fit_gaussian(lambda z: chart(z, mean, std), 6, 5000)
    assert all(map(torch.equal, fit, again))
    assert not torch.equal(fit.mean, fit_gaussian(lambda z: chart(z, mean, std), 6, 5000, seed=1).mean)
    torch.testing.assert_close(pre_activation(chart(random(4, 6), mean, std)), random(4, 6) * std + mean)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        fit_gaussian(lambda z: z, 6, 1)


def counted(calls):
    def mapping(z):
        calls.append(len(z))
        return chart(z, torch.zeros(4), torch.ones(4))

    return mapping


def test_fit_is_kept_and_trusted_only_whole(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path))
    tensors, calls = {"fc0.weight": random(4, 4)}, []
    fresh = cached_fit(tensors, counted(calls), 4, 100)
    (whole,) = (tmp_path / "fits").iterdir()
    assert torch.equal(load_file(whole)["mean"], fresh.mean)
    assert all(map(torch.equal, fresh, cached_fit(tensors, counted(calls), 4, 100)))
    assert calls == [100], "expected the second fit from the disk"
    cached_fit({"fc0.weight": random(4, 4, seed=1)}, counted(calls), 4, 100)
    cached_fit(tensors, counted(calls), 4, 101)
    cached_fit(tensors, counted(calls), 4, 100, seed=1)
    assert calls == [100, 100, 101, 100], "expected another fit for other weights, samples or seed"
    assert len(list((tmp_path / "fits").iterdir())) == 4, "expected nothing but fits"
    kept = whole.read_bytes()
    for broken in (b"", kept[:-1], kept[:-1] + bytes([kept[-1] ^ 1])):
        whole.write_bytes(broken)
        calls.clear()
        with caplog.at_level(logging.WARNING):
            again = cached_fit(tensors, counted(calls), 4, 100)
        assert calls == [100]
        assert all(map(torch.equal, fresh, again))
        assert "is made anew" in caplog.text
        calls.clear()
        assert all(map(torch.equal, fresh, cached_fit(tensors, counted(calls), 4, 100)))
        assert not calls, "expected a whole file in place of the broken one"


def test_fit_without_a_place_to_keep_it(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        fit = cached_fit({}, counted([]), 4, 100)
    assert torch.equal(fit.mean, fit_gaussian(counted([]), 4, 100).mean)
    assert "cannot be kept" in caplog.text


def test_files_of_a_fit(tmp_path):
    fit = fit_gaussian(counted([]), 4, 100)
    save_file(fit._asdict(), tmp_path / "all.safetensors")
    assert all(map(torch.equal, read_fit(tmp_path / "all.safetensors", 4), fit))
    save_file({"mean": fit.mean, "std": fit.std}, tmp_path / "two.safetensors")
    assert read_fit(tmp_path / "two.safetensors", 4).components is None
    names = {block.name for block in Styles(None, 0, 4, 3, fit=read_fit(tmp_path / "two.safetensors", 4)).blocks}
    assert names == {"v", "v_plus", "w", "w_plus"}
    save_file(fit._asdict() | {"scales": torch.ones(3)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match=r"'scales': expected shape \(4,\), got \(3,\)"):
        read_fit(tmp_path / "wrong.safetensors", 4)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("limit", [None, 1.5])
def test_a_filter_s_style_acts_on_that_filter_alone(up, limit):
    """Channel o is what the layer of w+ computes with the style of filter o; gradients too."""
    x, w = random(2, 3, 4, 4, **DOUBLE).requires_grad_(), random(2, 6, 7, seed=1, **DOUBLE).requires_grad_()
    weight = random(*((3, 5) if up else (5, 3)), 3, 3, seed=3, **DOUBLE)
    noise, bias = random(2, 1, *((8, 8) if up else (4, 4)), seed=4, **DOUBLE), random(5, seed=6, **DOUBLE)
    taps = random(1, 1, 4, 4, seed=5, **DOUBLE) if up else None
    affine = Linear(random(3, 7, seed=8, **DOUBLE), random(3, seed=9, **DOUBLE))
    energy = (weight.transpose(0, 1) if up else weight).square().sum((2, 3))
    got = filtered_layer(x, w, affine, energy, noise, weight, bias, taps, 1.3, limit)
    channels = []
    for o in range(5):
        s = affine(w[:, o])
        d = 1.3 * (s.square() @ energy.T + 1e-8).rsqrt()
        channels.append(modulated_layer(x, s, d, noise, weight, bias, taps, limit)[:, o])
    expected = torch.stack(channels, 1)
    torch.testing.assert_close(got, expected)
    weighed = random(*got.shape, seed=7, **DOUBLE)
    for ours, theirs in zip(*(torch.autograd.grad((y * weighed).sum(), [x, w]) for y in (got, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_filter_s_style_in_the_image():
    x, w = random(2, 4, 3, 5, **DOUBLE), random(2, 6, 7, seed=1, **DOUBLE)
    weight, bias = random(3, 4, seed=2, **DOUBLE), random(3, seed=3, **DOUBLE)
    affine = Linear(random(4, 7, seed=8, **DOUBLE))
    got = filtered_image(x, w, affine, weight, bias)
    expected = torch.stack([to_image(x, affine(w[:, o]), weight, bias)[:, o] for o in range(3)], 1)
    torch.testing.assert_close(got, expected)


def test_w_plus_plus_has_one_vector_for_each_filter():
    """Rows 0 to 3 of a network of 4x4 and 8x8: conv1 (6 filters); T and conv0 (3, 5); conv1 (5); T (3)."""
    generator = fitted()
    assert generator.synthesis.filters == (6, 5, 5, 3)
    wide = next(block for block in generator.blocks if block.name == "w_plus_plus")
    assert wide.shape == (19, 7)
    lifted = generator.lift({"w_plus": random(1, 4, 7)}, "w_plus_plus")
    assert torch.equal(lifted, random(1, 4, 7).repeat_interleave(torch.tensor([6, 5, 5, 3]), 1))
    moved = lifted.clone()
    moved[:, 18] += 1
    apart = (generator({"w_plus_plus": moved}) - generator({"w_plus_plus": lifted})).abs().amax((0, 2, 3))
    assert apart[:2].tolist() == [0, 0], "expected filter 18 to be that of the last colour"
    assert apart[2] > 0


def test_a_fit_is_a_tuple_of_two_too():
    generator = StyleGAN2(random_tensors(TINY), TINY, GaussianFit(torch.zeros(7), torch.ones(7)))
    assert "p_n" not in {block.name for block in generator.blocks}
    assert generator.ladder == ("v", "v_plus")
