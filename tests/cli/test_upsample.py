"""``pulse upsample``: what it writes, how it ends, and that nothing but the image, the settings and the seed matters."""

import json
import math

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from degradations.downscale import Downscale
from generators.linear import load
from pulse_framework.images import read_image

FIELDS = {
    "input",
    "output",
    "sample",
    "seed",
    "status",
    "mse",
    "psnr_db",
    "target_db",
    "steps",
    "seconds",
    "generator",
    "degradation",
    "latent",
}


def latents_of(folder):
    """All blocks of each file, end to end."""
    files = {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return {name: torch.cat([blocks[block].flatten() for block in sorted(blocks)]) for name, blocks in files.items()}


def test_everything_written_is_consistent(pulse, records, small, linear, linear_file, tmp_path):
    out = tmp_path / "out"
    done = pulse("upsample", *small, "-o", out, *linear, "--samples", 3)
    assert done.status == 0
    assert sorted(done.out.splitlines()) == sorted(str(out / f"{path.stem}_{k}.png") for path in small for k in range(3))
    assert {path.name for path in out.iterdir()} == {"config.yaml", "grid.png", "results.jsonl"} | {
        f"{path.stem}_{k}.{kind}" for path in small for k in range(3) for kind in ("png", "safetensors")
    } | {f"{path.stem}_{what}.png" for path in small for what in ("mean", "std")}
    generator, operator = load(linear_file), Downscale(4)
    lines = records(out)
    assert len(lines) == 6
    for line in lines:
        assert set(line) == FIELDS | {"image_distance", "latent_distance"}
        image = generator({"z": load_file(out / line["latent"])["z"][None]})
        mse = (operator(image)[0] - read_image(line["input"])).square().mean().item()
        assert line["mse"] == pytest.approx(mse, rel=1e-5)
        assert line["psnr_db"] == pytest.approx(-10 * math.log10(line["mse"]), rel=1e-12)
        assert line["target_db"] == pytest.approx(27)
        assert torch.allclose(read_image(out / line["output"]), image[0].clamp(0, 1), atol=0.51 / 255)
        assert (line["seed"], line["generator"], line["degradation"], line["steps"]) == (0, "linear", "bicubic", 8)
        assert line["output"].endswith(f"_{line['sample']}.png")
        assert line["status"] in ("converged", "best_effort")
    for path in small:
        mine = sorted((line for line in lines if line["input"] == str(path)), key=lambda line: line["sample"])
        assert [line["sample"] for line in mine] == [0, 1, 2]
        assert [line["mse"] for line in mine] == sorted(line["mse"] for line in mine)
        assert len({(out / line["output"]).read_bytes() for line in mine}) == 3


def test_config_is_resolved_and_can_be_run_again(pulse, small, linear, tmp_path):
    from omegaconf import OmegaConf

    from pulse_framework.cli.restore import prepare

    out = tmp_path / "out"
    pulse("upsample", *small, "-o", out, *linear)
    text = (out / "config.yaml").read_text()
    assert "${" not in text
    job = prepare(OmegaConf.create(text))
    assert (job.skipped, job.left) == (2, [])


def test_seeds(pulse, small, linear, tmp_path):
    made = {}
    for name, seed in {"zero": 0, "again": 0, "one": 1}.items():
        pulse("upsample", small[0], "-o", tmp_path / name, *linear, "--samples", 2, "--seed", seed)
        made[name] = list(latents_of(tmp_path / name).values())
    assert all(map(torch.equal, made["zero"], made["again"]))
    assert not any(torch.equal(a, b) for a in made["zero"] for b in made["one"])


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_answers_do_not_depend_on_batch_order_or_company(pulse, make_inputs, linear, tmp_path, precision):
    inputs = make_inputs(tmp_path / "inputs", 37)
    common = [*linear, "--precision", precision, "--quiet", "search.steps=15"]
    runs = {
        "all": [*inputs, "--batch-size", 37],
        "five": [*inputs[::-1], "--batch-size", 5],
        "one": [*inputs[20:], *inputs[:20], "--batch-size", 1],
        "queue": [*inputs, "--batch-size", 16, "data.queue=3"],
        "alone": [inputs[11]],
    }
    for name, arguments in runs.items():
        assert pulse("upsample", *arguments, "-o", tmp_path / name, *common).status == 0
    reference = latents_of(tmp_path / "all")
    assert len(reference) == 37
    for name in runs:
        got = latents_of(tmp_path / name)
        assert set(got) == ({"in11.safetensors"} if name == "alone" else set(reference))
        for key, value in got.items():
            assert torch.equal(value, reference[key]), (name, key)
    assert reference["in11.safetensors"].dtype == (torch.float64 if precision == "64-true" else torch.float32)


@pytest.mark.weights
def test_the_default_generator_too(pulse, tmp_path):
    for index in range(3):
        pixels = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(index)).mul(255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    inputs, common = sorted(tmp_path.glob("*.png")), ["--steps", 5, "search.start.draws=2", "--quiet"]
    for name, arguments in {"all": inputs, "back": [*inputs[::-1], "--batch-size", 2], "alone": inputs[1:2]}.items():
        assert pulse("upsample", *arguments, "-o", tmp_path / name, *common).status == 0
    reference = latents_of(tmp_path / "all")
    for name in ("back", "alone"):
        assert all(torch.equal(value, reference[key]) for key, value in latents_of(tmp_path / name).items())
    with Image.open(tmp_path / "all" / "0.png") as image:
        assert image.size == (64, 64)


def test_samples_tell_how_far_they_are_apart(pulse, records, small, linear, linear_file, tmp_path):
    """Distances to the nearest other sample, and mean and deviation of every pixel, recomputed from the latents."""
    out = tmp_path / "out"
    pulse("upsample", small[0], "-o", out, *linear, "--samples", 4)
    lines = records(out)
    z = torch.stack([load_file(out / line["latent"])["z"] for line in lines]).double()
    images = load(linear_file)({"z": z.float()}).detach().double()
    for space, field in ((z, "latent_distance"), (images.flatten(1), "image_distance")):
        apart = torch.cdist(space, space) / space.shape[1] ** 0.5 + 1e9 * torch.eye(4)
        assert [line[field] for line in lines] == pytest.approx(apart.amin(1).tolist(), rel=1e-4)
    stem = small[0].stem
    assert torch.allclose(read_image(out / f"{stem}_mean.png").double(), images.mean(0).clamp(0, 1), atol=0.51 / 255)
    spread = 2 * images.std(0, correction=0)
    assert spread.max() > 0.1
    assert torch.allclose(read_image(out / f"{stem}_std.png").double(), spread.clamp(0, 1), atol=0.51 / 255)


def test_resumes_and_refuses_other_settings(pulse, records, small, linear, tmp_path):
    out = tmp_path / "out"
    command = ["upsample", *small, "-o", out, *linear, "--samples", 2]
    pulse(*command)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("in*")}
    again = pulse(*command)
    assert (again.status, again.out) == (0, "")
    assert "2 already done" in again.err
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("in*")} == before
    # What no result depends on may change; anything else may not.
    assert "2 already done" in pulse(*command, "--batch-size", 2).err
    for change in (["--seed", 5], ["--samples", 1], ["--samples", 3]):
        refused = pulse(*command, *change)
        assert refused.status == 2
        assert "--overwrite" in refused.err
        assert len(refused.error_lines) == 1
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("in*")} == before
    assert pulse(*command, "--samples", 1, "--overwrite").status == 0
    assert {path.stem for path in out.glob("in*")} == {"in00", "in01"}
    assert [line["output"] for line in records(out)] == ["in00.png", "in01.png"]


