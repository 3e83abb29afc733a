"""The study of a sweep in folders whose names mean something to a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from retemper.sweep import optuna_study


@pytest.mark.parametrize("name", ["a b", "a?b", "a%41b", "100%", "a#b", "a&b=c", "Größe", "?uri=true"])
@pytest.mark.hostile("messages")
def test_a_study_lies_in_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / ".cache/sweep/x"
    made = optuna_study.open_study(folder, "some", ["target"])
    made.add_trial(optuna_study.optuna.trial.create_trial(value=1.0))
    assert (folder / optuna_study.DATABASE).stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(optuna_study.read(folder)) == 1
