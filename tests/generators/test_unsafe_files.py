"""Files made to run a command, to read outside their storages, or to take all memory: each is refused, and nothing has run."""

import argparse
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators._checkpoints import Checkpoint, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
PICKLES = ["stylegan2_ada_resnet", "stylegan2_ada_skip", "stylegan3_t"]
LEGACY = {"_use_new_zipfile_serialization": False}
HUGE = 10**10


class Evil:
    """Pickled, it is a call of os.system that makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


class Call:
    """Pickled, it is the call of a name, whether it exists or not (pickle looks names up when it writes; this does not)."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


class Pickler(pickle._Pickler):  # the one in Python, whose methods can be extended
    def save(self, value, save_persistent_id=True):
        if not isinstance(value, Call):
            return super().save(value, save_persistent_id)
        module, _, name = value.name.rpartition(".")
        self.write(b"c" + f"{module}\n{name}\n".encode())
        super().save(value.arguments)
        self.write(pickle.REDUCE)
        return None


def dumps(value, protocol=4):
    file = io.BytesIO()
    Pickler(file, protocol).dump(value)
    return file.getvalue()


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that must not exist afterwards; nothing may call the system or import either package."""
    path = tmp_path / "canary"

    def forbidden(*_):
        path.touch()
        raise AssertionError("a file ran a command")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(os, "popen", forbidden)
    yield path
    assert not path.exists()
    assert not {"torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.tflib"} & {*sys.modules}


def refused(tmp_path, data, match):
    """Refused at once, without memory, in one line that names the file."""
    path = tmp_path / "file"
    path.write_bytes(data)
    if len(data) < 100_000:  # it is slow
        tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 2e7  # 0 when it does not trace
        assert time.perf_counter() - start < 5
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# The parts of an NVIDIA file


def stream(numel=6, data=bytes(24), kind="FloatStorage", key="0", said=None, root=None, machine=None):
    """A nested legacy stream with one storage."""
    identity = ("storage", Named("torch", kind), key, "cpu", numel if said is None else said, None)
    parts = [0x1950A86A20F9469CFC6C, 1001, machine or {"little_endian": True}]
    body = root if root is not None else dump_persistent(identity)
    return b"".join(pickle.dumps(part, 2) for part in parts) + body + pickle.dumps([key], 2) + struct.pack("<q", numel) + data


class Named:
    def __init__(self, module, name):
        self.line = f"c{module}\n{name}\n".encode()


class Mentioner(Pickler):
    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            return self.write(value.line)
        return super().save(value, save_persistent_id)


def dump_persistent(identity):
    file = io.BytesIO()
    Mentioner(file, 2).dump(identity)
    return file.getvalue()[:-1] + b"Q."


def tensor(storage=None, offset=0, size=(2, 3), stride=(3, 1)):
    storage = Call("torch.storage._load_from_bytes", stream() if storage is None else storage)
    return Call("torch._utils._rebuild_tensor_v2", storage, offset, size, stride, False, OrderedDict())


def module(source="", modules=None, **tensors):
    state = {"_parameters": tensors, "_buffers": {}, "_modules": modules or {}, "_init_args": (), "_init_kwargs": {}}
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Generator", "state": state}
    return Call("torch_utils.persistence._reconstruct_persistent_obj", meta)


def nvidia(**tensors):
    return dumps({"G_ema": module(**tensors)})


def test_the_parts_are_sound(tmp_path):
    """So that what follows is refused for its one fault: the tensors are read, and then are no generator's."""
    refused(tmp_path, nvidia(weight=tensor()), "expected the tensors of a StyleGAN2 or StyleGAN3")


# Commands


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_in_the_outer_stream(tmp_path, canary, protocol):
    match = "'posix' 'system'" if protocol > 1 else "begins with"
    refused(tmp_path, pickle.dumps({"G_ema": Evil(canary), "padding": "x" * 20}, protocol), match)


