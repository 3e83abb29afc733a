"""``studies/results/<key>.json``: what came of a run of a study.

Results are kept for good and shared, so those of earlier versions are read as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from retemper.core.errors import RetemperError
from retemper.records.record import Part, Record


class GroupErrors(Part):
    """Errors by group of structures, as cells of the table, by its columns; and numbers of groups by set."""

    cells: dict[str, str] = {}
    numbers: dict[str, int] = {}


class Groups(Part):
    """Those of the model, and of the foundation on the same structures."""

    model: GroupErrors
    foundation: GroupErrors


class E0Quality(Part):
    """How well the data determine the atomic reference energies."""

    error: float  # meV/atom, RMSE of the foundation after the shift
    rank: int
    elements: int
    open: list[str]  # elements that stay undetermined


class Training(Part):
    """The training behind a result."""

    key: str
    best_epoch: int
    epochs: int
    sha256: str  # of the weights
    trainable: int | None  # parameters; None: not counted
    parameters: int | None


class Cost(Part):
    """What runs of other studies are estimated from."""

    work: list[float]  # one, atoms trained on, replayed structures, robustness metrics
    system: str
    strategy: str
    foundation: str


class _Ended(Record):
    STAGE = "study"

    cpu_seconds: float  # on a GPU by the clock

    @classmethod
    def fix(cls) -> str:
        return "remove the file, and run the study again"

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self:
        return super().of(_with_form(content), path)


class Failure(_Ended):
    """A run that failed; it would fail again, unless its process died."""

    failed: str  # the reason
    died: bool = False


class Result(_Ended):
    """A run that is finished: numbers with intervals and counts, and what was measured beside them."""

    values: dict[str, float]  # by name, `target.force_rmse`, `target.force_rmse.low` and so on
    foundation: dict[str, float]  # those of the foundation itself on the same structures
    groups: Groups
    counts: dict[str, int]  # structures or curves behind each robustness metric
    unmeasured: dict[str, str]  # why a robustness metric has no value
    e0s: E0Quality
    structures: dict[str, int]  # by set
    elements: list[str]
    training: Training
    cost: Cost
    versions: dict[str, str]
    code: dict[str, str]  # hash of the code of each stage; empty: a result of before it was noted


def read(content: Any, path: str | Path) -> Result | Failure:
    """The result, or the failure, that a file holds.

    Raises
    ------
    RetemperError
        It is neither.
    """
    if not isinstance(content, dict):
        raise RetemperError(f"{path} is no result of a study.", got=repr(content)[:80], fix=_Ended.fix())
    return Failure.of(content, path) if "failed" in content else Result.of(content, path)


def _with_form(content: Any) -> Any:
    """A result of before there were forms, in the first one."""
    if not isinstance(content, dict) or "form" in content:
        return content
    if "failed" in content:
        return {**content, "form": 1}
    return {"groups": {"model": {}, "foundation": {}}, "code": {}, **content, "form": 1}
