"""What settings mean: the comment beside each field, for `retemper explain`, editors' schemas and the reference."""

from __future__ import annotations

import ast
import functools
import inspect
import io
import sys
import tokenize
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from retemper.core.errors import RetemperError, unknown

Schema = dict[str, Any]  # JSON schema
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@functools.cache
def texts(model: type[BaseModel]) -> dict[str, str]:
    """The comment beside each field of a model, by name; those of parent models as well."""
    inherited = [
        texts(parent) for parent in model.__bases__ if issubclass(parent, BaseModel) and parent is not BaseModel
    ]
    result = {name: text for parent in inherited for name, text in parent.items()}
    source = inspect.getsource(sys.modules[model.__module__])
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    for node in classes[model.__name__].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            result[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return result


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models within a type: of a list, of an alternative, of names and values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]
    return [model for part in parts for model in models_in(part)]


def find(model: type[BaseModel], path: str) -> tuple[type[BaseModel], str]:
    """The model that has the field at a dotted path, and the field's name.

    Raises
    ------
    RetemperError
        There is none, with the nearest.
    """
    *sections, name = path.split(".")
    for depth, section in enumerate(sections):
        inner = models_in(_field(model, section, sections[:depth]).annotation)
        if not inner:
            raise RetemperError(f"{'.'.join(sections[: depth + 1])} has no settings within.", got=path)
        model = inner[0]
    _field(model, name, sections)
    return model, name


def _field(model: type[BaseModel], name: str, within: Sequence[str]) -> FieldInfo:
    if name not in model.model_fields:
        raise unknown(f"setting in {'.'.join(within)}" if within else "setting", name, model.model_fields)
    return model.model_fields[name]


def kind(annotation: Any) -> str:
    """A type in words: what may be written."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(parts[0])
    if annotation in (type(None), None):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(kind(part) for part in parts)
    if origin is list:
        return f"list of {kind(parts[0])}" if parts else "list"
    if origin is dict:
        return f"names with {kind(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(annotation, "anything")


def limits(field: FieldInfo) -> str:
    """Bounds of a number or a list, in words."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "min_length": "entries: at least"}
    bounds = [(name, getattr(part, name, None)) for part in field.metadata for name in words]
    return ", ".join(f"{words[name]} {bound}" for name, bound in bounds if bound is not None)


def schema(model: type[BaseModel], title: str, over: bool = False) -> Schema:
    """JSON schema of a file of settings, with the meaning of each field, for editors.

    Parameters
    ----------
    over
        The file is read over another one: it may leave out everything.
    """
    whole = model.model_json_schema()
    definitions = whole.setdefault("$defs", {})
    for name, inner in _all_models(model).items():
        part = whole if inner is model else definitions[name]
        for field, content in part["properties"].items():
            content["description"] = texts(inner)[field]
            content.pop("title", None)
        required = (
            [] if over else [field for field in part.get("required", []) if field != "name" or inner is not model]
        )
        part.pop("required", None)
        part |= {"required": required} if required else {}
        if "_bare" in vars(inner):
            definitions[name] = {"anyOf": [{"type": "string"}, part]}
    return {"$schema": DIALECT, **whole, "title": title}


def _all_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    models = {model.__name__: model}
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            models |= _all_models(inner)
    return models
