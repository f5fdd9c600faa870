"""Files made to read outside their storages or to take all memory or time, and files cut short: each is refused at once."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from generators._checkpoints import read_checkpoint
from tests.generators.forged import GOLDEN, HUGE, LEGACY, PICKLES, dumps, module, nvidia, refused, stream, tensor, zipped


def test_the_parts_are_sound(tmp_path):
    """So that what follows is refused for its one fault: the tensors are read, and then are no generator's."""
    refused(tmp_path, nvidia(weight=tensor()), "expected the tensors of a StyleGAN2 or StyleGAN3")


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


def test_a_claim_of_ten_gigabytes_in_a_kilobyte(tmp_path):
    for opcode in (b"\x8e", b"\x8d"):
        refused(tmp_path, b"\x80\x04" + opcode + struct.pack("<Q", HUGE) + bytes(1000), "10000000000")
    refused(tmp_path, nvidia(weight=tensor(stream(numel=HUGE // 4, said=HUGE // 4))), "cut short")
    torch.save({"a": torch.zeros(3)}, tmp_path / "a", **LEGACY)
    data = (tmp_path / "a").read_bytes().replace(b"K\x03N", b"\x8a\x05" + HUGE.to_bytes(5, "little") + b"N")
    refused(tmp_path, data, "10000000000 elements")
    refused(tmp_path, struct.pack("<Q", HUGE) + b"{" + bytes(1000), "begins with")
    refused(tmp_path, struct.pack("<Q", 900) + b"{" + bytes(1000), "cannot be read")


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
