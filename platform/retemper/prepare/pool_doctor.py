"""What is wrong, or odd, about the pools before anything is trained on them: sentences with numbers, and refusals.

Labels of another level of theory are refused where they are trained on (`retemper.finetune.planning`), structures that
are also in the retention set by `retemper.prepare.overlap.audit`; repeated structures and those of the target's data
are left out. What is found beside that is told here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.data import nearness
from retemper.data.checks import ENERGY_CONFLICT
from retemper.data.frames import ENERGY, STRESS
from retemper.data.grouping import name_of
from retemper.models.predictions import has_stress
from retemper.prepare import pool_check
from retemper.prepare.pools import Pool
from retemper.prepare.replay_choice import Candidates, has_labels
from retemper.records.replay import PoolFinding


def labels(pools: Sequence[Pool], offered: Candidates) -> list[PoolFinding]:
    """Labels of another level of theory, missing stress, and structures that are repeated with other labels."""
    findings = []
    for pool in pools:
        if pool.agreement is not None and (text := pool_check.warning(pool.agreement, pool.source.name)) is not None:
            sample = pool.agreement.frames
            findings.append(PoolFinding(kind="level of theory", number=sample, of=sample, text=text))
        crystals = [atoms for atoms in pool.frames if has_labels(atoms) and has_stress(atoms)]
        bare = sum(STRESS not in atoms.info for atoms in crystals)
        if bare:
            text = (
                f"{pool.source.name}: {bare} of {len(crystals)} crystals have no stress: replay of their labels does "
                "not hold the foundation's stress there"
            )
            findings.append(PoolFinding(kind="no stress", number=bare, of=len(crystals), text=text))
    return findings + _conflicts(offered)


def _conflicts(offered: Candidates) -> list[PoolFinding]:
    """Structures that stand in the pools twice, with different energies; the first one stays."""
    frames = offered.frames
    both = [(i, j) for j, i in offered.repeats.items() if has_labels(frames[i]) and has_labels(frames[j])]
    differ = [
        (i, j)
        for i, j in both
        if abs(frames[i].info[ENERGY] - frames[j].info[ENERGY]) > ENERGY_CONFLICT * len(frames[i])
    ]
    if not differ:
        return []
    i, j = differ[0]
    text = (
        f"{len(differ)} of {len(both)} repeated structures have another energy than the first, which stays, such as "
        f"{_source(frames[j], j)} and {_source(frames[i], i)}"
    )
    return [PoolFinding(kind="labels differ", number=len(differ), of=len(both), text=text)]


def overlap(
    replayed: Sequence[Atoms],
    target: Mapping[str, Sequence[Atoms]],
    retention: Sequence[Atoms],
    near_test: str,
) -> list[PoolFinding]:
    """Groups that the replayed structures share with the target's, and held-out structures that lie close to them.

    Parameters
    ----------
    replayed
        Training and validation structures of the replay set.
    target
        Structures of the data set: ``train``, ``valid``, ``test``.
    retention
        What is forgotten is measured on.
    near_test
        ``dataset.near_test``: "refuse" raises where most test structures lie close to replayed ones.

    Raises
    ------
    RetemperError
    """
    groups = _groups(replayed)
    findings = []
    for name, frames in target.items():
        shared = groups & _groups(frames)
        number = sum(name_of(atoms.info["group"]) in shared for atoms in frames if "group" in atoms.info)
        if number:
            text = (
                f"{number} of {len(frames)} structures of the {name} set are of groups whose names replayed structures "
                f"have too, such as {min(shared)}: where these are the same trajectories or molecules, take them out "
                "of the pools"
            )
            findings.append(PoolFinding(kind=f"groups of {name}", number=number, of=len(frames), text=text))
    for name, frames in (("test", target["test"]), ("retention", retention)):
        closeness = nearness.judge(replayed, frames)
        if not closeness.near:
            continue
        text = f"{name} set and replayed structures: {nearness.in_words(closeness)}"
        if name == "test" and near_test == "refuse" and nearness.near_in_majority(closeness):
            raise RetemperError(
                f"{text}. Errors on the test set say nothing about new structures.",
                expected="test structures that are independent of what is replayed (dataset.near_test: refuse)",
                fix="take the target's trajectories out of the pools; dataset.near_test: warn goes on",
            )
        findings.append(PoolFinding(kind=f"near {name}", number=closeness.near, of=closeness.judged, text=text))
    return findings


def _groups(frames: Sequence[Atoms]) -> set[str]:
    return {name_of(atoms.info["group"]) for atoms in frames if "group" in atoms.info}


def _source(atoms: Atoms, index: int) -> str:
    return str(atoms.info.get("source", index))
