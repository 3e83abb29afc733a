"""YAML files of settings, read in one way only: what another reader would take for something else is refused.

YAML has two versions in use. In 1.1 ``no`` is false, ``010`` is 8, ``1:30`` is 90 and ``1e-3`` is text; in 1.2, by
which DVC reads ``params.yaml``, ``no`` and ``1:30`` are text, ``010`` is 10 and ``1e-3`` a number. Here ``true`` and
``false`` alone are booleans, numbers are decimal, and what is left is text as in 1.2; where a number could be meant in
another way, quotes or plain digits are asked for. A key twice, aliases and tags are refused too.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from retemper.core.errors import RetemperError

Location = tuple[str | int, ...]
NULL = re.compile(r"~|null|Null|NULL|")
BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
OTHER_NUMBER = re.compile(  # leading zeros, underscores, other bases
    r"[-+]?(0(o[0-7_]+|x[0-9a-fA-F_]+|b[01_]+)|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9_]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9_]+)?)"
)
DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt\s].*)?")
LONGEST = 1000  # digits of an integer


class _RefusedError(Exception):
    """What is wrong at a place of a file, and how to mend it."""

    def __init__(self, problem: str, mark: Any, fix: str):
        super().__init__(problem)
        self.what, self.line, self.fix = problem, mark.line + 1, fix


@dataclass(frozen=True)
class _Document:
    content: Any
    lines: dict[Location, int]  # by the path of keys and indices, from 1


class _Loader(yaml.SafeLoader):
    """Composes nodes; aliases, tags and directives are refused before anything is built from them."""

    def compose_document(self) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.version or event.tags:
            raise _RefusedError("has a directive (%)", event.start_mark, "delete the line")
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _RefusedError(f"has an alias (*{event.anchor})", event.start_mark, "write the value itself")
        if event.tag is not None:
            raise _RefusedError(f"has a tag ({event.tag})", event.start_mark, "write the value without `!`")
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Keys and values of a YAML file: dicts, lists, text, numbers, booleans, None.

    Raises
    ------
    RetemperError
        A file that is missing, unreadable, empty, not UTF-8, not YAML, or no mapping; a key twice; what the module's
        description names.
    """
    content: dict[str, Any] = copy.deepcopy(_document(Path(path)).content)
    return content


def read_texts(path: str | Path) -> dict[str, Any]:
    """The same with every value as its text: hashes, of which some look like numbers."""
    content: dict[str, Any] = copy.deepcopy(_document(Path(path), texts=True).content)
    return content


def line_of(path: str | Path, location: Location) -> int | None:
    """Line of a setting in a file, or of the nearest section around it that is there; `None` where none is."""
    lines = _document(Path(path)).lines
    for end in range(len(location), 0, -1):
        if location[:end] in lines:
            return lines[location[:end]]
    return None


def _document(path: Path, texts: bool = False) -> _Document:
    text = _text(path)
    try:
        document = _parse(text, texts)
    except _RefusedError as refused:
        raise RetemperError(f"{path}, line {refused.line}, {refused.what}.", fix=refused.fix) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = error.problem or error.context or ""
        fix = "indent with spaces" if r"'\t'" in problem else "check indentation, colons, quotes and brackets there"
        raise RetemperError(f"{where}: this is not YAML: {problem}.", fix=fix) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RetemperError(
            f"{path}, line {line}: this is not YAML: it has the character U+{error.character:04X}.", fix="delete it"
        ) from None
    except RecursionError:
        raise RetemperError(f"{path} is nested too deeply.", expected="a few levels") from None
    if not isinstance(document.content, dict):
        got = (
            "nothing"
            if document.content is None
            else "a list"
            if isinstance(document.content, list)
            else "a single value"
        )
        raise RetemperError(
            f"{path} has no names and values.",
            expected="`name: value` lines",
            got=got,
            fix="restore the file, for example with `git checkout`, or write it anew",
        )
    return document


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise RetemperError(f"{path} does not exist.", fix="check the path") from None
    except OSError as error:
        raise RetemperError(f"{path} cannot be read: {error.strerror}.", fix="check the path and its rights") from error
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RetemperError(
            f"{path}, line {line}: this is not UTF-8 text.",
            got=f"byte 0x{raw[error.start]:02x}",
            fix="save the file as UTF-8 (the editor's encoding)",
        ) from None


@lru_cache(maxsize=128)
def _parse(text: str, texts: bool) -> _Document:
    """Content of a YAML text; the same text is parsed once (a study reads the same few files for every run)."""
    lines: dict[Location, int] = {}
    node = yaml.compose(text, _Loader)
    return _Document(None if node is None else _build(node, (), lines, texts), lines)


def _build(node: yaml.Node, location: Location, lines: dict[Location, int], texts: bool) -> Any:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_build(part, (*location, index), lines, texts) for index, part in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            name = _key(key)
            if name in mapping:
                first = lines[(*location, name)]
                raise _RefusedError(
                    f"has {name!r} again: it stands in line {first} already", key.start_mark, "keep one"
                )
            lines[(*location, name)] = key.start_mark.line + 1
            mapping[name] = _build(value, (*location, name), lines, texts)
        return mapping
    if texts or not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return str(node.value)
    return _scalar(node)


def _key(node: yaml.Node) -> str:
    """A key, which is text."""
    name = _scalar(node) if isinstance(node, yaml.ScalarNode) and node.style is None else node.value
    if not isinstance(name, str):
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or section"
        raise _RefusedError(f"has the key {shown}, which is no text", node.start_mark, "put it in quotes")
    return name


def _scalar(node: yaml.ScalarNode) -> Any:
    """The value of a plain scalar, one without quotes."""
    text: str = node.value
    if NULL.fullmatch(text):
        return None
    if BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if INTEGER.fullmatch(text):
        if len(text) > LONGEST:
            raise _RefusedError(
                f"has a number of {len(text)} digits", node.start_mark, "write a smaller one, or quote it"
            )
        return int(text)
    if FLOAT.fullmatch(text) or INFINITE.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if OTHER_NUMBER.fullmatch(text):
        fix = "write decimal digits alone, without leading zeros; or put it in quotes where it is text"
        raise _RefusedError(f"has {text}, which readers of YAML take for different numbers", node.start_mark, fix)
    if DATE.fullmatch(text):
        raise _RefusedError(f"has the date {text}", node.start_mark, "put it in quotes")
    if text in ("=", "<<"):
        raise _RefusedError(f"has {text} without quotes", node.start_mark, "put it in quotes, or write the values out")
    return text
