"""``data/rounds/NNN/round.json`` and what it is made of: how structures were found, chosen and labelled.

Rounds are kept for good, so those of earlier versions are read as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import JsonValue

from retemper.config.settings import Acquire
from retemper.core.files import digest
from retemper.records.origin import Commit
from retemper.records.record import Part, Record


class Calibration(Part):
    """How uncertainties and errors go together on some frames. Interval: 95 %, over groups of frames."""

    frames: int
    groups: int | None  # None: a round of before groups were counted
    atoms: int
    alpha: float  # eV/A a unit of the uncertainty
    floor: float  # uncertainty that smaller ones count as
    spearman: float  # rank correlation of uncertainty and size of the error, over atoms
    spearman_low: float
    spearman_high: float
    auroc: float  # for the tenth of the atoms with the largest errors; 0.5 is chance
    miscalibration: float  # area between expected and observed confidence: 0 is best, 0.5 worst
    rmse: float  # of force components, eV/A
    informative: bool  # whether the rank correlation is above zero beyond doubt

    def sentence(self) -> str:
        """For people."""
        text = (
            f"rank correlation {self.spearman:.2f} [{self.spearman_low:.2f}, {self.spearman_high:.2f}], "
            f"AUROC {self.auroc:.2f}, miscalibration {self.miscalibration:.2f} on {self.frames} frames"
        )
        text += f" in {self.groups} group(s)" if self.groups is not None else ""
        return text if self.informative else f"NOT INFORMATIVE ({text}): the interval reaches 0"


class OracleCheck(Part):
    """How far the oracle's labels lie from those of the data."""

    number: int  # structures
    energy: float  # eV/atom, the largest difference
    forces: float  # eV/A, the largest RMS difference of a structure


class Hashes(Part):
    """Of structures and labels of the sets."""

    train: str
    valid: str


class Chosen(Part, extra="allow"):
    """Why a structure was chosen; beside these fields what explorer and selector noted in its info."""

    __pydantic_extra__: dict[str, JsonValue]

    formula: str
    label: str  # key of its label


class Failed(Chosen):
    """One that got no label."""

    reason: str


class Plan(Record):
    """``plan.json``: what a round is made with, fixed when it begins."""

    STAGE = "acquire"

    round: int
    labels: int  # structures to label
    seed: int
    strategy: str  # whose models explore
    champion: bool  # whether it is that of the champion
    models: dict[int, str]  # sha256 of the weights by training seed
    lead: int  # seed of the model that explores
    data: Hashes
    oracle_check: OracleCheck | None
    settings: Acquire
    level_of_theory: str
    git: Commit
    software: dict[str, str]  # versions

    @classmethod
    def fix(cls) -> str:
        return "delete its folder to begin the round anew (labels are kept)"


class Exploration(Record):
    """``chosen.json``: what was found, and what was left of it."""

    STAGE = "acquire"

    candidates: int
    unphysical: int
    turned_away: dict[str, int]  # candidates by reason
    notes: list[str]
    calibration: Calibration  # on the validation set

    @classmethod
    def fix(cls) -> str:
        return Plan.fix()


class Round(Exploration, Plan):
    """``round.json``: a round that is finished."""

    prospective: Calibration  # what was expected of the structures before they were labelled
    labelled: list[Chosen]
    failed: list[Failed]
    identity: str  # of all labels
    returned: str | None  # hash of the files with labels by hand

    @classmethod
    def fix(cls) -> str:
        return "dvc checkout data/rounds/*.dvc"

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self:
        return super().of(_with_form(content), path)


def _with_form(content: Any) -> Any:
    """A ``round.json`` of before there were forms, in the first one."""
    if not isinstance(content, dict) or "form" in content:
        return content
    upgraded = {"returned": None, **content, "form": 1}
    for name in ("calibration", "prospective"):
        if name in upgraded:
            upgraded[name] = {"groups": None, "floor": 0.0, **upgraded[name]}
    upgraded.setdefault("identity", digest([entry.get("label") for entry in upgraded.get("labelled", [])]))
    return upgraded
