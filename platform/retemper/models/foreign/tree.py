"""A model as a tree of modules that were read as data: attributes, numbers, comparison with one that was built."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retemper.models.foreign.archives import Archive
from retemper.models.foreign.values import Array, Name, PickleError, Record, Tensor

if TYPE_CHECKING:
    import torch

DEEPEST = 30  # modules within modules; a model has some 8
GRAPH = Name("torch.fx.graph_module", "reduce_graph_module")  # code of a contraction, as a function of its source
CODE = "__codegen__"  # where e3nn keeps code that it generates, by the names of the modules that it becomes
UNSCALED = Name("mace.modules.models", "MACE")  # built as the class with scale 1 and shift 0
GROUPS = ("_modules", "_parameters", "_buffers", CODE)
MOST_PARTS = 1_000_000  # attributes and tensors, a module as `MODULE`; a model has some 10,000
MODULE = 100
LONGEST = 50_000  # parts of a setting
SMALLEST = 1_000_000  # numbers that any file may show
UNCOMPARED = ("training", "_prof_str", "_profiling_str", "_code", "_graph")


class Budget:
    """How much a tree may hold: a file can name the same module or the same numbers again and again."""

    def __init__(self, size: int):
        self.parts, self.numbers = MOST_PARTS, 4 * size + SMALLEST

    def charge(self, *counts: int) -> None:
        self.parts -= sum(counts)
        if self.parts < 0:
            raise PickleError("it has modules and settings without end")

    def charge_numbers(self, tensors: Iterable[Tensor]) -> None:
        self.numbers -= sum(math.prod(tensor.shape) for tensor in tensors)
        if self.numbers < 0:
            raise PickleError("it has numbers without end")


class Module:
    """One module, with attributes like a live one's: parameters and buffers as arrays, submodules by name or number."""

    def __init__(self, record: Record, archive: Archive, depth: int = 0, budget: Budget | None = None):
        budget = budget or Budget(archive.size)
        if depth > DEEPEST:
            raise PickleError("it has modules within modules without end")
        self.kind = record.kind
        state = record.state
        if record.kind == GRAPH and record.arguments and isinstance(record.arguments[0], dict):
            state = record.arguments[0]
        budget.charge(MODULE, len(state), *(len(_dictionary(state, name)) for name in GROUPS))
        self.attributes: Mapping[str, object] = {
            name: value for name, value in state.items() if name not in ("_modules", "_parameters", "_buffers")
        }
        self.tensors: dict[str, Tensor] = {}
        dropped = self.attributes.get("_non_persistent_buffers_set")
        dropped = dropped if isinstance(dropped, set) else set()
        for group in ("_parameters", "_buffers"):
            for name, value in _dictionary(state, group).items():
                if isinstance(value, Tensor) and (group == "_parameters" or name not in dropped):
                    self.tensors[name] = value
        budget.charge_numbers(self.tensors.values())
        self.parameters = [name for name, value in _dictionary(state, "_parameters").items() if value is not None]
        self.modules = {
            name: Module(value, archive, depth + 1, budget)
            for name, value in _dictionary(state, "_modules").items()
            if isinstance(value, Record)
        }
        self._numbers = archive.numbers

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("modules", "tensors", "attributes"):
            raise AttributeError(name)
        if name in self.modules:
            return self.modules[name]
        if name in self.tensors:
            return self._numbers(self.tensors[name])
        if name not in self.attributes:
            raise AttributeError(f"{self.kind.name} has no {name}")
        value = self.attributes[name]
        if isinstance(value, Tensor):
            return self._numbers(value)
        return value.numbers() if isinstance(value, Array) else value

    def __len__(self) -> int:
        return len(self.modules) or len(self.parameters)

    def __getitem__(self, index: int) -> Module:
        return list(self.modules.values())[index]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Every module with its name, as `torch.nn.Module.named_modules` gives them."""
        yield prefix, self
        for name, module in self.modules.items():
            yield from module.walk(f"{prefix}.{name}" if prefix else name)

    @functools.cached_property
    def state(self) -> dict[str, np.ndarray]:
        """Every tensor by its name, as `state_dict` has them, but for constants of generated code."""
        return {
            f"{path}.{name}" if path else name: self._numbers(tensor)
            for path, module in self.walk()
            for name, tensor in module.tensors.items()
        }

    def generated(self) -> list[str]:
        """Names of the modules that e3nn's generated code becomes; their tensors are made anew."""
        return [
            f"{path}.{name}" if path else name
            for path, module in self.walk()
            for name in _dictionary(module.attributes, CODE)
        ]


def _dictionary(state: Mapping[str, object], name: str) -> dict[str, object]:
    value = state.get(name) or {}
    if type(value) is not dict or not all(isinstance(key, str) for key in value):
        raise PickleError(f"{name} of a module is no dictionary")
    return value


def differences(tree: Module, model: torch.nn.Module) -> list[str]:
    """In which classes and settings a model that was built differs from what the file says, in words; empty if in none.

    Settings are plain attributes (numbers, texts, lists of them) that both have. What only the built one has is of a
    later release of MACE, whose default is what was before.
    """
    modules = dict(tree.walk())
    generated = tuple(tree.generated())
    lines: list[str] = []
    for path, built in model.named_modules(remove_duplicate=False):
        if path in generated or path.startswith(tuple(f"{name}." for name in generated)):
            continue
        module = modules.get(path)
        if module is None:
            if path != "scale_shift" or tree.kind != UNSCALED:
                lines.append(f"{path} is lacking")
            continue
        if module.kind == GRAPH:
            continue
        kind = Name(type(built).__module__, type(built).__name__)
        if module.kind != kind and (path or module.kind != UNSCALED):
            lines.append(f"{path or 'the model'} is a {module.kind}, not a {kind}")
            continue
        for name, value in vars(built).items():
            if name in UNCOMPARED or name not in module.attributes:
                continue
            built_value, file_value = _plain(value), _plain(module.attributes[name])
            if built_value is not None and file_value is not None and built_value != file_value:
                lines.append(f"{path}.{name} is {file_value[:60]}, not {built_value[:60]}")
    lacking = set(modules) - {path for path, _ in model.named_modules(remove_duplicate=False)}
    return lines + [f"{path} would be left out" for path in sorted(lacking)]


def _plain(value: object, left: list[int] | None = None) -> str | None:
    """A setting as text, of a live object and of one that was read alike; None for what is no setting, or too long."""
    left = [LONGEST] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        return None
    if value is None or isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float | np.integer | np.floating):
        return f"{float(value):.12g}"
    if isinstance(value, Name):
        return value.name
    if isinstance(value, Record):
        if value.state:
            return None
        arguments = value.arguments
        return _plain(arguments[0] if len(arguments) == 1 else list(arguments), left)
    if type(value).__name__ in ("Irreps", "Irrep", "_MulIr"):
        return str(value)
    if isinstance(value, list | tuple):
        parts = []
        for part in value:
            parts.append(_plain(part, left))
            if parts[-1] is None:
                return None
        return f"[{', '.join(map(str, parts))}]"
    if isinstance(value, Array | Tensor | dict | set) or not callable(value) or hasattr(value, "parameters"):
        return None
    return getattr(value, "__name__", None)
