"""MACE's own ASE calculator of a model, and one that reads charge and spin under either spelling, also in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from mace.calculators import MACECalculator
from mace.tools import torch_tools

from retemper.models import model_file

MAX_EDGES = 4_000  # of the structures that are evaluated together, unless one alone has more
SPELLINGS = {"total_charge": ("total_charge", "charge"), "total_spin": ("total_spin", "spin")}  # e; 2S + 1


def of_weights(path: Path, head: str, dtype: str) -> Any:
    """MACE's calculator of a head of a model file, on the CPU."""
    return MACECalculator(models=model_file.load(path), device="cpu", default_dtype=dtype, head=head)


def of_pickle(path: Path, dtype: str) -> Any:
    """MACE's calculator of a pickle, which MACE opens itself: what other programs get of it."""
    return MACECalculator(model_paths=[str(path)], device="cpu", default_dtype=dtype)


def state(info: Mapping[str, Any]) -> dict[str, float]:
    """What is said of total charge (e) and spin (multiplicity), under either spelling; contradictions: `ValueError`."""
    charge_and_spin: dict[str, float] = {}
    for name, spellings in SPELLINGS.items():
        entries = {key: info[key] for key in spellings if info.get(key) is not None}
        try:
            values = {float(value) for value in entries.values()}
        except (TypeError, ValueError):
            values = {np.nan}
        if values:
            value = values.pop()
            whole = name == "total_charge" or (value >= 1 and value == np.floor(value))
            if values or not np.isfinite(value) or not whole:
                raise ValueError(f"no clear {name.replace('_', ' ')}: {entries}")
            charge_and_spin[name] = value
    return charge_and_spin


class Calculator(MACECalculator):  # type: ignore[misc]
    """MACE's, in its own precision; reads charge and spin from ``atoms.info`` under either spelling."""

    def calculate(self, atoms: Atoms | None = None, *arguments: Any, **keywords: Any) -> None:
        """Energy, forces and stress."""
        if atoms is not None:
            state(atoms.info)
            self.info_keys |= {
                name: next((k for k in keys if k in atoms.info), name) for name, keys in SPELLINGS.items()
            }
        with torch_tools.default_dtype(self.default_dtype):  # in which MACE masks heads and repels pairs
            super().calculate(atoms, *arguments, **keywords)  # type: ignore[no-untyped-call]


class Answer(NamedTuple):
    """What a model says about a structure, as JSON has it."""

    energy: float  # eV
    forces: list[list[float]]  # [n_atoms, 3] eV/A
    stress: list[list[float]] | None  # [3, 3] eV/A^3


def evaluate(calculator: Any, frames: Sequence[Atoms]) -> list[Answer]:
    """Energy, forces and stress of every frame, evaluated together in batches of similar size."""
    import torch
    from mace.tools import torch_geometric

    answers: dict[int, Answer] = {}
    graphs = {index: graph(calculator, atoms) for index, atoms in enumerate(frames)}
    for indices in batches([int(item.edge_index.shape[1]) for item in graphs.values()]):
        batch = torch_geometric.Batch.from_data_list([graphs[k] for k in indices]).to(calculator.device)
        periodic = [bool(frames[k].pbc.all()) for k in indices]
        with torch_tools.default_dtype(calculator.default_dtype):
            output = calculator.models[0](batch.to_dict(), compute_force=True, compute_stress=any(periodic))
        forces = torch.split(output["forces"].detach().cpu(), [len(frames[k]) for k in indices])
        for place, k in enumerate(indices):
            stress = output["stress"][place].detach().cpu().tolist() if periodic[place] else None
            if not (torch.isfinite(output["energy"][place]) and torch.isfinite(forces[place]).all()):
                raise ValueError(f"structure {k}: the model gives no finite energy and forces")
            answers[k] = Answer(float(output["energy"][place].detach()), forces[place].tolist(), stress)
    return [answers[k] for k in range(len(frames))]


def graph(calculator: Any, atoms: Atoms) -> Any:
    """MACE's graph of a structure, in the calculator's precision."""
    from mace import data

    keys = data.KeySpecification(info_keys={name: name for name in SPELLINGS}, arrays_keys={})
    with torch_tools.default_dtype(calculator.default_dtype):
        config = data.config_from_atoms(atoms, key_specification=keys, head_name=calculator.head)
        return data.AtomicData.from_config(
            config, z_table=calculator.z_table, cutoff=calculator.r_max, heads=calculator.available_heads
        )


def batches(edges: Sequence[int]) -> list[list[int]]:
    """Indices in order of size, in groups of at most `MAX_EDGES` edges (one structure at least)."""
    groups: list[list[int]] = []
    total = 0
    for k in sorted(range(len(edges)), key=lambda index: edges[index]):
        if not groups or total + edges[k] > MAX_EDGES:
            groups.append([])
            total = 0
        groups[-1].append(k)
        total += edges[k]
    return groups
