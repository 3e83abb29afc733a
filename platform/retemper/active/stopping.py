"""Why a campaign ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retemper.config.settings import Stop

POINTS = 4  # rounds that a learning curve needs before it predicts


def reason(history: Sequence[dict[str, Any]], stop: Stop, labels: int) -> str | None:
    """Why no further round should follow; `None` to go on.

    Parameters
    ----------
    history
        Entries of the campaign by round, see `campaign.entry`.
    labels
        Structures that the next round would label.
    """
    if stop.gates is not None and len(history) >= stop.gates:
        held = all(entry["gates"]["hold"] for entry in history[-stop.gates :])
        if held:
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


def predicted_gain(history: Sequence[dict[str, Any]], labels: int) -> float | None:
    """Share of the force error that `labels` more structures would take off; `None` before `POINTS` rounds."""
    points = [(e["train"], e["force_rmse"]["mean"]) for e in history if e.get("force_rmse") is not None]
    if len({n for n, _ in points}) < POINTS:
        return None
    n = [float(p[0]) for p in points]
    _, b = power_law(n, [p[1] for p in points])
    return float(1 - ((n[-1] + labels) / n[-1]) ** -b)
