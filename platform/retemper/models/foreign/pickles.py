"""A machine for pickles that has no way to call anything: what a pickle asks to be called is written down instead.

Python's own unpickler imports the names that a pickle gives and calls them. Here a name stays a name (`values.Name`), a
call becomes a value of the few kinds below, and every other one a `values.Record` of which somebody else judges. The
work is a loop over operations as the standard library's `pickletools` reads them, without recursion.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from typing import IO, Any

from retemper.models.foreign.calls import DTYPE, PLAIN, REBUILT, STORAGES, fill_array, key_of, shown, size_of, text_of
from retemper.models.foreign.values import Array, Name, PickleError, Record, Storage

LONGEST = 64_000_000  # bytes: what MACE writes beside tensors is 0.2 to some MB
MOST_OPERATIONS = 4_000_000  # a model has some 15,000
MOST_COPIED = 200_000_000  # characters and items that are copied into texts, dictionaries and sets


class _Mark:
    pass


MARK = _Mark()


def read(stream: IO[bytes] | bytes, storages: dict[str, Storage] | None = None) -> tuple[object, set[Name]]:
    """The value of the next pickle in `stream`, and the names in it that are no part of how numbers are kept.

    Storages that it refers to are added to `storages` by their keys.

    Raises
    ------
    PickleError
        A damaged pickle, one that is too long, or an operation or value that no model needs.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        return machine.run(io.BytesIO(stream) if isinstance(stream, bytes) else stream), machine.names
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error, EOFError) as error:
        raise PickleError(f"it is damaged ({type(error).__name__}: {str(error)[:100]})") from error


class _Machine:
    """Stack, memory and the operations on them."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memory: dict[int, object] = {}
        self.names: set[Name] = set()
        self.copied = 0

    def run(self, stream: IO[bytes]) -> object:
        for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MOST_OPERATIONS:
                raise PickleError(f"it has more than {MOST_OPERATIONS} operations")
            name = operation.name
            if name == "STOP":
                (value,) = self.stack
                return value
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in NEW:
                self.stack.append(NEW[name]())
            elif name in ARGUMENTS:
                self.stack.append(argument)
            elif (work := OPERATIONS.get(name)) is not None:
                work(self, argument)
            else:
                raise PickleError(f"it uses the operation {name}, which no model needs")
        raise PickleError("it ends too early")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark in place of a value")
        return value

    def pop_to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise ValueError("no mark")

    def charge(self, *values: object) -> None:
        """Count what is copied: a pickle can name the same long value again and again."""
        self.copied += sum(len(value) for value in values if isinstance(value, str | bytes | list | tuple | dict))
        if self.copied > MOST_COPIED:
            raise PickleError("it repeats itself without end")

    def drop(self) -> None:
        self.stack.pop()

    def drop_to_mark(self) -> None:
        self.pop_to_mark()

    def put(self, argument: int | None) -> None:
        self.memory[len(self.memory) if argument is None else argument] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PickleError(f"it appends to a {type(target).__name__}")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise PickleError(f"it sets items of a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[key_of(key)] = value

    def named(self, argument: str | None) -> None:
        if argument is None:
            name, module = self.pop(), self.pop()
        else:
            module, _, name = argument.partition(" ")
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name that is none")
        qualified = Name(module, name)
        if qualified not in REBUILT and qualified not in PLAIN:
            self.names.add(qualified)
        self.stack.append(qualified)

    def reduce(self) -> None:
        arguments, callee = self.pop(), self.pop()
        if not (isinstance(callee, Name) and isinstance(arguments, tuple)):
            raise PickleError("it calls what is no name of a function or class")
        self.charge(*arguments)
        rebuild = REBUILT.get(callee)
        value = Record(callee, arguments) if rebuild is None else rebuild(*arguments)
        if isinstance(value, Name) and value.module != "torch":
            self.names.add(value)
        self.stack.append(value)

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, Record | Array) or target.has_state:
            raise PickleError(f"it gives a state to a {type(target).__name__}, or a second one")
        self.charge(state)
        if isinstance(target, Array):
            fill_array(target, state)
        elif target.kind == DTYPE:
            if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", "|", "=")):
                raise PickleError("numbers of a machine with the other byte order")
        else:
            if type(state) is not dict or not all(isinstance(key, str) for key in state):
                raise PickleError(f"the state of a {target.kind} is no dictionary of attributes")
            target.state = state
        target.has_state = True

    def persistent(self) -> None:
        """What lies elsewhere in the file: a storage; or, in files older than 2020, a class."""
        reference = self.pop()
        if isinstance(reference, tuple) and len(reference) >= 5 and reference[0] == "storage":
            _, kind, key, _, count = reference[:5]
            if not (isinstance(kind, Name) and kind.module == "torch" and kind.name in STORAGES):
                raise PickleError(f"numbers of the unknown type {shown(kind)}")
            if len(reference) > 5 and any(part is not None for part in reference[5:]):
                raise PickleError("a storage that is a part of another one")
            storage = Storage(STORAGES[kind.name], text_of(key), size_of(count))
            known = self.storages.setdefault(storage.key, storage)
            if (known.dtype, known.count) != (storage.dtype, storage.count):
                raise PickleError("the same numbers with another type")
            self.stack.append(known)
        elif (
            isinstance(reference, tuple)
            and len(reference) == 4
            and reference[0] == "module"
            and isinstance(reference[1], Name)
        ):
            self.stack.append(reference[1])
        else:
            raise PickleError("it refers to something that is no storage")


CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}
NEW: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
ARGUMENTS = {  # operations of which the value is what is written
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "POP": lambda machine, argument: machine.drop(),
    "POP_MARK": lambda machine, argument: machine.drop_to_mark(),
    "DUP": lambda machine, argument: machine.stack.append(machine.stack[-1]),
    "PUT": lambda machine, argument: machine.put(argument),
    "BINPUT": lambda machine, argument: machine.put(argument),
    "LONG_BINPUT": lambda machine, argument: machine.put(argument),
    "MEMOIZE": lambda machine, argument: machine.put(None),
    "GET": lambda machine, argument: machine.stack.append(machine.memory[argument]),
    "BINGET": lambda machine, argument: machine.stack.append(machine.memory[argument]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memory[argument]),
    "TUPLE": lambda machine, argument: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, argument: machine.tuple_of(1),
    "TUPLE2": lambda machine, argument: machine.tuple_of(2),
    "TUPLE3": lambda machine, argument: machine.tuple_of(3),
    "LIST": lambda machine, argument: machine.stack.append(machine.pop_to_mark()),
    "APPEND": lambda machine, argument: machine.append([machine.pop()]),
    "APPENDS": lambda machine, argument: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, argument: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, argument: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": lambda machine, argument: machine.named(argument),
    "STACK_GLOBAL": lambda machine, argument: machine.named(None),
    "REDUCE": lambda machine, argument: machine.reduce(),
    "NEWOBJ": lambda machine, argument: machine.reduce(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPERSID": lambda machine, argument: machine.persistent(),
}
