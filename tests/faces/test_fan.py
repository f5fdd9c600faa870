"""The package face-alignment itself, with networks whose answers are known."""

import hashlib
import importlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from pulse_framework.faces import FFHQ, detector, fan
from pulse_framework.faces.dlib_landmarks import DlibDetector

NO_DLIB = "dlib is not installed"


@pytest.fixture(scope="module")
def scripted():
    """Without the compiler of numba, which takes longer than the networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        yield importlib.import_module("tests.faces.scripted")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch.hub, and no network."""
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fan._loaded.cache_clear()
    yield tmp_path / "hub"
    fan._loaded.cache_clear()


def test_boxes_and_landmarks_are_those_of_the_known_maps(scripted, hub):
    scripted.write(hub)
    photo, (points,) = scripted.picture([(120, 104)], 208, 240)
    (face,) = fan.FanDetector()(photo)
    assert np.abs(np.subtract(face.box, [72, 56, 168, 152])).max() < 1e-3
    assert face.score > 0.99
    assert face.found_by == "face-alignment"
    errors = face.landmarks - points
    assert np.abs(errors).max() < 2  # cells of the heat maps are 3.3 pixels of this photo, and quarters are told apart
    assert np.abs(errors.mean(0)).max() < 0.5
    assert np.abs(errors).mean() < 0.7
    assert FFHQ.square(face).side > 0


def test_large_photos_are_reduced_for_the_boxes_alone(scripted, hub, monkeypatch):
    scripted.write(hub)
    photo, (points,) = scripted.picture([(120, 104)], 208, 240)
    monkeypatch.setattr(fan, "_PIXELS", 208 * 240)
    (face,) = fan.FanDetector()(photo.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert np.abs(np.subtract(face.box, [144, 112, 336, 304])).max() < 1e-2
    assert np.abs(face.landmarks - 2 * points).mean() < 1.4


def test_boxes_of_blazeface(scripted, hub):
    scripted.write(hub)
    weights, anchors = scripted.blazeface((120 / 240, 104 / 240), 96 / 240)
    torch.save(weights, hub / "checkpoints" / "blazeface.pth")
    np.save(hub / "checkpoints" / "anchors.npy", anchors)
    photo, (points,) = scripted.picture([(120, 104)], 240, 240)
    (face,) = detector("blazeface")(photo)
    assert np.abs(np.subtract(face.box, [72, 56, 168, 152])).max() < 1e-2
    assert np.abs(face.landmarks - points).mean() < 0.7


def test_auto_takes_it_where_its_models_are(scripted, hub):
    scripted.write(hub)
    chosen = detector("auto")
    assert chosen.name == "face-alignment"
    assert chosen(torch.full((3, 64, 64), 0.5)) == []


def test_without_models_it_is_said_and_dlib_is_used(hub, caplog):
    said = (
        r"faces: expected the model 2DFAN4-11f355bf06\.pth\.tar of face-alignment in .*checkpoints, got none, and PULSE_OFFLINE"
    )
    with pytest.raises(ValueError, match=said):
        detector("face-alignment")
    assert isinstance(detector("auto"), DlibDetector)
    (record,) = caplog.records
    assert record.getMessage().endswith("Using dlib instead")
    assert "2DFAN4-11f355bf06.pth.tar" in record.getMessage()


def test_with_neither_both_are_said(hub, monkeypatch):
    monkeypatch.setattr("pulse_framework.faces.choose.dlib_missing", lambda: NO_DLIB)
    with pytest.raises(ValueError, match=r"2DFAN4.*The offline detector is of no help: dlib is not installed; pip install"):
        detector("auto")


def test_without_the_package(monkeypatch, hub):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    with pytest.raises(ValueError, match=r"expected the package face-alignment, got none; pip install pulse-latent\[faces\]"):
        fan.FanDetector()


def test_damaged_models(hub, scripted):
    scripted.write(hub)
    (hub / "checkpoints" / scripted.NAMES["sfd"]).write_bytes(b"no network at all")
    with pytest.raises(ValueError, match=r"faces: expected models of face-alignment in .*s3fd.*delete what is damaged"):
        fan.FanDetector()


def test_downloads_are_told_and_checked(hub, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("PULSE_OFFLINE")
    content = b"0123456789" * 1000
    right, wrong = f"net-{hashlib.sha256(content).hexdigest()[:10]}.pth", "net-0123456789.pth"
    (tmp_path / "site").mkdir()
    for name in (right, wrong, "plain.npy"):
        (tmp_path / "site" / name).write_bytes(content)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "site")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        for name in (right, "plain.npy"):
            for _ in range(2):
                assert fan._model(address + name).read_bytes() == content
        assert [record.getMessage() for record in caplog.records] == [
            f"faces: downloading {address}{name} to {hub / 'checkpoints'}, once" for name in (right, "plain.npy")
        ]
        with pytest.raises(ValueError, match="expected a SHA-256 that starts with 0123456789"):
            fan._model(address + wrong)
        with pytest.raises(ValueError, match=r"missing\.pth of face-alignment in .*the download failed .*copy it there"):
            fan._model(address + "missing.pth")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert sorted(path.name for path in (hub / "checkpoints").iterdir()) == sorted([right, "plain.npy"])


def test_unknown_boxes():
    with pytest.raises(ValueError, match="faces boxes: expected one of sfd, blazeface, got 'haar'"):
        fan.FanDetector("haar")
