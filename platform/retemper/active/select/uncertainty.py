"""The structures with the largest uncertainty."""

from __future__ import annotations

import numpy as np

from retemper.active.pool import Pool
from retemper.config.settings import Section


class Options(Section):
    pass


def choose(pool: Pool, number: int, options: Options, seed: int) -> list[int]:
    """Indices, the least sure first."""
    return [int(k) for k in np.argsort(-pool.uncertainty, kind="stable")[:number]]
