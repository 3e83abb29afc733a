"""The embedded example systems: structures from short molecular dynamics, labels at GFN2-xTB.

Two systems whose level of theory differs from the foundation's, as it does for users:

- ``nacl``: droplets NaCl(H2O)n, n = 8..14, neutral; one group a trajectory.
- ``molecules``: small organic molecules of H C N O F S Cl; one group a molecule.

Both carry the free atoms at the same level (config type ``IsolatedAtom``), because
NaCl(H2O)n alone cannot determine its atomic reference energies: Na and Cl, and H and
O, occur only in fixed ratios.

Every group has a random generator of its own, seeded by its name and the seed, so that
one group can be made again without the others. Labels come from a fresh calculation on
positions rounded to 1e-5 A: the numbers in the file belong to the positions in the file.

References
----------
ETKDG conformers: S. Riniker, G. A. Landrum, J. Chem. Inf. Model. 55, 2562 (2015).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np
from ase import Atoms
from ase.build import molecule

from retemper.errors import unknown
from retemper.xtb import Tally, isolated_atoms, label_all, trajectory

DROPLET_SIZES = range(8, 15)  # water molecules
DROPLET_TRAJECTORIES = 24
DROPLET_TEMPERATURES = (300.0, 350.0, 400.0, 450.0)  # K
DROPLET_FRAMES = 10  # a trajectory
CONTACT = 3.3  # A; Na and Cl nearer than this are a contact pair

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
MOLECULE_TEMPERATURE = 500.0  # K
MOLECULE_MD_FRAMES = 5
MOLECULE_RATTLED = 3  # rattled conformers
RATTLE = 0.03  # A, standard deviation


def generator(name: str, seed: int) -> np.random.Generator:
    """Random generator of the group `name`: the same on every machine, independent of other groups."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{name}-{seed}".encode()).digest()[:8], "little"))


def droplet(n_waters: int, rng: np.random.Generator, *, separated: bool) -> Atoms:
    """Random start NaCl(H2O)n: Na and Cl in the middle, waters packed around them.

    The ions are in contact (2.5 to 3.5 A) or `separated` (4.5 to 6 A), with water between them.
    Waters go one by one to the random free place nearest the line from Na to Cl; no two oxygens
    come closer than 2.6 A, no oxygen closer than 2.3 A to Na or 3.0 A to Cl.
    """
    distance = rng.uniform(4.5, 6.0) if separated else rng.uniform(2.5, 3.5)
    atoms = Atoms("NaCl", positions=[[-distance / 2, 0, 0], [distance / 2, 0, 0]])
    water = molecule("H2O")
    water.positions -= water.positions[0]
    oxygens = np.empty((0, 3))
    while len(oxygens) < n_waters:
        places = rng.uniform(-8.0, 8.0, size=(4000, 3))
        from_ions = np.linalg.norm(places[:, None] - atoms.positions[:2], axis=2)
        free = (from_ions[:, 0] > 2.3) & (from_ions[:, 1] > 3.0)
        if len(oxygens):
            free &= np.linalg.norm(places[:, None] - oxygens, axis=2).min(axis=1) > 2.6
        beyond = np.clip(np.abs(places[free, 0]) - distance / 2, 0.0, None)
        place = places[free][np.hypot(beyond, np.linalg.norm(places[free, 1:], axis=1)).argmin()]
        copy = water.copy()
        copy.euler_rotate(*rng.uniform(0.0, 360.0, size=3), center=(0.0, 0.0, 0.0))
        copy.translate(place)
        atoms += copy
        oxygens = np.vstack([oxygens, place])
    return atoms


def conformers(smiles: str, rng: np.random.Generator, number: int) -> list[Atoms]:
    """ETKDG conformers, relaxed with MMFF94; [n_atoms, 3] positions in A with hydrogens."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = int(rng.integers(2**31 - 1))  # type: ignore[assignment]  # rdkit's stub is wrong here
    ids = rdDistGeom.EmbedMultipleConfs(mol, number, parameters)
    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol)
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    return [Atoms(symbols, positions=mol.GetConformer(i).GetPositions()) for i in ids]


def nacl_group(index: int, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of droplet trajectory `index`."""
    group = f"nacl-{index:02d}"
    rng = generator(group, seed)
    size = DROPLET_SIZES[index % len(DROPLET_SIZES)]
    temperature = DROPLET_TEMPERATURES[index % len(DROPLET_TEMPERATURES)]
    start = droplet(size, rng, separated=bool(index // len(DROPLET_TEMPERATURES) % 2))
    path = trajectory(start, rng, tally, temperature=temperature, frames=DROPLET_FRAMES, equilibrate=150)
    pairs = ("contact-pair" if atoms.get_distance(0, 1) < CONTACT else "separated-pair" for atoms in path)
    return label_all(zip(path, pairs, strict=True), group, tally)


def molecule_group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one molecule: rattled conformers, then dynamics at 500 K."""
    rng = generator(name, seed)
    shapes = conformers(MOLECULES[name], rng, MOLECULE_RATTLED)
    structures = []
    for shape in shapes:
        rattled = shape.copy()
        rattled.positions += rng.normal(0.0, RATTLE, size=rattled.positions.shape)
        structures.append((rattled, "rattled"))
    path = trajectory(
        shapes[0], rng, tally, temperature=MOLECULE_TEMPERATURE, frames=MOLECULE_MD_FRAMES, equilibrate=100
    )
    return label_all([*structures, *((atoms, "dynamics") for atoms in path)], name, tally)


def generate(system: str, *, seed: int = 0, report: Callable[[str], None] = print) -> list[Atoms]:
    """All frames of an example system, isolated atoms first.

    Parameters
    ----------
    system
        ``nacl`` or ``molecules``.
    seed
        Changes every group.
    report
        Receives a line of progress a group, and the count of what was left out at the end.

    Raises
    ------
    RetemperError
        Another system name.
    """
    jobs: list[Callable[[Tally], list[Atoms]]]
    if system == "nacl":
        jobs = [partial(nacl_group, index, seed) for index in range(DROPLET_TRAJECTORIES)]
    elif system == "molecules":
        jobs = [partial(molecule_group, name, seed) for name in MOLECULES]
    else:
        raise unknown("example system", system, ["nacl", "molecules"])
    tally = Tally()
    frames: list[Atoms] = []
    for number, job in enumerate(jobs, start=1):
        group = job(tally)
        frames += group
        name = group[0].info["group"] if group else "nothing kept"
        report(f"{system} {number}/{len(jobs)}: {name}, {len(group)} frames")
    symbols = sorted({symbol for frame in frames for symbol in frame.symbols})
    report(str(tally))
    return isolated_atoms(symbols) + frames
