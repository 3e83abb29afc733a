"""A fine-tuned MACE model as MLflow keeps it: this file is stored beside the weights and run when the model is loaded.

It needs torch, mace-torch and ase, not retemper. The weights are a pickle, so their sha256
is compared with the one recorded at registration before they are opened.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from ase import Atoms
from mlflow.pyfunc.model import PythonModel


def calculator(path: str | Path, sha256: str, head: str, device: str = "cpu", dtype: str = "float64") -> Any:
    """ASE calculator of a model file (eV, eV/A, eV/A^3).

    Parameters
    ----------
    sha256 : str
        Of the file; anything else is not opened.
    head : str
        Output head to use.
    dtype : str
        ``float64`` or ``float32``. MACE also makes it torch's default in this process.

    Raises
    ------
    ValueError
        Another sha256, or a model without that head.
    """
    content = Path(path).read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"{path} is not the registered model and was not opened: sha256 {got}, registered {sha256}")
    import mace  # noqa: F401  (before torch.load: it allows pickled modules)
    import torch
    from mace.calculators import MACECalculator

    model = torch.load(io.BytesIO(content), map_location=device)
    heads = list(getattr(model, "heads", ["Default"]))
    if head not in heads:
        raise ValueError(f"{path} has no head {head!r}, only {', '.join(heads)}")
    return MACECalculator(models=model, device=device, default_dtype=dtype, head=head)


class FineTunedMACE(PythonModel):
    """Energies, forces and stresses of structures given as JSON.

    A row has ``numbers`` [n_atoms], ``positions`` [n_atoms, 3] in A and, where there is one,
    ``cell`` [3, 3] in A and ``pbc`` [3], each as JSON text. The answer has
    ``energy`` (eV), and as JSON text ``forces`` [n_atoms, 3] (eV/A) and ``stress`` [3, 3]
    (eV/A^3, null without periodicity in three directions).
    """

    def load_context(self, context: Any) -> None:
        """Open the weights; ``model_config`` says which head, device and dtype."""
        config = context.model_config
        self.calculator = calculator(
            context.artifacts["model"], config["sha256"], config["head"], config["device"], config["dtype"]
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Evaluate every row. MLflow turns a list of rows into a table before it gets here."""
        answers = []
        for row in model_input.to_dict("records"):
            atoms: Any = structure(row)
            atoms.calc = self.calculator
            stress = atoms.get_stress(voigt=False).tolist() if atoms.pbc.all() else None
            answers.append(
                {
                    "energy": float(atoms.get_potential_energy()),
                    "forces": json.dumps(atoms.get_forces().tolist()),
                    "stress": json.dumps(stress),
                }
            )
        return pd.DataFrame(answers)


def structure(row: Mapping[Any, Any]) -> Atoms:
    """A row of the input as ASE structure; a cell or periodicity that is missing is none."""
    given = {name: json.loads(text) for name, text in row.items() if isinstance(text, str)}
    if "numbers" not in given or "positions" not in given:
        raise ValueError("a structure needs `numbers` and `positions`, as JSON text")
    return Atoms(
        numbers=given["numbers"],
        positions=np.asarray(given["positions"], dtype=float),
        cell=given.get("cell"),
        pbc=given.get("pbc"),
    )


mlflow.models.set_model(FineTunedMACE())
