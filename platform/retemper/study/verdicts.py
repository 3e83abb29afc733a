"""Verdicts: shown, refuted, or undecided when the table lacks the runs or the interval is too wide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from retemper.study.paired_effects import Effect, Scale

Verdict = Literal["shown", "refuted", "undecided"]
WORTH: dict[Scale, float] = {"log": math.log(1.05), "points": 5.0}  # smallest effect worth speaking of: 5 %, 5 points
NO_PAIRS = "no repeated pairs of runs that differ in this alone"


@dataclass(frozen=True)
class Part:
    """One condition of a claim."""

    words: str  # what is compared, so that the effect reads as a sentence
    verdict: Verdict
    effect: str  # with its interval; empty without
    note: str  # what the interval is over, or what is missing


@dataclass(frozen=True)
class Judgement:
    """What a table says of a claim."""

    verdict: Verdict
    parts: tuple[Part, ...]
    details: str = ""


def more(words: str, estimate: Effect | None) -> Part:
    """Effect > 0 is claimed. Refuted: the interval is below the smallest effect of `WORTH`. Shown: it is above 0.

    Where it is both, the effect is real and too small to be what the claim means: refuted.
    """
    if estimate is None:
        return Part(words, "undecided", "", NO_PAIRS)
    verdict: Verdict = (
        "refuted" if estimate.high < WORTH[estimate.scale] else "shown" if estimate.low > 0 else "undecided"
    )
    return _part(words, verdict, estimate)


def not_worse(words: str, estimate: Effect | None, margin: float | None = None) -> Part:
    """An effect of at most `margin` (default: `WORTH`) is claimed. Shown: the interval is below; refuted: above."""
    if estimate is None:
        return Part(words, "undecided", "", NO_PAIRS)
    limit = WORTH[estimate.scale] if margin is None else margin
    verdict: Verdict = "shown" if estimate.high <= limit else "refuted" if estimate.low > limit else "undecided"
    return _part(words, verdict, estimate)


def _part(words: str, verdict: Verdict, estimate: Effect) -> Part:
    """Undecided where the interval does not decide."""
    return Part(words, verdict if estimate.decides else "undecided", estimate.words(), basis(estimate))


def basis(estimate: Effect) -> str:
    """How many pairs, and what the interval is over."""
    agreement = f", {estimate.agree} of {estimate.systems} systems agree" if estimate.systems > 1 else ""
    doubt = "" if estimate.decides else ", which decides nothing"
    return f"{estimate.pairs} pairs, interval over {estimate.over}{doubt}{agreement}"


def together(parts: Sequence[Part], details: str = "") -> Judgement:
    """All conditions must be shown (each at its own level: Berger, Technometrics 24, 295, 1982); one refutes."""
    verdicts = {part.verdict for part in parts}
    verdict: Verdict = "refuted" if "refuted" in verdicts else "shown" if verdicts == {"shown"} else "undecided"
    return Judgement(verdict, tuple(parts), details)


def missing(reason: str) -> Judgement:
    """Undecided, because the table lacks something."""
    return Judgement("undecided", (Part("", "undecided", "", reason),))
