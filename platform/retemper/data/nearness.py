"""How near held-out frames lie to training frames, judged against the data's own spacing.

A test frame that was drawn from between two training frames of one trajectory tells nothing about new structures,
however the groups are named. Frames are compared by the surroundings of each atom: smooth counts of its neighbours at
four distances in units of covalent radii, each over its standard deviation in the set, so that stiff and soft motion
count alike. Translation, rotation and periodic images do not count; the order of the atoms must be the same.

A held-out frame is near when its training frames lie about it as along a path or sheet, not as in a cloud:

- the distances to its first and to its 4th, 10th or 20th training frame grow as in fewer than three dimensions
  (k frames lie within a distance that grows as k^(1/dimension): Levina and Bickel, NIPS 17, 777 (2004)). Independent
  frames of five atoms or more have nine dimensions at least; or
- the nearest lies within half of the distance that a quarter of all training frames of these atoms have, and nearer
  than one of independent frames would come by chance;

and the RMS displacement of its atoms to the nearest is less than half of what it is to others.

Frames of fewer than five atoms, and those with fewer than ten training frames of the same atoms, are not judged.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from retemper.core.errors import RetemperError
from retemper.data.duplicates import projections
from retemper.data.frame_store import Picked
from retemper.data.geometry import Coordinates, displacements, neighbours
from retemper.records.dataset import Nearness

Array = np.ndarray
CENTRES, WIDTHS = np.array([0.8, 1.0, 1.3, 1.7]), np.array([0.12, 0.12, 0.2, 0.25])  # times the sum of covalent radii
REACH, LONGEST = 2.2, 5.0  # times the sum of covalent radii; A
RANKS = (4, 10, 20)
PATH = 3.0  # dimensions below which training frames lie as along a path
HALF, CHANCE = 0.5, 0.4
LEAST_ATOMS, LEAST_FRAMES = 5, 10
LEAST_JUDGED = 5  # held-out frames below which nothing is said of a majority
TRAINING = 1000  # frames of the same atoms that are compared, with a tenth of it held-out ones; of more a choice
MAX_ATOMS = 300_000  # whose surroundings are computed for one held-out set


def near_in_majority(nearness: Nearness) -> bool:
    """Whether most of the judged frames are near: errors on them are no errors on new structures."""
    return nearness.judged >= LEAST_JUDGED and nearness.near > 0.5 * nearness.judged


def in_words(nearness: Nearness) -> str:
    """For the terminal: the numbers."""
    if not nearness.judged:
        return f"not tested, too few training frames of the same atoms for each of {nearness.frames} frames"
    text = f"{nearness.near} of {nearness.judged} frames lie on a path of training frames"
    if nearness.nearest is not None:
        text += f" ({nearness.nearest:.2g} A from the nearest, {nearness.usual:.2g} A usually)"
    return text + (f"; {nearness.frames - nearness.judged} not tested" if nearness.judged < nearness.frames else "")


def judge(train: Sequence[Atoms], held_out: Sequence[Atoms]) -> Nearness:
    """How many of the frames `held_out` lie near a frame of `train` (see above), and how near."""
    groups: dict[tuple[bytes, bytes], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, frames in enumerate((held_out, train)):
        for k, frame in enumerate(frames):
            if len(frame) >= LEAST_ATOMS:
                groups[frame.numbers.tobytes(), frame.pbc.tobytes()][side].append(k)
    judged = near = atoms = 0
    nearest: list[float] = []
    usual: list[float] = []
    order = sorted((pair for pair in groups.values() if pair[0] and len(pair[1]) >= LEAST_FRAMES), key=_commonest)
    for held_group, train_group in order:
        if atoms > MAX_ATOMS:
            break
        held_sample, train_sample = _sample(Picked(held_out, held_group), Picked(train, train_group))
        atoms += (len(held_sample) + len(train_sample)) * len(held_sample[0])
        on_path, steps = _on_path(held_sample, train_sample, len(train_group))
        distances = np.array(
            [_displacements(held_sample[int(k)], train_sample, int(steps[k])) for k in np.flatnonzero(on_path)]
        )
        distances = distances.reshape(-1, 2)[distances.reshape(-1, 2) @ [1, -0.5] < 0]
        judged, near = judged + len(held_group), near + round(len(distances) * len(held_group) / len(held_sample))
        nearest += distances[:, 0].tolist()
        usual += distances[:, 1].tolist()
    if not near:
        return Nearness(frames=len(held_out), judged=judged, near=0)
    return Nearness(
        frames=len(held_out),
        judged=judged,
        near=near,
        nearest=float(np.median(nearest)),
        usual=float(np.median(usual)),
    )


def _commonest(pair: tuple[list[int], list[int]]) -> int:
    return -len(pair[0])


def _sample(held_out: Sequence[Atoms], train: Sequence[Atoms]) -> tuple[Sequence[Atoms], Sequence[Atoms]]:
    """Frames to compare: all; of many, a random choice, and the training frames that may be nearest to them."""
    random = np.random.default_rng(0)
    largest = int(np.clip(MAX_ATOMS / 3 / len(held_out[0]), 50, TRAINING))
    if len(held_out) > largest // 10:
        held_out = Picked(held_out, np.sort(random.permutation(len(held_out))[: largest // 10]))
    if len(train) <= largest:
        return held_out, train
    tree, points = cKDTree(projections(train)), projections(held_out)
    _, likeliest = tree.query(points, k=RANKS[-1])
    return held_out, Picked(train, np.union1d(likeliest.ravel(), random.permutation(len(train))[:largest]))


def _on_path(held_out: Sequence[Atoms], train: Sequence[Atoms], number: int) -> tuple[Array, Array]:
    """Whether training frames lie about each frame as on a path, and the nearest; `number` is that of all."""
    held_surroundings, train_surroundings = surroundings(held_out), surroundings(train)
    scale = train_surroundings.std(axis=0)
    scale = np.maximum(scale, 0.05 * scale.max() + 1e-9)
    distance = cdist(held_surroundings / scale, train_surroundings / scale) + 1e-12
    nearest = distance.argmin(axis=1)
    ordered = np.sort(distance, axis=1)
    dimension = np.full(len(ordered), np.inf)
    for rank in sorted({min(rank, len(train) // 2) for rank in RANKS}):
        growth = np.maximum(np.log(ordered[:, rank - 1] / ordered[:, 0]), 1e-9)
        dimension = np.minimum(dimension, math.log(rank) / growth)
    limit = min(HALF, (CHANCE / number) ** (1 / len(held_out[0])))
    return (dimension < PATH) | (ordered[:, 0] < limit * np.quantile(distance, 0.25, axis=1)), nearest


def surroundings(frames: Sequence[Atoms]) -> Array:
    """Smooth counts of neighbours [n_frames, n_atoms * 4], weighted by their element."""
    return np.array([_surroundings(frame) for frame in frames])


def _surroundings(frame: Atoms) -> Array:
    first, second, distance, _ = neighbours(frame, REACH, LONGEST)
    x = distance / (covalent_radii[frame.numbers[first]] + covalent_radii[frame.numbers[second]])
    kind = 1 + 0.1 * (frame.numbers[second] % 7)
    columns = [
        np.bincount(first, weights=kind * np.exp(-(((x - centre) / width) ** 2)), minlength=len(frame))
        for centre, width in zip(CENTRES, WIDTHS, strict=True)
    ]
    return np.concatenate(columns)


def _displacements(frame: Atoms, train: Sequence[Atoms], nearest: int) -> tuple[float, float]:
    """RMS displacement, A, to the nearest training frame, and the median of that to some others."""
    picks = np.unique(np.linspace(0, len(train) - 1, 20).astype(int))
    coordinates = Coordinates.of([frame, train[nearest], *(train[int(k)] for k in picks)])
    train_indices = np.arange(1, len(coordinates.positions))
    movement, _ = displacements(
        coordinates.positions, coordinates.cells, coordinates.pbc, np.zeros_like(train_indices), train_indices
    )
    rms = np.sqrt((movement**2).sum(axis=2).mean(axis=1))
    return float(rms[0]), float(np.median(rms[1:]))


def audit(sets: Mapping[str, Sequence[Atoms]], mode: str) -> tuple[dict[str, Nearness], list[str]]:
    """Judge ``valid`` and ``test`` against ``train``.

    Parameters
    ----------
    mode
        ``dataset.near_test``: "refuse" raises where most test frames are near; "warn" says it.

    Returns
    -------
    nearness, warnings
        By held-out set; sentences about sets of which most frames are near.

    Raises
    ------
    RetemperError
        Most test frames lie near training frames, and `mode` is "refuse".
    """
    nearness = {name: judge(sets["train"], sets[name]) for name in ("valid", "test")}
    advice = (
        "take it from other trajectories: name them in an info key and set dataset.group to it, "
        "or give files of its own in dataset.test_files"
    )
    if near_in_majority(nearness["test"]) and mode == "refuse":
        raise RetemperError(
            "Most test frames lie between training frames: errors on them say nothing about new structures.",
            expected="test frames that are independent of the training frames (dataset.near_test: refuse)",
            got=in_words(nearness["test"]),
            fix=f"the test set: {advice}; dataset.near_test: warn goes on",
        )
    warnings = [
        f"{name}: {in_words(of_set)}: errors on this set say nothing about new structures; {advice}"
        for name, of_set in nearness.items()
        if near_in_majority(of_set)
    ]
    return nearness, warnings
