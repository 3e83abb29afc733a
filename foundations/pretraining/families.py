"""Families of single structures: crystals, random cells, dimers, molecules.

Each family yields ``(group, config_type, builder)``; a builder takes the group's own random
generator and yields structures. The labeller comes in as functions, so nothing here needs it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

ELEMENTS = "H Li B C N O F Na Mg Al Si P S Cl K Ca Ti Cu Zn Ge Br I".split()
CATIONS = "H Li Na K Mg Ca Zn Cu Al Ti Si B Ge".split()
ANIONS = "N O F P S Cl C Br I".split()
METALS = "Li Na K Mg Ca Al Ti Cu Zn Ge Si".split()
ELEMENTAL = ("sc", "bcc", "fcc", "hcp", "diamond")
BINARY = ("rocksalt", "cesiumchloride", "zincblende", "wurtzite", "fluorite", "antifluorite")
PEROVSKITES = [
    (a, b, x)
    for (a, b), x in itertools.product(
        [
            ("Li", "Ti"),
            ("Na", "Al"),
            ("K", "Mg"),
            ("K", "Zn"),
            ("Ca", "Ti"),
            ("Ca", "Si"),
            ("Na", "Cu"),
            ("Mg", "Ge"),
            ("K", "Ca"),
            ("Ca", "Ge"),
            ("Li", "Al"),
            ("K", "B"),
        ],
        ["O", "F", "S", "Cl", "Br"],
    )
]
SMILES = """
[HH] O=O N#N FF ClCl BrBr II Cl Br I F C O N S P B SiH4:[SiH4] BF3:FB(F)F BCl3:ClB(Cl)Cl
CC C=C C#C CCC CC=C CC#C C1CC1 CCCC C=CC=C c1ccccc1 Cc1ccccc1 C1CCCCC1 CC(C)C CC(C)(C)C
CO CCO CC(C)O OCCO C=O CC=O CC(C)=O OC=O CC(=O)O COC C1CO1 C1COCCO1 COC=O CC(=O)OC O=C=O [C-]#[O+]
CN CCN CNC CN(C)C C#N CC#N NC=O CC(N)=O NCC(=O)O CC(N)C(=O)O CNC(C)=O NC(=O)N c1ccncc1 c1cc[nH]c1
c1cnc[nH]1 N=N NN NO CN=[N+]=[N-] C[N+](=O)[O-] ON=O N=C=O CN=C=O
CS CSC CSSC CCS S=C=S CS(C)=O CS(=O)(=O)C c1ccsc1 CC(=O)S SCC(N)C(=O)O O=S=O OS(=O)(=O)O S=C(N)N
CF C(F)F FC(F)F FC(F)(F)F CCF FC=C Fc1ccccc1 CCl ClCCl ClC(Cl)Cl ClC(Cl)(Cl)Cl CCCl ClC=C Clc1ccccc1
CBr BrCBr CCBr BrC=C CI ICI CCI IC=C FCCl ClCBr BrCI FC(=O)C ClC(=O)C FCF FCBr ClCI FCI
CP CPC CP(C)C OP(=O)(O)O COP(=O)(O)O CP(C)(C)=O PCCP S=P(O)(O)O ClP(Cl)Cl FP(F)F
C[SiH3] C[SiH2]C C[Si](C)(C)C O[Si](O)(O)O C[SiH2]O F[Si](F)(F)F Cl[Si](Cl)(Cl)Cl [SiH3][SiH3]
CB(O)O OB(O)O CB(C)C COB(O)O NB CC(=O)NCC(=O)NC CC(=O)N[C@@H](C)C(=O)NC OCC(O)CO O=C1OCCO1 CCOC(=O)OC
OO COO O=C(O)CC(=O)O NCCN NCCO SCCO FCCO ClCCO C=CC#N C=CC=O O=CC=O CC(=O)C(C)=O c1ccoc1 Oc1ccccc1 Nc1ccccc1
CC(F)(F)F OC(F)F NC(=S)N CSC=O CNCO COCN CC(O)=N C1CNC1 C1CSC1 C1COC1 O=C1CCC1 CCCCC CCCCCC CC(C)CO CCCN
""".split()


def radius(symbol: str) -> float:
    """Covalent radius in A (Cordero et al. 2008, as tabulated in ASE)."""
    return float(covalent_radii[atomic_numbers[symbol]])


def rattle(atoms: Atoms, sigma: float, rng: np.random.Generator) -> Atoms:
    """Copy with normal displacements of standard deviation `sigma` (A)."""
    copy = atoms.copy()
    copy.positions += rng.normal(scale=sigma, size=copy.positions.shape)
    return copy


def strain(atoms: Atoms, volume: float, shear: float, rng: np.random.Generator) -> Atoms:
    """Copy with its volume scaled by `volume` and a random symmetric strain of scale `shear`."""
    copy = atoms.copy()
    eps = rng.normal(scale=shear, size=(3, 3))
    deform = (np.eye(3) + (eps + eps.T) / 2) * volume ** (1 / 3)
    copy.set_cell(copy.cell.array @ deform, scale_atoms=True)
    return copy


def closest(atoms: Atoms) -> float:
    """Smallest distance divided by the sum of covalent radii (periodic images included)."""
    from ase.neighborlist import neighbor_list

    i, j, d = neighbor_list("ijd", atoms, 4.0)
    if len(d) == 0:
        return np.inf
    r = covalent_radii[atoms.numbers]
    return float((d / (r[i] + r[j])).min())


def seed_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def crystal(symbols: tuple[str, ...], prototype: str) -> Atoms:
    """Primitive cell of a prototype, lattice constant from covalent radii."""
    mean = 2 * float(np.mean([radius(s) for s in symbols]))
    if len(symbols) == 1:
        a = {"sc": 1.0, "bcc": 1.155, "fcc": 1.414, "hcp": 1.0, "diamond": 2.309}[prototype] * mean
        return bulk(symbols[0], prototype, a=a, **({"c": 1.633 * a} if prototype == "hcp" else {}))
    if len(symbols) == 3:
        a_site, b_site, x = symbols
        a = 2 * (radius(b_site) + radius(x))
        positions = [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]
        return Atoms([a_site, b_site, x, x, x], scaled_positions=positions, cell=[a] * 3, pbc=True)
    if prototype == "antifluorite":
        symbols, prototype = symbols[::-1], "fluorite"
    if prototype == "L1_2":
        a = 1.414 * mean
        positions = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
        return Atoms([symbols[0]] + [symbols[1]] * 3, scaled_positions=positions, cell=[a] * 3, pbc=True)
    factor = {"rocksalt": 2.0, "cesiumchloride": 1.155, "zincblende": 2.309, "fluorite": 2.309, "wurtzite": 1.633}
    name = "".join(symbols) + ("2" if prototype == "fluorite" else "")
    return bulk(name, prototype, a=factor[prototype] * mean)


def crystals(energy: Callable[[Atoms], float]) -> Iterator[tuple[str, str, Callable]]:
    """Prototypes at the labeller's own volume, with strained and rattled copies."""

    def build(symbols: tuple[str, ...], prototype: str, copies: int, rng: np.random.Generator):
        atoms = crystal(symbols, prototype)
        scales = np.linspace(0.82, 1.3, 13)
        energies = []
        for scale in scales:
            trial = atoms.copy()
            trial.set_cell(trial.cell * scale, scale_atoms=True)
            energies.append(energy(trial))
        atoms.set_cell(atoms.cell * scales[int(np.argmin(energies))], scale_atoms=True)
        yield atoms
        for k in range(copies):
            copy = atoms.copy()
            if len(copy) <= 5 and rng.random() < 0.6:
                repeat = [1, 1, 1]
                repeat[rng.integers(3)] = 2
                if len(copy) <= 2 and rng.random() < 0.5:
                    repeat[rng.integers(3)] = 2
                copy = copy.repeat(repeat)
            copy = strain(copy, rng.uniform(0.82, 1.2), 0.04, rng)
            yield rattle(copy, [0.02, 0.06, 0.12, 0.2, 0.3][k % 5], rng)

    rng = np.random.default_rng(seed_of("crystals"))
    for element in ELEMENTS:
        for prototype in ELEMENTAL:
            yield f"{element}-{prototype}", "crystal", lambda r, e=element, p=prototype: build((e,), p, 4, r)
    for cation, anion in itertools.product(CATIONS, ANIONS):
        for prototype in rng.choice(BINARY, size=3, replace=False):
            yield (
                f"{cation}{anion}-{prototype}",
                "crystal",
                lambda r, s=(cation, anion), p=str(prototype): build(s, p, 4, r),
            )
    for pair in itertools.combinations(METALS, 2):
        prototype = str(rng.choice(["cesiumchloride", "L1_2"]))
        yield "".join(pair) + "-" + prototype, "crystal", lambda r, s=pair, p=prototype: build(s, p, 4, r)
    for symbols in PEROVSKITES:
        yield "".join(symbols) + "3-perovskite", "crystal", lambda r, s=symbols: build(s, "perovskite", 4, r)


