"""MACE's two exporters for LAMMPS, and evaluation of what they write as LAMMPS does it.

The evaluation covers one process. A periodic cell has ghost atoms for the ML-IAP object: what
LAMMPS exchanges between atoms and their images is exchanged here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from retemper.models import library, mace

Evaluator = Callable[[Atoms], tuple[float, np.ndarray]]


def _module(model: Path, dtype: str) -> Any:
    """A copy of the model that may be changed, in `dtype`."""
    return copy.deepcopy(mace.load(model, dtype=dtype))


def write_libtorch(model: Path, head: str, dtype: str, out: Path) -> None:
    """TorchScript for ``pair_style mace``: `mace.calculators.LAMMPS_MACE`, compiled."""
    library.import_mace()
    from e3nn.util import jit
    from mace.calculators import LAMMPS_MACE

    with mace.default_dtype(dtype):
        jit.compile(LAMMPS_MACE(_module(model, dtype), head=head)).save(str(out))


def write_mliap(model: Path, head: str, dtype: str, out: Path) -> None:
    """Pickled object for ``pair_style mliap unified``: `mace.calculators.lammps_mliap_mace.LAMMPS_MLIAP_MACE`.

    MACE's command converts to cuEquivariance first, which needs a GPU build; here the e3nn form
    is kept.
    """
    library.import_mace()
    import torch
    from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE

    module = _module(model, dtype)
    module.lammps_mliap = True
    with mace.default_dtype(dtype):
        torch.save(LAMMPS_MLIAP_MACE(module, head=head), out)


def libtorch_evaluator(written: Path, dtype: str) -> Evaluator:
    """Energy and forces by the TorchScript file, as with `no_domain_decomposition`: all atoms are local."""
    import torch

    script = torch.jit.load(str(written))
    known = [int(z) for z in script.atomic_numbers]

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        n = len(atoms)
        edges, vectors, _ = _pairs(atoms, float(script.r_max))
        attrs = torch.nn.functional.one_hot(torch.tensor([known.index(z) for z in atoms.numbers]), len(known))
        shifts = vectors - (atoms.positions[edges[1]] - atoms.positions[edges[0]])
        data = {
            "positions": torch.tensor(atoms.positions, dtype=getattr(torch, dtype), requires_grad=True),
            "node_attrs": attrs.to(getattr(torch, dtype)),
            "edge_index": torch.tensor(edges),
            "shifts": torch.tensor(shifts, dtype=getattr(torch, dtype)),
            "unit_shifts": torch.tensor(shifts, dtype=getattr(torch, dtype)),
            "cell": torch.zeros((3, 3), dtype=getattr(torch, dtype)),
            "batch": torch.zeros(n, dtype=torch.long),
            "ptr": torch.tensor([0, n]),
            "energy": torch.zeros(1, dtype=getattr(torch, dtype)),
            "forces": torch.zeros((n, 3), dtype=getattr(torch, dtype)),
        }
        output = script(data, torch.ones(n, dtype=getattr(torch, dtype)), False)
        return float(output["total_energy_local"].detach()), output["forces"].detach().numpy()

    return evaluate


def mliap_evaluator(written: Path, dtype: str) -> Evaluator:
    """Energy and forces by the ML-IAP object, called as LAMMPS calls it."""
    import torch

    unified = torch.load(written, weights_only=False)
    known = [atomic_numbers[symbol] for symbol in unified.element_types]

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        edges, vectors, images = _pairs(atoms, 2.0 * float(unified.rcutfac))
        called = _Exchange([known.index(z) for z in atoms.numbers], edges, vectors, images)
        unified.compute_forces(called)
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, edges[0], called.pair_forces)
        np.subtract.at(forces, edges[1], called.pair_forces)
        return float(called.energy), forces

    return evaluate


def _pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges [2, n_edges] within the cutoff, vectors [n_edges, 3] A from first to second, its image [n_edges, 3].

    The image is counted in cells.
    """
    from matscipy.neighbours import neighbour_list

    boxed = atoms.copy()
    if not atoms.pbc.any():
        boxed.center(vacuum=2.0 * cutoff)
    first, second, vectors, images = neighbour_list("ijDS", boxed, cutoff)
    return np.stack([first, second]).astype(np.int64), vectors, images


class _Exchange:
    """What LAMMPS hands to an ML-IAP model for one process: atoms and ghosts, pairs, and where to put the result."""

    def __init__(self, elements: list[int], edges: np.ndarray, vectors: np.ndarray, images: np.ndarray):
        import torch

        self.nlocal = len(elements)
        outside = images.any(axis=1)
        ghosts, number = np.unique(np.column_stack([edges[1], images])[outside], axis=0, return_inverse=True)
        self.owners = torch.tensor(ghosts[:, 0].astype(np.int64))
        self.ntotal = self.nlocal + len(ghosts)
        self.npairs = edges.shape[1]
        self.elems = np.array(elements)[np.concatenate([np.arange(self.nlocal), ghosts[:, 0]]).astype(np.int64)]
        self.pair_i, self.pair_j = edges.copy()
        self.pair_j[outside] = self.nlocal + number.ravel()
        self.rij = vectors
        self.eatoms = np.zeros(len(elements))
        self.energy = 0.0
        self.pair_forces = np.zeros_like(vectors)

    def update_pair_forces_gpu(self, forces: Any) -> None:
        """Take the force of each pair on its first atom."""
        self.pair_forces = forces.detach().numpy()

    def forward_exchange(self, features: Any, all_atoms: Any, length: int) -> None:
        """Copy features from atoms to their images."""
        all_atoms.copy_(features)
        all_atoms[self.nlocal :] = features[self.owners]

    def reverse_exchange(self, gradients: Any, all_atoms: Any, length: int) -> None:
        """Add up gradients of images at their atoms."""
        all_atoms.copy_(gradients)
        all_atoms.index_add_(0, self.owners, gradients[self.nlocal :])
