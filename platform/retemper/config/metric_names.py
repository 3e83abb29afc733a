"""One grammar of metric names: ``<set>.<quantity>``, used wherever a metric is named, stored or asked for.

========================  =============================================================================
set                       measured on
========================  =============================================================================
``valid``                 validation frames of the target, each epoch; chooses the best epoch
``valid_replay``          validation frames of the replay head, each epoch
``valid_replay_<head>``   those of a further head that is kept alive (``replay.heads``), each epoch
``valid_retention``       the same structures with the target head, each epoch of a sweep's trial
``target``                test frames of the target
``retention``             held-out frames of the foundation's pretraining distribution, target head
``retention_replay_head`` the same frames, replay head
``drift``                 structures kept apart from replay, target head, against the foundation's own predictions
``drift_replay_head``     the same structures, replay head
``drift_of_<head>``       retention or drift structures, a head that is kept alive, against the foundation's same head
``robustness``            the robustness suite: ``robustness.<metric>``
========================  =============================================================================

Besides them ``forgetting_ratio`` and ``forgetting_ratio_replay_head``, which compare two models. A project has either
``retention`` or, without labels of the pretraining domain, ``drift``; the foundation has no drift from itself, and over
its error, zero, there is no forgetting ratio.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from retemper.core import plugins
from retemper.core.errors import unknown

VALIDATION = ("valid", "valid_replay", "valid_retention")
TARGET, RETENTION, REPLAY_HEAD = "target", "retention", "retention_replay_head"
DRIFT, DRIFT_REPLAY_HEAD = "drift", "drift_replay_head"
TEST = (TARGET, RETENTION, REPLAY_HEAD, DRIFT, DRIFT_REPLAY_HEAD)
OF_DRIFT = (DRIFT, DRIFT_REPLAY_HEAD)
OTHER_HEAD = {RETENTION: REPLAY_HEAD, DRIFT: DRIFT_REPLAY_HEAD}  # set: the same frames with the replay head
FORGETTING = {RETENTION: "forgetting_ratio", REPLAY_HEAD: "forgetting_ratio_replay_head"}  # set: its ratio
DRIFT_OF = "drift_of_"  # with the name of a head that is kept alive behind it
SUITE = "evaluation.robustness.metrics"  # a file for each metric
ROBUSTNESS = "robustness"


@dataclass(frozen=True)
class Quantity:
    """Unit and the direction in which a quantity is better."""

    unit: str
    better: Literal["lower", "higher"] = "lower"


ERRORS = {
    f"{quantity}_{measure}": Quantity(unit)
    for quantity, unit in (("energy", "meV/atom"), ("force", "meV/Å"), ("stress", "meV/Å³"))
    for measure in ("mae", "rmse")
}
RATIOS = {name: Quantity("") for name in FORGETTING.values()}
# Columns of a ``history.csv`` as they were called before test and validation had names of their own.
FORMER = {
    f"{old}_{quantity}": f"{new}.{quantity}"
    for old, new in zip(("target", "replay", "retention"), VALIDATION, strict=True)
    for quantity in ("loss", "energy_rmse", "force_rmse")
}


def renamed(row: Mapping[str, float]) -> dict[str, float]:
    """A row of a ``history.csv`` under today's names (see `FORMER`)."""
    return {FORMER.get(column, column): value for column, value in row.items()}


def suite_names() -> list[str]:
    """Metrics of the robustness suite: the files of its folder. Nothing is imported."""
    return plugins.names(SUITE)


def measured_names() -> dict[str, Quantity | None]:
    """Every metric that a finished model has, as gates, tags and tables name it; of robustness the name alone.

    Those of heads that are kept alive are not listed: each head has `ERRORS` of its set.
    """
    errors = {f"{part}.{name}": quantity for part in TEST for name, quantity in ERRORS.items()}
    return {**errors, **RATIOS, **{f"{ROBUSTNESS}.{name}": None for name in suite_names()}}


def set_of(name: str) -> str:
    """The set that a metric is measured on."""
    of_ratio = {ratio: part for part, ratio in FORGETTING.items()}
    return of_ratio.get(name, name.partition(".")[0])


def of_kept(name: str) -> bool:
    """Whether a metric, or a set, is of a head that is kept alive."""
    return name.startswith(DRIFT_OF)


def undefined(name: str, measured: Collection[str]) -> str | None:
    """Why a metric of what was forgotten is not among the `measured` ones, where its counterpart is; else `None`."""
    part, sets = set_of(name), {set_of(other) for other in measured}
    if of_kept(part):
        head = part.removeprefix(DRIFT_OF)
        return f"not measured: the model has no head {head} that was kept alive, or there are no structures to tell"
    if part in (RETENTION, REPLAY_HEAD) and DRIFT in sets:
        return (
            "not defined: there are no labels of the pretraining domain, and the foundation's error against its own "
            "predictions is zero; a gate on drift.force_rmse limits how far a model moved from them"
        )
    if part in OF_DRIFT and RETENTION in sets:
        return "not measured: there is a retention set with labels (retention.force_rmse, forgetting_ratio)"
    return None


def better(name: str) -> Literal["lower", "higher"]:
    """The direction in which a metric is better."""
    if of_kept(name):
        return "lower"
    quantity = measured_names()[name]
    if quantity is not None:
        return quantity.better
    module = plugins.load(SUITE, name.removeprefix(f"{ROBUSTNESS}."), "metric")
    direction: Literal["lower", "higher"] = module.INFO.direction
    return direction


def check(name: str) -> str:
    """`name`, if a finished model can have it; otherwise an error that names the nearest.

    Raises
    ------
    RetemperError
    """
    part = set_of(name)
    known = [f"{part}.{error}" for error in ERRORS] if of_kept(part) else list(measured_names())
    if name not in known:
        raise unknown("metric", name, known)
    return name


def check_suite(names: list[str]) -> list[str]:
    """`names`, if each is a metric of the robustness suite, or ``all`` alone is there; otherwise an error.

    Raises
    ------
    RetemperError
        With the nearest name.
    """
    for name in names:
        if name not in suite_names() and names != ["all"]:
            raise unknown("metric", name, [*suite_names(), *(["all"] if len(names) == 1 else [])])
    return names


def tag(tags: Mapping[str, Any], name: str) -> str | None:
    """A metric's tag of a registered version, also of one that was registered under the former spelling."""
    value = tags.get(name, tags.get(name.replace(".", "_")))
    return None if value is None else str(value)
