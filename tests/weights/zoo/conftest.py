"""An empty cache, and a server that does what a test asks of it."""

import threading

import pytest

from tests.weights.zoo.served import Server


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PULSE_OFFLINE", raising=False)
    return tmp_path / "home" / "weights"


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
