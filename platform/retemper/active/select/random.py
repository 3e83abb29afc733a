"""At random: what the other selectors are measured against."""

from __future__ import annotations

from retemper.active.pool import Pool
from retemper.config.settings import Section
from retemper.data import selection


class Options(Section):
    pass


def choose(pool: Pool, number: int, options: Options, seed: int) -> list[int]:
    """Indices in random order."""
    n = len(pool.uncertainty)
    return [int(k) for k in selection.random(n, min(n, number), seed)]
