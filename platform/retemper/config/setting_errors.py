"""What is wrong with settings, in words: where it stands, what was expected, and what to write instead."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from retemper.config.strict_yaml import Location, line_of
from retemper.core.errors import RetemperError, UnknownNameError, short, unknown

Place = Callable[[Location], str]  # where a setting stands: a file, with its line where that is known
WORDS = ("yes", "no", "on", "off", "y", "n")  # booleans of older YAML
KINDS = {  # what pydantic calls a type, as the end of a location within a union, and in words
    "bool": ("bool_type", "true or false"),
    "int": ("int_type", "a whole number"),
    "float": ("float_type", "a number"),
    "str": ("string_type", "text"),
    "list": ("list_type", "a list"),
    "dict": ("dict_type", "names and values"),
}
EXPECTED = dict(KINDS.values()) | {
    "model_type": "names and values",
    "finite_number": "a finite number",
}
# Settings that earlier versions had, without positions in lists, and what became of them.
GONE = {
    "loader": "released foundations come with retemper (retemper foundations); others have file or url",
    "evaluate.bootstrap": "intervals are over groups, nothing is resampled; evaluate.confidence sets their level",
    "promotion.gates.better": "metrics know which direction is better",
    "replay.pool": "there may be several: replay.pools: [FILE], [generated], or [default]",
    "promotion.resamples": "gates compare over groups, nothing is resampled; a gate's confidence sets its level",
}


def in_file(path: str | Path, name: str | None = None) -> Place:
    """The place of settings that were read from a file; `name` is what the file is called, by default its path."""

    def place(location: Location) -> str:
        line = line_of(path, location)
        return f"{name or path}, line {line}" if line else str(name or path)

    return place


def explain(every: Sequence[ErrorDetails], model: type[BaseModel], place: Place) -> RetemperError:
    """The first of pydantic's errors about `model` as a `RetemperError`."""
    first = every[0]
    location: Location = first["loc"]
    alternatives = [detail for detail in every if detail["loc"][:-1] == location[:-1] and _is_kind(detail["loc"])]
    if _is_kind(location):
        location = location[:-1]
    else:
        alternatives = [first]
    where = ".".join(map(str, location))
    position, file = place(location), place(())
    remaining = len({detail["loc"] for detail in every}) - len({detail["loc"] for detail in alternatives})
    more = "" if not remaining else f" ({remaining} more problem{'s' if remaining > 1 else ''})"
    cause = first.get("ctx", {}).get("error")
    former = ".".join(part for part in location if isinstance(part, str))
    if first["type"] == "extra_forbidden" and former in GONE:
        return RetemperError(
            f"{position}: {where} is no setting any more: {GONE[former]}.", fix=f"delete {location[-1]}"
        )
    if first["type"] == "extra_forbidden":
        near = unknown("setting", location[-1], _fields(_inside(model, location[:-1])))
        return RetemperError(f"{position}: Unknown setting {where!r}{more}.", expected=near.expected, fix=near.fix)
    if first["type"] == "missing":
        return RetemperError(f"{file}: {where} is missing{more}.", fix=f"add {where}")
    if isinstance(cause, UnknownNameError):
        return RetemperError(
            ": ".join(filter(None, (position, where, cause.what))), expected=cause.expected, fix=cause.fix
        )
    value = first.get("input")
    if first["type"] == "literal_error":
        options = [str(option) for option in _choices(_inside(model, location))]
        return RetemperError(
            f"{position}: {where} is wrong{more}.",
            expected=f"one of {', '.join(options)}",
            got=repr(value),
            fix=unknown(where, value, options).fix if isinstance(value, str) else f"write one of {', '.join(options)}",
        )
    optional = _optional(_inside(model, location))
    expected = [EXPECTED.get(detail["type"]) or _sentence(detail["msg"]) for detail in alternatives]
    return RetemperError(
        f"{position}: {where or 'the content'} is wrong{more}.",
        expected=" or ".join(dict.fromkeys([*expected, *(["null"] if optional else [])])),
        got=None if cause is not None and isinstance(value, dict | BaseModel) else short(repr(value), 300),
        fix=_fix(first["type"], value, optional) or f"edit {position}",
    )


def _sentence(message: str) -> str:
    """Pydantic's message as what is expected."""
    text = message.removeprefix("Value error, ").removeprefix("Input should ").removeprefix("be ")
    return text.replace("String should ", "text that should ")


def _fix(kind: str, value: Any, optional: bool) -> str | None:
    """What to write instead; `None` where the expectation says it."""
    if kind == "finite_number":
        return "write null to turn it off" if optional else "write a number: a large one where nothing is to be refused"
    if value is None:
        return "write a value: null is possible only where the reference says so"
    if kind == "bool_type" and isinstance(value, str) and value.lower() in WORDS:
        return "write true or false: yes, no, on and off are text"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "write the number in digits, without quotes"
    if kind == "string_type" and not isinstance(value, list | dict):
        return f"put it in quotes: '{str(value).lower() if isinstance(value, bool) else value}'"
    if kind == "list_type" and not isinstance(value, dict):
        return f"write [{short(value, 100)}]"
    return None


# ------------------------------------------------------------------ types


def _is_kind(location: Location) -> bool:
    """Whether a location ends in the name of a type, which is how pydantic tells the members of a union apart."""
    return len(location) > 1 and str(location[-1]).partition("[")[0] in KINDS


def _bare(annotation: Any) -> list[Any]:
    """The members of a union, without what is annotated."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _bare(member)]
    return [annotation]


def _inside(annotation: Any, location: Location) -> Any:
    """The type of what stands at a location within `annotation`; `None` where that has no such place."""
    for part in location:
        inner = None
        for member in _bare(annotation):
            if isinstance(member, type) and issubclass(member, BaseModel) and part in member.model_fields:
                inner = member.model_fields[str(part)].annotation
            elif get_origin(member) in (list, dict):
                inner = get_args(member)[-1]
        annotation = inner
    return annotation


def _fields(annotation: Any) -> list[str]:
    return [
        name
        for member in _bare(annotation)
        if isinstance(member, type) and issubclass(member, BaseModel)
        for name in member.model_fields
    ]


def _choices(annotation: Any) -> list[Any]:
    return [choice for member in _bare(annotation) for choice in get_args(member)]


def _optional(annotation: Any) -> bool:
    return type(None) in _bare(annotation)
