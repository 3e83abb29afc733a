"""How often models have been judged on the same test frames: every look is a chance to promote wrongly.

A look is a verdict on models that these frames have not judged before, while there is a champion to compare with.
Its number is a tag of every version judged, so all who share a store count the same looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from retemper.core.errors import RetemperError
from retemper.registry.client import Version

LOOK, FRAMES = "verdict.look", "verdict.test_frames"


def tags(look: int, frames: str) -> dict[str, str]:
    """What a version says of the look that judged it; `frames` is the hash of the test set."""
    return {LOOK: str(look), FRAMES: frames}


def number(versions: Iterable[Version], candidates: Sequence[Version], frames: str) -> int:
    """The number of a look at `candidates`, from 1: a new one, unless these very models have been looked at before.

    Parameters
    ----------
    versions
        All of the registered model.
    candidates
        Those that are judged now.
    frames
        Hash of the test set.
    """
    earlier_looks = [_look(version, frames) for version in versions]
    candidate_looks = [_look(version, frames) for version in candidates]
    return (
        max(candidate_looks, default=1)
        if all(candidate_looks) and candidate_looks
        else 1 + max(earlier_looks, default=0)
    )


def _look(version: Version, frames: str) -> int:
    if version.tags.get(FRAMES) != frames:
        return 0
    text = version.tags.get(LOOK, "0")
    if not text.isdigit():
        raise RetemperError(
            f"The tag {LOOK} of {version.name} is no number.",
            expected="for the how manieth time models were judged on these test frames",
            got=repr(text),
            fix="put the number back, or delete the tag: the look then counts as the first",
        )
    return int(text)