def test_source_text_is_ignored(tmp_path, canary):
    evil = f"open({str(canary)!r}, 'w')"
    refused(tmp_path, dumps({"G_ema": module(source=evil, weight=tensor())}), "expected the tensors of a StyleGAN2")
    data = (GOLDEN / "stylegan2_ada_resnet.pkl").read_bytes()
    old = b"module_src\x94\x8c\x00"
    assert data.count(old) == 1
    frame = data.index(b"\x95")  # the frame's length is not looked at
    assert frame < data.index(old)
    (tmp_path / "file").write_bytes(data.replace(old, b"module_src\x94\x8c" + bytes([len(evil)]) + evil.encode()))
    assert len(read_checkpoint(tmp_path / "file").tensors) == 71


def test_build_module_src_is_ignored(tmp_path, canary):
    made = b"\x80\x04cdnnlib.tflib.network\nNetwork\n)\x81"
    state = {"version": 3, "static_kwargs": {}, "components": {}, "variables": [("lod", 0.5)]}
    built = made + pickle.dumps(state | {"build_module_src": f"open({str(canary)!r}, 'w')"}, 4)[2:-1] + b"b"
    (tmp_path / "file").write_bytes(b"\x80\x04NN" + built[2:] + b"\x87.")
    assert read_checkpoint(tmp_path / "file").tensors == {"lod": torch.tensor(0.5)}


def test_a_call_in_the_nested_stream(tmp_path, canary):
    for evil in (pickle.dumps(Evil(canary), 2), stream(root=pickle.dumps(Evil(canary), 2))):
        refused(tmp_path, nvidia(weight=tensor(evil)), "'posix' 'system'|legacy torch.save stream")
    deeper = stream(root=dumps(Call("torch.storage._load_from_bytes", stream(root=pickle.dumps(Evil(canary), 2))), 2))
    refused(tmp_path, nvidia(weight=tensor(deeper)), "'torch.storage' '_load_from_bytes'")


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_a_call_in_what_torch_saves(tmp_path, canary, options):
    for value in ({"g_ema": Evil(canary)}, {"g_ema": {}, "args": argparse.Namespace(a=Evil(canary))}, {"opts": [Evil(canary)]}):
        torch.save(value, tmp_path / "a", **options)
        refused(tmp_path, (tmp_path / "a").read_bytes(), "'posix' 'system'")


