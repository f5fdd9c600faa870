"""Sidecars: what `pulse degrade` did to a picture is what `pulse upsample` searches with."""

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors import safe_open

from degradations.downscale import Downscale
from degradations.noise import GaussianNoise
from pulse_framework.cli.compose import ConfigError, build
from pulse_framework.cli.sidecar import read_sidecar, sidecar_path
from pulse_framework.images import read_image, write_png
from pulse_framework.search import stream

NOISY = """
_target_: degradations.compose.compose
parts:
  - _target_: degradations.downscale.Downscale
    factor: {_draw_: choice, items: [2, 4]}
  - {_draw_: maybe, p: 0.5, item: {_target_: degradations.identity.Identity}}
  - _target_: degradations.noise.GaussianNoise
    sigma: {_draw_: uniform, low: 0.01, high: 0.1}
"""


@pytest.fixture
def own(tmp_path):
    """Options for a random degradation of one's own, called noisy."""
    (tmp_path / "configs" / "degradation").mkdir(parents=True)
    (tmp_path / "configs" / "degradation" / "noisy.yaml").write_text(NOISY)
    return ["--config-dir", tmp_path / "configs"]


@pytest.fixture
def good(tmp_path):
    """Eight images of the size of the generator's."""
    (tmp_path / "good").mkdir()
    rng = torch.Generator().manual_seed(0)
    return [write_png(torch.rand(3, 16, 16, generator=rng), tmp_path / "good" / f"{i}.png") for i in range(8)]


@pytest.fixture
def degraded(pulse, good, own, tmp_path):
    assert pulse("degrade", *good, "-o", tmp_path / "low", "--degradation", "noisy", *own, "--seed", 3).status == 0
    return [tmp_path / "low" / path.name for path in good]


def test_a_sidecar_makes_the_same_picture_again(degraded, good):
    """The written configuration, the seed and the key give the measurement, bit for bit."""
    seen = set()
    for path, original in zip(degraded, good, strict=True):
        told = yaml.safe_load(sidecar_path(path).read_text())
        assert (told["file"], told["name"], told["seed"], told["key"]) == (path.name, "noisy", 3, original.name)
        operator = build(OmegaConf.create(told["degradation"]))
        y = operator.measure(read_image(original)[None], stream(3, original.name))[0]
        assert torch.equal((y * 255).round(), (read_image(path) * 255).round())
        sigma = operator.parts[-1].sigma
        assert (type(operator.parts[0]), type(operator.parts[-1])) == (Downscale, GaussianNoise)
        assert 0.01 <= sigma <= 0.1
        seen.add((operator.parts[0].factor, len(operator.parts), sigma))
    assert len(seen) == len(good)
    assert {len({kind[i] for kind in seen}) for i in (0, 1)} == {2}


def test_what_is_written_depends_on_image_and_seed_alone(degraded, pulse, good, own, tmp_path):
    settings = ["--degradation", "noisy", *own, "--quiet"]
    pulse("degrade", *good[::-1], "-o", tmp_path / "again", *settings, "--seed", 3)
    pulse("degrade", good[0], "-o", tmp_path / "other", *settings, "--seed", 4)
    for path in degraded:
        for one in (path, sidecar_path(path)):
            assert one.read_bytes() == (tmp_path / "again" / one.name).read_bytes()
    assert degraded[0].read_bytes() != (tmp_path / "other" / degraded[0].name).read_bytes()


def test_upsample_searches_with_each_inputs_own_degradation(degraded, pulse, records, linear, linear_file, tmp_path):
    from generators.linear import load

    done = pulse("upsample", tmp_path / "low", "-o", tmp_path / "out", *linear)
    assert done.status == 0
    assert "8 of 8 inputs have a sidecar, whose degradation is used (noisy)" in done.err
    lines = {line["output"]: line for line in records(tmp_path / "out")}
    assert {line["degradation"] for line in lines.values()} == {"noisy"}
    for path in degraded:
        with safe_open(tmp_path / "out" / f"{path.stem}.safetensors", "pt") as file:
            image = load(linear_file)({"z": file.get_tensor("z")[None]})
            assert file.metadata()["degradation"] == "noisy"
        operator = build(read_sidecar(path).node)
        mse = (operator(image)[0] - read_image(path)).square().mean().item()
        assert lines[path.name]["mse"] == pytest.approx(mse, rel=1e-4)
    again = pulse("upsample", tmp_path / "low", "-o", tmp_path / "out", *linear)
    assert "8 already done" in again.err


