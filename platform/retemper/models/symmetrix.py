"""Inference with symmetrix, a C++ evaluator of MACE models for CPUs, kept honest by torch.

symmetrix (https://github.com/wcwitt/symmetrix; package ``symmetrix-xl``, extra ``fast``)
replaces the radial networks by splines. A model is extracted to JSON once (cached by
content); then each change of the set of elements costs a spline for every pair of elements.
So each element set of the structures goes to symmetrix or to torch, whichever the cost model
below says is cheaper, and nothing goes to symmetrix before it agreed with torch in float64
on structures of the very set.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list

from retemper.core import processes, sealed
from retemper.core.errors import RetemperError
from retemper.core.files import digest, sha256
from retemper.data.geometry import full_cells
from retemper.models import mace, model_file, predictions

CACHE = Path(".cache/symmetrix")
SPLINE_POINTS = 4000  # the extractor's default of 256 is off by 1e-3 eV/A
REFEREES = 20  # structures compared with torch before symmetrix is used
TOLERANCE = {"forces": 1e-5, "energy": 1e-6, "stress": 1e-6}  # eV/A, eV/atom, eV/A^3
MAX_EDGES = 20_000  # in one call
# Cost model in seconds of one core (measured; only their ratios matter). `paths` is the number of
# radial weights of an edge, summed over the layers: 128 for 16x0e, 448 for 32x0e + 32x1o.
TORCH_ATOM, TORCH_EDGE = 7e-6, 0.25e-6  # per path and atom, per path and edge
SPEED_UP = 8.0  # over torch's batches
PAIR, PAIR_PATH = 0.045, 0.12e-3  # a pair of elements: constant, and per path
EXTRACT, EXTRACT_ELEMENT = 15.0, 1.5  # an extraction: constant, and per element


def predict(
    model: str | Path, frames: Sequence[Atoms], head: str, dtype: str, device: str, asked: bool, progress: bool
) -> predictions.Predictions | None:
    """`inference.predict` with symmetrix where it helps; None where torch should do everything.

    `asked` is true when the user named symmetrix: then it gets every element set, and a reason
    why it cannot be used is an error (not installed, wrong device or dtype) or is printed.
    """
    hindrance = _obstacle(dtype, device)
    if hindrance is not None:
        if asked:
            raise RetemperError(
                f"The symmetrix backend cannot be used: {hindrance}.", fix="set backend to auto or torch"
            )
        return None
    unknown = _unknown_architecture(model)
    if unknown is not None:
        if asked:
            print(f"  symmetrix does not support {model}: {unknown}; using torch.", flush=True)
        return None
    groups = _groups(frames)
    chosen = list(groups) if asked else _worthwhile(model, frames, groups)
    if not chosen:
        return None
    fast = [i for elements in chosen for i in groups[elements]]
    fast_set = set(fast)
    try:
        every = sorted(set().union(*chosen))
        fast_one = opened(extracted(model, head, every), tuple(every))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:  # its ways to refuse a model
        print(f"  symmetrix does not support {model}: {error}; using torch.", flush=True)
        return None
    referees = [fast[i] for i in np.unique(np.linspace(0, len(fast) - 1, REFEREES).astype(int))]
    slow = sorted({i for i in range(len(frames)) if i not in fast_set} | set(referees))

    energy, stress = np.full(len(frames), np.nan), np.full((len(frames), 3, 3), np.nan)
    forces: list[np.ndarray] = [np.empty(0)] * len(frames)
    tick = predictions.ticker("symmetrix", len(fast), progress)

    for elements in chosen:
        evaluate(fast_one, frames, groups[elements], energy, forces, stress, tick)
    torch = mace.predict_torch(model, [frames[i] for i in slow], head, "float64", "cpu", progress)
    place = {i: k for k, i in enumerate(slow)}
    for i in referees:
        problem = _difference(frames[i], i, torch, place[i], energy[i], forces[i], stress[i])
        if problem is not None:
            print(f"  symmetrix differs from torch on {problem}; using torch for everything.", flush=True)
            return None
    for i, k in place.items():
        energy[i], forces[i], stress[i] = torch.energy[k], torch.forces[k], torch.stress[k]
    predictions.check_finite(frames, range(len(frames)), energy, forces, stress)
    return predictions.Predictions(energy, forces, stress, "symmetrix")


def obstacle(model: str | Path, dtype: str, device: str) -> str | None:
    """Why symmetrix cannot evaluate a model here, as far as that is cheap to see, or None."""
    return _obstacle(dtype, device) or _unknown_architecture(model)


def _obstacle(dtype: str, device: str) -> str | None:
    """Why symmetrix cannot be used here at all, or None."""
    if importlib.util.find_spec("symmetrix") is None:
        return "the package symmetrix-xl is not installed (pip install 'retemper[fast]')"
    if device != "cpu":
        return f"it runs on the CPU and the device is {device}"
    if dtype != "float64":
        return f"it is used in float64 and the dtype is {dtype}"
    return None


def _unknown_architecture(model: str | Path) -> str | None:
    """Why the extractor would refuse the model, as far as that is cheap to see, or None."""
    module = mace.load(model)
    if read := mace.reads(model):
        return f"its energy depends on {' and '.join(read)}, which symmetrix does not know"
    found = (
        len(module.interactions),
        module.spherical_harmonics.irreps_out.lmax,
        {int(c.correlation) for product in module.products for c in product.symmetric_contractions.contractions},
    )
    if found == (2, 3, {3}):
        return None
    return f"layers {found[0]}, l_max {found[1]}, correlation {found[2]} where it knows 2, 3 and {{3}} alone"


def _groups(frames: Sequence[Atoms]) -> dict[tuple[int, ...], list[int]]:
    """Indices of the frames of each element set, sets and indices sorted."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, atoms in enumerate(frames):
        groups.setdefault(tuple(sorted(set(atoms.numbers.tolist()))), []).append(i)
    return {elements: sorted(groups[elements], key=lambda i: len(frames[i])) for elements in sorted(groups)}


