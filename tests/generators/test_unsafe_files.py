"""Files made to run a command, in every place where a loader might: each is refused or read, and nothing has run."""

import argparse
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch

from generators._checkpoints import read_checkpoint
from tests.generators.forged import GOLDEN, LEGACY, Call, Evil, dumps, module, nvidia, refused, stream, tensor


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
