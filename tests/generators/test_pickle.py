"""The pickle machine against the standard library's, and its bounds."""

import inspect
import pickle
import struct
import time
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators._pickle import MARKS, OPCODES, Global, Inert, load

KEYS = st.none() | st.booleans() | st.integers(-(2**127), 2**127 - 1) | st.text()
VALUES = st.recursive(
    KEYS | st.floats(allow_nan=False) | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
        | st.sets(KEYS)
    ),
)
PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "bytes"): bytes,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): str.encode,
}


class Box(Inert):
    pass


def run(data, allowed=None, **settings):
    return load(memoryview(data), allowed or {}, **settings)[0]


def as_bytes(value):
    """The same value with bytes in the place of views."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return type(value)(map(as_bytes, value))
    if isinstance(value, dict):
        return type(value)((key, as_bytes(item)) for key, item in value.items())
    return value


@settings(max_examples=80, deadline=None, derandomize=True)
@given(VALUES, st.integers(2, 5))
def test_plain_values_are_those_of_the_standard_library(value, protocol):
    data = pickle.dumps(value, protocol)
    ours, end = load(memoryview(data + b"tail"), PLAIN)
    assert as_bytes(ours) == value == pickle.loads(data)
    assert type(ours) is type(value) or isinstance(ours, memoryview)
    assert end == len(data)


def test_bytes_are_views_into_the_file():
    data = pickle.dumps(b"x" * 1000, 4)
    assert run(data).obj is data


def test_text_and_bytes_of_python_2():
    assert run(b"\x80\x02U\x03a\xe9b.") == "a\xe9b"
    assert run(b"\x80\x02T\x02\x00\x00\x00\xff\x00.") == "\xff\x00"


def test_shared_values_are_shared():
    inner: list[object] = []
    outer = run(pickle.dumps([inner, inner], 4))
    assert outer[0] is outer[1]


def test_stand_ins_are_called_and_built():
    box = run(b"\x80\x02cmodule\nName\n)\x81}X\x01\x00\x00\x00aK\x01sb.", {("module", "Name"): Box})
    assert type(box) is Box
    assert box.state == {"a": 1}


def test_a_name_that_may_only_be_mentioned():
    assert run(b"\x80\x02cmodule\nName\n.", {("module", "Name"): None}) == Global("module", "Name")
    with pytest.raises(ValueError, match=r"module\.Name to be named only"):
        run(b"\x80\x02cmodule\nName\n)R.", {("module", "Name"): None})


def test_persistent_ids_only_where_they_are_expected():
    assert run(b"\x80\x02K\x07Q.", persistent=lambda value: ("found", value)) == ("found", 7)
    with pytest.raises(ValueError, match="persistent id"):
        run(b"\x80\x02K\x07Q.")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "cut short"),
        (b"\x80\x04", "cut short"),
        (b"\x80\x06N.", "protocol 5 or lower"),
        (b"\x80\x04.", "nonsense"),
        (b"\x80\x04h\x00.", "nonsense"),
        (b"\x80\x04\x85.", "nonsense"),
        (b"\x80\x04t.", "nonsense"),
        (b"\x80\x04\x8c\x02\xff\xfe.", "nonsense"),
        (b"\x80\x04)R.", "nonsense"),
        (b"\x80\x04N)R.", "expected Global"),
        (b"\x80\x04N]b.", "NoneType"),
        (b"\x80\x04]K\x01K\x02s.", "expected dict"),
        (b"\x80\x04}(K\x01u.", "one key more"),
        (b"\x80\x04}K\x01a.", "expected list"),
        (b"\x80\x04](K\x01\x90.", "expected set"),
        (b"\x80\x04}]K\x01s.", "expected str or int"),
        (b"\x80\x04})K\x01s.", "expected str or int"),
        (b"\x80\x04K\x01K\x02\x93.", "expected str"),
        (b"\x80\x04\x8a\x11" + b"\1" * 17 + b".", "16 bytes"),
        (b"\x80\x04c" + b"x" * 300 + b"\nN\n.", "name of at most"),
        (b"\x80\x04" + b"(" * (MARKS + 1), "nested at most"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 10**10) + b"x", "at most"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 10**10) + b"x", "expected 10000000000 bytes"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b"x", "cut short"),
        (b"\x80\x04B" + b"\xff" * 4 + b"x", "cut short"),
        (b"\x80\x04X" + b"\xff" * 4 + b"x", "at most"),
    ],
)
def test_what_is_refused(data, match):
    with pytest.raises(ValueError, match=match) as caught:
        run(data)
    assert "again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_number_of_opcodes_is_bounded():
    with pytest.raises(ValueError, match="at most 10 pickle opcodes"):
        run(b"\x80\x04" + b"N0" * 20 + b".", opcodes=10)
    assert inspect.signature(load).parameters["opcodes"].default == OPCODES == 10**6


def test_doubling_through_the_memo_takes_neither_time_nor_memory():
    """A pair of a pair twice, 5000 times over: 2^5000 leaves in 60 kB, which nothing here ever walks."""
    start, put = time.perf_counter(), [b"r" + struct.pack("<I", k) + b"j" + struct.pack("<I", k) + b"\x86" for k in range(5000)]
    data = b"\x80\x04)" + b"".join(put)
    assert len(run(data + b".")) == 2
    with pytest.raises(ValueError, match="expected str or int"):  # as a key its hash would not end
        run(b"\x80\x04}" + data[2:] + b"Ns.")
    assert time.perf_counter() - start < 20


def test_copies_are_charged():
    """A list of n, copied n times by a stand-in, is work of n^2."""
    data = b"\x80\x04](" + b"N" * 1000 + b"e\x94" + b"cbuiltins\nset\nh\x00\x85R0" * 20 + b"N."
    assert run(data, {("builtins", "set"): len}, opcodes=22_000) is None
    with pytest.raises(ValueError, match="opcodes"):
        run(data, {("builtins", "set"): len}, opcodes=20_000)
