"""What a piece of work adds to memory, against allocations of known size. Linux alone says."""

import platform
import subprocess
import sys

import pytest
import torch

from pulse_framework import memory
from pulse_framework.memory import PeakMemory, keep_freed, resident

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")


def ones(megabytes):
    return torch.ones(megabytes * 2**18)


@linux
@pytest.mark.parametrize("megabytes", [0, 16, 64])
def test_grows_by_what_is_allocated_and_given_back(megabytes):
    with PeakMemory():
        ones(1)  # what the first use of all brings with it
    with PeakMemory() as found:
        ones(megabytes)
    assert found.added == pytest.approx(megabytes, abs=2)
    assert found.kept == pytest.approx(0, abs=2)


@linux
def test_what_is_kept_is_told_apart():
    with PeakMemory() as found:
        held = ones(48)
        ones(16)
    assert found.added == pytest.approx(64, abs=3)
    assert found.kept == pytest.approx(48, abs=3)
    del held


@linux
def test_a_larger_peak_before_does_not_count():
    ones(96)
    with PeakMemory() as found:
        ones(8)
    assert found.added == pytest.approx(8, abs=2)


@linux
def test_other_processes():
    program = "import sys; x = b'1' * 2**26; print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 64 < resident(process.pid) <= resident(process.pid, largest=True) < 200
        process.communicate()


def test_is_not_known_where_the_mark_cannot_be_reset(monkeypatch):
    monkeypatch.setattr(memory, "_reset", lambda: False)
    with PeakMemory() as found:
        ones(1)
    assert (found.added, found.kept) == (None, None)


def test_is_not_known_of_other_devices():
    with PeakMemory("mps") as found:
        ones(1)
    assert (found.added, found.kept) == (None, None)


FAULTS = """
import resource, sys, torch
from pulse_framework.runtime import make_trainer
make_trainer("cpu", keep_memory=sys.argv[1] == "True")
for _ in range(3):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@linux
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries are not told")
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_freed_is_there_again_without_the_system(kept):
    done = subprocess.run([sys.executable, "-c", FAULTS, str(kept)], check=True, capture_output=True, text=True)
    assert (int(done.stdout) < 32) == kept  # 64 MiB ten times: 160,000 pages of 4 KiB, or 320 of 2 MiB


def test_other_systems_are_not_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed()
