"""Pages of the reference, made from the program itself when the site is built."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mkdocs_gen_files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from retemper import records
from retemper.active.plugins import KINDS
from retemper.cli import main
from retemper.config import metric_names, setting_texts
from retemper.config.settings import Settings
from retemper.config.strategies import Strategy
from retemper.prepare.inputs import stages_of
from retemper.records.record import Record
from retemper.study.spec import Study

ROOT = Path(__file__).parents[2]


def page(name: str, *parts: str) -> None:
    """Write a page of the reference."""
    with mkdocs_gen_files.open(f"reference/{name}.md", "w") as file:
        file.write("\n\n".join(parts) + "\n")


def table(titles: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# ------------------------------------------------------------------ settings


def settings() -> None:
    """Every key of params.yaml, strategies and studies."""
    parts = [
        "# Settings",
        "Every key of `params.yaml`. `retemper explain KEY` says the same in a terminal, with your project's value.",
        "What a key *decides* runs again when it changes, and so does what follows from that.",
    ]
    top = [name for name, field in Settings.model_fields.items() if not setting_texts.models_in(field.annotation)]
    parts.append(_fields(Settings, "", top))
    for name, field in Settings.model_fields.items():
        inner = setting_texts.models_in(field.annotation)
        if inner:
            parts += [f"## {name}", f"{setting_texts.texts(Settings)[name]}.", *_section(inner[0], name)]
    parts += ["## A study", "`studies/NAME.yaml`, run by `retemper study` ([more](../study.md)).", *_section(Study, "")]
    page("settings", *parts)


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    """The table of a section, and of those within."""
    yield _fields(model, path, list(model.model_fields))
    for name, field in model.model_fields.items():
        for inner in setting_texts.models_in(field.annotation):
            here = f"{path}.{name}".strip(".")
            yield f"### {here}"
            yield from _section(inner, here)


def _fields(model: type[BaseModel], path: str, names: list[str]) -> str:
    texts, rows = setting_texts.texts(model), []
    for name in names:
        decides = ", ".join(stages_of(f"{path}.{name}".strip("."))) if model is not Study else ""
        rows.append([f"`{name}`", *_kind_and_default(model.model_fields[name]), texts[name], decides])
    return table(["key", "what", "default", "meaning", "decides"], rows)


def _kind_and_default(field: FieldInfo) -> tuple[str, str]:
    bounds = setting_texts.limits(field)
    kind = setting_texts.kind(field.annotation) + (f" ({bounds})" if bounds else "")
    if field.is_required():
        return kind, "must be set"
    default = f"`{_value(field.get_default(call_default_factory=True))}`"
    return kind, "see below" if setting_texts.models_in(field.annotation) else default


def _value(value: object) -> str:
    return json.dumps(to_jsonable_python(value), ensure_ascii=False)


def strategies() -> None:
    """Every strategy, with its file."""
    parts = [
        "# Strategies",
        "Each is one YAML in `strategies/`, over `base.yaml`; a copy with another name is a strategy of your own.",
        *_section(Strategy, "strategy"),
    ]
    for path in sorted((ROOT / "strategies").glob("*.yaml")):
        parts += [f"## {path.stem}", f"```yaml\n{path.read_text().strip()}\n```"]
    page("strategies", *parts)


# ------------------------------------------------------------------ commands, metrics, plugins, files


def commands() -> None:
    """The help of every command."""
    whole = main.parser()
    inner = next(action for action in whole._actions if hasattr(action, "choices") and isinstance(action.choices, dict))
    parts = ["# Commands", "`retemper completion bash` completes them in your shell."]
    for name, parser in inner.choices.items():
        parts += [f"## retemper {name}", f"```text\n{parser.format_help().strip()}\n```"]
    page("commands", *parts)


def metrics() -> None:
    """What gates, tags and tables name."""
    rows = []
    for name, quantity in metric_names.measured_names().items():
        if quantity is not None:
            rows.append([f"`{name}`", quantity.unit or "–", f"{quantity.better} is better", ""])
            continue
        info = importlib.import_module(f"retemper.{metric_names.SUITE}.{name.partition('.')[2]}").INFO
        rows.append(
            [
                f"`{name}`",
                info.unit,
                f"{info.direction} is better",
                f"{info.title.partition(': ')[2]} ({info.reference})",
            ]
        )
    page(
        "metrics",
        "# Metrics",
        "Names as gates, tags of MLflow and tables have them. "
        "How those of the suite are measured: [robustness](../robustness.md).",
        table(["name", "unit", "direction", "what"], rows),
    )


def plugins() -> None:
    """Plugins of active learning, with their options."""
    parts = ["# Oracles and explorers", "Names of `acquire` in `params.yaml`, each with `options`."]
    for folder, kind in KINDS.items():
        package = importlib.import_module(f"retemper.active.{folder}")
        parts.append(f"## {kind}")
        for module in _modules(package):
            options = getattr(module, "Options", None)
            parts += [f"### {module.__name__.rpartition('.')[2]}", inspect.getdoc(module) or ""]
            if options is not None and options.model_fields:
                texts = setting_texts.texts(options)
                rows = [[f"`{name}`", *_kind_and_default(f), texts[name]] for name, f in options.model_fields.items()]
                parts.append(table(["option", "what", "default", "meaning"], rows))
    page("plugins", *parts)


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{found.name}")


def files() -> None:
    """The records that stages leave for each other."""
    parts = [
        "# Files under runs",
        "What stages leave for each other. Each is read and written whole; other forms are refused.",
    ]
    for module in _modules(records):
        for name, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, Record) and model is not Record and model.__module__ == module.__name__:
                texts = setting_texts.texts(model)
                rows = [[f"`{field}`", texts.get(field, "")] for field in model.model_fields if field != "form"]
                parts += [
                    f"## {name}",
                    f"{inspect.getdoc(module)}\n\nMade by the stage `{model.STAGE}`.",
                    table(["field", "meaning"], rows),
                ]
    page("files", *parts)


def python() -> None:
    """What is called from Python."""
    names = (
        "retemper.load",
        "retemper.registry.load.load",
        "retemper.config.project.Project",
        "retemper.models.predict.predict",
        "retemper.models.inspection.inspect",
    )
    page("python", "# Python", "What is meant to be called from programs.", *(f"::: {name}" for name in names))


for make in (settings, strategies, commands, metrics, plugins, files, python):
    make()
