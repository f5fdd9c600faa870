"""Tracking: curves against plain sums, the film, what an offline run of W&B holds, and loggers that fail."""

import io
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
from PIL import Image
from wandb.proto import wandb_internal_pb2

import pulse_framework.runtime.loggers as loggers
from degradations.downscale import Downscale
from generators.module import ModuleGenerator
from pulse_framework.images import read_image, write_png
from pulse_framework.priors import SpherePrior
from pulse_framework.runtime import (
    MeasurementData,
    OutputFolder,
    ResultWriter,
    SearchModule,
    Tracker,
    csv_logger,
    make_trainer,
    predict,
    push,
    tensorboard_logger,
    wandb_logger,
)
from pulse_framework.runtime.curves import Curves
from pulse_framework.runtime.film import FRAMES, SHOWN, Film, read_film
from pulse_framework.search import Adam, L2Consistency, Objective, SearchResult, Snapshot, StopReason, psnr_db, single_phase

COUNT, STEPS = 3, 6


def test_curves_are_kept_between_runs():
    searches = [result([[float(3 - i), 0.1 / (i + 1)] for i in range(length)], radius=[1.0] * length) for length in (2, 3)]
    whole, first = Curves(), Curves()
    for search in searches:
        whole.add(search)
    first.add(searches[0])
    second = Curves.read(first.written())
    second.add(searches[1])
    assert second.rows() == whole.rows()
    assert second.count == 2
    assert Curves.read(Curves().written()).rows() == []


def result(trace, **watched):
    trace = torch.tensor(trace)
    known = {"key": "k", "restart": 0, "seed": 0, "index": 0, "latents": {}, "image": torch.zeros(3, 1, 1), "objective": 0.0}
    known |= {"mse": 0.0, "feasible": False, "target_mse": None, "step": 0, "steps": len(trace), "reason": StopReason.BUDGET}
    return SearchResult(**known, seconds=0.0, trace=trace, watched={name: torch.tensor(v) for name, v in watched.items()})


def test_curves_are_those_of_plain_sums():
    curves = Curves()
    curves.add(result([[4.0, 0.1], [5.0, 0.2], [1.0, 0.01]], radius=[1.0, 2.0, 3.0]))
    curves.add(result([[2.0, 0.001]], radius=[5.0], other=[7.0]))
    rows = curves.rows()
    assert [row["objective"] for row in rows] == [3.0, 3.0, 1.5]
    assert [row["psnr_db"] for row in rows] == pytest.approx([(psnr_db(mse) + psnr_db(0.001)) / 2 for mse in (0.1, 0.1, 0.01)])
    assert [row["psnr_db_worst"] for row in rows] == pytest.approx([psnr_db(0.1), psnr_db(0.1), psnr_db(0.01)])
    assert [row["radius"] for row in rows] == [3.0, 2.0, 3.0]
    assert [row.get("other") for row in rows] == [7.0, None, None]


def test_curves_do_not_depend_on_the_order():
    searches = [result([[float(3 - i), 0.1 / (i + 1)] for i in range(length)]) for length in (1, 3, 2)]
    one, other = Curves(), Curves()
    for search in searches:
        one.add(search)
    for search in reversed(searches):
        other.add(search)
    for row, expected in zip(one.rows(), other.rows(), strict=True):
        assert row == pytest.approx(expected)


def test_iterates_that_are_not_finite_are_left_out_of_the_curves():
    curves = Curves()
    curves.add(result([[float("nan"), float("nan")], [2.0, 0.1]], radius=[float("nan"), 1.0]))
    assert curves.rows() == [
        {},
        {"objective": 2.0, "psnr_db": pytest.approx(10.0), "psnr_db_worst": pytest.approx(10.0), "radius": 1.0},
    ]


def shot(key, step, value, restart=0):
    return Snapshot(key, 0, restart, step, torch.full((3, 8, 8), value))