@pytest.mark.parametrize("place", range(4))
def test_a_call_in_the_other_pickles_of_a_legacy_stream(tmp_path, canary, place):
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [])]
    parts[place + 1] = pickle.dumps(Evil(canary), 2)
    refused(tmp_path, b"".join(parts), "'posix' 'system'")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("copyreg", "_reconstructor"),
        ("functools", "partial"),
        ("torch", "load"),
        ("torch.storage", "UntypedStorage"),
        ("torch", "FloatStorage.from_file"),
        ("torch.serialization", "os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "torch.os.system"),
        ("collections", "OrderedDict.__init__"),
        ("collections", "_sys.modules"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("dnnlib.util", "open_url"),
        ("torch_utils.persistence", "_src_to_module"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj\0"),
        ("TORCH_UTILS.persistence", "_reconstruct_persistent_obj"),
    ],
)
def test_names_off_the_list_by_either_opcode(tmp_path, canary, module, name):
    match = f"{module!r} {name!r}".replace("\\", r"\\").replace(".", r"\.")
    text = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    refused(tmp_path, b"\x80\x04" + text + b"\x93\x8c\x02id\x85R.", match)
    refused(tmp_path, b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"U\x02id\x85R.", match)
    refused(tmp_path, b"\x80\x04}" + text + b"\x93)\x81.", match)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"Pevil\n.", "PERSID"),
        (b"}Q.", "persistent id"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nU\x02ido.", "'os' 'system'"),
        (b"(cargparse\nNamespace\nU\x02ido.", "OBJ"),
        (b"cargparse\nNamespace\n)}\x92.", "NEWOBJ_EX"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "BYTEARRAY8"),
        (b"I10\n.", "opcode INT"),
        (b"\x8b\xff\xff\xff\x7f.", "LONG4"),
        (b"\xff.", "0xff"),
        (b"cargparse\nNamespace\n)R}b)R.", "expected Global"),
        (b"cargparse\nNamespace\n}R.", "expected tuple"),
        (b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.", "named only"),
        (b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.", "named only"),
        (b"cnumpy\ndtype\nU\x02O8\x85R.", "dtype 'O8'"),
        (b"cnumpy\ndtype\n}\x85R.", "dtype dict"),
        (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.", r"numpy\.ndarray"),
        (b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f4\x85RU\x01x\x86R.", "4 bytes"),
        (b"c_codecs\nencode\nU\x01xU\x06rot_13\x86R.", "latin1"),
        (b"ccollections\nOrderedDict\n]]a\x85R.", "pairs"),
        (b"c__builtin__\nset\n]]a\x85R.", "names as a set"),
        (b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R.", "version 6"),
    ],
)
def test_opcodes_and_calls_that_weights_do_not_need(tmp_path, canary, data, match):
    refused(tmp_path, b"\x80\x04" + data + b"." * 16, match)


def test_setstate_is_inert(tmp_path, canary):
    """BUILD with a state that names __setstate__, __reduce__ or __class__: kept as data on a stand-in, or refused."""
    state = {"__setstate__": "x", "__class__": "y", "__reduce__": "z", "__dict__": {}}
    space = Call("argparse.Namespace")
    data = dumps({"G_ema": module(weight=tensor()), "args": space}, 4)
    needle = b"cargparse\nNamespace\n)R"
    assert data.count(needle) == 1
    built = data.replace(needle, needle + pickle.dumps(state, 4)[2:-1].replace(b"\x94", b"") + b"b")
    refused(tmp_path, built[:2] + built[11:], "expected the tensors of a StyleGAN2")
    whole = dumps(module(weight=tensor()))
    refused(tmp_path, whole[:-1] + pickle.dumps(state, 4)[2:-1] + b"b.", "second state")


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        for name in ("x/data.pkl", "x/constants.pkl", "x/code/__torch__.py"):
            archive.writestr(name, pickle.dumps({}, 2))
    refused(tmp_path, (tmp_path / "a").read_bytes(), "TorchScript")


# Outside the storage


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"offset": 1}, "within its storage of 6 elements"),
        ({"offset": -1}, "offset from 0"),
        ({"offset": 1.0}, "integers as a tensor's offset"),
        ({"offset": True}, "integers as a tensor's offset"),
        ({"offset": 2**100}, "offset from 0"),
        ({"size": (2, 4)}, "within its storage"),
        ({"size": (-2, 3)}, "size from 0"),
        ({"size": (2,)}, "a stride for each size"),
        ({"size": 6}, "integers as a tensor's size"),
        ({"size": (1,) * 17, "stride": (1,) * 17}, "at most 16 integers"),
        ({"size": (2**40, 2**40), "stride": (0, 0)}, "size from 0"),
        ({"size": (0, 2**40, 2**40), "stride": (1, 1, 1)}, "size from 0"),
        ({"size": (HUGE, 1), "stride": (0, 1)}, "bytes of tensors"),
        ({"stride": (4, 1)}, "within its storage"),
        ({"stride": (3, -1)}, "stride from 0"),
        ({"stride": (2**62, 1)}, "stride from 0"),
        ({"storage": b"short"}, "legacy torch.save stream"),
        ({"storage": "text"}, "bytes of a storage"),
        ({"storage": stream(numel=5)}, "within its storage of 5"),
        ({"storage": stream(said=HUGE)}, "10000000000 elements of a storage, got 6"),
        ({"storage": stream(numel=HUGE, said=HUGE)}, "cut short"),
        ({"storage": stream(numel=2**62, said=2**62)}, "persistent id of a storage"),
        ({"storage": stream(said=-1)}, "persistent id of a storage"),
        ({"storage": stream(data=bytes(23))}, "cut short"),
        ({"storage": stream(kind="DoubleStorage")}, "cut short"),
        ({"storage": stream(kind="UntypedStorage")}, "'torch' 'UntypedStorage'"),
        ({"storage": stream(root=pickle.dumps([], 2))}, "data of each storage"),
        ({"storage": stream(machine={"little_endian": False})}, "little-endian"),
        ({"storage": stream(root=b"\x80\x02" + b"N0" * 200 + b"N.")}, "at most 200 pickle opcodes"),
    ],
)
def test_a_tensor_that_is_not_within_its_storage(tmp_path, wrong, match):
    refused(tmp_path, nvidia(weight=tensor(**wrong)), match)