def _worthwhile(
    model: str | Path, frames: Sequence[Atoms], groups: dict[tuple[int, ...], list[int]]
) -> list[tuple[int, ...]]:
    """Element sets that symmetrix does faster than torch, extraction and referees included.

    A deterministic estimate from atoms, neighbours and the size of the model, so that the
    same input takes the same path everywhere.
    """
    module = mace.load(model)
    paths = sum(int(layer.conv_tp.weight_numel) for layer in module.interactions)
    sample = range(0, len(frames), max(1, len(frames) // 10))
    sampled_atoms = sum(len(frames[i]) for i in sample)
    sampled_edges = sum(_neighbours(frames[i], float(module.r_max))[0].shape[1] for i in sample)
    torch_atom = paths * (TORCH_ATOM + TORCH_EDGE * sampled_edges / sampled_atoms)
    pair = PAIR + PAIR_PATH * paths

    def saved(elements: tuple[int, ...], indices: list[int]) -> float:
        atoms = sum(len(frames[i]) for i in indices)
        return float(torch_atom) * atoms * (1 - 1 / SPEED_UP) - pair * len(elements) ** 2

    gains = {elements: saved(elements, indices) for elements, indices in groups.items()}
    chosen = [elements for elements, gain in gains.items() if gain > 0]
    if not chosen:
        return []
    indices = [i for elements in chosen for i in groups[elements]]
    mean_atoms = sum(len(frames[i]) for i in indices) / len(indices)
    referees = torch_atom * mean_atoms * min(REFEREES, len(indices))
    overhead = EXTRACT + EXTRACT_ELEMENT * len(set().union(*chosen)) + referees
    return chosen if sum(gains[elements] for elements in chosen) > overhead else []


# ------------------------------------------------------------------ extraction


@functools.lru_cache(maxsize=8)
def opened(path: Path, elements: tuple[int, ...]) -> Any:
    """The C++ evaluator of an extraction, one of few that are kept: it takes tens of MB.

    `elements` are those that it will be used for: a change of them costs more than loading another one.
    """
    from symmetrix import Symmetrix

    # the serial evaluator; the others compile code for each model
    return Symmetrix(str(path), dtype="float64", use_kokkos=False, streamed_edges="non-compiled").evaluator


def extracted(model: str | Path, head: str, elements: Sequence[int]) -> Path:
    """File of one head of a model as symmetrix reads it, made once for `elements`, cached by content."""
    elements = sorted(set(elements))
    version = importlib.metadata.version("symmetrix-xl")
    key = digest([sha256(model), head, elements, SPLINE_POINTS, version])
    path = CACHE / f"{sha256(model)[:12]}-{re.sub(r'[^A-Za-z0-9_.-]', '_', head)}-{key}.json"

    def make(temporary: Path) -> None:
        print(f"  extracting {model} for symmetrix (once a model) ...", flush=True)
        temporary.write_text(json.dumps(_extract(model, head, elements), separators=(",", ":")))

    return sealed.file(path, key, make).resolve()


def _extract(model: str | Path, head: str, elements: list[int]) -> dict[str, Any]:
    processes.import_mace()
    import torch
    from mace.tools.scripts_utils import remove_pt_head
    from symmetrix import extract_mace_data as extraction

    if not hasattr(extraction.U_matrix_real, "__wrapped__"):
        extraction.U_matrix_real = _remembered(extraction.U_matrix_real)
    with mace.default_dtype("float64"), TemporaryDirectory() as folder:
        if len(mace.heads(model)) > 1:
            single = remove_pt_head(mace.load(model), head).double()
            model = Path(folder) / "single.model"
            torch.save(single, model)
        with model_file.pickled(model) as pickle:
            content: dict[str, Any] = extraction.extract_mace_data(
                str(pickle), species=elements, num_spline_points=SPLINE_POINTS
            )
    return content


def _remembered(coupling: Callable[..., Any]) -> Callable[..., Any]:
    """MACE's coupling matrices, kept: they depend on the architecture alone and take most of an extraction."""
    known: dict[str, Any] = {}

    @functools.wraps(coupling)
    def lookup(irreps_in: Any, irreps_out: Any, correlation: int, **options: Any) -> Any:
        key = f"{irreps_in} {irreps_out} {correlation} {options}"
        if key not in known:
            known[key] = coupling(irreps_in, irreps_out, correlation, **options)
        return known[key]

    return lookup


# ------------------------------------------------------------------ evaluation


def _neighbours(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges [2, n_edges] (centre, neighbour) shorter than `cutoff` and their vectors [n_edges, 3] in A."""
    cell = full_cells(atoms.cell.array[None])[0]
    origin = np.zeros(3)
    if not atoms.pbc.any():  # a box around the atoms
        origin = atoms.positions.min(axis=0) - cutoff
        cell = np.diag(np.ptp(atoms.positions, axis=0) + 2 * cutoff)
    first, second, vectors = neighbour_list(
        "ijD", positions=atoms.positions, cell=cell, pbc=atoms.pbc, cell_origin=origin, cutoff=float(cutoff)
    )
    return np.stack([first, second]), vectors


def evaluate(
    evaluator: Any,
    frames: Sequence[Atoms],
    indices: Sequence[int],
    energy: np.ndarray,
    forces: list[np.ndarray],
    stress: np.ndarray,
    tick: Callable[[int], None] | None = None,
) -> None:
    """Fill `energy`, `forces` and `stress` of `indices`: several frames a call, as one graph without edges between.

    symmetrix gives the energy of each atom and f, the derivative of the energy with respect to each
    edge vector r (up to sign), so that F_j = sum f, F_i = -sum f and stress = -sum f x r / V.
    """
    i_type = {z: k for k, z in enumerate(evaluator.atomic_numbers)}
    chunk: list[tuple[int, np.ndarray, np.ndarray]] = []
    n_edges = 0
    for position, i in enumerate(indices):
        edges, vectors = _neighbours(frames[i], evaluator.r_cut)
        chunk.append((i, edges, vectors))
        n_edges += len(vectors)
        upcoming = indices[position + 1] if position + 1 < len(indices) else None
        same = upcoming is not None and set(frames[upcoming].numbers.tolist()) == set(frames[i].numbers.tolist())
        if same and n_edges < MAX_EDGES:
            continue
        _evaluate_chunk(evaluator, i_type, frames, chunk, energy, forces, stress)
        if tick is not None:
            tick(len(chunk))
        chunk, n_edges = [], 0


def _evaluate_chunk(
    evaluator: Any,
    i_type: dict[int, int],
    frames: Sequence[Atoms],
    chunk: list[tuple[int, np.ndarray, np.ndarray]],
    energy: np.ndarray,
    forces: list[np.ndarray],
    stress: np.ndarray,
) -> None:
    sizes = [len(frames[i]) for i, _, _ in chunk]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    numbers = np.concatenate([frames[i].numbers for i, _, _ in chunk])
    types = np.array([i_type[z] for z in numbers.tolist()], dtype=np.int32)
    centres = np.concatenate([edges[0] + offset for (_, edges, _), offset in zip(chunk, offsets[:-1], strict=True)])
    neighbours = np.concatenate([edges[1] + offset for (_, edges, _), offset in zip(chunk, offsets[:-1], strict=True)])
    vectors = np.concatenate([v for _, _, v in chunk])
    evaluator.compute_node_energies_forces(
        len(numbers),
        types.tolist(),
        np.bincount(centres, minlength=len(numbers)),
        neighbours.tolist(),
        types[neighbours].tolist(),
        np.ascontiguousarray(vectors).reshape(-1),
        np.linalg.norm(vectors, axis=1),
    )
    node_energies = np.array(evaluator.node_energies)[: len(numbers)]
    pair = np.array(evaluator.node_forces).reshape(-1, 3)[: len(vectors)]
    total = np.stack(
        [
            np.bincount(neighbours, weights=pair[:, k], minlength=len(numbers))
            - np.bincount(centres, weights=pair[:, k], minlength=len(numbers))
            for k in range(3)
        ],
        axis=1,
    )
    start = 0
    for (i, edges, _), a, b in zip(chunk, offsets[:-1], offsets[1:], strict=True):
        stop = start + edges.shape[1]
        energy[i] = node_energies[a:b].sum()
        forces[i] = total[a:b]
        if predictions.has_stress(frames[i]):
            virial = -pair[start:stop].T @ vectors[start:stop]
            stress[i] = 0.5 * (virial + virial.T) / abs(np.linalg.det(frames[i].cell.array))
        start = stop


def _difference(
    atoms: Atoms,
    index: int,
    torch: predictions.Predictions,
    k: int,
    energy: float,
    forces: np.ndarray,
    stress: np.ndarray,
) -> str | None:
    """What is further than `TOLERANCE` from torch's prediction `k`, in words; None when all agree."""
    off = {
        "forces": float(np.abs(forces - torch.forces[k]).max()),
        "energy": float(abs(energy - torch.energy[k]) / len(atoms)),
        "stress": float(np.abs(stress - torch.stress[k]).max()) if predictions.has_stress(atoms) else 0.0,
    }
    for quantity, value in off.items():
        if not value <= TOLERANCE[quantity]:
            where = predictions.name_of(atoms, index)
            return f"{where}: {quantity} off by {value:.1e} (allowed {TOLERANCE[quantity]:.0e})"
    return None