def test_film_keeps_the_first_images_at_few_steps():
    film = Film()
    for step in range(1, 1001):
        film.add([shot(str(i), step, step / 1000) for i in range(SHOWN + 3)] + [shot("0", step, 0.0, restart=1)])
    frames = list(film)
    steps = [step for step, _ in frames]
    assert len(frames) <= FRAMES + 1
    assert steps == sorted(set(steps))
    assert steps[-1] > 900
    for step, frame in frames:
        assert frame.shape == (3, 128, SHOWN * 132 - 4)
        assert float(frame[0, 0, 0]) == pytest.approx(step / 1000)


def test_film_goes_through_its_file_with_equal_frames_too():
    film = Film()
    for step in range(1, 9):
        film.add([shot("a", step, min(step, 4) * 51 / 255)])
    assert film.gif()[:6] == b"GIF89a"
    with Image.open(io.BytesIO(film.gif())) as image:
        assert b"trainedAlgorithmicMedia" in image.info["comment"]
    kept = read_film(film.gif())
    assert [step for step, _ in kept] == list(range(1, 9))
    for (_, expected), (_, got) in zip(film, kept, strict=True):
        torch.testing.assert_close(got, expected)
    assert Film().gif() == b""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Inputs, and no key of W&B."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "PULSE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "in").mkdir()
    z = torch.randn(COUNT, 8, generator=torch.Generator().manual_seed(1))
    for index, image in enumerate(Downscale(2)(generator()({"z": z}))):
        write_png(image, tmp_path / "in" / f"{index}.png")
    return tmp_path


def generator():
    torch.manual_seed(0)
    layers = [torch.nn.Unflatten(1, (8, 1, 1)), torch.nn.ConvTranspose2d(8, 8, 4), torch.nn.ReLU()]
    return ModuleGenerator(torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(8, 3, 4, 2, 1), torch.nn.Tanh()), (8,))


def tracked(place, make_logger, name="out"):
    objective = Objective(terms={"consistency": L2Consistency(weight=100.0)})
    plan = single_phase(prior=SpherePrior(), objective=objective, optimiser=Adam(rate=0.2), steps=STEPS)
    folder = OutputFolder(place / name, generator="g", degradation="d", samples=1, settings={})
    writer = ResultWriter(folder)
    tracker = Tracker({"search": {"steps": STEPS}, "code": "1.2.3"}, writer, make_logger(str(place / name)))
    module = SearchModule(generator(), {(4, 4): Downscale(2)}, plan)
    predict(make_trainer("cpu", callbacks=[writer, tracker]), module, MeasurementData([place / "in"]))
    folder.release()
    return writer


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


def test_tensorboard_has_the_film_and_the_terms(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked(place, tensorboard_logger)
    events = EventAccumulator(str(place / "out" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert {"curve/term/consistency", "curve/gradient_norm", "curve/step_size", "curve/radius"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("search/image")] == list(range(1, STEPS + 1))


def test_only_the_folder_of_a_run_can_be_pushed(place):
    with pytest.raises(ValueError, match="expected the folder of a run"):
        push(place / "in", csv_logger(str(place / "log")))


@pytest.mark.parametrize("method", ["log_hyperparams", "log_metrics", "finalize"])
def test_a_logger_may_fail_anywhere(place, capsys, method):
    def fail(*arguments, **named):
        raise ConnectionError("no route\nto host")

    def make(folder):
        logger = csv_logger(folder)
        setattr(logger, method, fail)
        return logger

    writer = tracked(place, make)
    assert len(writer.written) == COUNT
    told = "pulse: CSVLogger failed and is left out from here on (ConnectionError: no route to host)\n"
    assert capsys.readouterr().err == told


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


def test_a_film_that_fails_costs_no_results(place, capsys, monkeypatch):
    def fail(self, snapshots):
        raise RuntimeError("no frame")

    monkeypatch.setattr(Film, "add", fail)
    writer = tracked(place, csv_logger)
    assert len(writer.written) == COUNT
    assert capsys.readouterr().err == "pulse: CSVLogger failed and is left out from here on (RuntimeError: no frame)\n"
