"""Under which keys frames carry their labels, told from names and shapes, where nobody has said it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.settings import Keys
from retemper.core.errors import RetemperError
from retemper.data.frame_weights import is_weight
from retemper.data.labels import look_up

LABELS = ("energy", "forces", "stress", "virial")
# What a key of each label has in its name, in lower case, and what it is called where that is all of it.
PART = {"energy": "energ", "forces": "forc", "stress": "stress", "virial": "virial"}
WHOLE = {"energy": ("e", "etot", "e_tot"), "forces": ("f",)}
# Energies that are no total energies, and labels that belong to another thing.
OTHER = re.compile(
    r"per_?atom|kinetic|formation|cohesive|binding|atomi[sz]ation|free_?energy|zero|std|var|error|unc|gap"
)
LISTED = 12  # keys that a message names


@dataclass
class LabelKeys:
    """How many frames have each key that could hold a label, by label."""

    frames: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {label: Counter() for label in LABELS})
    seen: Counter[str] = field(default_factory=Counter)  # every key

    def add(self, atoms: Atoms) -> None:
        """Count the keys of one more frame."""
        self.frames += 1
        results = getattr(atoms.calc, "results", {})
        for key in {*atoms.info, *atoms.arrays, *results} - {"numbers", "positions"}:
            self.seen[key] += 1
            for label in LABELS:
                if _named(label, key) and _fits(label, look_up(atoms, key), len(atoms)):
                    self.counts[label][key] += 1

    def candidates(self, label: str) -> list[str]:
        """Keys that could hold a label, the likeliest first: retemper's own, the plain ones, others by frames."""
        return sorted(self.counts[label], key=lambda key: (_rank(label, key), -self.counts[label][key], key))

    def choose(self, given: Mapping[str, str | None], origin: str) -> Keys:
        """The keys; `given` ones are taken as they are, `None` where the label is not there. Stress goes before virial.

        Raises
        ------
        RetemperError
            No key could hold energies or forces, or several could and none is the plain one, or no frame has a given
            one. `origin` is what the message calls the data.
        """
        chosen = {label: given[label] if label in given else self._one(label, origin) for label in LABELS}
        for label, key in given.items():
            if key is not None and not self.seen[key]:
                raise self._none(label, origin, f"no frame has the key {key!r}")
        for label in ("energy", "forces"):
            if chosen[label] is None:
                raise self._none(label, origin, f"no key of the frames looks like {label}")
        if chosen["stress"] is not None and "virial" not in given:
            chosen["virial"] = None
        return Keys.model_validate(chosen)

    def _one(self, label: str, origin: str) -> str | None:
        candidates = self.candidates(label)
        if len(candidates) > 1 and _rank(label, candidates[0]) == _rank(label, candidates[1]) == len(_RANKS):
            raise RetemperError(
                f"{origin}: several keys could hold the {label}: {', '.join(candidates[:LISTED])}.",
                fix=f"say which: --keys {label}={candidates[0]}",
            )
        return candidates[0] if candidates else None

    def _none(self, label: str, origin: str, what: str) -> RetemperError:
        return RetemperError(
            f"{origin}: {what}.",
            got=f"keys {', '.join(key for key, _ in self.seen.most_common(LISTED)) or 'none'}",
            fix=f"say which key holds the {label}: --keys {label}=KEY; or label the structures",
        )


def count(frames: Iterable[Atoms]) -> LabelKeys:
    """The keys of all frames."""
    keys = LabelKeys()
    for atoms in frames:
        keys.add(atoms)
    return keys


_RANKS = ("REF_{}", "{}")


def _rank(label: str, key: str) -> int:
    return next((k for k, form in enumerate(_RANKS) if key == form.format(label)), len(_RANKS))


def _named(label: str, key: str) -> bool:
    name = key.lower()
    if is_weight(key) or OTHER.search(name) or "weight" in name:
        return False
    return PART[label] in name or name in WHOLE.get(label, ())


def _fits(label: str, value: Any, atoms: int) -> bool:
    if value is None or isinstance(value, str) or np.asarray(value).dtype.kind not in "fiu":
        return False
    shape = np.shape(value)
    return (
        np.size(value) == 1
        if label == "energy"
        else shape == (atoms, 3)
        if label == "forces"
        else np.size(value) in (6, 9)
    )
