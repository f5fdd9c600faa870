"""Tracking from the command line: what a run says of its origin, sweeps, and finished runs pushed."""

import csv
import hashlib
import time
from pathlib import Path

import pytest
import yaml

from pulse_framework.runtime import code_version


@pytest.fixture(autouse=True)
def no_key(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))


def test_a_run_tells_code_and_weights(pulse, small, linear, linear_file, tmp_path):
    assert pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--logger", "csv").status == 0
    told = yaml.safe_load((tmp_path / "out" / "csv" / "hparams.yaml").read_text())
    assert told["code"] == code_version()
    assert told["weights"] == {"file": str(linear_file), "sha256": hashlib.sha256(linear_file.read_bytes()).hexdigest()}
    assert told["search"]["steps"] == 8


@pytest.mark.weights
def test_a_run_tells_the_card(pulse, tmp_path, small):
    done = pulse("upsample", small[0], "-o", tmp_path / "out", "--logger", "csv", "--steps", "1", "search.start.draws=1")
    assert done.status == 0
    told = yaml.safe_load((tmp_path / "out" / "csv" / "hparams.yaml").read_text())["weights"]
    card = yaml.safe_load(Path("generators/cards/faces-stylegan2-64.yaml").read_text())
    assert (told["name"], told["sha256"], told["licence"]) == ("faces-stylegan2-64", card["sha256"], card["licence"])


def test_runs_of_a_sweep_share_a_group(pulse, small, linear, tmp_path):
    overrides = [f"data.inputs=[{small[0]}]", f"output={tmp_path / 'sweep'}", "generator=linear", linear[2], *linear[3:]]
    done = pulse("run", "-m", *overrides, "search.seed=1,2", "logger=wandb", "logger.offline=true", "--quiet")
    assert done.status == 0
    for job in "01":
        config = yaml.safe_load((tmp_path / "sweep" / job / "config.yaml").read_text())
        assert config["logger"]["group"] == "sweep"
    assert done.err.count("wandb sync") == 2


def numbers(folder, name):
    with (folder / "csv" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_a_run_that_goes_on_is_logged_as_an_unbroken_one(pulse, small, linear, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert pulse("upsample", *small, "-o", whole, *linear, "--logger", "csv").status == 0
    for inputs in (small[:1], small):
        done = pulse("upsample", *inputs, "-o", parts, *linear, "--logger", "csv")
        assert done.status == 0
        assert ["runs Adam" in line for line in done.error_lines] == [True, False]
    for name in ("answer/psnr_db", "answer/steps", "curve/psnr_db_worst", "curve/radius", "curve/term/consistency"):
        assert numbers(parts, name) == pytest.approx(numbers(whole, name))
        assert numbers(parts, name)


def test_offline_parts_of_a_run_are_joined_by_one_line(pulse, small, linear, tmp_path):
    out = tmp_path / "out"
    command = ["-o", out, *linear, "--logger", "wandb", "--quiet"]
    first = pulse("upsample", small[0], *command)
    time.sleep(1.1)  # W&B names its folders after the second
    second = pulse("upsample", *small, *command)
    old, new = sorted((out / "wandb").glob("offline-run-*"))
    assert first.error_lines == [f"pulse: to upload the run to W&B: wandb sync {old}"]
    assert second.error_lines == [f"pulse: to upload the run to W&B: wandb sync {old} {new}"]
    assert {run.name.split("-")[-1] for run in (old, new)} == {(out / "wandb" / "run-id").read_text()}
    next(old.glob("*.wandb")).with_suffix(".wandb.synced").touch()
    time.sleep(1.1)
    pushed = pulse("log", "push", out)
    assert pushed.error_lines[0].startswith("pulse: to upload the run to W&B: wandb sync ")
    assert str(new) not in pushed.err


def test_no_bit_of_an_answer_depends_on_the_logger(pulse, small, linear, tmp_path):
    def made(logger):
        out = tmp_path / logger
        assert pulse("upsample", *small, "-o", out, *linear, "--logger", logger).status == 0
        return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".png", ".safetensors") and path.stem}

    plain = made("none")
    assert len(plain) == 5
    for logger in ("csv", "tensorboard", "wandb"):
        found = made(logger)
        assert {name: found[name] for name in plain} == plain


@pytest.mark.parametrize("logger", ["csv", "none"])
def test_push(pulse, small, linear, tmp_path, logger):
    out = tmp_path / "out"
    assert pulse("upsample", *small, "-o", out, *linear, "--logger", logger).status == 0
    done = pulse("log", "push", out)
    (run,) = (out / "wandb").glob("offline-run-*")
    assert done.status == 0
    assert done.error_lines[0] == f"pulse: to upload the run to W&B: wandb sync {run}"
    assert done.error_lines[1].startswith(f"pulse: logged 2 answers of {out} to wandb")
    assert ("no curves" in done.err) == (logger == "none")
    assert pulse("log", "push", out, "--to", "tensorboard").status == 0
    assert list((out / "tensorboard").glob("events*"))


def test_push_refuses_what_is_no_run(pulse, small, tmp_path):
    for folder in (tmp_path / "inputs", tmp_path / "nope"):
        done = pulse("log", "push", folder)
        assert (done.status, len(done.error_lines)) == (2, 1)
        assert not (folder / "wandb").exists()
