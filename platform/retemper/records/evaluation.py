"""``runs/evaluate/<name>/metrics.json``: how accurate the models of a strategy are, or the foundation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from retemper.config.metric_names import ERRORS, FORGETTING, RATIOS, TEST, of_kept
from retemper.records.record import Part, Record


def _none(kept: Mapping[str, object]) -> bool:
    return not kept


class Estimate(Part):
    """A number with its interval; over seeds it is their mean, and `std` their standard deviation (n - 1)."""

    value: float
    low: float | None = None  # None: not known, because there is one group
    high: float | None = None
    std: float | None = None  # None: one seed


class Means(Part):
    """Errors on one set: energies in meV/atom, forces in meV/Å, stress in meV/Å³; `None` without labels."""

    energy_mae: Estimate | None = None
    energy_rmse: Estimate | None = None
    force_mae: Estimate | None = None
    force_rmse: Estimate | None = None
    stress_mae: Estimate | None = None
    stress_rmse: Estimate | None = None

    def by_quantity(self) -> dict[str, Estimate]:
        """Those that are known, by quantity."""
        errors = {quantity: getattr(self, quantity) for quantity in ERRORS}
        return {quantity: estimate for quantity, estimate in errors.items() if estimate is not None}


def by_name(sets: Mapping[str, Means]) -> dict[str, Estimate]:
    """Errors of several sets by their names."""
    return {
        f"{name}.{quantity}": estimate
        for name, means in sets.items()
        for quantity, estimate in means.by_quantity().items()
    }


class TypeErrors(Part):
    """Errors on the structures of one configuration type: meV/atom, meV/Å."""

    n_frames: int
    energy_rmse: float
    force_rmse: float


class ElementErrors(Part):
    """Errors of the forces on the atoms of one element, meV/Å."""

    n_atoms: int
    force_mae: float
    force_rmse: float


class Errors(Means):
    """Errors of one model with one head on one set, with intervals over groups of its structures."""

    n_frames: int
    n_groups: int
    by_config_type: dict[str, TypeErrors]
    by_element: dict[str, ElementErrors]
    energy_rmse_unshifted: float | None = None  # meV/atom; before atomic reference energies were exchanged
    forgetting_ratio: Estimate | None = None  # force RMSE over the foundation's, on the retention set


def fields(sets: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for each set, as fields of `Accuracy` and `Summary`."""
    kept = {name: content for name, content in sets.items() if of_kept(name)}
    return {**{name: content for name, content in sets.items() if name not in kept}, "kept": kept}


class Accuracy(Part):
    """One model on the target's test set and, where there is one, on the retention set."""

    target: Errors
    retention: Errors | None = None
    retention_replay_head: Errors | None = None
    drift: Errors | None = None  # from the foundation's own predictions
    drift_replay_head: Errors | None = None
    kept: dict[str, Errors] = Field({}, exclude_if=_none)  # by set, as drift_of_omol

    def sets(self) -> dict[str, Errors]:
        """Errors by set, of those that were measured."""
        return {name: errors for name in TEST if (errors := getattr(self, name)) is not None} | self.kept

    def numbers(self) -> dict[str, Estimate]:
        """Every number by its name: ``target.force_rmse``, ``forgetting_ratio`` and so on."""
        ratios = {FORGETTING[name]: e.forgetting_ratio for name, e in self.sets().items() if e.forgetting_ratio}
        return by_name(self.sets()) | ratios

    def beside(self) -> dict[str, float]:
        """What stands beside the numbers, by name: groups of each set, force errors of configuration types (meV/Å)."""
        groups: dict[str, float] = {f"{name}.groups": errors.n_groups for name, errors in self.sets().items()}
        types = {
            f"{name}.force_rmse.{re.sub(r'[^A-Za-z0-9_. /-]', '_', config_type)}": errors_of_type.force_rmse
            for name, errors in self.sets().items()
            for config_type, errors_of_type in errors.by_config_type.items()
        }
        return groups | types


class Summary(Part):
    """Means over seeds."""

    target: Means
    retention: Means | None = None
    forgetting_ratio: Estimate | None = None
    retention_replay_head: Means | None = None
    forgetting_ratio_replay_head: Estimate | None = None
    drift: Means | None = None
    drift_replay_head: Means | None = None
    kept: dict[str, Means] = Field({}, exclude_if=_none)  # by set

    def numbers(self) -> dict[str, Estimate]:
        """Every number by its name, as those of one model."""
        sets = {name: means for name in TEST if (means := getattr(self, name)) is not None} | self.kept
        ratios = {name: ratio for name in RATIOS if (ratio := getattr(self, name)) is not None}
        return by_name(sets) | ratios


class Evaluation(Record):
    """The models of a strategy by seed, or the foundation as seed 0."""

    STAGE: ClassVar[str] = "evaluate"

    name: str  # strategy, or "foundation"
    system: str
    foundation: str
    identity: dict[str, str]  # weights, head and frames: evaluations with the same may be compared
    seeds: dict[int, Accuracy]
    summary: Summary

    def numbers(self, seed: int | None = None) -> dict[str, Estimate]:
        """Every number of a seed by its name, empty where there is no such seed; without a seed over seeds."""
        if seed is None:
            return self.summary.numbers()
        return self.seeds[seed].numbers() if seed in self.seeds else {}
