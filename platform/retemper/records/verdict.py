"""``runs/promote/verdict.json``: which of a run's candidates may become champion and challenger, and why."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import field_serializer

from retemper.config.settings import Gate
from retemper.records.record import Part, Record
from retemper.records.trained_model import TrainedModel

LARGEST = 1e300  # bounds beyond are infinite


class Comparison(Part):
    """Ratio or difference to a reference, the wider of frames and seeds; a bound that is `None` is infinite."""

    value: float | None
    low: float | None
    high: float | None
    groups: int

    @classmethod
    def of(cls, value: float, low: float, high: float, groups: int) -> Self:
        """With infinite numbers left out."""
        value_, low_, high_ = (float(number) if abs(number) < LARGEST else None for number in (value, low, high))
        return cls(value=value_, low=low_, high=high_, groups=groups)


class GateOutcome(Part):
    """What one gate says of one model."""

    metric: str
    rule: str  # in words
    absolute: bool  # a limit of its own, not a comparison
    passed: bool
    value: float | None  # the model's, with its interval
    low: float | None
    high: float | None
    level: float  # of that interval
    groups: int | None  # independent units that it rests on
    unit: str
    limit: float | None  # of value, or of the ratio or difference to the reference
    compared: Comparison | None
    reason: str


class Candidate(Part):
    """The version that stands for a strategy, and what every gate says of it."""

    rank: int
    version: str
    seed: int
    chosen: str  # why this seed stands for its strategy
    sha256: str  # of the weights
    objective: float | None
    absolute: bool  # passes the gates with a limit of their own
    passed: bool
    barred: str | None  # why only a person may promote it
    gates: list[GateOutcome]
    failures: list[str]


class Verdict(Record):
    """What was judged, by which gates, against whom, and who may become what."""

    STAGE: ClassVar[str] = "promote"

    model: str  # registered model
    objective: str
    gates: list[Gate]
    gates_digest: str
    before: str | None  # the champion until now, in words
    champion_before: TrainedModel | None
    obstacle: str | None  # why nobody can be compared with the champion
    foundation: str
    level: str  # of theory, of the target data
    look: int  # for the how manieth time models were judged on these test frames; 0: there was no champion
    test_frames: str  # their hash
    foundation_level: str  # of theory, of the foundation's labels
    challenger: str | None  # strategies
    champion: str | None
    candidates: dict[str, Candidate]  # by strategy, in the order of rank

    @field_serializer("gates")
    def _as_written(self, gates: list[Gate]) -> list[dict[str, object]]:
        """As in ``params.yaml``: what is not said there has its default."""
        return [gate.model_dump(exclude_defaults=True) for gate in gates]

    def candidate_of(self, system: str, model: TrainedModel) -> Candidate | None:
        """What the verdict says of a model, whatever its version's number is in this store."""
        for strategy, candidate in self.candidates.items():
            if system == self.model and TrainedModel(candidate.sha256, strategy, candidate.seed) == model:
                return candidate
        return None
