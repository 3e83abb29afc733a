"""What labelled structures say of themselves, before anything is set: labels, units, groups, charges, free atoms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.advise.facts import needed_atoms
from retemper.config.settings import Dataset, Keys, parse
from retemper.core.errors import RetemperError
from retemper.data import charge, checks, frame_weights, label_keys, splits
from retemper.data.frames import ENERGY, FORCES, STRESS, elements, stream_frames
from retemper.data.grouping import Grouping, group_frames
from retemper.data.labels import LISTED, is_free_atom, map_labels
from retemper.data.units import energy_factor, length_factor
from retemper.data.units.check import Verdict, check_units, free_atoms
from retemper.data.units.predicted import Predict
from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.prepare.reading import ENOUGH

MOST = 20_000  # frames of each file that are looked at
VALID, TESTS = 0.1, (0.2, 0.25, 0.3, 0.35, 0.4)  # shares that are proposed; of the test set the first that is enough
CHARGED = ("charge", "spin", "multiplicity")  # parts of info keys that may mean a frame's charge or spin


@dataclass(frozen=True)
class Labelled:
    """Frames of all files under retemper's keys, as the dataset stage will read them."""

    dataset: Dataset  # files by their names in the project, keys, weights
    frames: list[Atoms]  # with more than one atom, and sound enough to be measured
    free: list[Atoms]  # free atoms
    read: int
    rejected: int  # without usable labels
    other_keys: dict[str, list[str]]  # keys that could hold a label too, by label
    more: bool  # whether files have more frames than were looked at


@dataclass(frozen=True)
class Survey:
    """What `look` finds."""

    labelled: Labelled  # in eV and Angstrom
    elements: list[str]
    level: str | None  # of theory, where the frames say it
    grouping: Grouping
    free: dict[str, float]  # energy of a neutral free atom by symbol, eV
    needed: tuple[str, ...]  # free atoms without which the E0s stay open
    charges: Counter[float]  # of frames, e
    says_spin: bool
    unread: list[str]  # info keys that may mean charge or spin, and are not read
    weighted: bool  # frames have weights of their own
    unit_reason: str  # why the units are not eV and Angstrom; empty where they are
    untested: list[str]  # units that nothing tests, in words

    @property
    def frames(self) -> list[Atoms]:
        return self.labelled.frames

    @property
    def dataset(self) -> Dataset:
        return self.labelled.dataset

    @cached_property
    def test(self) -> tuple[float, int]:
        """Share of the test set, and how many groups it then has: enough to compare, where that can be had."""
        groups: dict[float, int] = {}
        for share in TESTS:
            places = splits.split(self.grouping, VALID, share, self.dataset.seed)
            names = zip(self.grouping.groups, places, strict=True)
            groups[share] = len({group for group, place in names if place == "test"})
            if groups[share] >= FEWEST_GROUPS:
                return share, groups[share]
        return TESTS[0], groups[TESTS[0]]

    @property
    def molecular(self) -> bool:
        """Whether no structure is periodic."""
        return not any(frame.pbc.any() for frame in self.frames)

    @property
    def charged(self) -> bool:
        return any(self.charges)


def read(files: Mapping[str, Path], keys: Mapping[str, str | None], dataset: Mapping[str, object]) -> Labelled:
    """Read files and find their labels.

    Parameters
    ----------
    files
        Path by the name that the file will have in the project.
    keys
        Keys that are given, by label (energy, forces, stress, virial); `None`: the frames have no such label.
    dataset
        Other settings of the section that are given.

    Raises
    ------
    RetemperError
        A file that cannot be read, keys that are not there or not clear or differ between files, no frame with labels.
    """
    raw: dict[str, list[Atoms]] = {}
    found: Keys | None = None
    counts: dict[str, label_keys.LabelKeys] = {}
    more = False
    for name, path in files.items():
        stream = stream_frames(path)
        raw[name] = list(islice(stream, MOST))
        more = more or next(stream, None) is not None
        counts[name] = label_keys.count(raw[name])
        chosen = counts[name].choose(keys, str(path))
        if found is not None and chosen != found:
            raise RetemperError(
                f"{path} has other keys than the file before it.",
                expected=_words(found),
                got=_words(chosen),
                fix="one setting holds for all files: convert one, or give --keys",
            )
        found = chosen
    assert found is not None
    weighted = any(frame_weights.stated_weights(frame) for frames in raw.values() for frame in frames)
    content = {"files": list(files), "level_of_theory": "not stated", "keys": found, **dataset}
    settings = parse(Dataset, content | ({"weights": "use"} if weighted else {}), "flags of retemper init")
    mapped = [map_labels(frames, settings, name) for name, frames in raw.items()]
    labelled = [frame for part in mapped for frame in part.frames]
    sound = [frame for frame in labelled if not is_free_atom(frame) and checks.can_be_measured(frame)]
    rejected = [frame for part in mapped for frame in part.rejected]
    if not sound:
        raise RetemperError(
            "No structure has energy and forces.",
            got=f"{len(rejected)} frames without labels"
            + (f"; the first: {rejected[0].info['reason']}" if rejected else ""),
            fix="give the keys of the labels: --keys energy=KEY forces=KEY",
        )
    others = {
        label: [key for count in counts.values() for key in count.candidates(label) if key != getattr(found, label)]
        for label in label_keys.LABELS
    }
    return Labelled(
        dataset=settings,
        frames=sound,
        free=[frame for frame in labelled if is_free_atom(frame)],
        read=sum(map(len, raw.values())),
        rejected=len(rejected),
        other_keys={label: list(dict.fromkeys(names)) for label, names in others.items() if names},
        more=more,
    )


