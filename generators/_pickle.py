"""A pickle machine that can only make plain values, and what an exact list of stand-ins makes.

A pickle is a program for a stack machine: opcodes push values, and GLOBAL with REDUCE, NEWOBJ, INST, OBJ or BUILD call whatever
the file names. Here a name is never imported. It becomes an inert `Global`, refused unless the exact pair (module, name) is in
the caller's allow-list, and calling one runs the caller's own function. The opcodes that this machine lacks (INST, OBJ, EXT1-4,
NEWOBJ_EX, PERSID, out-of-band buffers, the text opcodes of protocol 0) are refused by name.

Bytes are views into the file, never copies, and every length is checked against what is there first; the number of opcodes and
the depth of marks are bounded, and no opcode makes more than its operands: what is not bytes stays within some 200 MB.

Source: PEP 307, PEP 3154 and the documentation of the opcodes in the standard library's ``pickletools``.
"""

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["AllowList", "Global", "Inert", "load"]

OPCODES = 1_000_000  # a StyleGAN2 at 1024 x 1024 takes some 20 000, a training snapshot with its optimisers some 200 000
MARKS = 256
TEXT = 1 << 24  # bytes of one string; the longest in use is the source text of a module, 40 kB
NAME = 256

Value: TypeAlias = Any  # whatever a pickle can hold


@dataclass(frozen=True, slots=True)
class Global:
    """A name of the allow-list, not what it stands for elsewhere."""

    module: str
    name: str


class Inert:
    """What a stand-in may return when the file goes on to BUILD it: the state is kept and nothing happens."""

    state: object = None

    def build(self, state: object) -> None:
        """Keep the state."""
        self.state = state


AllowList: TypeAlias = Mapping[tuple[str, str], Callable[..., object] | None]
"""(module, name) to what is called in its place, or None for a name that may be mentioned but not called."""


def load(
    buffer: memoryview,
    allowed: AllowList,
    persistent: Callable[[object], object] | None = None,
    start: int = 0,
    opcodes: int = OPCODES,
) -> tuple[object, int]:
    """The value of one pickle, and where it ends.

    Args:
        buffer: The bytes; values of type bytes are returned as views into it.
        allowed: The names that may occur.
        persistent: What a persistent id stands for; None refuses them.
        start: Where the pickle begins.
        opcodes: How many the pickle may have.

    Raises:
        ValueError: The pickle is damaged, too large, or holds what is not allowed.
    """
    machine = _Machine(buffer, allowed, persistent, start, opcodes)
    try:
        return machine.run(), machine.position
    except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"expected a pickle, got nonsense before byte {machine.position} ({type(error).__name__}); fetch the file again"
        ) from error


