"""What is known of labelled structures without training: size, elements, E0 rank, distance to the pretraining set."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.linalg import qr

from retemper.config import foundation_files, foundations, licences
from retemper.config.foundations import Foundation
from retemper.config.project import Project
from retemper.config.settings import Dataset, Settings, parse
from retemper.core import sealed
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import digest
from retemper.data import label_keys
from retemper.data.composition import composition_matrix, fixed_ratios
from retemper.data.frames import is_isolated_atom, read_frames
from retemper.models.inspection import inspect
from retemper.prepare.e0_fit import clusters, few_held, unsettled
from retemper.prepare.e0_methods import group_names

CACHE = Path(".cache/advise")
MOST = 200  # structures of the data whose descriptors are computed
USUAL = 0.95  # of held-out pretraining structures are as near to the pool as what counts as near
SEED = 0


@dataclass(frozen=True)
class Distance:
    """How far the data lie from a foundation's pretraining structures, in its own descriptors."""

    beyond: float  # share of the structures farther from the pool than `USUAL` of the held-out pretraining ones
    median: float  # median distance, in units of that of the held-out ones
    structures: int


@dataclass(frozen=True)
class Facts:
    """The data after all checks of the stage `dataset`."""

    name: str
    dataset: Dataset
    train: int
    sets: dict[str, int]
    elements: tuple[str, ...]
    level_of_theory: str
    rank: int
    ratios: tuple[str, ...]  # fixed ratios of elements, in words
    atoms: tuple[str, ...]  # free atoms that are there
    needed: tuple[str, ...]  # free atoms that would settle what frames and free atoms leave open, or few frames hold
    warnings: tuple[str, ...]
    able: tuple[str, ...]  # foundations at hand that know all elements
    distances: dict[str, Distance]  # of those that have a pool and a retention set
    lacking: dict[str, tuple[str, ...]]  # elements that a foundation at hand does not know
    heads: dict[str, str] = field(default_factory=dict)  # of able ones with several: the one that is used
    undecided: dict[str, str] = field(default_factory=dict)  # why no head of a foundation with several is used


def dataset_of(name: str, root: Path, level: str | None = None) -> Dataset:
    """The dataset section of a system of the catalogue, or of a file; labels of a file are found by names and shapes.

    Raises
    ------
    RetemperError
        Neither a system nor a file, or a file whose labels are not clear.
    """
    from retemper import systems

    if name in systems.catalogue(root):
        return systems.find(name, root).dataset(rounds=[])
    path = Path(name).resolve()
    if not path.is_file():
        raise unknown("system or file", name, systems.catalogue(root))
    keys = label_keys.count(read_frames(path)).choose({}, name)
    content = {"files": [str(path)], "level_of_theory": level or "not stated", "rounds": []}
    return parse(Dataset, {**content, "keys": keys.model_dump()}, name)


