"""A registered version written for other programs, each file checked by loading it back.

==============  ===========================================  =======================================
format          file                                         for
==============  ===========================================  =======================================
model           ``<name>.model``                             anything that reads MACE models; one head
ase             the same and ``<name>-ase.py``               ASE, without retemper
torch-sim       the same and ``<name>-torch-sim.py``         torch-sim
lammps          ``<name>-lammps.pt``                         ``pair_style mace`` (ACEsuit's LAMMPS)
lammps-mliap    ``<name>-mliap_lammps.pt``                   ``pair_style mliap unified`` (Python ML-IAP)
==============  ===========================================  =======================================

The LAMMPS files are made by MACE's own exporters and evaluated here the way LAMMPS does it for
one process, with ghost atoms; LAMMPS itself is not run. LAMMPS has no charge and spin of a whole
system, so that a model whose energy depends on them is not written for it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.core.errors import RetemperError, unknown
from retemper.core.files import atomic_write, sha256, write_json
from retemper.data import charge
from retemper.models import lammps, library, mace, model_writing
from retemper.models.convert import require_state, single_head, torch_sim_model
from retemper.registry import attachments
from retemper.registry.client import Version, open_registry
from retemper.registry.formats import FORMATS
from retemper.registry.versions import resolve

# Largest difference to MACE's own calculator: eV, and eV/A.
TOLERANCE = {"float64": (1e-6, 1e-6), "float32": (5e-3, 5e-3)}
# Lines of an input file; `pair_coeff` names the element of each atom type: keep those that the data file has.
LAMMPS = {
    "lammps": (
        "units metal",
        "atom_style atomic",
        "newton on",
        "pair_style mace no_domain_decomposition",
        "pair_coeff * * {file} {elements}",
    ),
    "lammps-mliap": (
        "units metal",
        "atom_style atomic",
        "newton on",
        "pair_style mliap unified {file} 0",
        "pair_coeff * * {elements}",
    ),
}
ASE = '''"""A fine-tuned MACE model as ASE calculator.

Needs mace-torch and ase. Energies in eV, forces in eV/A, stress in eV/A^3. A model that reads them
takes the total charge (e) and the multiplicity 2S + 1 from atoms.info["charge"] and atoms.info["spin"].
"""

import hashlib
from pathlib import Path

from mace.calculators import MACECalculator
from mace.tools import torch_tools

ABOUT = {about}
MODEL = Path(__file__).with_name({model})
SHA256 = {sha256}


class Calculator(MACECalculator):
    """MACE's, in its own precision, whatever torch's default is."""

    def calculate(self, *arguments, **keywords):
        with torch_tools.default_dtype(self.default_dtype):
            super().calculate(*arguments, **keywords)


def calculator(device="cpu", dtype={dtype}):
    if hashlib.sha256(MODEL.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{{MODEL}} is not the exported file")
    return Calculator(model_paths=[str(MODEL)], device=device, default_dtype=dtype, head={head})
'''
TORCH_SIM = '''"""A fine-tuned MACE model for torch-sim.

Needs torch-sim-atomistic and mace-torch. Energies in eV, forces in eV/A, stress in eV/A^3.
"""

import hashlib
from pathlib import Path

import mace  # noqa: F401  (before torch loads the file: it allows pickled modules)
import torch
from torch_sim.models.mace import MaceModel

ABOUT = {about}
MODEL = Path(__file__).with_name({model})
SHA256 = {sha256}


def model(device="cpu", dtype=getattr(torch, {dtype})):
    if hashlib.sha256(MODEL.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{{MODEL}} is not the exported file")
    loaded = torch.load(MODEL, map_location=device, weights_only=False)
    return MaceModel(model=loaded, device=torch.device(device), dtype=dtype)
'''
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of files, also in the words of LAMMPS and a shell


def export(root: Path, name: str, to: str, folder: Path, dtype: str = "float64", head: str | None = None) -> list[Path]:
    """Write a registered version for another program, with a ``.json`` that says what it is.

    Parameters
    ----------
    name : str
        As `retemper.load` takes it.
    to : str
        One of ``model``, ``ase``, ``torch-sim``, ``lammps``, ``lammps-mliap``.
    folder : path
        Where to write; made where there is none.
    dtype : str
        Of the computation in the other program; a ``.model`` keeps the precision it was trained in.
    head : str, optional
        One of the model's; default: the one that learned the target. Another is part of the files' names.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    RetemperError
        An unknown name or format, tampered weights, a program that is not installed, a format that
        cannot tell the model the charge and spin that it reads, or a file that gives other energies
        or forces than MACE's own calculator.
    """
    if to not in FORMATS:
        raise unknown("export format", to, FORMATS)
    if dtype not in mace.DTYPES:
        raise unknown("dtype", dtype, mace.DTYPES)
    with open_registry(root, existing=True) as registry, tempfile.TemporaryDirectory() as temporary:
        version = resolve(registry, name)
        weights = attachments.weights(registry, version, Path(temporary))
        read = require_state(weights, to)
        of_target = mace.pick_head(weights, version.tags.get("head"))
        head = of_target if head is None else mace.pick_head(weights, head)
        stem = _stem(version) if head == of_target else _named(f"{_stem(version)}-{head}", head)
        model_path = single_head(weights, head, Path(temporary) / "single.model")
        folder.mkdir(parents=True, exist_ok=True)
        about = f"{version.name}: {version.tags.get('strategy')}, seed {version.tags.get('seed')}"
        constants = {
            "about": about,
            "model": f"{stem}.model",
            "head": head,
            "dtype": dtype,
            "sha256": sha256(model_path),
        }
        words = {name: repr(value) for name, value in constants.items()}  # literals, whatever the registry says
        paths = _write(model_path, head, to, folder, stem, dtype, words)
        _check(weights, head, paths[0], to, dtype)
        elements = [chemical_symbols[z] for z in mace.elements(model_path)]
        facts: dict[str, object] = {
            "model": version.name,
            "format": to,
            "registered_sha256": version.sha256,
            "files": {path.name: sha256(path) for path in paths},
            "head": head,
            "elements": elements,
            "cutoff": float(mace.load(model_path).r_max),
            "units": {"energy": "eV", "forces": "eV/A", "length": "A"},
            "reads": {name: f"atoms.info[{charge.SPELLINGS[name][1]!r}]" for name in read},
        }
        if to in LAMMPS:
            words = {"file": paths[0].name, "elements": " ".join(elements)}
            facts["lammps"] = [line.format(**words) for line in LAMMPS[to]]
            facts["checked"] = "loaded by MACE's own code and evaluated for two structures; not run in LAMMPS itself"
        write_json(folder / f"{stem}-{to}.json", facts)
    return [*paths, folder / f"{stem}-{to}.json"]


def _stem(version: Version) -> str:
    """Beginning of the files' names; a name of letters that files, LAMMPS or a shell take otherwise is refused."""
    return _named(f"{version.system}-{version.number}", version.system)