def test_a_changed_input_is_not_taken_for_done(pulse, small, linear, tmp_path):
    out = tmp_path / "out"
    pulse("upsample", *small, "-o", out, *linear)
    small[0].write_bytes(small[1].read_bytes())
    assert pulse("upsample", *small, "-o", out, *linear).status == 2
    done = pulse("upsample", *small, "-o", out, *linear, "--overwrite")
    assert done.status == 0


@pytest.mark.parametrize("loss", ["line", "half line", "last sample", "record file"])
def test_goes_on_after_being_killed(pulse, records, small, linear, tmp_path, loss):
    out = tmp_path / "out"
    command = ["upsample", *small, "-o", out, *linear, "--samples", 2]
    pulse(*command)
    whole, lines = latents_of(out), (out / "results.jsonl").read_text().splitlines(keepends=True)
    name = json.loads(lines[-1])["output"]
    if loss == "record file":
        (out / "results.jsonl").unlink()
    else:
        (out / "results.jsonl").write_text("".join(lines[:-1]) + (lines[-1][:40] if loss == "half line" else ""))
    if loss == "last sample":
        (out / name).unlink()
    assert pulse(*command).status == 0
    assert sorted(line["output"] for line in records(out)) == sorted(json.loads(line)["output"] for line in lines)
    again = latents_of(out)
    assert set(again) == set(whole)
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_strict_and_statuses(pulse, records, small, linear, tmp_path):
    hopeless = ["upsample", *small, *linear, "--target-db", 90]
    assert pulse(*hopeless, "-o", tmp_path / "a").status == 0
    assert {line["status"] for line in records(tmp_path / "a")} == {"best_effort"}
    assert pulse(*hopeless, "-o", tmp_path / "b", "--strict").status == 1
    assert pulse("upsample", *small, *linear, "--target-db", 1, "-o", tmp_path / "c", "--strict").status == 0
    assert {line["status"] for line in records(tmp_path / "c")} == {"converged"}


