"""``runs/inputs/<stage>.json``: what decides a stage's numbers, for DVC to compare."""

from __future__ import annotations

from pydantic import JsonValue

from retemper.records.record import Part, Record


class Oracle(Part):
    """The calculator of ``robustness.oracle``, as far as it is seen without importing it."""

    calculator: str
    packages: dict[str, str]  # versions
    source: str | None  # hash of its module's statements, where that is a file of the user's or of retemper's
    files: dict[str, str]  # hashes of what its keywords name


class StageInputs(Record):
    """Settings, files and code of one stage; what it does not depend on is `None`."""

    STAGE = "inputs"

    settings: dict[str, JsonValue]  # with their defaults, by dotted key
    foundation: dict[str, JsonValue]  # its entry in the catalogue
    weights: str | None = None  # hash of the foundation's
    packages: dict[str, str] | None = None  # versions
    experiment: bool | None = None  # whether it runs in a DVC experiment
    oracle: Oracle | None = None
    files: dict[str, str]  # hashes, by the settings that name them
    code: dict[str, str]  # hash of each module's statements
