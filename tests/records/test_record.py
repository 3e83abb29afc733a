"""What every record promises: it comes back as it was written, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from retemper.core.errors import RetemperError
from retemper.records.record import OtherFormError, Part, Record


class Errors(Part):
    force_rmse: float
    groups: int | None = None


class Example(Record):
    STAGE: ClassVar[str] = "example"
    FORM: ClassVar[int] = 2

    name: str
    sets: dict[str, Errors]
    E0s: dict[int, float]


def example() -> Example:
    return Example(name="naive", sets={"target": Errors(force_rmse=99.6, groups=6)}, E0s={8: -432.1})


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    example().write(path)
    content = json.loads(path.read_text())
    assert content == {
        "form": 2,
        "name": "naive",
        "sets": {"target": {"force_rmse": 99.6, "groups": 6}},
        "E0s": {"8": -432.1},
    }
    assert Example.read(path) == example()


@pytest.mark.parametrize("form", [None, 1, 3])
def test_a_file_of_another_version_is_not_guessed_at(tmp_path: Path, form: int | None) -> None:
    content = example().model_dump(mode="json") | {"form": form}
    if form is None:
        del content["form"]
    path = tmp_path / "example.json"
    path.write_text(json.dumps(content))
    with pytest.raises(OtherFormError) as caught:
        Example.read(path)
    assert caught.value.fix == "dvc repro -f example"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sets": {"target": {"force_rmse": "99.6"}}}, "sets.target.force_rmse"),
        ({"sets": {"target": {}}}, "sets.target.force_rmse"),
        ({"more": 1}, "more"),
        ({"sets": {"target": {"force_rmse": 1.0, "groups": 1.5}}}, "sets.target.groups"),
    ],
)
def test_a_file_that_its_stage_does_not_write_is_named_by_field(tmp_path: Path, change: object, field: str) -> None:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(example().model_dump(mode="json") | change))
    with pytest.raises(RetemperError, match=f"{path}.*{field}"):
        Example.read(path)


def test_no_infinity_comes_into_a_record() -> None:
    with pytest.raises(ValidationError):
        Errors(force_rmse=float("inf"))
