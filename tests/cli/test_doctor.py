"""`pulse doctor`: what is there is said, what would go wrong fails."""

import http.server
import json
import subprocess
import threading

import pytest
import torch

import pulse_framework.cli.doctor as module
from pulse_framework.runtime import code_version, unreachable
from pulse_framework.weights import cache_path, read_card


@pytest.fixture
def findings(pulse, tmp_path, monkeypatch):
    """Status of a command without network, and verdict and text of everything that it looked at."""
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(module, "compiler_fault", lambda device: "")

    def look():
        done = pulse("doctor", "--json")
        lines = [json.loads(line) for line in done.out.splitlines()]
        return done.status, {line["what"]: (line["verdict"], line["text"]) for line in lines}

    return look


@pytest.fixture
def server():
    """An HTTP server on this machine that answers 404."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_a_sound_machine(findings):
    status, found = findings()
    assert status == 0
    assert found["torch"] == ("ok", torch.__version__)
    assert found["pulse-latent"] == ("ok", code_version())
    assert found["weights faces-stylegan2-64"][0] == "ok"
    assert found["weights digiface-dcgan-64"] == ("note", "absent; fetched when first used")
    assert found["network"][0] == "note"
    assert "PULSE_OFFLINE" in found["network"][1]
    assert "offline" in found["wandb key"][1]
    assert {"device cpu", "cache", "compiler for cpu"} <= set(found)


def test_lines_for_people_say_the_same(pulse, findings):
    _, found = findings()
    lines = pulse("doctor").out.splitlines()
    assert [line.split()[0] for line in lines] == [verdict for verdict, _ in found.values()]


def test_damaged_weights(findings, tmp_path):
    card = read_card("generators/cards/digiface-dcgan-64.yaml")
    assert tmp_path in cache_path(card).parents
    cache_path(card).parent.mkdir(parents=True)
    cache_path(card).write_bytes(b"other bytes")
    status, found = findings()
    verdict, text = found["weights digiface-dcgan-64"]
    assert (status, verdict) == (1, "fail")
    assert f"expected {card.size} bytes" in text


def test_a_cache_that_cannot_be_written(findings, tmp_path):
    (tmp_path / "home").write_text("a file")
    status, found = findings()
    assert (status, found["cache"][0]) == (1, "fail")
    assert "set PULSE_HOME" in found["cache"][1]


def test_packages_that_are_absent_or_too_old(findings, monkeypatch):
    wanted = ["torch>=99", "no-such-package>=2", "no-such-extra>=1; extra == 'faces'", "pillow>=12"]
    monkeypatch.setattr(module, "requires", lambda name: wanted)
    status, found = findings()
    assert status == 1
    assert found["torch"] == ("fail", f"expected >=99, got {torch.__version__}; pip install 'torch>=99'")
    assert found["no-such-package"][0] == "fail"
    assert found["pillow"][0] == "ok"
    assert "no-such-extra" not in found


def test_a_compiler_that_is_not_there_is_no_failure(findings, monkeypatch):
    monkeypatch.setattr(module, "compiler_fault", lambda device: "no g++")
    status, found = findings()
    assert (status, found["compiler for cpu"][0]) == (0, "note")
    assert "no g++" in found["compiler for cpu"][1]


def test_servers_are_asked(findings, server, monkeypatch):
    """A key is there: it is the server of W&B, here one on this machine, that decides. It is only seen to answer."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setattr(module, "_network", lambda absent: iter(()))
    _, found = findings()
    assert "PULSE_OFFLINE" in found["wandb key"][1]
    monkeypatch.delenv("PULSE_OFFLINE")
    _, found = findings()
    assert found["wandb key"] == ("ok", f"there, and {server} answers")


def test_unreachable(server, monkeypatch):
    monkeypatch.delenv("PULSE_OFFLINE", raising=False)
    assert unreachable(f"{server}/any/path") == ""
    assert "ConnectionError" in unreachable("http://127.0.0.1:9/")
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    assert "PULSE_OFFLINE" in unreachable(server)


def test_code_version_names_the_commit_and_what_differs(tmp_path):
    assert "+" not in code_version(tmp_path)

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    assert code_version(tmp_path).endswith(f"+{commit}")
    (tmp_path / "file").write_text("2")
    assert code_version(tmp_path).endswith(f"+{commit}-dirty")