def test_many_tensors_on_few_elements_are_bounded(tmp_path):
    """Each is sound, with a stride of 0; together they are 20 MB in a file of 20 kB."""
    tensors = {f"t{k}": tensor(size=(100_000,), stride=(0,)) for k in range(50)}
    refused(tmp_path, nvidia(**tensors), "bytes of tensors in a file of this size")
    whole = {f"t{k}": tensor(stream(1000, bytes(4000)), 0, (1000,), (1,)) for k in range(50)}
    refused(tmp_path, nvidia(**whole), "expected the tensors of a StyleGAN2")  # those that are what they claim are read


def test_modules_are_bounded_in_depth_and_named_plainly(tmp_path):
    deep = module()
    for _ in range(40):
        deep = module(modules={"a": deep})
    refused(tmp_path, dumps({"G_ema": deep}), "nested at most")
    for name in ("a.b", "", 3):
        data = dumps({"G_ema": module(modules={name: module()})})
        refused(tmp_path, data, "_modules of 'Generator' to be a dict of names")
    refused(tmp_path, dumps({"G_ema": module(modules={"a": 1})}), "modules inside 'Generator', got int")
    refused(tmp_path, dumps({"G_ema": module(weight=[])}), "tensors in _parameters of 'Generator', got list")


def test_settings_are_bounded(tmp_path):
    """A pair of a pair twice, 100 times over, among the settings: walking its 2^100 leaves would not end."""
    pairs = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(100))
    data = dumps({"G_ema": module(weight=tensor()), "training_set_kwargs": 77}, 2)
    assert data.count(b"K\x4d") == 1
    refused(tmp_path, data.replace(b"K\x4d", pairs), "settings, nested at most")


