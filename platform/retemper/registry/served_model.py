"""A fine-tuned MACE model as MLflow loads and serves it.

The artifact has no code of its own: ``MLmodel`` names this module of the installed package, the weights are tensors
with a description (`retemper.models.model_file`). What is loaded is compared with the digest that the registry, a
database, has of the whole artifact; who can write the artifact cannot change that one together with it.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_EXHAUSTED

from retemper.core.errors import RetemperError
from retemper.data import crowding
from retemper.models import model_file
from retemper.models.ase_calculator import Answer, Calculator, evaluate, state
from retemper.registry import artifact

MOST_STRUCTURES = 10_000  # of a request
MOST_ATOMS = 20_000  # of a request
MOST_PAIRS = 200_000  # ordered, within the cut-off, of one structure; memory grows with them
MOST_PAIRS_TOGETHER = 2_000_000  # of a request; time grows with them
MOST_WAITING = 8  # requests that wait for the one that is computed; others are answered with status 429
LONGEST_WAIT = 60.0  # s, of a request that waits


def calculator(path: str | Path, sha256: str, head: str, device: str = "cpu", dtype: str = "float64") -> Any:
    """ASE calculator of a model file (eV, eV/A, eV/A^3).

    Parameters
    ----------
    sha256 : str
        Of the file; anything else is not opened.
    head : str
        Output head to use.
    dtype : str
        ``float64`` or ``float32``, whatever torch's default in this process is.

    Raises
    ------
    ValueError
        Another sha256, or a model without that head.
    RetemperError
        A damaged file.
    """
    content = Path(path).read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"{path} is not the registered model and was not opened: sha256 {got}, registered {sha256}")
    model = model_file.loads(content, str(path)).to(device)
    heads = list(getattr(model, "heads", ["Default"]))
    if head not in heads:
        raise ValueError(f"{path} has no head {head!r}, only {', '.join(heads)}")
    return Calculator(models=model, device=device, default_dtype=dtype, head=head)


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> Served:
    """What MLflow calls with the weights inside a downloaded artifact; see `retemper.registry.artifact.check`."""
    folder = Path(path).parents[1]
    try:
        if not artifact.check(folder):
            print(
                f"note: {folder} is not compared with a registry (none is set by MLFLOW_TRACKING_URI, or it is no "
                "registered version): changed numbers would not be noticed",
                file=sys.stderr,
            )
        model = model_file.read(path)
        heads = list(getattr(model, "heads", ["Default"]))
        if model_config["head"] not in heads:
            raise RetemperError(f"{path} has no head {model_config['head']!r}.", expected=f"one of {heads}")
    except RetemperError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    device, dtype = model_config["device"], model_config["dtype"]
    return Served(Calculator(models=model, device=device, default_dtype=dtype, head=model_config["head"]))


class Served:
    """Energies, forces and stresses of structures given as JSON.

    A row has ``numbers`` [n_atoms], ``positions`` [n_atoms, 3] in A and, where there is one,
    ``cell`` [3, 3] in A, ``pbc`` [3] (default: periodic where there is a cell), ``charge`` (in e, default 0) and
    ``spin`` (multiplicity 2S + 1, default 1), also as ``total_charge`` and ``total_spin``. The answer has
    ``energy`` (eV), ``forces`` [n_atoms, 3] (eV/A) and ``stress`` [3, 3] (eV/A^3, null without
    periodicity in three directions). Rows that cannot be evaluated, collapsed ones and ones that are too large
    are refused, status 400. One request is computed at a time; too many that wait are refused, status 429.
    """

    def __init__(self, calculator: Any):
        self.calculator = calculator
        self.turn = threading.Lock()  # MACE sets torch's default dtype, of the whole process
        self.waiting = threading.Semaphore(MOST_WAITING + 1)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Evaluate all rows, in batches. MLflow turns a list of rows into a table before it gets here."""
        elements = {int(z) for z in self.calculator.z_table.zs}
        try:
            frames = [structure(row, elements) for row in number_rows(model_input)]
            require_bearable(frames, float(self.calculator.r_max))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        if not self.waiting.acquire(blocking=False):
            raise MlflowException(f"{MOST_WAITING} requests wait already; try later", error_code=RESOURCE_EXHAUSTED)
        try:
            if not self.turn.acquire(timeout=LONGEST_WAIT):
                raise MlflowException(f"waited for {LONGEST_WAIT:g} s; try later", error_code=RESOURCE_EXHAUSTED)
            try:
                answers = evaluate(self.calculator, frames)
            except ValueError as error:
                raise MlflowException.invalid_parameter_value(str(error)) from error
            finally:
                self.turn.release()
        finally:
            self.waiting.release()
        return pd.DataFrame(answers, columns=list(Answer._fields))


