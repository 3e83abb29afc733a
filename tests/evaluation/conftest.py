"""What a metric is measured with."""

from __future__ import annotations

import pytest
from metric_runs import crystals, planted

from retemper.evaluation.robustness import ensembles
from retemper.evaluation.robustness.context import Context
from retemper.evaluation.robustness.metrics import rss

PAIR = (13, 29)  # Al, Cu


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Context:
    """Two elements and small crystals; searches and dynamics shorter than any level."""
    monkeypatch.setitem(rss.SIZES, "quick", {"compositions": 3, "each": 4, "rounds": 2, "steps": 40, "fmax": 0.1})
    monkeypatch.setitem(ensembles.SIZES, "quick", {"replicas": 2, "steps": 250, "stride": 5})
    frames = crystals()
    return Context(planted(), PAIR, frames=frames, reference=frames)