def test_results_do_not_depend_on_the_company(degraded, pulse, linear, tmp_path):
    pulse("upsample", *degraded, "-o", tmp_path / "all", *linear, "--quiet")
    pulse("upsample", degraded[2], "-o", tmp_path / "alone", *linear, "--quiet", "--degradation", "sidecar")
    for kind in ("png", "safetensors"):
        assert (tmp_path / "alone" / f"2.{kind}").exists()
    assert (tmp_path / "alone" / "2.png").read_bytes() == (tmp_path / "all" / "2.png").read_bytes()


def test_a_changed_sidecar_is_another_search(degraded, pulse, linear, tmp_path):
    command = ["upsample", degraded[0], "-o", tmp_path / "out", *linear]
    pulse(*command)
    sidecar = sidecar_path(degraded[0])
    told = yaml.safe_load(sidecar.read_text())
    told["degradation"]["parts"][-1]["sigma"] = 0.2
    sidecar.write_text(yaml.safe_dump(told))
    refused = pulse(*command)
    assert (refused.status, "--overwrite" in refused.err) == (2, True)


def test_who_wins(degraded, pulse, records, small, linear, own, tmp_path):
    def run(name, *arguments):
        done = pulse("upsample", *arguments, "-o", tmp_path / name, *linear)
        return done, {line["degradation"] for line in records(tmp_path / name)} if done.status < 2 else None

    factor = build(read_sidecar(degraded[0]).node).parts[0].factor
    done, used = run("named", degraded[0], "--degradation", "bicubic")
    assert (done.status, used, "the sidecars of 1 inputs are not used" in done.err) == (0, {"bicubic"}, True)
    done, used = run("factor", degraded[0], "--factor", factor)
    assert (done.status, used) == (0, {"bicubic"})
    done, used = run("override", degraded[0], "degradation.factor=null", "degradation.factor='4'", "sidecars=use")
    assert (done.status, used) == (0, {"noisy"})
    done, used = run("mixed", degraded[0], small[0])
    assert (done.status, used, "1 of 2 inputs" in done.err) == (0, {"noisy", "bicubic"}, True)
    done, used = run("demanded", degraded[0], small[0], "--degradation", "sidecar")
    assert (done.status, "in00.degradation.yaml beside it, got none" in done.err) == (1, True)
    done, _ = run("random", small[0], "--degradation", "noisy", *own)
    assert (done.status, len(done.error_lines)) == (2, 2)
    assert "drawn for each image" in done.error_lines[0]
    done, used = run("same", degraded[0], "--degradation", "noisy", *own)
    assert (done.status, used) == (0, {"noisy"})
    done, _ = run("nonsense", degraded[0], "sidecars=maybe")
    assert (done.status, "use, ignore, require" in done.err) == (2, True)
    told = ["generator=linear", *linear[2:], f"data.inputs=['{degraded[0]}']"]
    pulse("run", *told, f"output='{tmp_path / 'run'}'")
    pulse("run", *told, f"output='{tmp_path / 'run named'}'", "degradation=bicubic")
    assert [records(tmp_path / name)[0]["degradation"] for name in ("run", "run named")] == ["noisy", "bicubic"]


def test_a_factor_of_another_size_is_inferred_anew(pulse, records, linear, tmp_path):
    """A photo of 64 pixels became 4; the generator has 16."""
    write_png(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)), tmp_path / "large.png")
    pulse("degrade", tmp_path / "large.png", "-o", tmp_path / "low", "--factor", 16)
    done = pulse("upsample", tmp_path / "low", "-o", tmp_path / "out", *linear)
    assert (done.status, "was inferred from the sizes" in done.err) == (0, True)
    assert records(tmp_path / "out")[0]["status"] != "error"


