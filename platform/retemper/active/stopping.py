"""Why a campaign ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retemper.config.settings import Stop
from retemper.records.campaign import RoundResult

POINTS = 4  # rounds that a learning curve needs before it predicts


def reason(history: Sequence[RoundResult], stop: Stop, labels: int) -> str | None:
    """Why no further round should follow; `None` to go on.

    Parameters
    ----------
    history
        Of the campaign, by round.
    labels
        Structures that the next round would label.
    """
    if stop.gates is not None and len(history) >= stop.gates:
        holds = all(result.gates.hold for result in history[-stop.gates :])
        if holds:
            return f"all gates hold for {stop.gates} round(s)"
    if stop.gain is not None:
        gain = predicted_gain(history, labels)
        if gain is not None and gain < stop.gain:
            promise = f"{100 * gain:.1f} % less error from {labels} more labels"
            return f"the learning curve promises {promise}, less than acquire.stop.gain"
    return None


def power_law(labels: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """a and b of error = a labels^-b, by least squares of logarithms.

    C. Cortes et al., Adv. Neural Inf. Process. Syst. 6, 327 (1993).
    """
    slope, constant = np.polyfit(np.log(labels), np.log(errors), 1)
    return float(np.exp(constant)), float(-slope)


def predicted_gain(history: Sequence[RoundResult], labels: int) -> float | None:
    """Share of the force error that `labels` more structures would take off; `None` before `POINTS` rounds."""
    points = [(result.train, result.force_rmse.mean) for result in history if result.force_rmse is not None]
    if len({n for n, _ in points}) < POINTS:
        return None
    n = [float(p[0]) for p in points]
    _, b = power_law(n, [p[1] for p in points])
    return float(1 - ((n[-1] + labels) / n[-1]) ** -b)
