"""Inputs and output folders in a store: memory's, which like an object store has no rename, and local files by URL."""

import json
import shutil

import fsspec
import pytest
import torch

from pulse_framework.images import write_png
from pulse_framework.runtime import stores
from tests.cli.test_reliability import contents


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store():
    """The store that is there for all of a process, emptied."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


@pytest.fixture
def shelf(store, small):
    """The inputs in the store, among what is not to be taken."""
    for path in small:
        store.pipe_file(f"/shelf/{path.name}", path.read_bytes())
    others = {"notes.txt": b"", ".hidden.png": b"x", "old/results.jsonl": b"{}\n", "old/in09.png": small[0].read_bytes()}
    for name, content in others.items():
        store.pipe_file(f"/shelf/{name}", content)
    return "memory://shelf"


def pictures(store):
    return sorted(path.rpartition("/")[2] for path in store.find("/out") if path.endswith(".png") and "grid" not in path)


def lines(store):
    return [json.loads(line) for line in store.cat_file("/out/results.jsonl").splitlines()]


def test_a_run_from_url_to_url_is_a_run_from_folder_to_folder(pulse, store, shelf, small, linear, tmp_path, home):
    command = ["upsample", shelf, "-o", "memory://out", *linear]
    first = pulse(*command)
    assert (first.status, first.out) == (0, "memory://out/in00.png\nmemory://out/in01.png\n")
    assert "results in memory://out" in first.err
    assert pulse("upsample", small[0].parent, "-o", tmp_path / "plain", *linear).status == 0
    files, plain = contents(tmp_path / "plain")
    assert {name: store.cat_file(f"/out/{name}") for name in files} == files
    found = lines(store)
    assert [line.pop("url") for line in found] == ["memory:///shelf/in00.png", "memory:///shelf/in01.png"]
    assert sorted(json.dumps({**line, "input": None, "seconds": None}) for line in found) == [
        json.dumps({**json.loads(line), "input": None}) for line in plain
    ]
    shutil.rmtree(home)  # as another machine has it
    again = pulse(*command)
    assert (again.status, again.out) == (0, "")
    assert "2 already done" in again.err
    assert len(lines(store)) == 2


def test_what_changes_in_the_store_is_fetched_anew(pulse, store, shelf, small, linear, make_inputs, tmp_path):
    assert pulse("upsample", shelf, "-o", tmp_path / "one", *linear).status == 0
    (_, _, other) = make_inputs(tmp_path / "more", 3)
    store.pipe_file("/shelf/in00.png", other.read_bytes())
    store.rm_file("/shelf/in01.png")
    done = pulse("upsample", shelf, "-o", tmp_path / "two", *linear)
    assert done.out == f"{tmp_path / 'two' / 'in00.png'}\n"
    single = pulse("upsample", "memory://shelf/in00.png", "-o", tmp_path / "three", *linear)
    assert single.status == 0
    one, two, three = ((tmp_path / name / "in00.png").read_bytes() for name in ("one", "two", "three"))
    assert one != two
    assert two == three


def test_a_sidecar_comes_along(pulse, store, linear, tmp_path):
    write_png(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)), tmp_path / "in.png")
    assert pulse("degrade", tmp_path / "in.png", "-o", tmp_path / "noisy", "--degradation", "gaussian_noise").status == 0
    for path in (tmp_path / "noisy").iterdir():
        store.pipe_file(f"/noisy/{path.name}", path.read_bytes())
    for out, place in (("a", "memory://noisy"), ("b", "memory://noisy/in.png")):
        done = pulse("upsample", place, "-o", tmp_path / out, *linear, "--degradation", "sidecar")
        assert done.status == 0, done.err
        assert '"degradation": "gaussian_noise"' in (tmp_path / out / "results.jsonl").read_text()


def test_a_store_that_fails_is_told_and_the_same_command_goes_on(pulse, store, shelf, linear, monkeypatch):
    put = type(store).pipe_file

    def fail(self, path, value, **known):
        if path.endswith("in01.png"):
            raise OSError("the store is full")
        put(self, path, value, **known)

    monkeypatch.setattr(type(store), "pipe_file", fail)
    command = ["upsample", shelf, "-o", "memory://out", *linear]
    failed = pulse(*command)
    assert failed.status == 1
    assert "the store is full" in failed.err
    assert "Traceback" not in failed.err
    assert not store.exists("/out/results.jsonl")  # which goes last, and names nothing that is not there
    monkeypatch.setattr(type(store), "pipe_file", put)
    again = pulse(*command)
    assert (again.status, "2 already done" in again.err) == (0, True)
    assert pictures(store) == ["in00.png", "in01.png"]
    assert len(lines(store)) == 2


def test_an_interrupted_run_has_sent_what_it_made(pulse, store, shelf, linear, monkeypatch):
    monkeypatch.setattr(stores, "SECONDS", 0.0)
    put, sent = type(store).pipe_file, []

    def interrupt(self, path, value, **known):
        put(self, path, value, **known)
        sent.append(path)
        if path.endswith("results.jsonl") and len(sent) < 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(store), "pipe_file", interrupt)
    command = ["upsample", shelf, "-o", "memory://out", *linear, "data.queue=1"]
    stopped = pulse(*command)
    assert stopped.status == 130
    assert len(lines(store)) == 1
    assert pictures(store) == ["in00.png"]
    monkeypatch.setattr(type(store), "pipe_file", put)
    done = pulse(*command)
    assert "1 already done" in done.err
    assert sorted(line["output"] for line in lines(store)) == ["in00.png", "in01.png"]


def test_one_process_of_several_fetches_and_sends(store, shelf, monkeypatch):
    for rank in "10":
        monkeypatch.setenv("LOCAL_RANK", rank)
        place = stores.Store(shelf)
        assert (place.folder / "in00.png").exists() == (rank == "0")
        place.folder.mkdir(parents=True, exist_ok=True)
        (place.folder / f"{rank}.png").write_bytes(b"new")
        place.send()
        assert store.exists(f"/shelf/{rank}.png") == (rank == "0")


def test_a_sweep_needs_a_folder(pulse, store, shelf, linear, tmp_path):
    command = ["run", "-m", f"generator={linear[1]}", *linear[2:], "search.seed=0,1"]
    refused = pulse(*command, f"data.inputs=['{shelf}']", "output='memory://out'")
    assert (refused.status, len(refused.error_lines)) == (2, 1)
    assert "memory://out" in refused.err
    assert pulse(*command, f"data.inputs=['{shelf}']", f"output='{tmp_path / 'out'}'").status == 0
    assert (tmp_path / "out" / "1" / "in01.png").exists()


def test_file_urls_are_paths(pulse, small, linear, tmp_path):
    done = pulse("upsample", f"file://{small[0]}", "-o", f"file://{tmp_path / 'out'}", *linear)
    assert (done.status, done.out) == (0, f"{tmp_path / 'out' / 'in00.png'}\n")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nope://shelf", "nope"),
        ("memory://nowhere", "memory://nowhere"),
        ("memory://bad", "leads out"),
        ("https://example.org/a.png", "PULSE_OFFLINE"),
    ],
)
def test_what_cannot_be_brought_is_refused_in_a_line(pulse, store, linear, tmp_path, monkeypatch, place, told):
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    store.store["/bad/../../x.png"] = fsspec.implementations.memory.MemoryFile(store, "/bad/../../x.png", b"")
    done = pulse("upsample", place, "-o", tmp_path / "out", *linear)
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert told in done.err
    assert not (tmp_path / "out").exists()
