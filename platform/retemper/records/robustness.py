"""``runs/robustness/<name>/metrics.json``: what the models of a strategy, or the foundation, do off their test set."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from retemper.config.metric_names import ROBUSTNESS
from retemper.records.evaluation import Estimate
from retemper.records.record import Part, Record

Details = dict[str, JsonValue]  # of one metric, for people


class Measure(Part):
    """One metric of a model, or its mean over seeds with the interval that spans those of the seeds."""

    value: float | None  # None: not measured, and `reason` says why
    low: float | None = None  # 95 % interval
    high: float | None = None
    std: float | None = None  # over seeds
    unit: str
    score: float | None = None  # 0 bad, 1 good
    n: int = 0  # what was counted: structures, replicas, pairs; of all seeds
    groups: int = 0  # how many of these are independent: the interval is over them
    grouped_by: str = ""  # what such a group is, in the plural
    can_show: float | None = None  # of a share: the bound (%) that a perfect score would show
    reason: str | None = None
    against: str | None = None  # where its reference is at another level of theory than the data


class ModelMeasure(Measure):
    """One metric of one model."""

    details: Details
    identity: dict[str, str]  # by part: what decides the metric beside the model


class ModelRobustness(Record):
    """One model, as ``seed-<k>/metrics.json`` and ``retemper evaluate`` have it."""

    STAGE: ClassVar[str] = "robustness"

    name: str
    head: str | None
    level: str
    elements: list[str]
    backend: str
    seconds: float
    metrics: dict[str, ModelMeasure]


class Robustness(Record):
    """The models of a strategy by seed, or the foundation as seed 0."""

    STAGE: ClassVar[str] = "robustness"

    name: str  # strategy, or "foundation"
    system: str
    foundation: str
    level: str
    seeds: dict[int, ModelRobustness]
    summary: dict[str, Measure]

    def measures(self, seed: int | None = None) -> dict[str, Measure]:
        """Of one seed by metric, empty where it was not measured; without a seed over seeds."""
        if seed is None:
            return self.summary
        return dict(self.seeds[seed].metrics) if seed in self.seeds else {}

    def numbers(self, seed: int | None = None) -> dict[str, Estimate]:
        """Every number by its name, as `measures`: ``robustness.rss`` and so on."""
        return {
            f"{ROBUSTNESS}.{metric}": Estimate(value=m.value, low=m.low, high=m.high, std=m.std)
            for metric, m in self.measures(seed).items()
            if m.value is not None
        }

    def beside(self, seed: int) -> dict[str, float]:
        """Scores and numbers of groups of one seed by name."""
        measures = self.measures(seed).items()
        scores = {f"{ROBUSTNESS}.{metric}.score": m.score for metric, m in measures if m.score is not None}
        return scores | {f"{ROBUSTNESS}.{metric}.groups": m.groups for metric, m in measures}
