"""The calls in a pickle of which the value is known without calling: tensors, texts, shapes, representations."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from retemper.models.foreign.values import Array, Name, PickleError, Record, Storage, Tensor

MOST_DIMENSIONS = 16
SMALL = 4096  # numbers that a tensor may show of a storage with fewer (a constant that was expanded)
STORAGES = {  # torch's classes
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
NUMPY_DTYPE = re.compile(r"[<|=]?[fiu][1248]|\|?b1")
KEYS = (str, int, float, bool, type(None), Name)  # of dictionaries and sets: nothing that nests
DTYPE = Name("numpy", "dtype")
EXTENDED_TORCH = Name("torch._C", "_VariableFunctionsClass")


def shown(value: object) -> str:
    """A value for a message: what nests is named by its type."""
    return str(value)[:100] if isinstance(value, str | Name) else f"a {type(value).__name__}"


def key_of(value: object) -> Any:
    if not isinstance(value, KEYS):
        raise PickleError(f"a {type(value).__name__} as key of a dictionary")
    return value


def size_of(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise PickleError("a size that is none")
    return value


def text_of(value: object) -> str:
    if not isinstance(value, str):
        raise PickleError(f"a {type(value).__name__} in place of a text")
    return value


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> Tensor:
    if not (isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise PickleError("a tensor of something else than a storage, a shape and strides")
    if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
        raise PickleError("a tensor of which shape and strides disagree")
    start, lengths, steps = size_of(offset), tuple(map(size_of, shape)), tuple(map(size_of, strides))
    total, last = 1, start
    for length, step in zip(lengths, steps, strict=True):
        total *= length
        last += (length - 1) * step
    if (total and last >= storage.count) or total > max(storage.count, SMALL):
        raise PickleError("a tensor that reaches beyond its storage")
    return Tensor(storage, start, lengths, steps)


def _parameter(tensor: object, *_: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise PickleError("a parameter that is no tensor")
    return tensor


def _bytes(text: object, encoding: object = "utf-8") -> bytes:
    if encoding != "latin1":
        raise PickleError(f"a text in the encoding {shown(encoding)}")
    return text_of(text).encode("latin1")


def _set(values: object = ()) -> set[Any]:
    if not isinstance(values, list | tuple):
        raise PickleError("a set of something else than a list")
    return {key_of(value) for value in values}


def _ordered(values: object = ()) -> dict[Any, Any]:
    if not isinstance(values, list | tuple):
        raise PickleError("an ordered dictionary of something else than pairs")
    return {key_of(key): value for key, value in values}


def _attribute(owner: object, name: object) -> Name:
    """Functions that are written in C are attributes of torch's class of functions; of an object it is a method."""
    if owner == EXTENDED_TORCH and isinstance(name, str):
        return Name("torch", name)
    if isinstance(owner, Record) and isinstance(name, str):
        return Name(shown(owner.kind), name)
    raise PickleError(f"it asks for the attribute {shown(name)} of {shown(owner)}")


def _shape(values: object = ()) -> tuple[int, ...]:
    if not isinstance(values, list | tuple):
        raise PickleError("a shape of something else than numbers")
    return tuple(size_of(value) for value in values)


def _device(kind: object = "", *_: object) -> str:
    return text_of(kind)


def _slice(*parts: object) -> tuple[object, ...]:
    return ("slice", *parts)


def _dtype(code: object, *_: object) -> Record:
    if not isinstance(code, str) or not NUMPY_DTYPE.fullmatch(code):
        raise PickleError(f"numbers of the unknown type {shown(code)}")
    return Record(DTYPE, (code,))


def _scalar(dtype: object, content: object = None) -> float | int | bool:
    if not (isinstance(dtype, Record) and isinstance(content, bytes)):
        raise PickleError("a number without its type or bytes")
    (value,) = np.frombuffer(content, _code(dtype)).tolist()
    return value  # type: ignore[no-any-return]


def _array(*_: object) -> Array:
    return Array()


def _code(dtype: object) -> str:
    if not isinstance(dtype, Record) or dtype.kind != DTYPE:
        raise PickleError("numbers without a type")
    return str(dtype.arguments[0])


def fill_array(array: Array, state: object) -> None:
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], bytes) and state[3] is False):
        raise PickleError("an array of a form that is unknown")
    array.shape, array.dtype, array.content = _shape(state[1]), _code(state[2]), state[4]


def _short(text: object) -> str:
    if not (isinstance(text, str) and len(text) < 40):
        raise PickleError("irreducible representations that are none")
    return text


def _irrep(value: object, *more: object) -> str:
    degree, parity = value if isinstance(value, tuple) else (value, *more)
    if type(degree) is not int or parity not in (1, -1):
        raise PickleError("an irreducible representation that is none")
    return f"{degree}{'e' if parity == 1 else 'o'}"


def _multiple(value: object, *more: object) -> str:
    count, irrep = value if isinstance(value, tuple) else (value, *more)
    return f"{size_of(count)}x{_short(irrep)}"


def _irreps(value: object = ()) -> str:
    if not isinstance(value, tuple):
        raise PickleError("irreducible representations that are none")
    return "+".join(_short(part) for part in value)


REBUILT: dict[Name, Callable[..., object]] = {
    Name("collections", "OrderedDict"): _ordered,
    Name("_codecs", "encode"): _bytes,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch.nn.parameter", "Parameter"): _parameter,
    Name("torch", "Size"): _shape,
    Name("torch", "device"): _device,
    DTYPE: _dtype,
    Name("e3nn.o3._irreps", "Irrep"): _irrep,
    Name("e3nn.o3._irreps", "_MulIr"): _multiple,
    Name("e3nn.o3._irreps", "Irreps"): _irreps,
}
for _module in ("__builtin__", "builtins"):
    REBUILT |= {
        Name(_module, "set"): _set,
        Name(_module, "frozenset"): _set,
        Name(_module, "getattr"): _attribute,
        Name(_module, "slice"): _slice,
    }
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    REBUILT |= {Name(_module, "scalar"): _scalar, Name(_module, "_reconstruct"): _array}
PLAIN = {  # names that stay names
    EXTENDED_TORCH,
    Name("numpy", "ndarray"),
    *(Name("torch", kind) for kind in STORAGES),
    *(Name("torch", kind) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
}
