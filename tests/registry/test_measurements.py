"""What is kept with a version: read as it was written, also by the first versions of the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retemper.evaluation.robustness.units import Unit
from retemper.records.measures import Number
from retemper.records.record import OtherFormError
from retemper.registry import measurements
from retemper.registry.measurements import Measured

NUMBERS = {
    "target.force_rmse": Number(30.0, 28.5, 31.5, "meV/Å", groups=4),
    "robustness.rdf": Number(None, reason="no reference trajectory"),
}
MODEL = Measured("naive", 1, "a" * 64, {"target": "t"}, NUMBERS, {}, {"rss": [Unit("NaCl", "0", 100.0)]})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    measurements.save(MODEL, None, tmp_path)
    assert measurements.read(tmp_path) == MODEL


def test_measures_of_the_first_versions_have_no_form(tmp_path: Path) -> None:
    measurements.save(MODEL, None, tmp_path)
    path = tmp_path / measurements.MEASURES
    content = json.loads(path.read_text())
    assert content.pop("form") == 1
    for number in content["numbers"].values():  # nor levels and groups
        del number["level"], number["groups"]
    path.write_text(json.dumps(content))
    read = measurements.read(tmp_path)
    assert read.number("target.force_rmse") == Number(30.0, 28.5, 31.5, "meV/Å")
    assert (read.model, read.identity, read.units) == (MODEL.model, MODEL.identity, MODEL.units)
    path.write_text(json.dumps({**content, "form": 2}))
    with pytest.raises(OtherFormError):
        measurements.read(tmp_path)