BAD = {
    "a list": "[1, 2]",
    "no target": "name: x\ndegradation: {factor: 2}",
    "no name": "degradation: {_target_: degradations.identity.Identity}",
    "not allowed": "name: x\ndegradation: {_target_: os.system, command: touch ran}",
    "hidden": "name: x\ndegradation: {_target_: degradations.compose.compose, parts: [{_target_: os.system}]}",
    "interpolation": "name: x\ndegradation: {_target_: degradations.identity.Identity, a: '${oc.env:HOME}'}",
    "missing": "name: x\ndegradation: {_target_: degradations.downscale.Downscale, factor: '???'}",
    "random": "name: x\ndegradation: {_target_: degradations.identity.Identity, a: {_draw_: uniform, low: 0, high: 1}}",
    "alias": "name: &a x\ndegradation: {_target_: degradations.identity.Identity, a: *a}",
    "python": "!!python/object/apply:os.system ['touch ran']",
    "yaml": "name: [",
    "words": "name: x\ndegradation: {_target_: degradations.downscale.Downscale, factor: two}",
    "large": "#" * 70000,
    "escape": 'name: "x\\e[2J"\ndegradation: {_target_: degradations.identity.Identity}',
}


BUILT = ("not allowed", "hidden", "words")
"""Those that are read, and refused when they are to be built."""


@pytest.mark.parametrize("name", BAD)
def test_bad_sidecars_cannot_be_read(name, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sidecar_path(small[0]).write_text(BAD[name])
    if name in BUILT:
        assert read_sidecar(small[0]).name == "x"
        return
    with pytest.raises(ConfigError, match="expected a degradation as `pulse degrade` records it, got") as caught:
        read_sidecar(small[0])
    assert str(caught.value).isprintable()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [*BUILT, "python", "escape"])
def test_bad_sidecars_are_refused_and_nothing_in_them_is_run(name, pulse, records, small, linear, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sidecar_path(small[0]).write_text(BAD[name])
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--quiet")
    assert (done.status, len(done.error_lines)) == (1, 1)
    assert "\x1b" not in done.err
    by_status = {line["input"]: line["status"] for line in records(tmp_path / "out")}
    assert by_status[str(small[0])] == "error"
    assert by_status[str(small[1])] != "error"
    assert not (tmp_path / "ran").exists()


def test_a_sidecar_belongs_to_one_file_and_goes_with_it(degraded, small, tmp_path):
    other = degraded[0].with_suffix(".jpg")
    other.write_bytes(b"")
    assert read_sidecar(other) is None
    other.unlink()
    moved = degraded[0].rename(tmp_path / "moved.png")
    sidecar_path(degraded[0]).rename(sidecar_path(moved))
    assert read_sidecar(moved).name == "noisy"
    assert read_sidecar(small[0]) is None


def test_degrade_writes_over_nothing(degraded, pulse, good, own, tmp_path):
    settings = ["--degradation", "noisy", *own]
    for name in ("0.png", "0.safetensors", "0.degradation.yaml"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("kept")
        refused = pulse("degrade", good[0], "-o", folder, *settings)
        assert (refused.status, f"expected no {name}" in refused.err) == (2, True)
        assert (folder / name).read_text() == "kept"
    assert pulse("degrade", good[0], "-o", tmp_path / "with 0.png", *settings, "--overwrite").status == 0


def test_a_random_value_that_is_wrong_ends_before_any_work(pulse, good, own, tmp_path):
    wrong = "degradation.parts.2.sigma={_draw_:uniform,low:0.1,high:0.01}"
    done = pulse("degrade", *good, "-o", tmp_path / "none", "--degradation", "noisy", *own, wrong)
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert "degradation.parts[2].sigma: expected _draw_ uniform with low at most high" in done.err
    assert not (tmp_path / "none").exists()