def _named(stem: str, what: str) -> str:
    """`stem`, where `what` is fit to be part of it."""
    if not NAME.fullmatch(stem):
        raise RetemperError(
            f"The registered model, or its head, is called {what!r}, which cannot name a file for other programs.",
            expected="letters, digits, '.', '_' and '-'",
            fix="register it under another name (system in params.yaml)",
        )
    return stem


def _write(
    model_path: Path, head: str, to: str, folder: Path, stem: str, dtype: str, words: dict[str, str]
) -> list[Path]:
    """Write the files of a format; the first is the one to check."""
    if to in ("lammps", "lammps-mliap"):
        path = folder / (f"{stem}-lammps.pt" if to == "lammps" else f"{stem}-mliap_lammps.pt")
        with atomic_write(path) as temporary:
            write = lammps.write_libtorch if to == "lammps" else lammps.write_mliap
            write(model_path, head, dtype, temporary)
        return [path]
    path = folder / f"{stem}.model"
    with atomic_write(path) as temporary:
        temporary.write_bytes(model_path.read_bytes())
    if to == "model":
        return [path]
    script = folder / f"{stem}-{to}.py"
    with atomic_write(script) as temporary:
        temporary.write_text((ASE if to == "ase" else TORCH_SIM).format(**words), encoding="utf-8")
    return [path, script]


# ------------------------------------------------------------------ loading back


def _check(weights: Path, head: str, written: Path, to: str, dtype: str) -> None:
    """Energies and forces of the written file against MACE's calculator on the registered weights."""
    library.import_mace()
    from retemper.models.ase_calculator import of_weights

    with mace.default_dtype(dtype):
        reference = of_weights(weights, head, dtype)
        evaluate = _evaluator(written, to, dtype)
        energy_tolerance, force_tolerance = TOLERANCE[dtype]
        for atoms in model_writing.probes(mace.elements(weights)):
            energy, forces = evaluate(atoms)
            energy_difference = abs(energy - float(reference.get_potential_energy(atoms)))
            force_difference = float(np.abs(forces - reference.get_forces(atoms)).max())
            if not (energy_difference <= energy_tolerance and force_difference <= force_tolerance):
                written.unlink()
                raise RetemperError(
                    f"The exported file does not give MACE's own energies and forces for {atoms.symbols}.",
                    expected=f"differences below {energy_tolerance:g} eV and {force_tolerance:g} eV/A",
                    got=f"{energy_difference:.3g} eV and {force_difference:.3g} eV/A",
                    fix="export another format, and report this",
                )


def _evaluator(written: Path, to: str, dtype: str) -> Callable[[Atoms], tuple[float, np.ndarray]]:
    """Energy (eV) and forces [n_atoms, 3] (eV/A) by the file that was written."""
    if to == "lammps":
        return lammps.libtorch_evaluator(written, dtype)
    if to == "lammps-mliap":
        return lammps.mliap_evaluator(written, dtype)
    if to == "torch-sim":
        return _torch_sim_evaluator(written, dtype)
    from retemper.models.ase_calculator import of_pickle

    calculator = of_pickle(written, dtype)
    return lambda atoms: (float(calculator.get_potential_energy(atoms)), np.asarray(calculator.get_forces(atoms)))


def _torch_sim_evaluator(written: Path, dtype: str) -> Callable[[Atoms], tuple[float, np.ndarray]]:
    model = torch_sim_model(written, "cpu", dtype)
    import torch
    import torch_sim

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        boxed = atoms.copy()
        if not boxed.pbc.any():  # torch-sim wants a cell
            boxed.center(vacuum=10.0)
        state = torch_sim.io.atoms_to_state([boxed], torch.device("cpu"), getattr(torch, dtype))
        output = model(state)
        return float(output["energy"][0]), output["forces"].detach().numpy()

    return evaluate