def test_a_module_inside_itself_ends(tmp_path):
    """A cycle through the memo: each module contains the first one, twice."""
    prefix = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x94(\x8c\x04type\x8c\x05class\x8c\x07versionK\x06"
    prefix += b"\x8c\x0aclass_name\x8c\x01x\x8c\x05state}(\x8c\x0b_parameters}\x8c\x08_buffers}\x8c\x08_modules}\x94uu\x85R\x94"
    cycle = b"\x80\x04}\x8c\x05G_ema" + prefix + b"h\x01(\x8c\x01ah\x02\x8c\x01bh\x02u0s."
    refused(tmp_path, cycle, "expected at most 2000 modules")


def test_an_array_that_is_not_its_bytes(tmp_path):
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    number = b"cnumpy\ndtype\nU\x02f4\x85R"
    for shape, match in ((pickle.dumps((HUGE,), 4)[2:-1], "40000000000 bytes"), (b"J\xff\xff\xff\xff\x85", "shape from 0")):
        array = made + b"(K\x01" + shape.replace(b"\x94", b"") + number + b"\x89C\x04xxxxtb"
        state = b"}(\x8c\x07versionK\x03\x8c\x0dstatic_kwargs}\x8c\x0acomponents}\x8c\x09variables]\x8c\x01a" + array + b"\x86aub"
        refused(tmp_path, b"\x80\x04NNcdnnlib.tflib.network\nNetwork\n)\x81" + state + b"\x87.", match)


# Claims and cuts


def test_a_claim_of_ten_gigabytes_in_a_kilobyte(tmp_path):
    for opcode in (b"\x8e", b"\x8d"):
        refused(tmp_path, b"\x80\x04" + opcode + struct.pack("<Q", HUGE) + bytes(1000), "10000000000")
    refused(tmp_path, nvidia(weight=tensor(stream(numel=HUGE // 4, said=HUGE // 4))), "cut short")
    torch.save({"a": torch.zeros(3)}, tmp_path / "a", **LEGACY)
    data = (tmp_path / "a").read_bytes().replace(b"K\x03N", b"\x8a\x05" + HUGE.to_bytes(5, "little") + b"N")
    refused(tmp_path, data, "10000000000 elements")
    refused(tmp_path, struct.pack("<Q", HUGE) + b"{" + bytes(1000), "begins with")
    refused(tmp_path, struct.pack("<Q", 900) + b"{" + bytes(1000), "cannot be read")


def zipped(path, names=("x/data.pkl", "x/byteorder", "x/data/0"), numel=3, data=bytes(12), **options):
    identity = dump_persistent(("storage", Named("torch", "FloatStorage"), "0", "cpu", numel))[2:-1]
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + b"K\x00K\x03\x85K\x01\x85\x89NtR"
    contents = [b"\x80\x02}X\x01\x00\x00\x00a" + rebuilt + b"s.", b"little", data]
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in zip(names, contents, strict=True):
            archive.writestr(name, content)
    return path.read_bytes()


def test_zip_archives(tmp_path):
    path = tmp_path / "a"
    (tmp_path / "file").write_bytes(zipped(path))
    assert torch.equal(read_checkpoint(tmp_path / "file").tensors["a"], torch.zeros(3))
    refused(tmp_path, zipped(path, numel=HUGE), "40000000000 bytes")
    refused(tmp_path, zipped(path, data=bytes(11)), "12 bytes for 3 elements, got 11")
    refused(tmp_path, zipped(path, data=bytes(10**7), compression=zipfile.ZIP_DEFLATED), "uncompressed")
    refused(tmp_path, zipped(path, names=("x/data.pkl", "x/byteorder", "x/data/1")), "entry 'data/0'")
    refused(tmp_path, zipped(path, names=("x/data.pkl", "x/byteorder", "../../data/0")), "entry 'data/0'")
    refused(tmp_path, zipped(path, names=("x/data.pkl", "y/data.pkl", "x/data/0")), "one data.pkl")
    refused(tmp_path, zipped(path, names=("x/other", "x/byteorder", "x/data/0")), "one data.pkl")
    refused(tmp_path, zipped(path, names=("x/data.pkl", "x/data/0", "x/byteorder")), "little-endian|bytes for 3")
    whole = zipped(path)
    refused(tmp_path, whole[:-30], "cannot be read")
    claim = whole.replace(struct.pack("<II", 12, 12), struct.pack("<II", 4_000_000_000, 4_000_000_000))
    refused(tmp_path, claim, "entry 'data/0'")


@pytest.mark.parametrize("name", PICKLES)
def test_truncated_pickles(tmp_path, name):
    data = (GOLDEN / f"{name}.pkl").read_bytes()
    for cut in np.linspace(16, len(data) - 1, 4, dtype=int):
        refused(tmp_path, data[:cut], "expected")


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_truncated_torch_files(tmp_path, options):
    torch.save({"g_ema": {"a": torch.zeros(30, 30)}, "latent_avg": torch.ones(3)}, tmp_path / "a", **options)
    data = (tmp_path / "a").read_bytes()
    for cut in np.linspace(0, len(data) - 1, 12, dtype=int):
        refused(tmp_path, data[:cut], "expected")


def test_files_of_other_kinds(tmp_path):
    refused(tmp_path, b"", "got 0 bytes")
    refused(tmp_path, b"\n<!DOCTYPE html><html>Quota exceeded</html>", "web page")
    refused(tmp_path, b"\x1f\x8b" + bytes(100), "begins with")
    refused(tmp_path, pickle.dumps({"weights": [1, 2, 3] * 9}, 4), "G_ema or")
    torch.save({"epoch": 3, "net": {"a": torch.zeros(2)}}, tmp_path / "a")
    refused(tmp_path, (tmp_path / "a").read_bytes(), "got epoch, net")
    torch.save({3: torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "a")
    refused(tmp_path, (tmp_path / "a").read_bytes(), "names of tensors, got 3")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none")


# Fuzz

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
