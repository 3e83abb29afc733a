"""Molecules, capped dipeptides and dimers after the subsets of SPICE, at GFN2-xTB; neutral, closed shells.

A group is a molecule (a conformer as it is, one rattled, then dynamics at 500 K) or a pair of molecules at random
distances and orientations. SPICE itself (wB97M-D3BJ/def2-TZVPPD) is read by the importer of this name.

References
----------
P. Eastman et al., Sci. Data 10, 11 (2023).
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from retemper.systems.structures import conformers, rattle, rng_of
from retemper.systems.xtb import LEVEL, Tally, isolated_atoms, label_all, trajectory

__all__ = ["LEVEL", "free_atoms", "group", "groups"]

MOLECULES = {
    "acetylsalicylic-acid": "CC(=O)Oc1ccccc1C(=O)O",
    "benzimidazole": "c1ccc2[nH]cnc2c1",
    "bromopyridine": "Brc1cccnc1",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "chloroaniline": "Nc1ccc(Cl)cc1",
    "chloroacetamide": "NC(=O)CCl",
    "chlorobenzonitrile": "N#Cc1ccc(Cl)cc1",
    "cytosine": "Nc1cc[nH]c(=O)n1",
    "difluoroacetic-acid": "OC(=O)C(F)F",
    "dimethyl-phosphate": "COP(=O)(O)OC",
    "ethyl-sulfone": "CCS(=O)(=O)C",
    "fluoroanisole": "COc1ccc(F)cc1",
    "fluorouracil": "O=c1[nH]cc(F)c(=O)[nH]1",
    "guanidine": "NC(N)=N",
    "hydroxamic-acid": "CC(=O)NO",
    "indole": "c1ccc2[nH]ccc2c1",
    "iodobenzene": "Ic1ccccc1",
    "iodoimidazole": "Ic1c[nH]cn1",
    "iodophenol": "Oc1ccc(I)cc1",
    "isoxazole": "Cc1cc(C)on1",
    "methanesulfonamide": "CS(N)(=O)=O",
    "morpholine": "C1COCCN1",
    "nicotinamide": "NC(=O)c1cccnc1",
    "oxazolidinone": "O=C1NCCO1",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "isobutylbenzene": "CC(C)Cc1ccccc1",
    "piperazine": "CN1CCNCC1",
    "pyrimidine": "c1cncnc1",
    "tetrazole": "c1nn[nH]n1",
    "thiazole": "Cc1nccs1",
    "thiourea": "NC(N)=S",
    "trifluorotoluene": "FC(F)(F)c1ccccc1",
    "trimethyl-phosphine": "CP(C)C",
    "vinyl-bromide": "C=CBr",
}
RESIDUES = {"G": "NCC(=O)", "P": "N1CCC[C@H]1C(=O)"}  # without a side chain that branches off
SIDE_CHAINS = {  # neutral
    "A": "C",
    "V": "C(C)C",
    "L": "CC(C)C",
    "I": "[C@@H](C)CC",
    "F": "Cc1ccccc1",
    "W": "Cc1c[nH]c2ccccc12",
    "M": "CCSC",
    "S": "CO",
    "T": "[C@@H](C)O",
    "C": "CS",
    "Y": "Cc1ccc(O)cc1",
    "N": "CC(N)=O",
    "Q": "CCC(N)=O",
    "D": "CC(=O)O",
    "E": "CCC(=O)O",
    "H": "Cc1c[nH]cn1",
    "K": "CCCCN",
    "R": "CCCNC(N)=N",
}
DIPEPTIDES = ("GA", "VS", "LN", "IT", "PG", "FC", "MQ", "YA", "HD", "KE", "WG", "RS")
MONOMERS = {
    "acetamide": "CC(N)=O",
    "acetic-acid": "CC(=O)O",
    "ammonia": "N",
    "benzene": "c1ccccc1",
    "bromomethane": "CBr",
    "chloromethane": "CCl",
    "dimethyl-sulfide": "CSC",
    "iodomethane": "CI",
    "methane": "C",
    "methanol": "CO",
    "phosphine": "P",
    "pyridine": "c1ccncc1",
    "water": "O",
}
DIMERS = (
    ("water", "water"),
    ("water", "acetamide"),
    ("water", "iodomethane"),
    ("methanol", "pyridine"),
    ("acetic-acid", "acetic-acid"),
    ("ammonia", "chloromethane"),
    ("benzene", "benzene"),
    ("benzene", "methane"),
    ("bromomethane", "dimethyl-sulfide"),
    ("phosphine", "methanol"),
)
TEMPERATURE = 500.0  # K
CONFORMERS = 2
FRAMES = {"molecule": 4, "dipeptide": 3}  # of dynamics
EQUILIBRATE = {"molecule": 100, "dipeptide": 60}  # steps
PLACES = 6  # of a dimer
GAP = (0.8, 2.2)  # A beyond the sum of covalent radii, between the nearest atoms of a dimer
RATTLE = 0.03  # A

free_atoms = isolated_atoms


def groups() -> list[str]:
    """Molecules, dipeptides, dimers."""
    return [*MOLECULES, *(f"dipeptide-{pair}" for pair in DIPEPTIDES), *(f"dimer-{a}--{b}" for a, b in DIMERS)]


def group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one molecule, dipeptide or dimer."""
    rng = rng_of(name, seed)
    if name.startswith("dimer-"):
        monomer, partner = (conformers(MONOMERS[part], rng, 1)[0] for part in name.removeprefix("dimer-").split("--"))
        return label_all([(dimer(monomer, partner, rng), "dimer") for _ in range(PLACES)], name, tally)
    kind = "dipeptide" if name.startswith("dipeptide-") else "molecule"
    smiles = capped_smiles(name.removeprefix("dipeptide-")) if kind == "dipeptide" else MOLECULES[name]
    shapes = conformers(smiles, rng, CONFORMERS)
    path = trajectory(
        shapes[-1], rng, tally, temperature=TEMPERATURE, frames=FRAMES[kind], equilibrate=EQUILIBRATE[kind]
    )
    first, *other_shapes = shapes
    relaxed_shapes = [first, *(rattle(shape, rng, RATTLE) for shape in other_shapes)]  # a rigid molecule has only one
    frames = [(atoms, f"{kind} conformer") for atoms in relaxed_shapes] + [(atoms, f"{kind} 500K") for atoms in path]
    return label_all(frames, name, tally)


