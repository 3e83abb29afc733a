"""A MACE model in this process: loaded once, asked for its heads and elements, and evaluated in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.core.errors import RetemperError, unknown
from retemper.data import charge, crowding
from retemper.models import model_file
from retemper.models.predictions import Predictions, check_finite, has_stress, name_of, ticker

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float64")


# Bounds on a batch: memory grows with edges (messages) and with atoms (products of features), and with the width of the
# model. Small batches stay in the cache of a CPU; a GPU needs large ones to be busy.
MAX_EDGES = {"cpu": 4_000, "gpu": 60_000}
EDGES_PER_ATOM = 8  # a batch holds at most MAX_EDGES / EDGES_PER_ATOM atoms
CPU_BYTES = 8_000_000  # of the largest array of a batch on a CPU
PRODUCTS = 32  # of features of an atom, for each feature, in the contraction: some 500 of 16 where l_max is 3


def load(model: str | Path, device: str = "cpu", dtype: str = "float64") -> Any:
    """The MACE module of a file, in evaluation mode, without gradients for its weights.

    The same file (path, size, modification time), device and dtype give the same object:
    it is shared, so treat it as read-only.

    Raises
    ------
    RetemperError
        A missing file, one that is not a MACE model, or an unknown dtype.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    path = Path(model).resolve()
    if not path.is_file():
        raise RetemperError(f"Model {path} does not exist.", fix="run the stage that makes it, or check the path")
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size, device, dtype)


@lru_cache(maxsize=8)
def _load(path: Path, mtime: int, size: int, device: str, dtype: str) -> Any:
    """`mtime` and `size` are there for the cache's key."""
    import torch

    module: Any = model_file.load(path, device)
    module = module.to(device=device, dtype=getattr(torch, dtype)).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def heads(model: str | Path) -> list[str]:
    """Names of the model's heads, in its order."""
    return list(getattr(load(model), "heads", None) or ["Default"])


def elements(model: str | Path) -> list[int]:
    """Atomic numbers that the model knows, in its order."""
    return [int(z) for z in load(model).atomic_numbers]


def reads(model: str | Path) -> tuple[str, ...]:
    """Which of charge and spin (`retemper.data.charge.SPELLINGS`) the model's energy depends on."""
    embedded = getattr(load(model), "embedding_specs", None) or {}
    return tuple(name for name in charge.SPELLINGS if name in embedded)


def pick_head(model: str | Path, head: str | None = None) -> str:
    """The head to use: `head` if the model has it; without one the only head, or the one called Default.

    MACE itself falls back to the last head when a name is unknown; here that is an error.
    """
    available = heads(model)
    if head is not None:
        if head not in available:
            raise unknown(f"head of {model}", head, available)
        return head
    if len(available) == 1:
        return available[0]
    for name in available:
        if name.lower() == "default":
            return name
    raise RetemperError(
        f"{model} has several heads and none is called Default.",
        expected=f"one of {', '.join(available)}",
        fix="name the head (`head` of the foundation's entry)",
    )


def atomic_energies(model: str | Path, head: str | None = None) -> dict[int, float]:
    """Atomic reference energies (E0s) of a head: {atomic number: eV}."""
    values = np.atleast_2d(load(model).atomic_energies_fn.atomic_energies.cpu().numpy())
    row = values[heads(model).index(pick_head(model, head))]
    return {z: float(e) for z, e in zip(elements(model), row, strict=True)}


def check_frames(model: str | Path, frames: Sequence[Atoms]) -> None:
    """Every element known, positions and cells usable; otherwise a `RetemperError` names the frame."""
    known, cutoff = elements(model), float(load(model).r_max)
    for index, atoms in enumerate(frames):
        if len(atoms) == 0:
            raise RetemperError(f"{name_of(atoms, index)} has no atoms.")
        lacking = sorted(set(atoms.numbers.tolist()) - set(known))
        if lacking:
            raise RetemperError(
                f"{name_of(atoms, index)} has elements that {model} lacks: "
                + ", ".join(chemical_symbols[z] for z in lacking),
                expected=" ".join(chemical_symbols[z] for z in known),
                fix="leave these structures out, or use a foundation with these elements",
            )
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise RetemperError(f"{name_of(atoms, index)} has positions or a cell that are not finite.")
        vectors = atoms.cell.array[atoms.pbc]
        if np.linalg.matrix_rank(vectors) < len(vectors):
            raise RetemperError(
                f"{name_of(atoms, index)} is periodic along {int(atoms.pbc.sum())} directions "
                "but its cell does not span them.",
                got=f"cell {atoms.cell.array.tolist()}, pbc {atoms.pbc.tolist()}",
                fix="set the cell, or pbc to false",
            )
        if crowding.images(atoms, cutoff) > crowding.MOST_IMAGES:
            raise RetemperError(
                f"{name_of(atoms, index)} has a cell so narrow that its neighbours would fill the memory.",
                expected=f"heights of more than some 0.1 A, with a cut-off of {cutoff:g} A",
                got=f"{crowding.heights(atoms).min():.3g} A",
                fix="leave the structure out",
            )


