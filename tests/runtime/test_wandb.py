"""Weights & Biases: what an offline run holds, finished runs that are pushed, and servers that refuse."""

import json
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from wandb.proto import wandb_internal_pb2

import pulse_framework.runtime.loggers as loggers
from pulse_framework.images import read_image
from pulse_framework.runtime import csv_logger, push, wandb_logger
from tests.runtime.small import COUNT, STEPS, tracked


def records(run):
    """What is in the store of an offline run. W&B's own process may still be writing when ``finish`` has returned."""
    (store,) = run.glob("*.wandb")
    until = time.monotonic() + 30
    while True:
        found = parsed(store.read_bytes())
        if any(record.WhichOneof("record_type") == "exit" for record in found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


def parsed(content):
    """W&B's log of records, in blocks as LevelDB has them, as far as it is whole."""
    at, part, found = 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        if at + 7 + size > len(content):
            break
        part, at = part + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last piece
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def history(run):
    """Lines of the history, as name to value."""
    lines = [record.history.item for record in records(run) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items} for items in lines]


def table(run):
    """The table of results, which W&B keeps as an artifact with its pictures."""
    stored = [record.artifact for record in records(run) if record.HasField("artifact")]
    (artifact,) = (artifact for artifact in stored if artifact.type == "run_table")
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    read = json.loads(files["results.table.json"].read_text())
    cells = [cell for row in read["data"] for cell in row if isinstance(cell, dict)]
    assert all(files[cell["path"]].stat().st_size for cell in cells)
    return read


def test_an_offline_run_of_wandb_holds_everything(place, capfd):
    writer = tracked(place, lambda folder: wandb_logger(folder, group="sweep", artifacts=True))
    (run,) = (place / "out" / "wandb").glob("offline-run-*")
    assert capfd.readouterr().err == f"pulse: to upload the run to W&B: wandb sync {run}\n"
    lines = history(run)
    curves = [line for line in lines if "curve/step" in line]
    assert [line["curve/step"] for line in curves] == list(range(STEPS))
    names = {"objective", "psnr_db", "psnr_db_worst", "radius", "step_size", "gradient_norm", "term/consistency"}
    for line in curves:
        assert {f"curve/{name}" for name in names} <= set(line)
        assert line["curve/radius"] == pytest.approx(8**0.5, rel=1e-5)
    assert [line["answer/psnr_db"] for line in lines if "answer/images" in line] == pytest.approx(writer.best_db)
    frames = [line for line in lines if "search/image/path" in line]
    assert [line["search/step"] for line in frames] == list(range(1, STEPS + 1))
    assert all((run / "files" / line["search/image/path"]).stat().st_size for line in frames)
    (film,) = (line["film/path"] for line in lines if "film/path" in line)
    assert (run / "files" / film).read_bytes() == (place / "out" / "search.gif").read_bytes()
    (grid,) = (line["grid/path"] for line in lines if "grid/path" in line)
    torch.testing.assert_close(read_image(run / "files" / grid), writer.grid(), atol=0.51 / 255, rtol=0)
    rows = table(run)
    assert rows["columns"] == [
        *("input", "sample", "status", "mse", "psnr_db", "steps", "seconds"),
        *("measurement", "answer", "A(answer)"),
    ]
    assert [row[2] for row in rows["data"]] == ["best_effort"] * COUNT
    assert all(cell["_type"] == "image-file" for row in rows["data"] for cell in row[7:])
    metrics = {record.metric.glob_name: record.metric.step_metric for record in records(run) if record.HasField("metric")}
    assert metrics["curve/*"] == "curve/step"
    (opened,) = (record.run for record in records(run) if record.HasField("run"))
    assert (opened.run_group, opened.display_name, opened.project) == ("sweep", "out", "pulse")
    assert opened.run_id == (place / "out" / "wandb" / "run-id").read_text()
    config = yaml.safe_load((run / "files" / "config.yaml").read_text()) if (run / "files" / "config.yaml").exists() else {}
    told = {u.key or "/".join(u.nested_key): u.value_json for r in records(run) for u in r.config.update}
    assert "1.2.3" in str(config) + str(told)
    stored = [record.artifact for record in records(run) if record.HasField("artifact")]
    (artifact,) = (artifact for artifact in stored if artifact.type == "results")
    assert {"results.jsonl", "0.png", "0.safetensors"} <= {entry.path for entry in artifact.manifest.contents}
    assert len({name for line in lines for name in line if name.startswith(("curve/", "answer/"))}) == len(names) + 5