def test_quiet_says_nothing(pulse_process, small, linear, tmp_path):
    done = pulse_process("upsample", *small, "-o", tmp_path / "out", *linear, "--quiet")
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == 2


def test_streams_of_a_process(pulse_process, small, linear, tmp_path):
    done = pulse_process("upsample", "inputs", "-o", "out folder", *linear, cwd=tmp_path)
    assert done.status == 0
    assert done.out.splitlines() == ["out folder/in00.png", "out folder/in01.png"]
    chosen, summary = done.err.splitlines()
    assert chosen == "pulse: the search runs Adam for a target of 27 dB (LBFGS is for 30 dB and more, and for an encoder's guess)"
    assert summary.startswith("pulse: 2 ")


def test_names(pulse, records, small, linear, tmp_path):
    folder = tmp_path / "in puts"
    names = ["x.png", "x.bmp", "a/x.png", "b/y.PNG", "grid.png", "Grüße 山.png", "k=v.png", "a,b.png", "[1].png", "it's.png"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(small[0]).save(folder / name)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    done = pulse("upsample", folder, "-o", out, *linear)
    assert done.status == 0
    lines = records(out)
    assert {line["input"] for line in lines} == {str(folder / name) for name in names}
    assert len({line["output"] for line in lines}) == len(names)
    assert {"y.png", "Grüße 山.png", "k=v.png", "a,b.png", "[1].png", "it's.png"} <= {line["output"] for line in lines}
    assert "grid.png" not in {line["output"] for line in lines}
    assert all((out / line["output"]).exists() for line in lines)
    again = pulse("upsample", *[folder / name for name in names], "-o", out, *linear)
    assert f"{len(names)} already done" in again.err


def test_output_below_the_input_is_not_taken_in(pulse, small, linear, tmp_path):
    command = ["upsample", tmp_path / "inputs", "-o", tmp_path / "inputs" / "out", *linear]
    assert pulse(*command).status == 0
    again = pulse(*command)
    assert (again.status, "2 already done" in again.err) == (0, True)


def test_inputs_are_never_overwritten(pulse, small, linear):
    before = small[0].read_bytes()
    done = pulse("upsample", small[0], "-o", small[0].parent, *linear, "--overwrite")
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert small[0].read_bytes() == before


def test_metadata_names_the_origin(pulse, small, linear, tmp_path):
    pulse("upsample", small[0], "-o", tmp_path / "out", *linear)
    with safe_open(tmp_path / "out" / "in00.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["generator"], metadata["degradation"], metadata["key"], metadata["seed"]) == (
        "linear",
        "bicubic",
        "in00.png",
        "0",
    )