class _Machine:
    """Stack, marks and memo; opcodes longer than a line are methods, the others are in `_METHODS`."""

    def __init__(
        self,
        buffer: memoryview,
        allowed: AllowList,
        persistent: Callable[[object], object] | None,
        start: int,
        opcodes: int,
    ) -> None:
        self.buffer, self.allowed, self.persistent, self.position = buffer, allowed, persistent, start
        self.stack: list[Value] = []
        self.marks: list[list[Value]] = []
        self.memo: dict[int, Value] = {}
        self.left = self.opcodes = opcodes

    def run(self) -> object:
        while True:
            self.charge(1)
            code = self.take(1)[0]
            if code == ord("."):
                return self.stack.pop()
            if (method := _CODES.get(code)) is None:
                raise ValueError(
                    f"expected a pickle of tensors, got the opcode {_NAMES.get(code, hex(code))} at byte {self.position - 1},"
                    " which no weights need; nothing was run: fetch the file again, from a source you trust"
                )
            method(self)

    # Reading

    def charge(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError(f"expected at most {self.opcodes} pickle opcodes, got more; save the generator alone and try again")

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.buffer):
            raise ValueError(
                f"expected {count} bytes at byte {self.position}, got {len(self.buffer) - self.position}: the file is cut short"
                " or damaged; fetch it again"
            )
        self.position, start = end, self.position
        return self.buffer[start:end]

    def integer(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def text(self, count: int, coding: str = "utf-8") -> str:
        if count > TEXT:
            raise ValueError(f"expected strings of at most {TEXT} bytes, got one that claims {count}; fetch the file again")
        return str(self.take(count), coding)

    def line(self) -> str:
        piece = bytes(self.buffer[self.position : self.position + NAME])
        length = piece.find(b"\n")
        if length < 0:
            raise ValueError(f"expected a name of at most {NAME} bytes at byte {self.position}, got more; fetch the file again")
        self.position += length + 1
        return piece[:length].decode("utf-8")

    # Values

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Value]:
        """The last values, in the order in which they were pushed."""
        if len(self.stack) < count:
            raise IndexError(count)
        popped = self.stack[-count:]
        del self.stack[-count:]
        return popped

    def items(self) -> list[Value]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Value]) -> None:
        _of_type(self.stack[-1], list).extend(items)

    def set_items(self, items: list[Value]) -> None:
        target = _of_type(self.stack[-1], dict, OrderedDict)
        if len(items) % 2:
            raise ValueError("expected as many values as keys, got one key more: the file is damaged; fetch it again")
        target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def named(self, module: Value, name: Value) -> None:
        _of_type(module, str), _of_type(name, str)
        if (module, name) not in self.allowed:
            raise ValueError(
                f"expected tensors and plain values, got the global {module[:NAME]!r} {name[:NAME]!r}, which is not on the list"
                " of what weights need; nothing was run: fetch the file from a source you trust; if that has it too, report it"
            )
        self.push(Global(module, name))

    # Opcodes

    def proto(self) -> None:
        if (version := self.integer(1)) > 5:
            raise ValueError(f"expected pickle protocol 5 or lower, got {version}: the file is damaged; fetch it again")

    def frame(self) -> None:
        self.take(8)  # says how many bytes follow; each opcode checks its own

    def discard(self) -> None:
        self.stack.pop()

    def mark(self) -> None:
        if len(self.marks) >= MARKS:
            raise ValueError(f"expected values nested at most {MARKS} deep, got deeper ones; fetch the file again")
        self.marks.append(self.stack)
        self.stack = []

    def long1(self) -> None:
        if (count := self.integer(1)) > 16:
            raise ValueError(f"expected integers of at most 16 bytes, got one of {count}; fetch the file again")
        self.push(self.integer(count, signed=True))

    def add(self, items: list[Value]) -> None:
        _of_type(self.stack[-1], set).update(map(_key, items))

    def call(self) -> None:
        """REDUCE and NEWOBJ are one here: neither has a class to make."""
        function, arguments = self.pop(2)
        _of_type(function, Global), _of_type(arguments, tuple)
        if (stand_in := self.allowed[function.module, function.name]) is None:
            raise ValueError(
                f"expected {function.module}.{function.name} to be named only, got a call of it; fetch the file again"
            )
        self.charge(sum(len(item) for item in arguments if isinstance(item, list | tuple | dict | set)))
        self.push(stand_in(*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.build(state)
        else:  # attributes of a dict, such as `_metadata` of a state dict, are not needed
            _of_type(target, dict, OrderedDict)

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise ValueError("expected no persistent ids in this kind of file, got one; nothing was run: fetch the file again")
        self.push(self.persistent(self.stack.pop()))


def _of_type(value: Value, *types: type) -> Value:
    if type(value) not in types:
        names = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"expected {names} in the pickle, got {type(value).__name__}: the file is damaged; fetch it again")
    return value


def _key(value: Value) -> Value:
    """Keys whose hash takes no time; that of a tuple of two tuples of two tuples may take for ever."""
    return _of_type(value, str, int, bool, type(None))


_METHODS: dict[str, Callable[[_Machine], None]] = {
    "PROTO": _Machine.proto,
    "FRAME": _Machine.frame,
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "MEMOIZE": lambda m: m.put(len(m.memo)),
    "BINPUT": lambda m: m.put(m.integer(1)),
    "LONG_BINPUT": lambda m: m.put(m.integer(4)),
    "BINGET": lambda m: m.push(m.memo[m.integer(1)]),
    "LONG_BINGET": lambda m: m.push(m.memo[m.integer(4)]),
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "BININT": lambda m: m.push(m.integer(4, signed=True)),
    "BININT1": lambda m: m.push(m.integer(1)),
    "BININT2": lambda m: m.push(m.integer(2)),
    "BINFLOAT": lambda m: m.push(*struct.unpack(">d", m.take(8))),
    "LONG1": _Machine.long1,
    "SHORT_BINUNICODE": lambda m: m.push(m.text(m.integer(1))),
    "BINUNICODE": lambda m: m.push(m.text(m.integer(4))),
    "BINUNICODE8": lambda m: m.push(m.text(m.integer(8))),
    "SHORT_BINSTRING": lambda m: m.push(m.text(m.integer(1), "latin1")),  # Python 2: text or bytes, and nothing says which
    "BINSTRING": lambda m: m.push(m.text(m.integer(4), "latin1")),
    "SHORT_BINBYTES": lambda m: m.push(m.take(m.integer(1))),
    "BINBYTES": lambda m: m.push(m.take(m.integer(4))),
    "BINBYTES8": lambda m: m.push(m.take(m.integer(8))),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "EMPTY_LIST": lambda m: m.push([]),
    "EMPTY_DICT": lambda m: m.push({}),
    "EMPTY_SET": lambda m: m.push(set()),
    "TUPLE": lambda m: m.push(tuple(m.items())),
    "TUPLE1": lambda m: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m: m.push(tuple(m.pop(3))),
    "APPEND": lambda m: m.extend(m.pop(1)),
    "APPENDS": lambda m: m.extend(m.items()),
    "ADDITEMS": lambda m: m.add(m.items()),
    "SETITEM": lambda m: m.set_items(m.pop(2)),
    "SETITEMS": lambda m: m.set_items(m.items()),
    "GLOBAL": lambda m: m.named(m.line(), m.line()),
    "STACK_GLOBAL": lambda m: m.named(*m.pop(2)),
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_CODES = {code: _METHODS[name] for code, name in _NAMES.items() if name in _METHODS}
