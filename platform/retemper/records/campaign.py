"""``data/campaign.json``: what came of each round. It is committed, so those of earlier versions are read as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from retemper.records.record import Part, Record


class ForceError(Part):
    """Force RMSE on the target, meV/A: mean over seeds, and its interval."""

    mean: float
    std: float | None = None
    low: float | None  # None: one group of test structures has no interval
    high: float | None


class GateResult(Part):
    metric: str
    rule: str
    passed: bool


class Gates(Part):
    """How the explorers' successor passed the gates of promotion."""

    hold: bool  # those that do not compare with the champion
    outcomes: list[GateResult]

    def sentence(self) -> str:
        """For people."""
        return f"{sum(outcome.passed for outcome in self.outcomes)} of {len(self.outcomes)} gates hold"


class RoundResult(Part):
    """What is noted of a round after the graph has run; round 0 is before any label."""

    round: int
    labelled: int
    failed: int
    identity: str | None  # of its labels; None: round 0
    used: int  # labels that are in the training and validation sets
    unused: dict[str, int]  # others, by kind of reason
    train: int  # structures in the sets
    valid: int
    test: str | None  # hash of the test set
    strategy: str
    champion: bool  # whether the strategy is that of the champion
    force_rmse: ForceError | None
    gates: Gates
    selector: str | None

    def labels(self) -> str:
        """How many labels are used, and why others are not."""
        if self.used == self.labelled:
            return f"{self.labelled} labels"
        why = ", ".join(f"{kind} {number}" for kind, number in self.unused.items()) or "the round is left out"
        return f"{self.used} of {self.labelled} labels used ({why})"

    def sentence(self) -> str:
        """For people."""
        text = f"{self.labels()}, {self.failed} failed, {self.train} for training; {self.strategy}"
        if self.force_rmse is not None:
            text += f" {self.force_rmse.mean:.1f} meV/A"
        return text + (f"; {self.gates.sentence()}" if self.gates.outcomes else "")


class Campaign(Record):
    """All rounds so far, and why the last campaign stopped."""

    STAGE = "acquire"

    rounds: list[RoundResult] = []
    stopped: str | None = None

    @classmethod
    def fix(cls) -> str:
        return "git checkout -- data/campaign.json"

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self:
        return super().of(_with_form(content), path)

    @property
    def selector(self) -> str:
        """By which the last round chose."""
        return next((entry.selector for entry in reversed(self.rounds) if entry.selector), "no round yet")


def _with_form(content: Any) -> Any:
    """A ``campaign.json`` of before there were forms, in the first one."""
    if not isinstance(content, dict) or "form" in content:
        return content
    rounds = [{"identity": None, "used": e.get("labelled"), "unused": {}, **e} for e in content.get("rounds", [])]
    return {"stopped": None, **content, "rounds": rounds, "form": 1}
