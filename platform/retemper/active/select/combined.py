"""Unsure and unlike: each pick has the largest uncertainty times distance to all that is labelled or picked."""

from __future__ import annotations

from pydantic import Field

from retemper.active.pool import Pool, greedy
from retemper.config.settings import Section


class Options(Section):
    power: float = Field(1.0, gt=0)  # of the uncertainty: above 1 it counts more than the distance


def choose(pool: Pool, number: int, options: Options, seed: int) -> list[int]:
    """Indices in order of picking."""
    return greedy(pool, number, pool.uncertainty**options.power)
