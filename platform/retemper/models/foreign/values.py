"""What a pickle holds, as data: names of classes and functions, objects with their state, tensors by their place."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np


class PickleError(Exception):
    """A pickle that is damaged, or asks for what no model needs."""


class Name(NamedTuple):
    """A class or function, by its name alone."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False, slots=True)
class Record:
    """An object: its class, what it would have been called with, and its attributes. It has no methods of its class."""

    kind: Name
    arguments: tuple[object, ...] = ()
    state: dict[str, object] = dataclasses.field(default_factory=dict)
    has_state: bool = False

    def __repr__(self) -> str:  # short: what it holds may hold itself
        return f"<{self.kind}>"


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Numbers in a row, by their place in the file."""

    dtype: str  # as NumPy calls it
    key: str
    count: int


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A view of a storage, whose bounds were checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


@dataclasses.dataclass(eq=False, slots=True)
class Array:
    """A NumPy array that lies in the pickle itself."""

    shape: tuple[int, ...] = (0,)
    dtype: str = "u1"
    content: bytes = b""
    has_state: bool = False

    def numbers(self) -> np.ndarray:
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)
