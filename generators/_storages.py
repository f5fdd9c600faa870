"""Tensors inside pickles: read as records, checked, and decoded only when asked for.

``torch.save`` writes a pickle in which each storage is a persistent id ``("storage", type, key, device, numel)``; the bytes are
entries of a zip archive or, in the legacy form, follow five pickles: magic number, protocol, machine, value, list of the keys;
then for each key its number of elements in eight bytes and the elements. A tensor that is pickled outside ``torch.save``
(NVIDIA's files) has such a legacy stream *nested* as a bytes object, which upstream unpickles once more. Both go through
`generators._pickle`, and here nothing is believed: a tensor's offset, sizes and strides must stay inside its storage, and a
storage's size must be that of its bytes.

Source: the formats that ``torch.save`` writes, as its documentation and its files show them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from generators._arrays import ELEMENTS, Array, sizes
from generators._pickle import OPCODES, AllowList, Global, load

__all__ = ["TORCH", "Budget", "LazyTensor", "Storage", "decode", "is_legacy", "load_legacy", "storage_id"]

MAGIC = 0x1950A86A20F9469CFC6C
NESTED_OPCODES = 200  # a nested stream has some 40
TENSORS = 20_000

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
STORAGES: dict[tuple[str, str], Callable[..., object] | None] = {("torch", name): None for name in DTYPES}


@dataclass(frozen=True, eq=False)
class Storage:
    """Elements somewhere in the file; `read` finds their bytes."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], memoryview]

    def bytes(self) -> memoryview:
        """The bytes, as many as the elements take."""
        view = self.read()
        if len(view) != (expected := self.numel * self.dtype.itemsize):
            raise ValueError(
                f"expected {expected} bytes for {self.numel} elements, got {len(view)}: the file is damaged; fetch it again"
            )
        return view


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """What ``torch._utils._rebuild_tensor_v2`` is called with."""

    storage: object
    offset: object
    size: object
    stride: object


@dataclass(frozen=True, eq=False)
class Nested:
    """A legacy stream inside a pickle, opened when first asked for."""

    stream: object

    @cached_property
    def storage(self) -> object:
        """What the stream holds: a storage, in a sound file."""
        if not isinstance(self.stream, memoryview):
            raise ValueError("expected the bytes of a storage, got something else: the file is damaged; fetch it again")
        return load_legacy(self.stream, STORAGES, NESTED_OPCODES)


class Budget:
    """Bytes that decoding may still take: many tensors may share a storage, or stand on one element with a stride of 0."""

    def __init__(self, nbytes: int) -> None:
        self.left, self.tensors = nbytes, TENSORS

    def spend(self, nbytes: int) -> None:
        """Refuse before anything is allocated."""
        self.tensors -= 1
        if self.tensors < 0:
            raise ValueError(f"expected at most {TENSORS} tensors, got more; save the generator alone and try again")
        if nbytes > self.left:
            raise ValueError(
                f"expected at most {self.left} more bytes of tensors in a file of this size, got {nbytes}; fetch it again"
            )
        self.left -= nbytes


