"""symmetrix, a C++ evaluator of MACE models for CPUs: when it can be used, extraction, evaluation.

symmetrix (https://github.com/wcwitt/symmetrix; package ``symmetrix-xl``, extra ``fast``)
replaces the radial networks by splines. A model is extracted to JSON once (cached by
content); then each change of the set of elements costs a spline for every pair of elements.
Whether its numbers are right is for `retemper.models.referee` to say.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from matscipy.neighbours import neighbour_list

from retemper.core import sealed
from retemper.core.files import digest, sha256
from retemper.core.output import log
from retemper.data.geometry import full_cells
from retemper.models import library, mace, model_file
from retemper.models.predictions import Predictions, has_stress

CACHE = Path(".cache/symmetrix")
SPLINE_POINTS = 4000  # the extractor's default of 256 is off by 1e-3 eV/A
MAX_EDGES = 20_000  # in one call
MOST_OPEN = 8  # evaluators, each with the splines of one set of elements: tens of MB


def obstacle(model: str | Path, dtype: str, device: str) -> str | None:
    """Why symmetrix cannot evaluate a model here, as far as that is cheap to see, or None."""
    return obstacle_here(dtype, device) or unknown_architecture(model)


def obstacle_here(dtype: str, device: str) -> str | None:
    """Why symmetrix cannot be used here at all, or None."""
    if importlib.util.find_spec("symmetrix") is None:
        return "the package symmetrix-xl is not installed (pip install 'retemper[fast]')"
    if device != "cpu":
        return f"it runs on the CPU and the device is {device}"
    if dtype != "float64":
        return f"it is used in float64 and the dtype is {dtype}"
    return None


def unknown_architecture(model: str | Path) -> str | None:
    """Why the extractor would refuse the model, as far as that is cheap to see, or None."""
    module = mace.load(model)
    if read := mace.reads(model):
        return f"its energy depends on {' and '.join(read)}, which symmetrix does not know"
    sizes = (
        len(module.interactions),
        module.spherical_harmonics.irreps_out.lmax,
        {int(c.correlation) for product in module.products for c in product.symmetric_contractions.contractions},
    )
    if sizes == (2, 3, {3}):
        return None
    return f"layers {sizes[0]}, l_max {sizes[1]}, correlation {sizes[2]} where it knows 2, 3 and {{3}} alone"


# ------------------------------------------------------------------ extraction


@functools.lru_cache(maxsize=MOST_OPEN)
def opened(path: Path, elements: tuple[int, ...]) -> Any:
    """The C++ evaluator of an extraction, one of few that are kept.

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
        log.info(f"  extracting {model} for symmetrix (once a model) ...")
        temporary.write_text(_extract(model, head, elements))

    return sealed.file(path, key, make).resolve()


def _extract(model: str | Path, head: str, elements: list[int]) -> str:
    """The extraction, as JSON."""
    library.import_mace()
    import torch
    from symmetrix import extract_mace_data as extraction

    from retemper.models.head_weights import with_heads

    if not hasattr(extraction.U_matrix_real, "__wrapped__"):
        extraction.U_matrix_real = _remember(extraction.U_matrix_real)
    with mace.default_dtype("float64"), TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript warns of annotations in MACE's classes
        if len(mace.heads(model)) > 1:
            single = with_heads(mace.load(model), {head: head}).double()
            model = Path(folder) / "single.model"
            torch.save(single, model)
        with model_file.pickled(model) as pickle:
            content = extraction.extract_mace_data(str(pickle), species=elements, num_spline_points=SPLINE_POINTS)
    return json.dumps(content, separators=(",", ":"))


def _remember(coupling: Callable[..., Any]) -> Callable[..., Any]:
    """MACE's coupling matrices, kept: they depend on the architecture alone and take most of an extraction."""
    known: dict[str, object] = {}

    @functools.wraps(coupling)
    def lookup(irreps_in: Any, irreps_out: Any, correlation: int, **options: Any) -> object:
        key = f"{irreps_in} {irreps_out} {correlation} {options}"
        if key not in known:
            known[key] = coupling(irreps_in, irreps_out, correlation, **options)
        return known[key]

    return lookup


# ------------------------------------------------------------------ evaluation


