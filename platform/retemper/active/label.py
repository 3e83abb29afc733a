"""Labels by content: a structure is labelled once for an oracle and its settings, whatever is killed meanwhile.

A file for each structure under ``.cache/labels`` holds its label, or its failures. It is written
whole before an attempt begins and after it has ended, so that attempts are counted even where
nobody lived to tell how they ended.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike
from pydantic import ValidationError

from retemper.active import plugins, workers
from retemper.active.workers import Answer, Job
from retemper.config.settings import Acquire, Plugin
from retemper.core import executor, sealed
from retemper.core.errors import RetemperError
from retemper.core.files import digest
from retemper.core.output import log, progress
from retemper.data.charge import info_of, state_of
from retemper.data.frames import ENERGY, FORCES, STRESS, geometry_hash
from retemper.data.labels import reject
from retemper.records.label import Attempt, Label
from retemper.records.round import OracleCheck

CACHE = Path(".cache/labels")
CHECKED = Path(".cache/verify")  # labels of one `verify`, kept while it runs
INTERRUPTED = 20  # attempts of which nobody knows the end, after which a structure is given up
ENERGY_OFF, FORCE_OFF = 2e-3, 0.03  # eV/atom, eV/A RMS: what an oracle may differ by from the data


def key_of(atoms: Atoms, oracle: Plugin) -> str:
    """Hash of structure, charge, spin, and the oracle with all its options and what they name (`ingredients`)."""
    module, options = plugins.load("oracles", oracle)
    state = state_of(atoms)
    identity = [geometry_hash(atoms), state.charge, state.multiplicity, oracle.name, options.model_dump()]
    if state.special and getattr(module, "READS_INFO", False):
        identity.append("info")
    return digest([*identity, module.level(options), module.ingredients(options, atoms)])


def require_level(oracle: Plugin, declared: str) -> str:
    """The oracle's level of theory; one other than the data's is refused."""
    module, options = plugins.load("oracles", oracle)
    level: str = module.level(options)
    if "".join(level.split()).casefold() != "".join(declared.split()).casefold():
        raise RetemperError(
            f"The oracle {oracle.name} labels at another level of theory than the data have.",
            expected=f"{declared} (dataset.level_of_theory)",
            got=level,
            fix="change acquire.oracle, or its level_of_theory if it is the same thing by another name",
        )
    return level


def is_manual(oracle: Plugin) -> bool:
    """Whether labels come from elsewhere."""
    return bool(getattr(plugins.load("oracles", oracle)[0], "MANUAL", False))


def label_all(
    frames: Sequence[Atoms], options: Acquire, root: Path, cache: Path = CACHE
) -> tuple[list[Atoms], list[Atoms]]:
    """Labelled copies of `frames`, and those that failed with ``info["reason"]``; both in their order.

    Labels and failures that are in `cache` from before are used. A failure is tried again
    ``acquire.retries`` times, and once more where ``acquire.timeout`` is above the time that it
    had; one that the oracle refuses never.
    """
    folder = root / cache
    keys = [key_of(atoms, options.oracle) for atoms in frames]
    records = {key: _read(folder, key, options) for key in keys}
    unlabelled = {key: atoms for key, atoms in zip(keys, frames, strict=True) if records[key].state == "open"}
    if unlabelled:
        _label(unlabelled, records, len(frames), options, folder)
    return _sort(frames, [records[key] for key in keys])


def _label(frames: dict[str, Atoms], records: dict[str, Label], total: int, options: Acquire, folder: Path) -> None:
    """Have `frames` labelled, until the records of all are closed."""
    cached, finished, start = total - len(frames), 0, time.monotonic()
    if cached:
        log.info(f"  {cached} of {total} labels are there from before")

    with executor.Executor(options.workers, cluster=options.ray) as pool, progress(total) as say:

        def submit(key: str) -> executor.Job:
            def note_attempt() -> None:
                records[key].attempts.append(Attempt(kind="interrupted", reason="nobody knows how it ended"))
                _write(folder, records[key])

            job = Job(key, frames[key], options.oracle, _folder(folder, key))
            return pool.submit(executor.Job(workers.compute, (job,), timeout=options.timeout, started=note_attempt))

        running = {submit(key): key for key in frames}
        for job in pool.finished():
            key = running.pop(job)
            _note(records[key], Answer.of(job), options.retries)
            _write(folder, records[key])
            if records[key].state == "open":
                running[submit(key)] = key
            else:
                finished += 1
            say(cached + finished, f"  labels: {cached + finished} of {total}, {time.monotonic() - start:.0f} s")


def _folder(cache: Path, key: str) -> str:
    """A folder that no earlier, killed attempt can still write to."""
    return str((cache / "work" / f"{key}-{os.getpid()}").resolve())


def _note(record: Label, answer: Answer, retries: int) -> None:
    """Add the end of an attempt to a record, and decide whether there is another."""
    record.attempts[-1] = Attempt(kind=answer.kind, reason=answer.reason, seconds=round(answer.seconds, 3))
    if answer.label is not None:
        label = answer.label
        record.state, record.energy = "done", label.energy
        record.forces = np.round(label.forces, 8).tolist()
        record.stress = None if label.stress is None else np.round(label.stress, 12).tolist()
    elif answer.kind == "refused" or len(record.ended) > retries:
        record.state = "failed"


def _read(folder: Path, key: str, options: Acquire) -> Label:
    """What is known of a structure; settings that allow more than its failures had open it again."""
    record = _stored(folder / f"{key}.json", key)
    if record is None:
        return Label(key=key, oracle=options.oracle, state="open", attempts=[])
    ended = record.ended
    if record.state == "failed" and ended[-1].kind != "refused":
        last = ended[-1]
        longer = last.kind == "timeout" and last.seconds is not None and last.seconds < options.timeout
        if longer or len(ended) <= options.retries:
            record.state = "open"
    if record.state == "open" and len(record.attempts) - len(ended) >= INTERRUPTED:
        record.state = "failed"
    return record


def _stored(path: Path, key: str) -> Label | None:
    """What lies there; of an earlier version, without a checksum, it may be of another structure or broken."""
    content = sealed.read_json(path, key, unsealed=True)
    if content is None:
        return None
    try:
        record = Label.model_validate_json(json.dumps(content))
    except ValidationError as error:
        sealed.put_aside(path, f"it is no label ({error.errors()[0]['msg']})")
        return None
    if record.key != key:
        sealed.put_aside(path, "it is of another structure or oracle")
        return None
    return record


def _write(folder: Path, record: Label) -> None:
    sealed.write_json(folder / f"{record.key}.json", record.key, record.model_dump(mode="json"))


def _sort(frames: Sequence[Atoms], records: Sequence[Label]) -> tuple[list[Atoms], list[Atoms]]:
    labelled, failed = [], []
    for atoms, record in zip(frames, records, strict=True):
        copy = atoms.copy()
        copy.info["label"] = record.key
        if record.state == "done":
            assert record.energy is not None and record.forces is not None
            labelled.append(put(copy, record.energy, record.forces, record.stress))
        else:
            reasons = [f"{attempt.kind}: {attempt.reason}" for attempt in record.attempts]
            failed.append(reject(copy, " | ".join(reasons)[:500]))
    return labelled, failed


def put(atoms: Atoms, energy: float, forces: ArrayLike, stress: ArrayLike | None) -> Atoms:
    """`atoms` with a label, in place."""
    atoms.info[ENERGY] = float(energy)
    atoms.arrays[FORCES] = np.array(forces, dtype=float)
    if stress is not None:
        atoms.info[STRESS] = np.array(stress, dtype=float).ravel()
    return atoms


def clean(root: Path) -> None:
    """Remove what killed attempts left beside the labels."""
    shutil.rmtree(root / CACHE / "work", ignore_errors=True)


def to_verify(train: Sequence[Atoms], number: int) -> list[Atoms]:
    """Structures of the training set that are labelled again: of its smaller half, spread over the sizes."""
    small = sorted(range(len(train)), key=lambda k: (len(train[k]), k))
    return [train[small[k]] for k in np.unique(np.linspace(0, len(small) // 2, number).astype(int))] if number else []


def bare(atoms: Atoms) -> Atoms:
    """The structure with charge and spin, and nothing else that is known of it."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc, info=info_of(atoms))