def test_a_folder_keeps_its_identity(place):
    first = wandb_logger(str(place / "out"), offline=False)
    assert first._wandb_init["resume"] == "allow"
    assert wandb_logger(str(place / "out"), offline=True)._id == first._id is not None
    assert wandb_logger(str(place / "other"))._id != first._id


@pytest.mark.parametrize(
    ("key", "fault", "mode", "offline"),
    [
        ("", "", "", True),
        ("k" * 40, "no route", "", True),
        ("k" * 40, "", "", False),
        ("", "", "disabled", False),
        ("k" * 40, "", "offline", True),
    ],
)
def test_offline_without_key_or_network(place, monkeypatch, key, fault, mode, offline):
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(loggers, "unreachable", lambda url: fault)
    assert (wandb_logger(str(place / "out"))._wandb_init.get("mode") == "offline") == offline


def test_finished_runs_are_pushed(place, capfd):
    writer = tracked(place, csv_logger)
    (place / "out" / "config.yaml").write_text("search: {steps: 6}\n")
    assert push(place / "out", wandb_logger(str(place / "out"), offline=True)) == COUNT
    (run,) = (place / "out" / "wandb").glob("offline-run-*")
    assert f"wandb sync {run}\n" in capfd.readouterr().err
    pushed = history(run)
    again = tracked(place, wandb_logger, name="direct")
    (direct,) = (place / "direct" / "wandb").glob("offline-run-*")
    assert again.best_db == writer.best_db
    for prefix in ("curve/", "search/step", "answer/psnr_db", "answer/steps"):
        expected, got = (
            [{name: v for name, v in line.items() if name.startswith(prefix)} for line in lines]
            for lines in (history(direct), pushed)
        )
        assert [line for line in got if line] == [pytest.approx(line) for line in expected if line]
    rows = table(run)["data"]
    assert [[cell and cell["_type"] for cell in row[7:]] for row in rows] == [["image-file", "image-file", None]] * COUNT


def test_only_the_folder_of_a_run_can_be_pushed(place):
    with pytest.raises(ValueError, match="expected the folder of a run"):
        push(place / "in", csv_logger(str(place / "log")))


class Refusing(BaseHTTPRequestHandler):
    """A server that answers and lets nobody in."""

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_a_server_that_refuses_costs_no_results(place, capfd, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(loggers, "INIT_SECONDS", 1.5)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        writer = tracked(place, wandb_logger)
    finally:
        server.shutdown()
        server.server_close()
    assert len(writer.written) == COUNT
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("pulse: ")]
    assert len(told) == 1
    assert told[0].startswith("pulse: WandbRun failed and is left out from here on (")


def test_what_could_not_be_uploaded_in_time_is_told(place, capfd, monkeypatch):
    def finish(run, **_):
        ended(run)
        raise TimeoutError

    ended = wandb.Run.finish
    monkeypatch.setattr(wandb.Run, "finish", finish)
    monkeypatch.setattr(wandb.Run, "offline", False)
    writer = tracked(place, lambda folder: wandb_logger(folder, offline=True))
    assert len(writer.written) == COUNT
    (run,) = (place / "out" / "wandb").glob("offline-run-*")
    assert capfd.readouterr().err == f"pulse: to upload the run to W&B: wandb sync {run}\n"
