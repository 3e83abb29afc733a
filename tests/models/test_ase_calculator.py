"""The ASE calculator of a loaded model: its numbers do not depend on what else the process computes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from architectures import MH1_HEADS, build_mh1
from trainings import molecules

from retemper.models import mace, model_file, predict


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("others", ["float32", "float64"])
def test_a_calculator_computes_in_its_own_precision(dtype: str, others: str, tmp_path: Path) -> None:
    """A model with a repulsion of pairs and several heads: MACE makes numbers of both in torch's default precision."""
    path, (atoms, other) = build_mh1(tmp_path / "model.model"), molecules()[:2]
    want = predict.predict(path, [atoms, other], head=MH1_HEADS[1], dtype=dtype, backend="torch")
    bound = 1e-9 if dtype == "float64" else 1e-4
    with mace.default_dtype(others):
        from retemper.models.ase_calculator import Calculator, evaluate

        model = model_file.load(path)
        calculator = Calculator(models=model, device="cpu", default_dtype=dtype, head=MH1_HEADS[1])
        answers = evaluate(calculator, [atoms, other])
        for k, frame in enumerate((atoms, other)):
            calculator.calculate(frame, ["energy", "forces"])
            for energy, forces in (
                (calculator.results["energy"], calculator.results["forces"]),
                (answers[k].energy, answers[k].forces),
            ):
                assert energy == pytest.approx(want.energy[k], abs=bound)
                np.testing.assert_allclose(forces, want.forces[k], atol=bound)
