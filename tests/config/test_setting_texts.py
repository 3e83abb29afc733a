"""What settings mean: every field has a text, schemas take what is read, `explain` says what is so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT
from pydantic import BaseModel

from retemper.cli.main import main
from retemper.config import setting_texts
from retemper.config.settings import Gate, Settings
from retemper.config.strategies import Strategy
from retemper.core.errors import RetemperError
from retemper.study.spec import Study


def _fields(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every field in a model and within, by class and name."""
    names = {f"{model.__name__}.{name}": model for name in model.model_fields}
    for field in model.model_fields.values():
        for inner in setting_texts.models_in(field.annotation):
            names |= _fields(inner)
    return names


@pytest.mark.parametrize("model", [Settings, Strategy, Study])
def test_every_setting_has_a_meaning(model: type[BaseModel]) -> None:
    fields = _fields(model)
    without = [name for name, owner in fields.items() if not setting_texts.texts(owner).get(name.partition(".")[2])]
    assert not without and len(fields) > 10


def _valid(content: Any, model: type[BaseModel], over: bool = False) -> str | None:
    """What the schema of a model has against a content; nothing: `None`."""
    checker = jsonschema.Draft202012Validator(setting_texts.schema(model, "a", over))
    errors = sorted(checker.iter_errors(content), key=lambda error: len(error.absolute_path))
    return errors[0].message if errors else None


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_schemas_take_every_file_there_is() -> None:
    jsonschema.Draft202012Validator.check_schema(setting_texts.schema(Settings, "a"))
    assert _valid(_read(ROOT / "params.yaml"), Settings) is None
    for path in (ROOT / "strategies").glob("*.yaml"):
        assert _valid(_read(path), Strategy, over=True) is None, path
    for path in (ROOT / "studies").glob("*.yaml"):
        assert _valid(_read(path), Study) is None, path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"foundatoin": "mini"}, "foundatoin"),
        ({"finetune": {"epochs": 0}}, "minimum"),
        ({"finetune": {"dtype": "float16"}}, "float16"),
        ({"strategies": []}, "[]"),
        ({"replay": {"pools": [{"share": 0.5}]}}, "share"),
    ],
)
def test_they_refuse_what_reading_would_refuse(change: dict[str, Any], said: str) -> None:
    content = _read(ROOT / "params.yaml") | change
    assert said in str(_valid(content, Settings))
    with pytest.raises(ValueError):
        Settings.model_validate(content)


@pytest.mark.parametrize("pools", ["generated", ["default", {"pool": "a.xyz", "share": 0.3}]])
def test_short_forms_are_taken(pools: Any) -> None:
    content = _read(ROOT / "params.yaml") | {"replay": {"pools": pools}, "acquire": {"oracle": "xtb"}}
    assert _valid(content, Settings) is None
    Settings.model_validate(content)


def test_a_path_leads_through_lists_and_sections() -> None:
    assert setting_texts.find(Settings, "promotion.gates.margin") == (Gate, "margin")
    with pytest.raises(RetemperError, match=r"did you mean 'group'"):
        setting_texts.find(Settings, "dataset.gruop")
    with pytest.raises(RetemperError, match="no settings within"):
        setting_texts.find(Settings, "system.name")


def test_explain_says_value_and_stages_of_a_project(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    main(["explain", "dataset.max_train"])
    said = capsys.readouterr().out
    assert "what:     whole number or null (at least 1)" in said and "default:  null" in said
    assert "here:     50" in said and "decides:  dataset;" in said
    main(["explain", "finetune.device"])
    assert "decides:  no numbers" in capsys.readouterr().out  # the same model on any device


def test_schemas_lie_where_the_files_point_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    main(["schema", "--write"])
    first = (ROOT / "params.yaml").read_text().splitlines()[0]
    pointed = tmp_path / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(pointed.read_text()) == setting_texts.schema(Settings, "retemper: params")
    assert json.loads((ROOT / pointed.relative_to(tmp_path)).read_text()) == json.loads(pointed.read_text())
