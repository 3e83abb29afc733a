"""A label of an oracle, or how the attempts to get one ended, as it is kept under ``.cache/labels``."""

from __future__ import annotations

from typing import Literal

from retemper.config.settings import Plugin
from retemper.records.record import Part


class Attempt(Part):
    """One attempt to get a label; one that was interrupted has no time."""

    kind: Literal["done", "error", "refused", "timeout", "died", "interrupted"]
    reason: str
    seconds: float | None = None


class Label(Part):
    """Energy, forces and stress of a structure, and every attempt to get them."""

    key: str
    oracle: Plugin
    state: Literal["open", "done", "failed"]
    attempts: list[Attempt]
    energy: float | None = None  # eV; numbers where the state is done
    forces: list[list[float]] | None = None  # [n_atoms, 3], eV/A
    stress: list[list[float]] | None = None  # [3, 3], eV/A^3; None: the oracle has none

    @property
    def ended(self) -> list[Attempt]:
        """Attempts that came to an end."""
        return [attempt for attempt in self.attempts if attempt.kind != "interrupted"]
