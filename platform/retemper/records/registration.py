"""``runs/register/<strategy>.json``: the versions that a strategy's models have in the registry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from retemper.records.record import OtherFormError, Part, Record


class BestSeed(Part, extra="allow"):
    """The seed with the lowest force RMSE on the target test set; fields beside these are numbers by metric."""

    seed: int
    version: str
    sha256: str  # of the weights
    __pydantic_extra__: dict[str, float] = Field(init=False)

    @property
    def numbers(self) -> dict[str, float]:
        """Errors (meV/atom, meV/A), forgetting ratios, robustness, by metric."""
        return self.__pydantic_extra__


class Registration(Record):
    """Versions by seed. An experiment of DVC registers nothing, and says so: it has no versions."""

    STAGE: ClassVar[str] = "register"

    model: str  # registered model
    versions: dict[int, str]
    experiment: str | None = None
    best: BestSeed | None = None
    force_rmse: float | None = None  # meV/A, on the target test set, mean over seeds
    test_md5: str | None = None  # of that set


def comparable(paths: Iterable[Path], model: str, test_md5: str) -> list[Registration]:
    """Registrations in a registered model of strategies that were tested on the same set; files need not exist."""
    registrations = []
    for path in paths:
        try:
            record = Registration.read(path) if path.is_file() else None
        except OtherFormError:  # its stage is to run again, and then counts
            continue
        if record is not None and (record.model, record.test_md5) == (model, test_md5):
            registrations.append(record)
    return registrations