def verify(train: Sequence[Atoms], options: Acquire, root: Path) -> OracleCheck:
    """Let the oracle label structures of the data again; labels that differ are refused.

    The same level of theory by name may hide another cutoff, functional or charge, and the same
    settings another version of a program: no label from before is used, but for those of a check that was killed.

    Raises
    ------
    RetemperError
        The oracle fails on a structure of the data, or gives it another label.
    """
    structures = to_verify(train, options.verify)
    labelled, failed = label_all([bare(atoms) for atoms in structures], options, root, CHECKED)
    shutil.rmtree(root / CHECKED)
    if failed:
        raise RetemperError(
            f"The oracle {options.oracle.name} cannot label a structure of the data.",
            got=failed[0].info["reason"],
            fix="mend acquire.oracle (program, pseudopotentials, charge and spin in the frames' info), then run again",
        )
    energy_errors = [abs(a.info[ENERGY] - b.info[ENERGY]) / len(a) for a, b in zip(structures, labelled, strict=True)]
    force_errors = [
        float(np.sqrt(((a.arrays[FORCES] - b.arrays[FORCES]) ** 2).mean()))
        for a, b in zip(structures, labelled, strict=True)
    ]
    check = OracleCheck(number=len(structures), energy=float(max(energy_errors)), forces=max(force_errors))
    if check.energy > ENERGY_OFF or check.forces > FORCE_OFF:
        raise RetemperError(
            f"The oracle {options.oracle.name} does not reproduce the labels of the data.",
            expected=f"within {ENERGY_OFF:g} eV/atom and {FORCE_OFF:g} eV/A on {len(structures)} training structures",
            got=f"{check.energy:.2g} eV/atom, {check.forces:.2g} eV/A",
            fix="use the settings, charge and spin that made the data; acquire.verify: 0 skips this check",
        )
    return check