def require_bearable(frames: Sequence[Atoms], cutoff: float) -> None:
    """`ValueError` for structures that have collapsed, or that are too many or too large for a shared server.

    Pairs are counted, not listed: a cell of 0.01 A would have a billion of them.
    """
    atoms = sum(len(frame) for frame in frames)
    if len(frames) > MOST_STRUCTURES or atoms > MOST_ATOMS:
        raise ValueError(
            f"{len(frames)} structures with {atoms} atoms; a request may have at most {MOST_STRUCTURES} structures "
            f"with {MOST_ATOMS} atoms: send several, or use retemper.load"
        )
    total = 0
    for k, frame in enumerate(frames):
        if problem := crowding.cell_fault(frame):
            raise ValueError(f"structure {k} has collapsed: {problem}")
        if crowding.images(frame, cutoff) > crowding.MOST_IMAGES:
            raise ValueError(f"structure {k}: its cell is too narrow for so many atoms ({len(frame)})")
        contacts = crowding.count(frame, cutoff)
        if contacts.ratio < crowding.NEAREST:
            raise ValueError(
                f"structure {k} has collapsed: two atoms are {contacts.distance:.3g} A apart, {contacts.ratio:.2g} "
                "times the "
                f"sum of their covalent radii, expected at least {crowding.NEAREST:g} times"
            )
        total += contacts.pairs
        if contacts.pairs > MOST_PAIRS or total > MOST_PAIRS_TOGETHER:
            raise ValueError(
                f"structure {k}: {contacts.pairs} pairs of atoms within {cutoff:g} A, {total} up to here in this "
                "request; "
                f"at most {MOST_PAIRS} and {MOST_PAIRS_TOGETHER}: send less, or use retemper.load"
            )


def number_rows(table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as dictionaries without what is missing, with their number for messages."""
    rows = table.to_dict("records")
    return [
        {"row": k, **{str(n): v for n, v in row.items() if not (v is None or (isinstance(v, float) and np.isnan(v)))}}
        for k, row in enumerate(rows)
    ]


def structure(row: Mapping[str, Any], elements: set[int]) -> Atoms:
    """A row of the input as ASE structure; `ValueError` says what is wrong with it.

    Parameters
    ----------
    elements : set of int
        Atomic numbers that the model knows.
    """
    label = f"structure {row['row']}"
    positions, numbers = _array(row, "positions", (-1, 3)), _array(row, "numbers", (-1,))
    if len(numbers) != len(positions) or not len(numbers):
        raise ValueError(
            f"{label}: {len(numbers)} numbers and {len(positions)} positions; expected equally many, not 0"
        )
    unknown = sorted({int(z) for z in numbers} - elements)
    if unknown or (numbers != numbers.astype(int)).any():
        raise ValueError(f"{label}: the model does not know atomic numbers {unknown or numbers.tolist()}")
    cell = _array(row, "cell", (3, 3)) if "cell" in row else np.zeros((3, 3))
    pbc = _array(row, "pbc", (3,)).astype(bool) if "pbc" in row else np.full(3, "cell" in row)
    if np.linalg.matrix_rank(cell[pbc]) < pbc.sum():
        raise ValueError(f"{label}: periodic along {int(pbc.sum())} directions that its cell does not span")
    try:
        info = state(row)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    return Atoms(numbers=numbers.astype(int), positions=positions, cell=cell, pbc=pbc, info=info)


def _array(row: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An entry as finite numbers of a shape; -1 is any length."""
    expected = "[" + ", ".join("n_atoms" if n < 0 else str(n) for n in shape) + "]"
    if name not in row:
        raise ValueError(f"structure {row['row']}: {name!r} is missing; expected numbers of shape {expected}")
    try:
        array = np.array([list(part) if np.ndim(part) else part for part in row[name]], dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"structure {row['row']}: {name!r} is not an array of numbers of shape {expected}") from None
    if array.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, array.shape, strict=True)):
        raise ValueError(f"structure {row['row']}: {name!r} has shape {list(array.shape)}, expected {expected}")
    if not np.isfinite(array).all():
        raise ValueError(f"structure {row['row']}: {name!r} is not finite")
    return array
