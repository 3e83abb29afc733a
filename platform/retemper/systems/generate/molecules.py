"""Small organic molecules of H C N O F S Cl at GFN2-xTB: rattled conformers and dynamics; one group a molecule."""

from __future__ import annotations

from ase import Atoms

from retemper.systems.structures import conformers, rattle, rng_of
from retemper.systems.xtb import LEVEL, Tally, isolated_atoms, label_all, trajectory

__all__ = ["LEVEL", "free_atoms", "group", "groups"]

MOLECULES = {
    "acetaldehyde": "CC=O",
    "acetamide": "CC(N)=O",
    "acetic-acid": "CC(=O)O",
    "acetone": "CC(C)=O",
    "acetonitrile": "CC#N",
    "alanine": "CC(N)C(=O)O",
    "aniline": "Nc1ccccc1",
    "benzene": "c1ccccc1",
    "butadiene": "C=CC=C",
    "chlorobenzene": "Clc1ccccc1",
    "chloroform": "ClC(Cl)Cl",
    "cyclohexane": "C1CCCCC1",
    "cyclopropane": "C1CC1",
    "dichloromethane": "ClCCl",
    "diethyl-ether": "CCOCC",
    "dimethylformamide": "CN(C)C=O",
    "dimethyl-sulfoxide": "CS(C)=O",
    "dimethyl-sulfide": "CSC",
    "ethane": "CC",
    "ethanethiol": "CCS",
    "ethanol": "CCO",
    "ethylene-glycol": "OCCO",
    "fluorobenzene": "Fc1ccccc1",
    "formamide": "NC=O",
    "furan": "c1ccoc1",
    "glycine": "NCC(=O)O",
    "imidazole": "c1c[nH]cn1",
    "isobutane": "CC(C)C",
    "methane": "C",
    "methanol": "CO",
    "methylamine": "CN",
    "methyl-acetate": "COC(C)=O",
    "n-methylacetamide": "CNC(C)=O",
    "nitromethane": "C[N+](=O)[O-]",
    "phenol": "Oc1ccccc1",
    "propene": "CC=C",
    "propyne": "CC#C",
    "pyridine": "c1ccncc1",
    "thiophene": "c1ccsc1",
    "trifluoroethanol": "OCC(F)(F)F",
    "urea": "NC(N)=O",
    "vinyl-chloride": "C=CCl",
}
TEMPERATURE = 500.0  # K
FRAMES = 5
RATTLED = 3  # rattled conformers
RATTLE = 0.03  # A, standard deviation

free_atoms = isolated_atoms


def groups() -> list[str]:
    """Names of the molecules."""
    return list(MOLECULES)


def group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one molecule."""
    rng = rng_of(name, seed)
    shapes = conformers(MOLECULES[name], rng, RATTLED)
    structures = [(rattle(shape, rng, RATTLE), "rattled") for shape in shapes]
    path = trajectory(shapes[0], rng, tally, temperature=TEMPERATURE, frames=FRAMES, equilibrate=100)
    return label_all([*structures, *((atoms, "dynamics") for atoms in path)], name, tally)