def neighbours(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
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


def element_sets(frames: Sequence[Atoms]) -> dict[tuple[int, ...], list[int]]:
    """Indices of the frames of each set of elements; sets sorted, indices by size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, atoms in enumerate(frames):
        groups.setdefault(tuple(np.unique(atoms.numbers).tolist()), []).append(i)
    return {elements: sorted(groups[elements], key=lambda i: len(frames[i])) for elements in sorted(groups)}


def predict(
    path: Path, frames: Sequence[Atoms], tick: Callable[[int], None] | None = None
) -> tuple[Predictions, np.ndarray]:
    """Predictions by an extraction, unchecked; and the shortest distance in each frame [n_frames].

    The distance is over the sum of the covalent radii, infinite in a frame without neighbours. Several frames of one
    set of elements are computed in a call, as one graph without edges between them.
    """
    energy, stress = np.full(len(frames), np.nan), np.full((len(frames), 3, 3), np.nan)
    forces: list[np.ndarray] = [np.empty(0)] * len(frames)
    closest = np.full(len(frames), np.inf)
    groups = element_sets(frames)
    for elements, indices in groups.items():
        # the splines of a set are kept with its evaluator, as long as there are few of them
        evaluator = opened(path, elements if len(groups) <= MOST_OPEN else ())
        for chunk in _chunks(evaluator, frames, indices):
            numbers = _evaluate(evaluator, [frames[graph.index] for graph in chunk], chunk)
            for graph, values in zip(chunk, numbers, strict=True):
                energy[graph.index], forces[graph.index], stress[graph.index] = values
                closest[graph.index] = _closest(frames[graph.index], graph)
            if tick is not None:
                tick(len(chunk))
    return Predictions(energy, forces, stress, "symmetrix"), closest


@dataclass(frozen=True)
class _Graph:
    index: int  # of the frame
    edges: np.ndarray  # [2, n_edges]
    vectors: np.ndarray  # [n_edges, 3] A
    lengths: np.ndarray  # [n_edges] A


def _chunks(evaluator: Any, frames: Sequence[Atoms], indices: Sequence[int]) -> Iterator[list[_Graph]]:
    """Graphs of frames in lists of `MAX_EDGES` edges."""
    chunk: list[_Graph] = []
    for i in indices:
        edges, vectors = neighbours(frames[i], evaluator.r_cut)
        chunk.append(_Graph(i, edges, vectors, np.linalg.norm(vectors, axis=1)))
        if sum(len(graph.vectors) for graph in chunk) >= MAX_EDGES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _closest(atoms: Atoms, graph: _Graph) -> float:
    """Shortest distance over the sum of the covalent radii."""
    radii = covalent_radii[atoms.numbers]
    return float((graph.lengths / (radii[graph.edges[0]] + radii[graph.edges[1]])).min(initial=np.inf))


def _evaluate(
    evaluator: Any, frames: Sequence[Atoms], graphs: Sequence[_Graph]
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Energy (eV), forces (eV/A) and stress (eV/A^3) of each frame.

    symmetrix gives the energy of each atom and f, the derivative of the energy with respect to each
    edge vector r (up to sign), so that F_j = sum f, F_i = -sum f and stress = -sum f x r / V.
    """
    offsets = np.concatenate([[0], np.cumsum([len(atoms) for atoms in frames])])
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    number_of = np.full(max(evaluator.atomic_numbers) + 1, -1, dtype=np.int32)
    number_of[evaluator.atomic_numbers] = np.arange(len(evaluator.atomic_numbers))
    types = number_of[numbers]
    centres, partners = np.concatenate(
        [graph.edges + offset for graph, offset in zip(graphs, offsets[:-1], strict=True)], axis=1
    )
    vectors = np.concatenate([graph.vectors for graph in graphs])
    evaluator.compute_node_energies_forces(
        len(numbers),
        types,
        np.bincount(centres, minlength=len(numbers)).astype(np.int32),
        partners.astype(np.int32),
        types[partners],
        np.ascontiguousarray(vectors).reshape(-1),
        np.concatenate([graph.lengths for graph in graphs]),
    )
    energies = np.array(evaluator.node_energies)[: len(numbers)]
    pair = np.array(evaluator.node_forces).reshape(-1, 3)[: len(vectors)]
    total = np.stack(
        [
            np.bincount(partners, weights=pair[:, k], minlength=len(numbers))
            - np.bincount(centres, weights=pair[:, k], minlength=len(numbers))
            for k in range(3)
        ],
        axis=1,
    )
    starts = np.concatenate([[0], np.cumsum([len(graph.vectors) for graph in graphs])])
    values = []
    for k, atoms in enumerate(frames):
        rows, edges = slice(offsets[k], offsets[k + 1]), slice(starts[k], starts[k + 1])
        stress = np.full((3, 3), np.nan)
        if has_stress(atoms):
            virial = -pair[edges].T @ vectors[edges]
            stress = 0.5 * (virial + virial.T) / abs(np.linalg.det(atoms.cell.array))
        values.append((float(energies[rows].sum()), total[rows], stress))
    return values
