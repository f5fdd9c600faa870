"""What a run writes: whole files, lines after their files, and its progress."""

import pytest

from pulse_framework.files import write_atomic
from pulse_framework.runtime import ProgressBar, ResultWriter, outputs
from pulse_framework.search import Status
from tests.runtime.small import COUNT, folder, search


def test_a_crash_while_writing_leaves_nothing_partial(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def crash(descriptor):
        raise OSError("the disk is gone")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="gone"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["write_atomic", "write_latents"])
def test_no_line_is_written_before_its_files(data, tmp_path, monkeypatch, broken):
    def crash(*arguments):
        raise OSError("the disk is full")

    writer = ResultWriter(folder(tmp_path / "out"))
    monkeypatch.setattr(outputs, broken, crash)
    with pytest.raises(OSError, match="full"):
        search(data, writer)
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_failed_search_is_recorded_without_files(data, tmp_path, monkeypatch):
    monkeypatch.setattr("pulse_framework.search.result.SearchResult.status", Status.FAILED)
    writer = ResultWriter(folder(tmp_path / "out"))
    search(data, writer)
    writer.folder.release()
    assert (writer.counts["failed"], writer.written) == (COUNT, [])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.jsonl"}
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(lines) == COUNT
    assert all('"status": "failed", "mse": null' in line for line in lines)


def test_progress_counts_images_on_the_error_stream(data, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = ProgressBar(COUNT)
    search(data, bar)
    assert (bar.bar.tasks[0].total, bar.bar.tasks[0].completed) == (COUNT, COUNT)
    assert bar.bar.tasks[0].fields["steps"] > 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "search" in captured.err


def test_progress_is_silent_where_there_is_no_terminal(data, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    search(data, ProgressBar(COUNT))
    assert capsys.readouterr() == ("", "")
