"""Loggers: what CSV and TensorBoard get to hold, and those that fail."""

import csv
import sys

import pytest

from pulse_framework.runtime import ResultWriter, Tracker, csv_logger, tensorboard_logger
from pulse_framework.runtime.film import Film
from tests.runtime.small import COUNT, STEPS, folder, search, tracked


def logged(data, path, logger, **settings):
    writer = ResultWriter(folder(path))
    search(data, writer, Tracker({"search": {"steps": 6}}, writer, logger), **settings)
    return writer


def test_csv_logger(data, tmp_path):
    writer = logged(data, tmp_path / "out", csv_logger(str(tmp_path / "out")))
    with (tmp_path / "out" / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    answers = [float(row["answer/psnr_db"]) for row in rows if row["answer/psnr_db"]]
    assert answers == pytest.approx(writer.best_db)
    curve = [float(row["curve/psnr_db"]) for row in rows if row["curve/psnr_db"]]
    assert len(curve) == 6
    assert curve == sorted(curve)
    assert curve[-1] == pytest.approx(sum(writer.best_db) / COUNT)
    assert "steps: 6" in (tmp_path / "out" / "csv" / "hparams.yaml").read_text()


def test_tensorboard_logger(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = logged(data, tmp_path / "out", tensorboard_logger(str(tmp_path / "out")))
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert {"answer/psnr_db", "curve/psnr_db", "curve/psnr_db_worst", "curve/objective"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("answer/psnr_db")] == pytest.approx(writer.best_db)
    assert [event.step for event in events.Scalars("curve/objective")] == list(range(6))
    (image,) = events.Images("grid")
    assert (image.height, image.width) == tuple(writer.grid().shape[1:])


def test_a_logger_that_fails_costs_no_results(data, tmp_path, capsys):
    class Broken(type(csv_logger(str(tmp_path)))):
        def log_metrics(self, metrics, step=None):
            raise ConnectionError("no route\nto host")

    writer = logged(data, tmp_path / "out", Broken(str(tmp_path / "log")))
    assert len(writer.written) == COUNT
    err = capsys.readouterr().err
    assert err == "pulse: Broken failed and is left out from here on (ConnectionError: no route to host)\n"


def test_tensorboard_has_the_film_and_the_terms(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked(place, tensorboard_logger)
    events = EventAccumulator(str(place / "out" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert {"curve/term/consistency", "curve/gradient_norm", "curve/step_size", "curve/radius"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("search/image")] == list(range(1, STEPS + 1))


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


def test_a_film_that_fails_costs_no_results(place, capsys, monkeypatch):
    def fail(self, snapshots):
        raise RuntimeError("no frame")

    monkeypatch.setattr(Film, "add", fail)
    writer = tracked(place, csv_logger)
    assert len(writer.written) == COUNT
    assert capsys.readouterr().err == "pulse: CSVLogger failed and is left out from here on (RuntimeError: no frame)\n"


def test_importing_the_loggers_does_not_import_wandb():
    import subprocess

    program = "import sys, pulse_framework.runtime; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
