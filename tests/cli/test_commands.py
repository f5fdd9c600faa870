"""``pulse run``, ``degrade``, ``list`` and ``weights``, and interruption."""

import os
import pickle
import signal
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from degradations.downscale import Downscale
from pulse_framework.cli import jobs
from pulse_framework.images import read_image


def test_run_and_multirun(pulse, pulse_process, records, small, linear, tmp_path):
    settings = ["generator=linear", *linear[2:], f"data.inputs=['{small[0]}']"]
    assert pulse("run", *settings, f"output='{tmp_path / 'one'}'").status == 0
    swept = pulse("run", "-m", *settings, f"output='{tmp_path / 'many'}'", "search.seed=0,1", "--quiet")
    assert (swept.status, swept.err) == (0, "")
    assert [records(tmp_path / "many" / job)[0]["seed"] for job in "01"] == [0, 1]
    one, zero, other = (load_file(tmp_path / f / "in00.safetensors")["z"] for f in ("one", "many/0", "many/1"))
    assert torch.equal(one, zero)
    assert not torch.equal(one, other)
    half = pulse("run", "-m", *settings, f"output='{tmp_path / 'half'}'", "search.steps=0,3", "--quiet")
    assert (half.status, len(half.error_lines)) == (2, 1)
    assert records(tmp_path / "half" / "1")[0]["steps"] == 3
    real = pulse_process("run", "-m", *settings, "output=far", "search.seed=0,1", cwd=tmp_path)
    assert real.status == 0
    assert [line.removeprefix(str(tmp_path)) for line in real.out.splitlines()] == ["/far/0/in00.png", "/far/1/in00.png"]


def test_a_launcher_of_processes_hands_the_status_on(pulse, records, small, linear, tmp_path, monkeypatch):
    """As joblib and submitit run jobs, where the sweep's own process hears of them by what they raise alone."""
    processes = count()
    monkeypatch.setattr(jobs, "os", SimpleNamespace(getpid=lambda: next(processes)))
    settings = ["generator=linear", *linear[2:], f"data.inputs=['{small[0]}']", f"output='{tmp_path / 'out'}'", "--quiet"]
    done = pulse("run", "-m", *settings, "search.steps=0,3")
    assert done.status == 2
    assert "search.steps=0" in done.error_lines[-1]
    assert records(tmp_path / "out" / "1")[0]["steps"] == 3
    assert pickle.loads(pickle.dumps(jobs.SweptJobError(143))).status == 143


@pytest.mark.parametrize("wrong", ["search.nope=1,2", "search.seed=0,[1", "generator=nope", "nope=1"])
@pytest.mark.parametrize("mode", [["-m"], []])
def test_run_refuses_in_one_line(pulse, small, tmp_path, mode, wrong):
    settings = [f"data.inputs=['{small[0]}']", f"output='{tmp_path / 'out'}'"]
    done = pulse("run", *mode, *settings, wrong)
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert wrong.split("=")[0] in done.err
    assert not list(tmp_path.glob("out/**/*.png"))


@pytest.mark.parametrize("mode", [["-m"], []])
def test_run_needs_an_output(pulse, small, linear, mode):
    done = pulse("run", *mode, "generator=linear", *linear[2:], f"data.inputs=['{small[0]}']")
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert "output" in done.err


def test_degrade(pulse, pulse_process, tmp_path):
    (tmp_path / "good").mkdir()
    rows = torch.linspace(0, 255, 32 * 32 * 3).to(torch.uint8).reshape(32, 32, 3).numpy()
    Image.fromarray(rows).save(tmp_path / "good" / "a=b.png")
    good = tmp_path / "good" / "a=b.png"
    done = pulse("degrade", good, "-o", tmp_path / "out", "--factor", 4)
    assert (done.status, done.out) == (0, f"{tmp_path / 'out' / 'a=b.png'}\n")
    expected = Downscale(4).measure(read_image(good)[None], torch.Generator())[0]
    assert torch.allclose(read_image(tmp_path / "out" / "a=b.png"), expected, atol=1e-6)
    taken = pulse("degrade", good, "-o", tmp_path / "out", "--factor", 4)
    assert (taken.status, "--overwrite" in taken.err) == (2, True)
    assert pulse("degrade", good, "-o", tmp_path / "out", "--factor", 2, "--overwrite").status == 0
    before = good.read_bytes()
    onto = pulse("degrade", good, "-o", tmp_path / "good", "--factor", 2, "--overwrite")
    assert (onto.status, good.read_bytes() == before) == (2, True)
    for arguments in (["--factor", "x"], [], ["--degradation", "nope"], ["--factor", 2, "degradation.nope=1"]):
        refused = pulse("degrade", good, "-o", tmp_path / "none", *arguments)
        assert (refused.status, len(refused.error_lines)) == (2, 1)
    some = pulse("degrade", good, tmp_path / "missing.png", "-o", tmp_path / "some", "--factor", 2, "--quiet")
    assert (some.status, len(some.error_lines)) == (1, 1)
    assert pulse("degrade", tmp_path / "missing.png", "-o", tmp_path / "some", "--factor", 2).status == 2
    small = pulse("degrade", good, "-o", tmp_path / "small", "--factor", 100, "--quiet")
    assert (small.status, len(small.error_lines)) == (2, 1)
    real = pulse_process("degrade", "good", "-o", "real", "--factor", "2", "--degradation", "bicubic", cwd=tmp_path)
    assert (real.status, real.out) == (0, "real/a=b.png\n")


