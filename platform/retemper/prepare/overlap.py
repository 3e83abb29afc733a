"""What sets of structures share that they must not share: replayed ones, the target's, the retention set's."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.data.duplicates import near_pairs
from retemper.data.splits import leaks, uncharged

NEAR = 1e-3  # A; the default of dataset.near_duplicate


def near(pool: Sequence[Atoms], references: Sequence[Atoms], tolerance: float) -> set[int]:
    """Indices of structures of `pool` that are within `tolerance` (A) of one of `references`, whatever their charge."""
    n = len(references)
    return {j - n for i, j in near_pairs([*uncharged(references), *uncharged(pool)], tolerance) if i < n <= j}


def repeats(frames: Sequence[Atoms], tolerance: float) -> dict[int, int]:
    """Indices of frames that are within `tolerance` (A) of an earlier one, and the first such."""
    first: dict[int, int] = {}
    for i, j in near_pairs(frames, tolerance):
        first.setdefault(j, i)
    return first


def apart(pool: Sequence[Atoms], held_out: Sequence[Atoms], tolerance: float) -> list[Atoms]:
    """Structures of `pool` that are none of `held_out` (within `tolerance`, A): prototypes are the same everywhere."""
    taken = near(pool, held_out, tolerance)
    return [atoms for k, atoms in enumerate(pool) if k not in taken]


def audit(
    replayed: Sequence[Atoms],
    retention: Sequence[Atoms],
    label: str = "the replay set",
    *,
    tolerance: float = NEAR,
    groups: bool = True,
) -> None:
    """Raise when `replayed` and the retention set share a structure (within `tolerance`, A), or a group.

    `groups` is for sets of one origin: names of groups mean nothing between sets of different origin.
    """
    leaked = leaks(replayed, retention, tolerance, groups=groups)
    if leaked:
        first = leaked[0]
        raise RetemperError(
            f"{label} and the retention set share {len(leaked)} structure(s) or group(s), the first: {first['kind']}, "
            f"{first['a']} and {first['b']}. Forgetting would look smaller than it is.",
            expected=f"no structure within {tolerance:g} A (dataset.near_duplicate) and no group in both",
            fix="take the held-out structures and their groups out of replay.pools, or set another evaluate.retention",
        )
