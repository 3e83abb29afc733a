"""Generate the pretraining structures and label them with SevenNet-0 (PBE level).

Run in the environment of ``requirements.txt``, one process per shard::

    python structures.py label --shard 0/2 --out labelled-0.extxyz
    python structures.py label --shard 1/2 --out labelled-1.extxyz
    python structures.py split labelled-0.extxyz labelled-1.extxyz --out .

Structures come in groups (a prototype with its strained copies, a molecule with
its conformers, a trajectory). A group has a random generator of its own, seeded
by its name, so a shard's output does not depend on the number of shards, and a
group never straddles the train/valid/test split.

Energies are eV, forces eV/A, stresses eV/A^3 (ASE sign). SevenNet-0: Park et al.,
J. Chem. Theory Comput. 20, 4857 (2024), trained on MPtrj (PBE and PBE+U).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.data import atomic_numbers, covalent_radii
from ase.io import iread, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

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

# --- small helpers ------------------------------------------------------------------


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


# --- families: each yields (group, config_type, builder) -------------------------------


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


def packed(parts: list[Atoms], box: float, periodic: bool, rng: np.random.Generator) -> Atoms | None:
    """Molecules at random places and orientations in a cube of side `box` (A)."""
    from ase.geometry import get_distances

    total = Atoms(cell=[box] * 3, pbc=periodic)
    for part in parts:
        for _ in range(400):
            trial = part.copy()
            trial.euler_rotate(*(rng.uniform(0, 360, 3)), center="COM")
            trial.positions += rng.random(3) * box - trial.get_center_of_mass()
            if len(total) == 0:
                break
            _, d = get_distances(total.positions, trial.positions, cell=total.cell, pbc=total.pbc)
            r = covalent_radii[total.numbers][:, None] + covalent_radii[trial.numbers][None, :]
            if (d / (r + 0.5)).min() > 1.0:
                break
        else:
            return None
        total += trial
    if not periodic:
        total.cell[:] = 0
    return total


def trajectories(calculator) -> Iterator[tuple[str, str, Callable]]:
    """Short SevenNet-0 MD of clusters and liquids, every few steps a frame."""
    species = {
        "H2O": molecule("H2O"), "NH3": molecule("NH3"), "CH3OH": molecule("CH3OH"), "CH4": molecule("CH4"),
        "HF": Atoms("HF", positions=[(0, 0, 0), (0, 0, 0.93)]), "HCl": Atoms("HCl", positions=[(0, 0, 0), (0, 0, 1.3)]),
        "CO2": molecule("CO2"), "CH3Cl": molecule("CH3Cl"), "H2S": Atoms("SH2", positions=molecule("H2O").positions * 1.35),
        "CH3F": Atoms("CFH3", positions=molecule("CH3Cl").positions * 0.95),
    }  # fmt: skip
    for element in ELEMENTS:
        species.setdefault(element, Atoms(element))

    def build(counts: dict[str, int], density: float, periodic: bool, kelvin: float, frames: int, rng):
        parts = [species[name] for name, n in counts.items() for _ in range(n)]
        rng.shuffle(parts)
        size = sum(4 / 3 * np.pi * (radius(s) + 0.3) ** 3 for part in parts for s in part.symbols)
        box = (size / density) ** (1 / 3)
        for _ in range(25):
            atoms = packed(parts, box, periodic, rng)
            if atoms is not None:
                break
            box *= 1.03
        else:
            return
        atoms.calc = calculator
        FIRE(atoms, logfile=None).run(fmax=1.0, steps=10)
        MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
        light = 1 in atoms.numbers
        md = Langevin(
            atoms, (0.7 if light else 2.0) * units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng
        )
        for _ in range(frames):
            md.run(4)
            if closest(atoms) < 0.4:
                return
            frame = atoms.copy()
            frame.calc = None
            yield frame

    water = [({"H2O": n}, False, 350.0) for n in range(2, 9)]
    ions = [({"H2O": n, **ion}, False, 400.0)
            for ion in ({"Na": 1, "Cl": 1}, {"K": 1, "Cl": 1}, {"Li": 1, "F": 1}, {"Na": 1, "Br": 1}, {"Mg": 1, "Cl": 2},
                        {"Ca": 1, "Cl": 2}, {"K": 1, "I": 1}, {"Na": 2, "Cl": 2}, {"HCl": 1}, {"HF": 1})
            for n in (4, 7)]  # fmt: skip
    ions += [({"H2O": n, "Na": 1, "Cl": 1}, False, 400.0) for n in (5, 8)]
    mixed = [({"CH3OH": 3}, False, 350.0), ({"NH3": 4}, False, 300.0), ({"HF": 4}, False, 300.0), ({"H2S": 3}, False, 300.0),
             ({"CH4": 3, "CO2": 2}, False, 300.0), ({"CH3Cl": 2, "H2O": 2}, False, 300.0), ({"CH3F": 2, "H2O": 2}, False, 300.0),
             ({"CH3OH": 2, "H2O": 3}, False, 350.0), ({"NH3": 2, "H2O": 3}, False, 350.0)]  # fmt: skip
    liquids = [({"H2O": n}, True, 350.0) for n in (6, 8, 8)]
    liquids += [({"H2O": 6, "Na": 1, "Cl": 1}, True, 400.0)] * 2
    liquids += [({"CH3OH": 4}, True, 350.0), ({"NH3": 6}, True, 300.0), ({"HF": 8}, True, 350.0)]
    liquids += [({a: 8, b: 8}, True, 1300.0) for a, b in
                (("Li", "Cl"), ("Na", "Cl"), ("K", "Br"), ("Li", "F"), ("Na", "I"), ("K", "F"), ("Mg", "O"), ("Ca", "S"), ("Cu", "Cl"))]  # fmt: skip
    liquids += [({"Zn": 5, "Cl": 10}, True, 1000.0), ({"Si": 5, "O": 10}, True, 2500.0), ({"Ti": 5, "O": 10}, True, 2500.0),
                ({"Ge": 5, "S": 10}, True, 1500.0), ({"Al": 6, "O": 9}, True, 2500.0), ({"B": 6, "O": 9}, True, 1800.0),
                ({"Li": 6, "P": 2, "S": 8}, True, 900.0), ({"Li": 6, "P": 1, "S": 5, "Cl": 1}, True, 900.0),
                ({"Na": 4, "Al": 2, "Cl": 10}, True, 900.0), ({"K": 4, "Ca": 2, "Br": 8}, True, 1200.0),
                ({"Mg": 4, "Si": 4, "O": 12}, True, 2500.0), ({"Li": 4, "Ti": 3, "O": 8}, True, 2000.0)]  # fmt: skip
    liquids += [({m: 12}, True, 1500.0) for m in METALS]
    liquids += [({a: 6, b: 6}, True, 1500.0) for a, b in (("Cu", "Zn"), ("Al", "Mg"), ("Li", "Si"), ("Ti", "Al"), ("Na", "K"), ("C", "N"), ("B", "N"), ("Si", "C"))]  # fmt: skip
    clusters = [({a: n, b: n}, False, 800.0) for a, b, n in
                (("Na", "Cl", 4), ("Na", "Cl", 6), ("Li", "F", 4), ("K", "Br", 4), ("Mg", "O", 4), ("Li", "I", 3), ("Cu", "S", 4), ("Ca", "O", 4))]  # fmt: skip
    clusters += [({m: 7}, False, 800.0) for m in METALS]
    for k, (counts, periodic, kelvin) in enumerate(water + ions + mixed + liquids + clusters):
        density = 0.62 if periodic else 0.35
        tag = "liquid" if periodic else "cluster"
        name = "".join(f"{s}{n}" for s, n in counts.items())
        yield (f"{tag}-{name}-{k}", tag, lambda r, c=counts, d=density, p=periodic, t=kelvin: build(c, d, p, t, 8, r))


# --- the two commands -------------------------------------------------------------------


def label_shard(shard: int, shards: int, wanted: list[str], out: Path) -> None:
    import torch
    from sevenn.calculator import SevenNetCalculator

    torch.set_num_threads(1)
    calculator = SevenNetCalculator("7net-0", device="cpu")
    rejected: dict[str, int] = defaultdict(int)

    def energy(atoms: Atoms) -> float:
        trial = atoms.copy()
        trial.calc = calculator
        return float(trial.get_potential_energy())

    def relaxed(atoms: Atoms, steps: int) -> Atoms:
        trial = atoms.copy()
        trial.calc = calculator
        FIRE(trial, logfile=None).run(fmax=0.05, steps=steps)
        trial.calc = None
        return trial

    def label(atoms: Atoms) -> Atoms | None:
        """Single point, or None when the structure is unphysical (counted in `rejected`)."""
        atoms = atoms.copy()
        atoms.wrap()
        atoms.positions = atoms.positions.round(5)
        if atoms.pbc.any():
            atoms.set_cell(atoms.cell.array.round(5))
        if len(atoms) > 1 and closest(atoms) < 0.45:
            rejected["too close"] += 1
            return None
        trial = atoms.copy()
        trial.calc = calculator
        energy, forces = float(trial.get_potential_energy()), trial.get_forces()
        if not np.isfinite(forces).all() or np.abs(forces).max() > 25:
            rejected["force above 25 eV/A"] += 1
            return None
        plain = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        plain.info["REF_energy"] = round(energy, 6)
        plain.arrays["REF_forces"] = forces.round(5)
        if atoms.pbc.any():
            plain.info["REF_stress"] = trial.get_stress(voigt=False).round(7)
        return plain

    def isolated() -> Iterator[tuple[str, str, Callable]]:
        for element in ELEMENTS:
            yield element, "IsolatedAtom", lambda r, e=element: iter([Atoms(e)])

    families = {
        "isolated": isolated(), "dimers": dimers(), "molecules": molecules(relaxed), "crystals": crystals(energy),
        "random": random_cells(), "trajectories": trajectories(calculator),
    }  # fmt: skip
    start, count = time.time(), 0
    temporary = out.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    for index, (group, config_type, build) in enumerate(
        itertools.chain(*(families[name] for name in wanted or families))
    ):
        if index % shards != shard:
            continue
        for atoms in build(np.random.default_rng(seed_of(group))):
            labelled = label(atoms)
            if labelled is not None:
                labelled.info.update(
                    config_type=config_type, group=f"{config_type}:{group}"
                )  # never read as a bool or number
                write(temporary, labelled, format="extxyz", append=True)
                count += 1
        if index % 50 == shard:
            print(
                f"{index} {group}: {count} frames, {time.time() - start:.0f} s, rejected {dict(rejected)}", flush=True
            )
    temporary.rename(out)
    print(f"{count} frames in {out}, rejected {dict(rejected)}")


def split(inputs: list[Path], out: Path) -> None:
    """Write train/valid/test; whole groups, the same shares in every configuration type.

    SevenNet-0 gives absurd labels to cells far denser than its training set. Left out: more
    than 0.6 eV/A^3 (96 GPa) of stress, or more than 10 eV/atom from the free atoms.
    """
    frames = [atoms for path in inputs for atoms in iread(path, index=":", format="extxyz")]
    free = {str(a.symbols[0]): a.info["REF_energy"] for a in frames if a.info["config_type"] == "IsolatedAtom"}
    groups: dict[str, dict[str, list[Atoms]]] = defaultdict(lambda: defaultdict(list))
    left_out = 0
    for atoms in frames:
        binding = (atoms.info["REF_energy"] - sum(free[s] for s in atoms.symbols)) / len(atoms)
        if abs(binding) > 10 or np.abs(atoms.info.get("REF_stress", 0.0)).max() > 0.6:
            left_out += 1
            continue
        groups[atoms.info["config_type"]][atoms.info["group"]].append(atoms)
    print(f"{left_out} of {len(frames)} frames left out: outside the labeller's domain")
    sets: dict[str, list[Atoms]] = {"train": [], "valid": [], "test": []}
    for config_type in sorted(groups):
        names = sorted(groups[config_type])
        np.random.default_rng(seed_of(config_type)).shuffle(names)
        total = sum(len(groups[config_type][n]) for n in names)
        seen = 0
        for name in names:
            share = seen / total
            target = "train" if config_type == "IsolatedAtom" or share >= 0.15 else "test" if share < 0.1 else "valid"
            sets[target] += groups[config_type][name]
            seen += len(groups[config_type][name])
    for name, frames in sets.items():
        path = out / f"{name}.extxyz.xz"
        write(path, frames, format="extxyz")
        print(f"{path}: {len(frames)} frames, {sum(map(len, frames))} atoms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("label", help="generate and label one shard")
    one.add_argument("--shard", default="0/1", help="which of how many, as 0/2")
    one.add_argument(
        "--families", nargs="*", default=[], help="isolated dimers molecules crystals random trajectories; default all"
    )
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("split", help="merge shards and split by group")
    two.add_argument("inputs", type=Path, nargs="+")
    two.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "label":
        shard, shards = map(int, args.shard.split("/"))
        label_shard(shard, shards, args.families, args.out)
    else:
        split(args.inputs, args.out)


if __name__ == "__main__":
    sys.exit(main())