def test_auto_tells_what_it_chose_and_is_that_search(pulse, small, linear, tmp_path):
    """45 dB: the bytes of search=lbfgs."""
    told = {}
    for name in ("auto", "lbfgs"):
        done = pulse("upsample", *small, "-o", tmp_path / name, *linear, "--search", name, "search.target_db=45")
        told[name] = done.err.count("the search runs LBFGS for a target of 45 dB")
    assert told == {"auto": 1, "lbfgs": 0}
    one, other = (sorted((tmp_path / name).glob("*.safetensors")) for name in told)
    assert [path.name for path in one] == [path.name for path in other]
    assert one
    for path, same in zip(one, other, strict=True):
        assert all(torch.equal(value, load_file(same)[key]) for key, value in load_file(path).items())


def test_list(pulse, pulse_process, tmp_path):
    assert set(pulse("list", "generators").out.split()) >= {"digiface-dcgan-64", "linear", "module", "torchscript"}
    assert "pulse" in pulse("list", "experiments").out.split()
    assert set(pulse("list", "searches").out.split()) >= {"adam", "auto", "langevin", "lbfgs", "levenberg"}
    assert "digiface-dcgan-64" in pulse("list", "weights").out.split()
    assert "priors\tsphere\n" in pulse("list").out
    assert pulse("list", "nonsense").status == 2
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "mine.yaml").write_text("_target_: pulse_framework.priors.FlatPrior\n")
    assert "mine" in pulse("list", "priors", "--config-dir", tmp_path).out.split()
    assert pulse_process("list", "priors").out.split() == ["flat", "gaussian", "sphere", "sphere_initial"]


def test_own_groups_and_their_folder_may_have_any_name(pulse, small, linear, tmp_path):
    folder = tmp_path / "my, own = (groups)"
    (folder / "prior").mkdir(parents=True)
    (folder / "prior" / "mine.yaml").write_text("_target_: pulse_framework.priors.FlatPrior\n")
    done = pulse("upsample", small[0], "-o", tmp_path / "out", *linear, "--config-dir", folder, "prior=mine")
    assert done.status == 0
    assert "FlatPrior" in (tmp_path / "out" / "config.yaml").read_text()


def test_weights_offline_without_cache(pulse, pulse_process, small, tmp_path, monkeypatch):
    elsewhere = {"PULSE_OFFLINE": "1", "PULSE_HOME": str(tmp_path / "home")}
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    done = pulse("upsample", small[0], "-o", tmp_path / "out", "--generator", "digiface-dcgan-64")
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert "PULSE_OFFLINE" in done.err
    assert str(tmp_path / "home") in done.err
    for run, verb in ((pulse_process, "fetch"), (pulse, "verify")):
        done = run("weights", verb, "digiface-dcgan-64")
        assert (done.status, len(done.error_lines), done.out) == (2, 1, "")
    unknown = pulse("weights", "fetch", "nope")
    assert (unknown.status, len(unknown.error_lines)) == (2, 1)
    assert "digiface-dcgan-64" in unknown.err


def test_weights_with_a_wrong_hash(pulse, small, tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    (tmp_path / "weights.pt").write_bytes(b"other bytes")
    keys = {"architecture": "a", "licence": "b", "citation": "c", "alignment": "d", "format": "pt", "size": 11}
    card = [f"{key}: {value}" for key, value in keys.items()]
    card += [f"sha256: '{'0' * 64}'", "sources: [weights.pt]", "resolution: [64, 64]"]
    (tmp_path / "card.yaml").write_text("\n".join(card))
    done = pulse("upsample", small[0], "-o", tmp_path / "out", f"generator.path.card='{tmp_path / 'card.yaml'}'")
    assert done.status == 2
    assert "SHA-256" in done.error_lines[-1]
    assert not (tmp_path / "out").exists()
    assert pulse("weights", "verify", tmp_path / "card.yaml").status == 2


@pytest.mark.weights
def test_fetched_weights_are_verified(pulse):
    fetched, verified = pulse("weights", "fetch", "digiface-dcgan-64"), pulse("weights", "verify", "digiface-dcgan-64")
    assert (fetched.status, verified.status) == (0, 0)
    assert fetched.out == verified.out != ""


@pytest.mark.weights
def test_interrupted(pulse, records, make_inputs, linear, tmp_path):
    """A search that cannot end is interrupted once another has been written; the same folder is then finished."""
    inputs = make_inputs(tmp_path / "inputs", 3)
    out = tmp_path / "out"
    command = [*map(str, inputs), "-o", str(out), *linear, "--target-db", "90", "--batch-size", "1"]
    long = [*command, "search.steps=250", "--logger", "csv"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pulse_framework", "upsample", *long],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    until = time.monotonic() + 90
    while time.monotonic() < until and not (out / "results.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    done = records(out)
    assert 1 <= len(done) < 3
    for line in done:
        with Image.open(out / line["output"]) as image:
            image.load()
        assert "z" in load_file(out / line["latent"])
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    again = pulse("upsample", *long)
    assert (again.status, f"{len(done)} already done" in again.err) == (0, True)
    assert sorted(line["output"] for line in records(out)) == ["in00.png", "in01.png", "in02.png"]
