"""Files on this machine and from the web: only ever the right bytes get the name."""

import logging
import subprocess
import sys

import pytest

from pulse_framework.weights import WeightsError, cache_path, fetch, read_card, verify
from tests.weights.toy import DATA, ROOT, leftovers, write_card

pytestmark = pytest.mark.usefixtures("home")

# Files on this machine


def test_local_file_is_used_where_it_is(tmp_path, home):
    (tmp_path / "a.pt").write_bytes(DATA)
    assert fetch(write_card(tmp_path, "a.pt")) == verify(write_card(tmp_path, "a.pt")) == tmp_path / "a.pt"
    assert fetch(write_card(tmp_path, str(tmp_path / "a.pt"))) == tmp_path / "a.pt"
    assert not home.exists()


def test_local_file_from_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "a.pt").write_bytes(DATA)
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(write_card(tmp_path / "cards", "~/a.pt")) == tmp_path / "a.pt"


def test_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("PULSE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card = read_card(write_card(tmp_path, "a.pt"))
    if sys.platform == "linux":
        assert cache_path(card) == tmp_path / "pulse" / "weights" / f"toy-{card.sha256[:12]}.pt"


def test_verify_never_asks_the_network(tmp_path, server):
    path = write_card(tmp_path, f"{server.url}/good")
    with pytest.raises(WeightsError, match="no such file; run `pulse weights fetch toy`"):
        verify(path)
    assert server.asked == []
    assert fetch(path) == verify(path)


# The web


def test_download_is_kept_and_not_repeated(tmp_path, server, home):
    card = read_card(write_card(tmp_path, f"{server.url}/good"))
    path = fetch(card)
    assert path == cache_path(card)
    assert path.is_relative_to(home)
    assert path.read_bytes() == DATA
    assert fetch(card) == path
    assert server.asked == ["/good"]
    assert leftovers(home) == []


def test_progress_rises_to_the_size(tmp_path, server):
    seen = []
    fetch(write_card(tmp_path, f"{server.url}/good"), progress=lambda done, total: seen.append((done, total)))
    done = [count for count, _ in seen]
    assert {total for _, total in seen} == {len(DATA)}
    assert done == sorted(done)
    assert done[-1] == len(DATA)
    assert len(done) > 3


@pytest.mark.parametrize(
    ("place", "reason"),
    [("/absent", "404"), ("/short", "Incomplete|expected 256000 bytes, got 255900"), ("/other", "expected SHA-256")],
)
def test_wrong_answers_never_get_the_name(tmp_path, server, home, place, reason):
    card = read_card(write_card(tmp_path, server.url + place))
    with pytest.raises(WeightsError, match=reason) as error:
        fetch(card)
    assert f"{server.url}{place}: " in str(error.value)
    assert f"copy it to {cache_path(card)}" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert leftovers(home) == []


def test_interrupted_download_restarts(tmp_path, server):
    assert fetch(write_card(tmp_path, f"{server.url}/flaky")).read_bytes() == DATA
    assert server.asked == ["/flaky"] * 2


def test_sources_are_tried_in_order_and_every_failure_is_listed(tmp_path, server):
    places = [f"{server.url}/absent", f"{server.url}/other"]
    with pytest.raises(WeightsError, match=r"\[1\] .*toy-.*no such file; \[2\] .*/absent: .*404.*; \[3\] .*/other: expected SHA"):
        fetch(write_card(tmp_path, *places))
    assert fetch(write_card(tmp_path, *places, f"{server.url}/good")).read_bytes() == DATA
    assert server.asked == ["/absent", "/other"] * 2 + ["/good"]


@pytest.mark.parametrize("damage", [DATA[:-1], DATA[::-1]])
def test_damaged_cache_is_reported_and_fetched_again(tmp_path, server, caplog, damage):
    path = write_card(tmp_path, f"{server.url}/good")
    fetch(path).write_bytes(damage)
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError, match=r"expected SHA-256|expected 256000 bytes"):
        verify(path)
    assert fetch(path).read_bytes() == DATA
    assert "is not used" in caplog.text
    assert server.asked == ["/good"] * 2


def test_offline(tmp_path, server, monkeypatch):
    path = write_card(tmp_path, f"{server.url}/good")
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=f"PULSE_OFFLINE forbids the network; unset it, or get the file from {server.url}/good"
    ):
        fetch(path)
    assert server.asked == []
    monkeypatch.setenv("PULSE_OFFLINE", "0")
    fetch(path)
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    assert fetch(path).read_bytes() == DATA


def test_unwritable_cache_is_explained(tmp_path, server, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"Not a directory|File exists|cannot find the path"):
        fetch(write_card(tmp_path, f"{server.url}/good"))


def test_two_processes_at_once(tmp_path, server, home):
    path = write_card(tmp_path, f"{server.url}/good")
    code = f"from pulse_framework.weights import fetch; print(fetch({str(path)!r}))"
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert said == {str(cache_path(read_card(path)))}
    assert cache_path(read_card(path)).read_bytes() == DATA
    assert leftovers(home) == []


def test_import_is_cheap():
    code = "import sys, pulse_framework.weights; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["yaml", "requests", "platformdirs", "huggingface_hub", "hydra", "omegaconf"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
