"""Proof that MACE trains on the labels of the files: those of its loaded frames are read and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retemper.core.errors import RetemperError
from retemper.data import charge, frame_weights
from retemper.data.frames import ENERGY, FORCES, STRESS, is_isolated_atom, stream_frames
from retemper.finetune.mace.setup import Frames
from retemper.finetune.plan import HeadData, Plan
from retemper.models.head_names import TARGET
from retemper.records.training import WeightRange

Weights = dict[str, WeightRange]  # that are not 1, by label


def check(plan: Plan, frames: Frames) -> tuple[dict[str, dict[str, Weights]], int]:
    """Weights that are not 1, by head, set (train, valid) and label; free atoms that the target is trained on.

    Raises
    ------
    RetemperError
        As `check_labels`.
    """
    weights: dict[str, dict[str, Weights]] = {}
    free = 0
    for head, data in plan.heads.items():
        train, valid = (
            check_labels(head, data, frames[head][k], path) for k, path in enumerate((data.train, data.valid))
        )
        weights[head] = {"train": train.weight_ranges(), "valid": valid.weight_ranges()}
        free += int(train.free.sum()) if head == TARGET else 0
    return weights, free


@dataclass(frozen=True)
class Loaded:
    """What frames hold that a model is trained on, one row a frame."""

    labels: np.ndarray  # [n, 2] energy (eV), root mean square force (eV/A)
    states: np.ndarray  # [n, 2] charge (e), multiplicity
    weights: np.ndarray  # [n, 4] of energy, forces and stress in the loss, and of the frame; stress 0 without a label
    free: np.ndarray  # [n] whether a frame is a free atom

    @classmethod
    def by_mace(cls, frames: Sequence[Any]) -> Loaded:
        """Of frames as MACE loaded them."""
        rows = np.empty((len(frames), 9))
        for k in range(len(frames)):  # once each: of a set on disk every look makes the frame anew
            frame = frames[k]
            labels = float(frame.energy), float(frame.forces.double().pow(2).mean().sqrt())
            weights = (frame.energy_weight, frame.forces_weight, frame.stress_weight, frame.weight)
            free = len(frame.positions) == 1 and not bool(frame.pbc.any())
            rows[k] = *labels, float(frame.total_charge), float(frame.total_spin), *map(float, weights), free
        return cls(rows[:, :2], rows[:, 2:4], rows[:, 4:8], rows[:, 8] == 1)

    @classmethod
    def from_file(cls, path: str, weighted: bool) -> Loaded:
        """Of a labelled file; weights count where they were asked for (`weighted`), else all are 1."""
        rows = []
        for a in stream_frames(path):
            energy, forces, stress = frame_weights.weights_of(a) if weighted else (1.0, 1.0, 1.0)
            weights = energy, forces, stress if STRESS in a.info else 0.0, 1.0
            rms = float(np.sqrt(np.mean(a.arrays[FORCES] ** 2)))
            state = charge.charge_of(a), charge.spin_of(a) or 1.0
            rows.append((float(a.info[ENERGY]), rms, *state, *weights, is_isolated_atom(a)))
        table = np.array(rows, dtype=float).reshape(-1, 9)
        return cls(table[:, :2], table[:, 2:4], table[:, 4:8], table[:, 8] == 1)

    def weight_ranges(self) -> Weights:
        """What of the weights in the loss is not 1; see `retemper.data.frame_weights.summary`."""
        ranges = frame_weights.summary((energy, forces, stress or 1.0) for energy, forces, stress, _ in self.weights)
        return {
            label: WeightRange(frames=int(limits["frames"]), min=limits["min"], max=limits["max"])
            for label, limits in ranges.items()
        }


def check_labels(head: str, data: HeadData, loaded: Sequence[Any], path: str) -> Loaded:
    """What the frames that MACE loaded hold, which is what the file holds.

    Raises
    ------
    RetemperError
        MACE did not load exactly the labels, charges, spins and weights of the file: one is dropped, doubled or
        replaced. Energies agree to 1e-6 relative (float32 storage), root mean square forces to 1e-4 eV/A.
    """
    got, want = Loaded.by_mace(loaded), Loaded.from_file(path, data.weighted)
    if len(got.labels) != len(want.labels):
        raise RetemperError(
            f"Head {head}: MACE trains on {len(got.labels)} frames.",
            expected=f"the {len(want.labels)} frames of {path}",
        )
    energies, forces = (
        np.isclose(got.labels[:, k], want.labels[:, k], rtol=rtol, atol=1e-4) for k, rtol in enumerate((1e-6, 1e-4))
    )
    _require(energies & forces, got.labels, want.labels, f"Head {head}: MACE holds other labels than {path}", _label)
    states = np.isclose(got.states, want.states, atol=1e-4).all(axis=1)
    _require(states, got.states, want.states, f"Head {head}: MACE holds other charges or spins than {path}", _state)
    weights = np.isclose(got.weights, want.weights, rtol=1e-5, atol=1e-6).all(axis=1)
    asked = "with the weights of" if data.weighted else "without weights for the frames of"
    _require(weights, got.weights, want.weights, f"Head {head}: MACE does not train {asked} {path}", _weight)
    return got


def _require(same: np.ndarray, got: np.ndarray, want: np.ndarray, text: str, say: Callable[[Any], str]) -> None:
    """Raise unless all rows are the `same`; `say` puts a row into words."""
    off = np.flatnonzero(~same)
    if len(off):
        raise RetemperError(
            f"{text} ({len(off)} of {len(same)} frames, first: {off[0]}).",
            expected=say(want[off[0]]),
            got=say(got[off[0]]),
        )


def _label(row: Any) -> str:
    return f"energy {row[0]:.6f} eV, RMS force {row[1]:.6f} eV/A"


def _state(row: Any) -> str:
    return f"charge {row[0]:g}, multiplicity {row[1]:g}"


def _weight(row: Any) -> str:
    return f"weights: energy {row[0]:g}, forces {row[1]:g}, stress {row[2]:g}, frame {row[3]:g}"
