"""Which settings of a sweep cannot be told apart from the one that is used, by the structures that they were judged on.

Validation structures come in groups, and few of them: a setting that is better by two per cent on six trajectories
may be the worse one on the next six. Every trial is compared with the one that is used, group by group on the same
structures, by the rule that chose it. What another seed would change is not in it: a trial trains one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retemper.core import sealed
from retemper.evaluation import statistics
from retemper.records.sweep import GroupErrors

FILE = "groups.json"  # in the folder of a training: its errors by group, for each set
CONFIDENCE = 0.95
BySet = dict[str, GroupErrors]  # target, retention


@dataclass(frozen=True)
class Alike:
    """Trials that may be as good as the one that is used, or better."""

    trials: tuple[int, ...]  # numbers, without that one
    compared: int  # trials
    groups: int  # of validation structures

    def sentence(self) -> str:
        """For people."""
        if self.groups < statistics.FEWEST_GROUPS:
            return f"{self.groups} group(s) of validation structures are too few to tell settings apart"
        text = f"{len(self.trials)} of {self.compared} other settings cannot be told apart from it"
        return f"{text} ({self.groups} groups of validation structures, one seed each)"


def write(folder: Path, errors: BySet) -> None:
    """Leave the errors by group in the folder of a training."""
    sealed.write_json(folder / FILE, folder.name, {name: part.model_dump() for name, part in errors.items()})


def read(folder: Path) -> BySet | None:
    """What `write` left; `None` without it, or where it is damaged or of another training (which is put aside)."""
    content = sealed.read_json(folder / FILE, folder.name, then="its trial is not compared")
    return None if content is None else {name: GroupErrors(**part) for name, part in content.items()}


def comparable(winner: Path, trials: dict[int, tuple[Path, float]], weights: dict[str, float]) -> Alike | None:
    """What is alike; `None` where no errors by group are there.

    Parameters
    ----------
    winner
        Folder of the training of the trial that is used.
    trials
        By number: folder of a trial's training, and how much worse its score is.
    weights
        By set, what the logarithm of the force error counts in the score.
    """
    used_errors = read(winner)
    if used_errors is None:
        return None
    numbers, number_compared = [], 0
    for number, (folder, behind) in sorted(trials.items()):
        trial_errors = read(folder) or {}
        if any(name not in trial_errors or used_errors[name].counts != trial_errors[name].counts for name in weights):
            continue  # measured on other structures
        number_compared += 1
        if difference(used_errors, trial_errors, weights, behind).interval(statistics.two_sided(CONFIDENCE)).low <= 0:
            numbers.append(number)
    return (
        Alike(tuple(numbers), number_compared, min(len(used_errors[name].counts) for name in weights))
        if number_compared
        else None
    )


def difference(
    used_errors: BySet, trial_errors: BySet, weights: dict[str, float], behind: float
) -> statistics.Estimate:
    """A trial's score minus the used one's, with its error over groups of structures."""
    parts = []
    for name, weight in weights.items():
        groups = sorted(used_errors[name].counts)
        used_squares, trial_squares = (
            np.array([[errors[name].squares[group]] for group in groups]) for errors in (used_errors, trial_errors)
        )
        parts.append((weight, statistics.log_ratio(trial_squares, used_squares, 0.5)))
    total = statistics.weighted_sum(parts)
    return replace(total, value=behind)