def capped_smiles(sequence: str) -> str:
    """SMILES of acetyl-`sequence`-N-methylamide of L-amino acids, one letter each."""
    residues = [RESIDUES.get(x) or f"N[C@@H]({SIDE_CHAINS[x]})C(=O)" for x in sequence]
    return f"CC(=O){''.join(residues)}NC"


def dimer(first: Atoms, second: Atoms, rng: np.random.Generator) -> Atoms:
    """Both molecules rattled; the second turned at random and put on a random side of the first, `GAP` away."""
    monomer, partner = rattle(first, rng, RATTLE), rattle(second, rng, RATTLE)
    monomer.positions -= monomer.positions.mean(axis=0)
    partner.positions -= partner.positions.mean(axis=0)
    phi, theta, psi = rng.uniform(0.0, 360.0, size=3)
    partner.euler_rotate(phi, theta, psi, center=(0.0, 0.0, 0.0))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    bonded = covalent_radii[monomer.numbers][:, None] + covalent_radii[partner.numbers]
    gap = rng.uniform(*GAP)
    shift = 0.0
    while True:
        distances = np.linalg.norm(monomer.positions[:, None] - (partner.positions + shift * direction), axis=2)
        if (distances - bonded).min() >= gap:
            break
        shift += 0.05
    partner.positions += shift * direction
    monomer.extend(partner)
    return monomer
