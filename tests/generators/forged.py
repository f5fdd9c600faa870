"""The parts of which files are made that mean harm, and how their refusal is judged."""

import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest

from generators._checkpoints import read_checkpoint

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


def zipped(path, names=("x/data.pkl", "x/byteorder", "x/data/0"), numel=3, data=bytes(12), **options):
    identity = dump_persistent(("storage", Named("torch", "FloatStorage"), "0", "cpu", numel))[2:-1]
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + b"K\x00K\x03\x85K\x01\x85\x89NtR"
    contents = [b"\x80\x02}X\x01\x00\x00\x00a" + rebuilt + b"s.", b"little", data]
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in zip(names, contents, strict=True):
            archive.writestr(name, content)
    return path.read_bytes()
