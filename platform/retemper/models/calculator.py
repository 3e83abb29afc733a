"""An ASE calculator as a user writes it, ``ase:package.module:Class(keyword=value)``, and what its numbers rest on.

Nothing is called before it is known to be a calculator: a class that inherits from ASE's, or a function that is
annotated to return one. Keywords are literals. The module is imported, which runs it: to name it is to trust it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

from ase.calculators.calculator import BaseCalculator

from retemper.core import software
from retemper.core.errors import RetemperError
from retemper.core.software import Ingredients

PREFIX = "ase:"
FORMER = {"retemper.xtb": "retemper.systems.xtb"}  # former places of modules that settings name; for one release


def create(source: str) -> Any:
    """ASE calculator of ``package.module:Class(keyword=value, ...)``; keywords are Python literals."""
    factory, options = _parse(source)
    try:
        calculator = factory(**options)
    except Exception as error:  # a foreign calculator raises anything, where its program is not installed for one
        raise _cannot_be_made(source, error) from error
    if not isinstance(calculator, BaseCalculator):
        raise _no_calculator(source, f"an object of {type(calculator).__name__}")
    return calculator


def ingredients(source: str) -> Ingredients:
    """What decides the numbers of a calculator beside the text that makes it: packages, sources, files in keywords."""
    factory, options = _parse(source)
    return {**_made_of(source), "factory": software.source_of(factory), "files": software.files(options)}


@functools.lru_cache(maxsize=16)
def _made_of(source: str) -> Ingredients:
    """Packages and sources of the calculator's classes; one that a function makes is made to see them."""
    factory, _ = _parse(source)
    return software.classes(factory if isinstance(factory, type) else type(create(source)))


def _parse(source: str) -> tuple[Callable[..., Any], dict[str, object]]:
    """The calculator's class, or the function that makes one, and its keywords."""
    module, _, call = source.partition(":")
    try:
        node = ast.parse(call or "missing", mode="eval").body
        options: dict[str, object] = {}
        if isinstance(node, ast.Call):
            if node.args or not all(keyword.arg for keyword in node.keywords):
                raise ValueError("only keyword arguments")
            options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            node = node.func
        if not isinstance(node, ast.Name) or not call:
            raise ValueError("no class")
        factory = getattr(importlib.import_module(FORMER.get(module, module)), node.id)
    except (SyntaxError, ValueError, ImportError, AttributeError, TypeError) as error:
        raise _cannot_be_made(source, error) from error
    if not _makes_calculators(factory):
        raise _no_calculator(source, getattr(factory, "__qualname__", type(factory).__name__))
    return factory, options


def _makes_calculators(factory: Any) -> bool:
    """Whether it is a class of calculators, or a function that says that it returns one (or something else)."""
    kinds: tuple[Any, ...] = (factory,)
    if inspect.isfunction(factory):
        try:
            returned = typing.get_type_hints(factory).get("return")
        except (NameError, TypeError, AttributeError):  # an annotation that names nothing
            return False
        kinds = typing.get_args(returned) or (returned,)
    return any(isinstance(kind, type) and issubclass(kind, BaseCalculator) for kind in kinds)


def _no_calculator(source: str, got: str) -> RetemperError:
    return RetemperError(
        f"{PREFIX}{source} is no calculator.",
        expected="a class that inherits from ase.calculators.calculator.Calculator, "
        "or a function that is annotated to return one (def make(...) -> Calculator)",
        got=got,
        fix="name such a class, or write such a function in a module of your own that can be imported",
    )


def _cannot_be_made(source: str, error: Exception) -> RetemperError:
    return RetemperError(
        f"The calculator {PREFIX}{source} cannot be made: {error}.",
        expected="ase:package.module:Class(keyword=value), for example ase:ase.calculators.emt:EMT()",
        fix="check the spelling, and that the package is installed",
    )