def predict_torch(
    model: str | Path,
    frames: Sequence[Atoms],
    head: str,
    dtype: str,
    device: str,
    progress: bool,
    checked: bool = True,
) -> Predictions:
    """`predict` with MACE's own code. Without `checked` frames and outputs are taken as they come."""
    import torch

    from retemper.models import fast_blocks

    module = load(model, device, dtype)
    energy, stress = np.full(len(frames), np.nan), np.full((len(frames), 3, 3), np.nan)
    forces: list[np.ndarray] = [np.empty(0)] * len(frames)
    tick = ticker("torch", len(frames), progress)
    with default_dtype(dtype), fast_blocks.verified(module):
        for indices, batch in batches(module, frames, head, device):
            periodic = np.array([has_stress(frames[i]) for i in indices])
            output = module(batch, training=False, compute_force=True, compute_stress=bool(periodic.any()))
            energy[indices] = output["energy"].detach().cpu().numpy()
            if periodic.any():
                indices_periodic = np.asarray(indices)[periodic]
                stress[indices_periodic] = output["stress"].detach().cpu().numpy()[periodic]
            sizes = [len(frames[i]) for i in indices]
            for i, f in zip(indices, torch.split(output["forces"].detach().cpu(), sizes), strict=True):
                forces[i] = f.numpy().astype(np.float64)
            if checked:
                check_finite(frames, indices, energy, forces, stress)
            tick(len(indices))
    return Predictions(energy, forces, stress, "torch")


def _bounds(module: Any, device: str) -> tuple[int, int]:
    """Edges and atoms of a batch, at the most."""
    if device != "cpu":
        return MAX_EDGES["gpu"], MAX_EDGES["gpu"] // EDGES_PER_ATOM
    message = max(int(layer.conv_tp.irreps_out.dim) for layer in module.interactions)
    features = max(int(product.symmetric_contractions.irreps_in.dim) for product in module.products)
    edges = min(MAX_EDGES["cpu"], CPU_BYTES // (8 * message))
    return edges, min(MAX_EDGES["cpu"] // EDGES_PER_ATOM, CPU_BYTES // (8 * PRODUCTS * features))


def batches(
    module: Any, frames: Sequence[Atoms], head: str, device: str
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Frames in order of size as MACE input: (indices into `frames`, batch as a dictionary of tensors).

    Build and use them within `default_dtype`.
    """
    from mace import data
    from mace.tools import AtomicNumberTable, torch_geometric

    table = AtomicNumberTable([int(z) for z in module.atomic_numbers])
    names = list(getattr(module, "heads", None) or ["Default"])
    keys = data.KeySpecification(info_keys={}, arrays_keys={})
    cutoff = float(module.r_max)
    most_edges, most_atoms = _bounds(module, device)
    indices: list[int] = []
    graphs: list[Any] = []
    edges = atoms = 0

    def flush() -> tuple[list[int], dict[str, torch.Tensor]]:
        batch = torch_geometric.Batch.from_data_list(graphs).to(device)
        return list(indices), batch.to_dict()

    for i in np.argsort([len(frame) for frame in frames], kind="stable").tolist():
        config = data.config_from_atoms(frames[i], key_specification=keys, head_name=head)
        config.properties |= charge.info_of(frames[i], name_of(frames[i], i))
        graph = data.AtomicData.from_config(config, z_table=table, cutoff=cutoff, heads=names)
        n_edges, n_atoms = int(graph.edge_index.shape[1]), len(frames[i])
        if graphs and (edges + n_edges > most_edges or atoms + n_atoms > most_atoms):
            yield flush()
            indices, graphs, edges, atoms = [], [], 0, 0
        indices.append(i)
        graphs.append(graph)
        edges += n_edges
        atoms += n_atoms
    if graphs:
        yield flush()


@contextlib.contextmanager
def default_dtype(dtype: str) -> Iterator[None]:
    """torch's default dtype within the block; the previous one returns after it."""
    import torch

    previous = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(previous)