def gather(name: str, root: Path, level: str | None = None) -> Facts:
    """Read, check and measure; the data are refused as the stage `dataset` would refuse them."""
    from retemper.prepare import dataset as stage

    dataset = dataset_of(name, root, level)
    at_hand = {key: entry for key, entry in foundations.catalogue(root).items() if _is_at_hand(entry, root)}
    if not at_hand:
        raise RetemperError(
            "No foundation is at hand.",
            expected="one in foundations/foundations.yaml, or a released one that was fetched",
            fix="retemper foundations get NAME; retemper foundations lists them",
        )
    symbols = _elements(dataset, root)
    known = {key: elements_of(entry, root) for key, entry in at_hand.items()}
    lacking = {key: tuple(s for s in symbols if s not in known[key]) for key in at_hand}
    knowing = [key for key in at_hand if not lacking[key]]
    heads, undecided = _heads({key: at_hand[key] for key in knowing}, root)
    able = [key for key in knowing if key not in undecided]
    if knowing and not able:
        raise RetemperError(
            f"Every foundation at hand that knows the elements of {name} has several heads, and none is chosen.",
            got="; ".join(undecided.values()),
            fix="set head of its entry in foundations/foundations.yaml",
        )
    if not able:
        raise RetemperError(
            f"No foundation at hand knows all elements of {name}.",
            expected=", ".join(f"{key} without {' '.join(missing)}" for key, missing in lacking.items()),
            got=" ".join(symbols),
            fix="add a foundation that knows them (retemper foundations lists named ones)",
        )
    settings = Settings.model_validate(
        {"system": "data", "foundation": able[0], "strategies": ["naive"], "seeds": [1], "dataset": dataset}
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        manifest = stage.run(Project(root, settings), out=Path(folder) / "dataset")
        sets = {part: _read(Path(folder) / f"dataset/{part}.extxyz") for part in ("train", "valid", "test", "isolated")}
    all_frames = [atoms for part in ("train", "valid", "test") for atoms in sets[part]]
    numbers = sorted({int(z) for atoms in all_frames for z in atoms.numbers})
    counts = composition_matrix(sets["train"], numbers)
    free = {int(atoms.numbers[0]) for atoms in sets["isolated"]}
    ratios, _, _ = fixed_ratios(counts, numbers)
    return Facts(
        name=name,
        dataset=dataset,
        train=len(sets["train"]),
        sets={part: len(frames) for part, frames in sets.items()},
        elements=tuple(manifest.elements),
        level_of_theory=dataset.level_of_theory,
        rank=int(np.linalg.matrix_rank(counts)),
        ratios=tuple(ratios),
        atoms=_symbols(sorted(free)),
        needed=needed_atoms(sets["train"], free),
        warnings=tuple(manifest.warnings),
        able=tuple(able),
        distances={key: value for key in able if (value := distance(at_hand[key], all_frames, root)) is not None},
        lacking={key: missing for key, missing in lacking.items() if missing},
        heads=heads,
        undecided=undecided,
    )


def _is_at_hand(entry: Foundation, root: Path) -> bool:
    """Whether nothing has to be fetched or accepted before a foundation is used."""
    terms = foundations.licence(entry)
    if not entry.served or (terms is not None and not licences.accepted(terms)):
        return False
    return entry.file is not None or foundation_files.place(entry, root).is_file()


def elements_of(entry: Foundation, root: Path) -> set[str]:
    """Symbols that a foundation knows: as the catalogue lists them, else as its file does."""
    if entry.elements is not None:
        return set(entry.elements.split())
    return set(_symbols(inspect(foundation_files.weights(entry, root)).elements))


def _heads(entries: dict[str, Foundation], root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Heads of the foundations with several: the one that is used; or why none is."""
    from retemper.models import heads, mace

    used: dict[str, str] = {}
    undecided: dict[str, str] = {}
    for name, entry in entries.items():
        weights = foundation_files.weights(entry, root)
        try:
            head = heads.of_entry(entry, weights)
            used |= {name: head} if len(mace.heads(weights)) > 1 else {}
        except RetemperError as error:
            undecided[name] = f"{error.what} {error.expected}"
    return used, undecided


def needed_atoms(frames: Sequence[Atoms], free: Collection[int]) -> tuple[str, ...]:
    """Symbols of free atoms that would settle the E0s which `frames` and `free` atoms (atomic numbers) leave open.

    Also those of directions of the compositions that few frames hold.
    """
    numbers = sorted({int(z) for atoms in frames for z in atoms.numbers})
    counts = composition_matrix(frames, numbers)
    free_rows = np.eye(len(numbers), dtype=int)[[z in free for z in numbers]]
    _, _, fixed = fixed_ratios(np.vstack([counts, free_rows]), numbers)
    few = _held_by_few(counts, group_names(frames), numbers, {*free, *fixed})
    return _symbols(sorted({*fixed, *few}))


def _held_by_few(counts: np.ndarray, groups: list[str], numbers: list[int], free: set[int]) -> list[int]:
    """Elements whose free atoms would settle directions of the compositions that few frames hold."""
    _, directions = few_held(counts, clusters(counts, groups))
    open_directions = unsettled(directions, np.array([z in free for z in numbers]))
    return (
        [numbers[k] for k in qr(open_directions.T, pivoting=True, mode="r")[1][: open_directions.shape[1]]]
        if open_directions.shape[1]
        else []
    )


def _symbols(numbers: Iterable[int]) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    return tuple(chemical_symbols[z] for z in numbers)


def _elements(dataset: Dataset, root: Path) -> list[str]:
    return sorted({s for file in dataset.all_files for atoms in read_frames(root / file) for s in atoms.symbols})


def _read(path: Path) -> list[Atoms]:
    return read_frames(path) if path.stat().st_size else []


def distance(entry: Foundation, frames: list[Atoms], root: Path) -> Distance | None:
    """Distances of `frames` to the foundation's pool beside those of its held-out structures; `None` without either.

    A structure is the mean of its atoms' descriptors; columns are scaled by their spread over the pool. The nearest
    structure of the pool counts.
    """
    if entry.pool is None or entry.retention is None:
        return None
    from scipy.spatial import cKDTree

    from retemper.models.descriptors import mean_descriptors

    model = foundation_files.weights(entry, root)
    pool, held_out = (_file_points(model, entry, root / path, root) for path in (entry.pool, entry.retention))
    picks = np.sort(np.random.default_rng(SEED).permutation(len(frames))[:MOST])
    frame_points = mean_descriptors(model, [frames[i] for i in picks], head=entry.head)
    centre, spread = pool.mean(axis=0), pool.std(axis=0)
    spread[spread < 1e-9] = 1.0
    tree = cKDTree((pool - centre) / spread)
    held_distances = tree.query((held_out - centre) / spread)[0]
    frame_distances = tree.query((frame_points - centre) / spread)[0]
    limit, middle = float(np.quantile(held_distances, USUAL)), float(np.median(held_distances))
    return Distance(
        float((frame_distances > limit).mean()), float(np.median(frame_distances)) / max(middle, 1e-12), len(picks)
    )


def _file_points(model: Path, entry: Foundation, path: Path, root: Path) -> np.ndarray:
    """Descriptors of a file's structures without free atoms, kept by content."""
    from retemper.models.descriptors import mean_descriptors
    from retemper.study.plan import file_hash

    key = digest([file_hash(model), entry.head, file_hash(path)])
    cache_file = root / CACHE / f"{key}.descriptors"
    points = sealed.read(cache_file, key)
    if points is None:
        frames = [atoms for atoms in read_frames(path) if not is_isolated_atom(atoms)]
        points = mean_descriptors(model, frames, head=entry.head, progress=True)
        sealed.write(cache_file, key, points)
    return np.asarray(points, dtype=float)
