"""The units of several files, which share one setting: wrong ones raise, untested ones are said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.data.units.check import Verdict, check_units, free_atoms
from retemper.data.units.combinations import combinations
from retemper.data.units.predicted import Predict


@dataclass(frozen=True)
class Judged:
    """What was found by origin, for warnings and the manifest."""

    warnings: list[str]
    evidence: dict[str, list[str]]
    untested: dict[str, list[str]]


def require_units(
    parts: Mapping[str, Sequence[Atoms]], energy_unit: str, length_unit: str, predict: Predict | None = None
) -> Judged:
    """`check_units` for each origin; wrong units raise.

    Parameters
    ----------
    parts
        Labelled frames by the name of their origin. An origin without free atoms is judged with those of all.
    energy_unit, length_unit, predict
        As for `check_units`.

    Returns
    -------
    Judged
        Suspicions, measurements, and what no measurement could test, in words.

    Raises
    ------
    RetemperError
        The labels of an origin are in other units. The message names them; where other origins are
        in other units, the advice is to convert the file, since the settings hold for all.
    """
    atoms = free_atoms([frame for part in parts.values() for frame in part])
    verdicts: dict[str, Verdict] = {}
    for name, part in parts.items():
        verdicts[name] = check_units(part, energy_unit, length_unit, free_atoms(part) or atoms, predict)
    for name, verdict in verdicts.items():
        if not verdict.wrong:
            continue
        fix, shared = verdict.fix, all(candidate.correction == verdict.correction for candidate in verdicts.values())
        if verdict.correction is not None and not shared:
            fix = verdict.correction.fix(combinations(energy_unit, length_unit)[0], in_file=True)
        raise RetemperError(f"{name}: wrong units. {verdict.message}", fix=fix)
    warnings = [f"{name}: {v.message} If so, {v.fix}." for name, v in verdicts.items() if v.message]
    untested = {name: verdict.untested for name, verdict in verdicts.items() if verdict.untested}
    warnings += [f"{name}: units not tested. {'; '.join(words)}." for name, words in untested.items()]
    return Judged(warnings, {name: verdict.evidence for name, verdict in verdicts.items()}, untested)
