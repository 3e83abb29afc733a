"""``retemper explain`` and ``retemper schema``: what settings mean, for people and for editors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.core.errors import RetemperError

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER = Path(".retemper/schemas")  # of a project: where its files point to, for editors


def _kinds() -> dict[str, type[BaseModel]]:
    """What is written in each kind of file."""
    from retemper.config.settings import Settings
    from retemper.config.strategies import Strategy
    from retemper.study.spec import Study

    return {"params": Settings, "strategy": Strategy, "study": Study}


def _explain(options: argparse.Namespace) -> None:
    from retemper.config import setting_texts

    kinds = _kinds()
    first, _, rest = options.path.partition(".")
    kind, path = (first, rest) if first in kinds else ("params", options.path)
    model = kinds[kind]
    if not path:
        return _list(model, "")
    owner, name = setting_texts.find(model, path)
    field = owner.model_fields[name]
    inner = setting_texts.models_in(field.annotation)
    print(options.path)
    print(f"  {setting_texts.texts(owner)[name]}")
    if inner:
        return _list(inner[0], f"{path}.")
    bounds = setting_texts.limits(field)
    print(f"  what:     {setting_texts.kind(field.annotation)}" + (f" ({bounds})" if bounds else ""))
    default = None if field.is_required() else _yaml(field.get_default(call_default_factory=True))
    print(f"  default:  {default or 'none: it must be set'}")
    if kind == "params":
        _here(path)
    return None


def _list(model: type[BaseModel], prefix: str) -> None:
    """The settings of a section in a line each."""
    from retemper.config import setting_texts

    width = max(len(prefix) + len(name) for name in model.model_fields)
    for name, text in setting_texts.texts(model).items():
        if name in model.model_fields:
            print(f"  {prefix + name:{width}s}  {text}")


def _here(path: str) -> None:
    """What a project has, and which of its stages read it."""
    from retemper.config.project import Project
    from retemper.core.files import project_root
    from retemper.prepare import inputs

    try:
        project_root()
    except RetemperError:
        return
    value: Any = Project.here().settings
    for part in path.split("."):
        if isinstance(value, list) or not hasattr(value, part):
            break  # of a list each entry has its own
        value = getattr(value, part)
    else:
        print(f"  here:     {_yaml(value)}")
    stages = inputs.stages_of(path)
    print(
        f"  decides:  {', '.join(stages) or 'no numbers'}" + ("; what follows from them runs again" if stages else "")
    )


def _yaml(value: Any) -> str:
    """A value as it is written in YAML, in a line."""
    from pydantic import BaseModel
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(value) if isinstance(value, (BaseModel, list, dict)) else value
    return json.dumps(plain, ensure_ascii=False)


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="?", default="params", help="as dataset.group, strategy.training.lr, study.budget"
    )


def _schema(options: argparse.Namespace) -> None:
    from retemper.config import setting_texts
    from retemper.core.files import project_root, write_json

    schemas = {
        name: setting_texts.schema(model, f"retemper: {name}", over=name == "strategy")
        for name, model in _kinds().items()
    }
    if not options.write:
        print(json.dumps(schemas[options.kind], indent=1))
        return
    folder = project_root() / FOLDER
    for name, content in schemas.items():
        write_json(folder / f"{name}.json", content)
    print(f"{folder}: {', '.join(f'{name}.json' for name in schemas)}. Point to them from the first line of a file:")
    print(f"# yaml-language-server: $schema={FOLDER}/params.json")


def _schema_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", default="params", choices=("params", "strategy", "study"))
    parser.add_argument("--write", action="store_true", help=f"write all into {FOLDER} of the project")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "explain": (_explain, _explain_arguments, "say what a setting does, its default, its value here, what it decides"),
    "schema": (_schema, _schema_arguments, "JSON schemas of the settings, by which editors complete and explain"),
}
