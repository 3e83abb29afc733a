"""Where a study keeps its stages, its results, and what they have cost."""

from __future__ import annotations

from pathlib import Path

from retemper.core import sealed

CACHE = Path(".cache/study")


RESULTS = Path("studies/results")


SPENT = "spent.json"  # seconds that a job has taken so far, in its folder


def spent_on(folder: Path) -> float:
    """Seconds of a job so far, those before a kill included."""
    content = sealed.read_json(folder / SPENT, folder.name, then="counted from zero")
    return float(content["cpu_seconds"]) if content is not None else 0.0