def random_cells() -> Iterator[tuple[str, str, Callable]]:
    """Random cells, 2 to 8 atoms of 1 to 4 elements: what structure searches visit."""

    def build(rng: np.random.Generator):
        symbols = rng.choice(rng.choice(ELEMENTS, size=rng.integers(1, 5), replace=False), size=rng.integers(2, 9))
        volume = sum(4 / 3 * np.pi * radius(s) ** 3 for s in symbols) * rng.uniform(1.6, 5.0)
        for _ in range(500):
            cell = np.eye(3) + rng.normal(scale=0.25, size=(3, 3))
            if np.linalg.det(cell) < 0.4:
                continue
            cell *= (volume / np.linalg.det(cell)) ** (1 / 3)
            atoms = Atoms(list(symbols), scaled_positions=rng.random((len(symbols), 3)), cell=cell, pbc=True)
            if closest(atoms) > 0.65:
                yield atoms
                return

    for k in range(750):
        yield f"random-{k}", "random", build


def dimers() -> Iterator[tuple[str, str, Callable]]:
    """Every pair of elements from the repulsive wall to the tail."""

    def build(pair: tuple[str, str], rng: np.random.Generator):
        sigma = radius(pair[0]) + radius(pair[1])
        for low, high in ((0.62, 0.8), (0.8, 1.0), (1.0, 1.3), (1.3, 2.2)):
            yield Atoms(list(pair), positions=[(0, 0, 0), (sigma * rng.uniform(low, high), 0, 0)])

    for pair in itertools.combinations_with_replacement(ELEMENTS, 2):
        yield "-".join(pair), "dimer", lambda r, p=pair: build(p, r)


