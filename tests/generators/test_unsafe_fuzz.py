"""NVIDIA's files with bytes changed at random: whatever comes is read or refused, in one line."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from generators._checkpoints import Checkpoint, read_checkpoint
from tests.generators.forged import GOLDEN, PICKLES

ORIGINALS = [(GOLDEN / f"{name}.pkl").read_bytes() for name in PICKLES]
EDITS = st.lists(st.tuples(st.sampled_from("=+-~"), st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6)


def mutated(data, edits):
    """Bytes overwritten, put in, taken out, or copied from elsewhere in the file."""
    for kind, where, piece in edits:
        at = int(where * (len(data) - 1))
        if kind == "~":
            piece = data[(at * 7) % len(data) :][: 1 + piece[0]]
        data = data[:at] + (b"" if kind == "-" else piece) + data[at + (0 if kind == "+" else len(piece)) :]
    return data


@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20")), deadline=None, derandomize="FUZZ_EXAMPLES" not in os.environ)
@given(st.sampled_from(ORIGINALS), EDITS)
def test_mutated_files_are_read_or_refused(tmp_path_factory, original, edits):
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(mutated(original, edits))
    try:
        assert isinstance(read_checkpoint(path), Checkpoint)
    except ValueError as error:
        assert str(error).startswith(f"{path}: expected ")  # noqa: PT017
