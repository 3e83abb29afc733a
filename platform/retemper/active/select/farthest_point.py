"""Farthest-point sampling in descriptor space, from all that is labelled; uncertainty does not count."""

from __future__ import annotations

import numpy as np

from retemper.active.pool import Pool, greedy
from retemper.config.settings import Section


class Options(Section):
    pass


def choose(pool: Pool, number: int, options: Options, seed: int) -> list[int]:
    """Indices, each the farthest from all before."""
    return greedy(pool, number, np.ones(len(pool.uncertainty)))