def from_smiles(smiles: str, seed: int) -> Atoms | None:
    from rdkit import Chem, RDLogger
    from rdkit.Chem import AllChem

    RDLogger.DisableLog("rdApp.*")
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if mol.GetNumAtoms() > 1 and AllChem.EmbedMolecule(mol, randomSeed=seed % 2**31) != 0:
        return None
    if AllChem.MMFFHasAllMoleculeParams(mol):
        AllChem.MMFFOptimizeMolecule(mol)
    return Atoms([a.GetSymbol() for a in mol.GetAtoms()], positions=mol.GetConformer().GetPositions())


def molecules(relaxed: Callable[[Atoms, int], Atoms]) -> Iterator[tuple[str, str, Callable]]:
    """Small molecules: relaxed, rattled, uniformly stretched, two fragments pulled apart."""

    def build(smiles: str, rng: np.random.Generator):
        for _ in range(2):
            atoms = from_smiles(smiles, int(rng.integers(2**31)))
            if atoms is None or len(atoms) > 24:
                return
            atoms = relaxed(atoms, 12)
            yield atoms
            for sigma in (0.03, 0.08, 0.15):
                yield rattle(atoms, sigma, rng)
            stretched = rattle(atoms, 0.03, rng)
            stretched.positions *= rng.uniform(0.9, 1.25)
            yield stretched

    for entry in dict.fromkeys(SMILES):
        smiles = entry.split(":")[-1]
        yield smiles, "molecule", lambda r, s=smiles: build(s, r)
