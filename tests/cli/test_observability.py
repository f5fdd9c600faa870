"""What a run tells programs: JSON lines in place of text, and where its time went."""

import gzip
import io
import json
import logging
import warnings

import pytest

from pulse_framework.cli.lines import JsonLines


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_an_object(pulse, small, linear, records, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    done = pulse("upsample", *small, broken, "-o", tmp_path / "out", *linear, "--log-json")
    lines = objects(done.err)
    assert done.status == 1
    for line in lines:
        assert {"time", "level", "message"} <= line.keys()
        assert not line["message"].startswith("pulse:")
    told = [line for line in lines if "event" in line]
    assert [line["event"] for line in told] == ["start", "answer", "answer", "end", "summary"]
    start, *answers, end, summary = told
    assert (start["images"], start["device"], start["precision"]) == (2, "cpu", "32-true")
    assert [line["done"] for line in answers] == [1, 2]
    kept = {record["input"]: record for record in records(tmp_path / "out") if record["status"] != "error"}
    for line in answers:
        assert {key: line[key] for key in ("status", "psnr_db", "steps")} == {
            key: kept[line["input"]][key] for key in ("status", "psnr_db", "steps")
        }
    assert end["done"] == 2
    assert summary["error"] == 1
    (error,) = (line for line in lines if line["level"] == "error")
    assert error["input"] == str(broken)
    assert done.out.splitlines() == [str(tmp_path / "out" / f"{path.stem}.png") for path in small]


def test_a_refusal_is_an_object_and_the_next_run_speaks_as_ever(pulse, small, linear, tmp_path):
    refused = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--log-json", "search.steps=0")
    (line,) = objects(refused.err)
    assert refused.status == 2
    assert line["level"] == "error"
    assert "steps: expected at least 1" in line["message"]
    again = pulse("upsample", *small, "-o", tmp_path / "out", *linear)
    assert [line.partition(" best")[0] for line in again.error_lines] == [
        "pulse: the search runs Adam for a target of 27 dB (LBFGS is for 30 dB and more, and for an encoder's guess)",
        "pulse: 2",
    ]
    assert logging.getLogger("pulse_framework").level == logging.NOTSET


def test_quiet_tells_nothing_but_errors(pulse, small, linear, tmp_path):
    assert pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--log-json", "--quiet").err == ""


def test_every_run_of_a_sweep_tells_objects(pulse, small, linear, tmp_path):
    inputs = f"data.inputs=[{','.join(map(str, small))}]"
    sweep = ["run", "-m", inputs, f"output={tmp_path / 'out'}", "search.seed=0,1", "--log-json", "generator=linear", *linear[2:]]
    done = pulse(*sweep)
    assert done.status == 0, done.err
    assert [line["event"] for line in objects(done.err) if "event" in line].count("summary") == 2


def test_text_in_pieces_is_one_line():
    under = io.StringIO()
    lines = JsonLines(under)
    for piece in ("pulse: one", " and ", "two\n\nthr", "ee"):
        lines.write(piece)
    lines.finish()
    assert [line["message"] for line in objects(under.getvalue())] == ["one and two", "three"]


def test_records_and_warnings_have_their_levels(pulse, small, linear, tmp_path, monkeypatch):
    def talk(*arguments, **settings):
        logging.getLogger("pulse_framework.search").warning("half as many")
        logging.getLogger("other").error("far away", exc_info=ValueError("why"))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", stacklevel=1)
        raise ValueError("expected less, got more")

    monkeypatch.setattr("pulse_framework.cli.jobs.prepare", talk)
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--log-json")
    found = [(line["level"], line["message"], line.get("logger")) for line in objects(done.err)]
    assert found == [
        ("warning", "half as many", "pulse_framework.search"),
        ("error", "far away", "other"),
        ("warning", "old", None),
        ("error", "expected less, got more", None),
    ]
    assert "ValueError: why" in objects(done.err)[1]["exception"]


def test_profile_says_where_the_time_went_and_changes_no_bit(pulse, small, linear, tmp_path, capfd):
    command = ["upsample", *small, *linear, "--batch-size", "1"]
    done = pulse(*command, "-o", tmp_path / "out", "--profile")
    assert done.status == 0
    assert capfd.readouterr() == ("", "")  # the profiler's own library
    table = (tmp_path / "out" / "profile.txt").read_text()
    shares = {line[:24].strip(): line.split() for line in table.split("\n\n")[0].splitlines()[1:]}
    assert {"generator", "degradation", "objective", "gradients", "optimiser", "best so far", "start"} <= shares.keys()
    assert shares["start"][-3] == "2"
    *parts, whole = (float(line[-1] if name == "in all" else line[-2]) for name, line in shares.items())
    assert sum(parts) == pytest.approx(whole, abs=0.001)
    assert "aten::" in table
    with gzip.open(tmp_path / "out" / "profile.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert sum(event.get("name") == "pulse: generator" and event.get("ph") == "X" for event in events) == int(
        shares["generator"][1]
    )
    assert pulse(*command, "-o", tmp_path / "without").status == 0
    for path in sorted((tmp_path / "without").glob("in*")):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
