"""The steps of the dataset stage: one object carries the frames, why some are not used, and what to tell the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.core.files import digest
from retemper.data import charge, checks, nearness, splits
from retemper.data.frame_store import Picked, Store
from retemper.data.frames import ENERGY
from retemper.data.grouping import MIN_FRAMES, group_frames, groups_of
from retemper.data.labels import is_free_atom
from retemper.prepare import reading, rounds, subset
from retemper.prepare.manifest import reason_kind, reasons
from retemper.records.dataset import Groups, JoinedRound, LevelOfTheory, Nearness, Subset, Units

Array = np.ndarray


def _known_elements(project: Project) -> set[str]:
    """Symbols that the catalogue lists for the foundation; those of its file where it does not."""
    symbols = set((project.foundation.elements or "").split())
    if symbols and symbols <= set(atomic_numbers):
        return symbols
    from retemper.models import mace

    return {chemical_symbols[z] for z in mace.elements(project.weights)}


class DataSet:
    """A data set in the making. Frames are named by their indices in the store.

    Every step takes frames out of `frames`, with the reason noted as their ``info["reason"]``, or sorts them into
    `sets`; what the user should know goes to `warnings`.
    """

    def __init__(self, project: Project, store: Store):
        self.project, self.settings, self.store = project, project.settings.dataset, store
        self.allowed = _known_elements(project)
        self.parts: list[reading.Part] = []  # the files at the level of theory that is taken
        self.other_level: list[int] = []
        self.frames = np.array([], dtype=np.int64)  # [n] labelled, sound so far, in no set yet
        self.free: Array = np.array([], dtype=bool)  # [all] whether a frame is a free atom
        self.isolated: list[int] = []  # free atoms that are taken
        self.unused: list[int] = []
        self.rejected: list[int] = []
        self.sets: dict[str, Array] = {}
        self.read_from_rounds = 0
        self.warnings: list[str] = []

    def _reject(self, why: Mapping[int, str | None]) -> None:
        """Take out the frames that have a reason."""
        bad = reading.mark(self.store, why)
        self.rejected += bad
        self.frames = self.frames[~np.isin(self.frames, bad)]

    def _set_aside(self, frames: Array, reason: str) -> None:
        """Note why sound frames are not used."""
        self.unused += reading.mark(self.store, dict.fromkeys(frames.tolist(), reason))

    def _structures(self) -> Array:
        """Of `frames` those of more than one atom."""
        return np.asarray(self.frames[~self.free[self.frames]])

    def _labels(self) -> Picked:
        return Picked(self.store, self._structures())

    # ------------------------------------------------------------------ what was read

    def read(self) -> None:
        """Every file, and which frames have labels."""
        files = [self.project.root / name for name in self.settings.all_files]
        parts = reading.read(files, self.settings, self.store)
        self.parts, self.other_level = reading.leave_out(parts, self.settings, self.store)
        self.free = np.array([is_free_atom(frame) for frame in self.store], dtype=bool)
        self.frames = np.concatenate([part.frames for part in self.parts])
        self.rejected = [k for part in self.parts for k in part.rejected]
        self.warnings = [text for part in self.parts for text in part.warnings]
        checks.check_variation(self._labels())

    def check_units(self) -> Units:
        units = reading.judge_units(self.parts, self.store, self.project)
        self.warnings += units.warnings
        return Units(
            energy=self.settings.energy_unit,
            length=self.settings.length_unit,
            evidence=units.evidence,
            untested=units.untested,
        )

    def check_kind(self) -> LevelOfTheory:
        """Elements, level of theory, charge and spin of all frames."""
        foundation, labelled = self.project.settings.foundation, Picked(self.store, self.frames)
        checks.check_elements(labelled, self.allowed, foundation)
        tags, warnings = checks.level_tags(labelled)
        self.warnings += warnings + charge.warnings(self._labels())
        return LevelOfTheory(declared=self.settings.level_of_theory, info_keys=tags, left_out=len(self.other_level))

    # ------------------------------------------------------------------ which frames are sound

    def check_frames(self) -> None:
        """Reject what fails the checks of single frames and of energies; too many are an error."""
        faults = [checks.frame_fault(frame, self.settings) for frame in Picked(self.store, self.frames)]
        self._reject(dict(zip(self.frames.tolist(), faults, strict=True)))
        energy_faults, warnings = checks.energy_faults(self._labels(), self.settings.energy_window)
        self.warnings += warnings
        self._reject(dict(zip(self._structures().tolist(), energy_faults, strict=True)))
        if len(self.rejected) <= self.settings.max_rejected * len(self.store):
            return
        every = [(frame.info["source"], frame.info["reason"]) for frame in Picked(self.store, self.rejected)]
        kinds = Counter(reason_kind(reason) for _, reason in every)
        raise RetemperError(
            f"{len(self.rejected)} of {len(self.store)} frames fail the checks: "
            + "; ".join(f"{kind} ({number})" for kind, number in kinds.most_common(8)),
            expected=f"at most {self.settings.max_rejected:.0%} (dataset.max_rejected)",
            got=f"{every[0][0]}: {every[0][1]}",
            fix="mend or remove these frames; or, if they are to be left out, raise dataset.max_rejected",
        )

    def pick_free_atoms(self) -> None:
        """One neutral frame an element for the E0s; further ones are duplicates or conflicts."""
        frames = {k: self.store[k] for k in self.frames[self.free[self.frames]].tolist()}
        self.frames = self._structures()
        ions = [k for k, frame in frames.items() if charge.charge_of(frame)]
        self._reject(dict.fromkeys(ions, "a free ion is no reference energy"))
        frames = {k: frame for k, frame in frames.items() if k not in ions}
        for z in sorted({int(frame.numbers[0]) for frame in frames.values()}):
            same = {k: frame for k, frame in frames.items() if frame.numbers[0] == z}
            energies = [frame.info[ENERGY] for frame in same.values()]
            first, *duplicates = same
            if max(energies) - min(energies) > checks.ENERGY_CONFLICT:
                span = f"{min(energies):g} to {max(energies):g} eV"
                self.warnings.append(
                    f"free atoms of {chemical_symbols[z]} have different energies ({span}): none is used"
                )
                self._reject(dict.fromkeys(same, "conflict: free atoms of this element have different energies"))
            else:
                self.isolated.append(first)
                self._reject(dict.fromkeys(duplicates, f"duplicate of {same[first].info['source']}"))

    def remove_duplicates(self) -> None:
        """Reject repeated structures; those whose labels contradict each other are all rejected."""
        why = checks.find_duplicates(Picked(self.store, self.frames), self.settings.near_duplicate)
        self._reject({int(self.frames[k]): reason for k, reason in why.items()})
        if any(reason.startswith("conflict") for reason in why.values()):
            self.warnings.append("structures with contradicting labels were rejected: see rejected.extxyz")
        if len(self.frames) >= MIN_FRAMES:
            return
        kinds = reasons(Picked(self.store, [*self.rejected, *self.other_level]))
        if self.isolated:
            kinds = {"free atom": len(self.isolated), **kinds}
        raise RetemperError(
            f"Only {len(self.frames)} frame(s) are left to split into train, valid and test.",
            expected=f"at least {MIN_FRAMES} frames of more than one atom",
            got=f"{len(self.store)} frames read"
            + "".join(f"; {number} not used: {kind}" for kind, number in list(kinds.items())[:8]),
            fix="add labelled structures, or mend those that are not used for the reason above",
        )

    # ------------------------------------------------------------------ which set they go to

    def split(self) -> Groups:
        """Train, valid and test sets by whole groups; a test set that is given is taken as it is."""
        settings, store, test_indices = self.settings, self.store, []
        for part in self.parts:
            if part.name in settings.test_files:
                test_indices.append(self.frames[np.isin(self.frames, part.frames)])
                for k, group in zip(test_indices[-1].tolist(), groups_of(Picked(store, test_indices[-1])), strict=True):
                    store.note(k, "group", f"test file {part.name}: {group}")
        frames = np.setdiff1d(self.frames, np.concatenate(test_indices)) if test_indices else self.frames
        test = 0.0 if settings.test_files else settings.test
        grouping = group_frames(Picked(store, frames), settings.group, settings.valid, test or settings.valid)
        for k, group in zip(frames.tolist(), grouping.groups, strict=True):
            store.note(k, "group", group)
        places = np.array(splits.split(grouping, settings.valid, test, settings.seed))
        self.sets = {name: frames[places == name] for name in splits.SPLITS}
        self.sets["test"] = np.concatenate([self.sets["test"], *test_indices])
        self._set_aside(frames[places == "gap"], splits.GAP)
        self.warnings += grouping.warnings
        groups = Groups(rule=grouping.rule, groups=len(set(grouping.groups)))
        empty = [name for name, part in self.sets.items() if not len(part)]
        if empty:
            raise RetemperError(
                f"No frames are left for {' and '.join(empty)}.",
                got=f"{len(frames)} frames, {groups.groups} groups by {groups.rule}",
                fix="add frames, or name the trajectories in an info key and set dataset.group to it",
            )
        return groups

    def limit_training(self) -> Subset:
        """Cut the training set to ``dataset.max_train``."""
        settings, train = self.settings, self.sets["train"]
        number = min(settings.max_train or len(train), len(train))
        cut = Subset(rule=settings.subset, seed=settings.seed, of=len(train), order_hash=None)
        if number == len(train):
            return cut
        frames = Picked(self.store, train)
        order = subset.order(settings.subset, frames, number, settings.seed, subset.by_foundation(self.project))
        selected = np.isin(np.arange(len(train)), order)
        self._set_aside(train[~selected], "beyond dataset.max_train")
        self.sets["train"] = train[selected]
        return cut.model_copy(update={"order_hash": digest([frames[k].info["source"] for k in order])})

    def add_rounds(self) -> list[JoinedRound]:
        """Append the structures of active learning."""
        joined = rounds.join(self._picked(), self.project, self.allowed)
        for name, frames in (("train", joined.train), ("valid", joined.valid)):
            indices = np.array([self.store.append(frame) for frame in frames], dtype=np.int64)
            self.sets[name] = np.append(self.sets[name], indices)
        self.rejected += [self.store.append(frame) for frame in joined.rejected]
        self.read_from_rounds = sum(entry.frames_read for entry in joined.rounds)
        return joined.rounds

    def _picked(self) -> dict[str, Picked]:
        return {name: Picked(self.store, part) for name, part in self.sets.items()}

    def audit(self) -> tuple[list[str], dict[str, Nearness]]:
        """Refuse sets that share structures or groups; how near held-out sets lie to the training set."""
        sets = self._picked()
        audited = splits.require_no_leaks(sets, self.settings.near_duplicate)
        near, warnings = nearness.audit(sets, self.settings.near_test)
        self.warnings += warnings
        return audited, near

    def frames_of_sets(self) -> dict[str, Picked]:
        """The frames of all sets; every frame that was read is in exactly one."""
        unused = [*self.unused, *self.other_level]
        for name, part in (("isolated", self.isolated), ("unused", unused), ("rejected", self.rejected)):
            self.sets[name] = np.array(part, dtype=np.int64)
        written, read = np.concatenate(list(self.sets.values())), len(self.free) + self.read_from_rounds
        if not len(written) == len(np.unique(written)) == read == len(self.store):
            distinct = len(np.unique(written))
            raise AssertionError(f"{read} frames were read but {len(written)} written ({distinct} distinct)")
        return self._picked()