def decode(value: object, budget: Budget) -> Tensor:
    """A tensor of its own memory, float32 where it is floating, from a tensor or an array of the file."""
    if isinstance(value, int | float):
        return torch.tensor(float(value))
    if isinstance(value, Array):
        array = value.numpy()
        budget.spend(array.size * max(4, array.itemsize))
        return _float32(torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C")))
    if not isinstance(value, LazyTensor):
        raise ValueError(f"expected a tensor, got {type(value).__name__}; use a file of weights")
    storage = value.storage.storage if isinstance(value.storage, Nested) else value.storage
    if not isinstance(storage, Storage):
        raise ValueError(f"expected a tensor's storage, got {type(storage).__name__}: the file is damaged; fetch it again")
    size, stride = sizes("size", value.size), sizes("stride", value.stride)
    offset = sizes("offset", (value.offset,))[0]
    if len(size) != len(stride):
        raise ValueError(f"expected a stride for each size, got {size} and {stride}: the file is damaged; fetch it again")
    numel = math.prod(size)
    stride = tuple(step if count > 1 else 1 for count, step in zip(size, stride, strict=True))
    span = 1 + sum((count - 1) * step for count, step in zip(size, stride, strict=True)) if numel else 0
    if offset + span > storage.numel:
        raise ValueError(
            f"expected a tensor within its storage of {storage.numel} elements, got offset {offset}, size {size} and stride"
            f" {stride}: the file is damaged; fetch it again"
        )
    width = storage.dtype.itemsize
    budget.spend(max(numel * 4, span * width))
    view = storage.bytes()[offset * width : (offset + span) * width]
    flat = torch.frombuffer(bytearray(view), dtype=storage.dtype) if span else torch.empty(0, dtype=storage.dtype)
    return _float32(flat.as_strided(size, stride).clone(memory_format=torch.contiguous_format))


def is_legacy(buffer: memoryview) -> bool:
    """Whether the bytes begin as a legacy ``torch.save`` stream does: a pickle of the magic number."""
    return bytes(buffer[:15]) == b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."


def load_legacy(buffer: memoryview, allowed: AllowList, opcodes: int = OPCODES) -> object:
    """The value of a legacy ``torch.save`` stream, its tensors lazy."""
    if not is_legacy(buffer):
        raise ValueError("expected a legacy torch.save stream, got something else: the file is damaged; fetch it again")
    places: dict[str, memoryview] = {}
    storages: dict[str, Storage] = {}

    def persistent(value: object) -> Storage:
        dtype, key, numel = storage_id(value)
        storages.setdefault(key, Storage(dtype, numel, lambda: places[key]))
        if (storages[key].dtype, storages[key].numel) != (dtype, numel):
            raise ValueError(f"expected one type and size for storage {key!r}, got two: the file is damaged; fetch it again")
        return storages[key]

    protocol, position = load(buffer, {}, None, 15, opcodes)
    machine, position = load(buffer, {}, None, position, opcodes)
    if protocol != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("expected protocol 1001 on a little-endian machine, got another; save the file again with a newer torch")
    value, position = load(buffer, allowed, persistent, position, opcodes)
    keys, position = load(buffer, {}, None, position, opcodes)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("expected the data of each storage after the value, got other keys: the file is damaged; fetch it again")
    for key in keys:
        numel, begin = int.from_bytes(buffer[position : position + 8], "little", signed=True), position + 8
        if numel != storages[key].numel:
            raise ValueError(
                f"expected {storages[key].numel} elements of a storage, got {numel}: the file is damaged; fetch it again"
            )
        position = begin + numel * storages[key].dtype.itemsize
        if position > len(buffer):
            raise ValueError(
                f"expected a storage to end at byte {position}, got {len(buffer)} bytes: cut short; fetch the file again"
            )
        places[key] = buffer[begin:position]
    return value


def storage_id(value: object) -> tuple[torch.dtype, str, int]:
    """Element type, key and number of elements of a persistent id of ``torch.save``."""
    match value:
        case ("storage", Global("torch", name), str(key), str(), int(numel), *rest) if name in DTYPES and rest in ([], [None]):
            if 0 <= numel <= ELEMENTS:
                return DTYPES[name], key, numel
    raise ValueError("expected the persistent id of a storage, got something else; nothing was run: fetch the file again")


def _float32(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.bool:  # a byte that is neither 0 nor 1 is no boolean
        return tensor.view(torch.uint8) != 0
    return tensor.float() if tensor.is_floating_point() else tensor


TORCH: AllowList = {
    **STORAGES,
    ("torch._utils", "_rebuild_tensor"): LazyTensor,
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: LazyTensor(storage, offset, size, stride),
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch.storage", "_load_from_bytes"): Nested,
    ("torch", "Size"): lambda sizes: sizes,
    ("torch", "device"): lambda *parts: parts,
}