def _words(keys: Keys) -> str:
    return ", ".join(f"{label} under {key}" for label, key in keys.model_dump().items() if key is not None)


def look(labelled: Labelled, predict: Predict | None) -> Survey:
    """Everything that settings are proposed from; `predict` asks a foundation what labels leave open of their units.

    Raises
    ------
    RetemperError
        Labels in units or with signs that no setting mends, two levels of theory, too few frames, an unknown group.
    """
    labelled, unit_reason, untested = _in_true_units(labelled, predict)
    frames = labelled.frames
    charges = Counter(charge.charge_of(frame) for frame in frames)
    common = charges.most_common(1)[0][0]
    free = _free_atoms(labelled.free)
    numbers = sorted({int(z) for frame in frames for z in frame.numbers})
    deciding = [frame for frame in frames if charge.charge_of(frame) == common]
    known = {z for z in numbers if chemical_symbols[z] in free}
    return Survey(
        labelled=labelled,
        elements=elements(frames),
        level=stated_level(frames),
        grouping=group_frames(frames, labelled.dataset.group, VALID, TESTS[0]),
        free=free,
        needed=needed_atoms(deciding, known),
        charges=charges,
        says_spin=any(charge.spin_of(frame) is not None for frame in frames),
        unread=_unread(frames),
        weighted=labelled.dataset.weights == "use",
        unit_reason=unit_reason,
        untested=untested,
    )


def stated_level(frames: Sequence[Atoms]) -> str | None:
    """The level of theory that an info key of the frames names; two of them are a `RetemperError`."""
    tags, _ = checks.level_tags(frames)
    return next((next(iter(values)) for key, values in tags.items() if key.lower() in checks.LEVEL_KEYS), None)


def grouped(survey: Survey, group: str) -> Survey:
    """The survey with groups by another rule; an info key that no frame has is a `RetemperError`."""
    return replace(survey, grouping=group_frames(survey.frames, group, VALID, TESTS[0]))


def _in_true_units(labelled: Labelled, predict: Predict | None) -> tuple[Labelled, str, list[str]]:
    """The labels in eV and Angstrom, why the declared units were others, and what is not tested."""
    dataset = labelled.dataset
    verdicts = _verdicts(labelled, predict)
    wrong = [verdict for verdict in verdicts if verdict.wrong]
    if not wrong:
        return labelled, "", _once(verdicts)
    refusal = RetemperError(f"The labels cannot be used as they are. {wrong[0].message}", fix=wrong[0].fix)
    correction = wrong[0].correction
    if correction is None or any(verdict.correction != correction for verdict in verdicts):
        raise refusal
    units = correction.units
    if units.per_atom or units.energy != units.force_energy or min(correction.energy_sign, correction.force_sign) < 0:
        raise refusal
    declared = {"energy_unit": units.energy, "length_unit": units.force_length}
    corrected = _converted(labelled, dataset.model_copy(update=declared))
    again = _verdicts(corrected, predict)
    if any(verdict.wrong for verdict in again):
        raise refusal
    return corrected, wrong[0].message, _once(again)


def _verdicts(labelled: Labelled, predict: Predict | None) -> list[Verdict]:
    """On the units of each file, of small ones together, as the stage dataset judges them."""
    dataset, files = labelled.dataset, dict[str, list[Atoms]]()
    for frame in labelled.frames:
        files.setdefault(str(frame.info["source"]).rpartition(":")[0], []).append(frame)
    small = [frame for frames in files.values() if len(frames) < ENOUGH for frame in frames]
    parts = [frames for frames in files.values() if len(frames) >= ENOUGH] + ([small] if small else [])
    free = free_atoms(labelled.free)
    return [check_units(part, dataset.energy_unit, dataset.length_unit, free, predict) for part in parts]


def _once(verdicts: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(words for verdict in verdicts for words in verdict.untested))


def _converted(labelled: Labelled, dataset: Dataset) -> Labelled:
    """The same labels, read in the units of `dataset`."""
    old = labelled.dataset
    energy = energy_factor(dataset.energy_unit) / energy_factor(old.energy_unit)
    length = length_factor(dataset.length_unit) / length_factor(old.length_unit)

    def convert(frame: Atoms) -> Atoms:
        new: Atoms = frame.copy()
        new.info[ENERGY] *= energy
        new.arrays[FORCES] = new.arrays[FORCES] * (energy / length)
        if STRESS in new.info:
            new.info[STRESS] = np.asarray(new.info[STRESS]) * (energy / length**3)
        return new

    frames, free = ([convert(frame) for frame in part] for part in (labelled.frames, labelled.free))
    return replace(labelled, dataset=dataset, frames=frames, free=free)


def _free_atoms(frames: Sequence[Atoms]) -> dict[str, float]:
    """Energies of neutral free atoms; elements whose atoms contradict each other have none, as in the dataset stage."""
    by_symbol: dict[str, list[float]] = {}
    for frame in frames:
        if not charge.charge_of(frame):
            by_symbol.setdefault(frame.get_chemical_formula(), []).append(float(frame.info[ENERGY]))
    agreeing = {s: e for s, e in by_symbol.items() if max(e) - min(e) <= checks.ENERGY_CONFLICT}
    return {symbol: energies[0] for symbol, energies in sorted(agreeing.items())}


def _unread(frames: Sequence[Atoms]) -> list[str]:
    """Info keys that seem to say charge or spin of whole frames under names that nothing reads."""
    read_keys = {key for spellings in charge.SPELLINGS.values() for key in spellings}
    keys = Counter(key for frame in frames for key, value in frame.info.items() if np.size(value) == 1)
    unread = [key for key in sorted(keys) if key not in read_keys]
    return [key for key in unread if any(part in key.lower() for part in CHARGED)][:LISTED]
