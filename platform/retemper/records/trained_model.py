"""One trained model, told from all others by its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class TrainedModel:
    """One seed of one strategy, whatever number its version has in a store."""

    sha256: str  # of the weights
    strategy: str
    seed: int

    @property
    def words(self) -> str:
        return f"{self.strategy}, seed {self.seed} ({self.sha256[:12]})"
