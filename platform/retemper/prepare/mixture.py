"""Labels of more than one level of theory, or mended by hand: found in what a model's errors leave unexplained.

The errors of a model's energies on labelled frames are no noise: they follow composition, charge and environment. What
a robust ridge regression on these explains is no reason for suspicion. What is left has one mode, a few meV/atom wide,
where all labels are of one kind. An offset that some frames have and others like them have not is a second mode, or a
step in the order of a file, or differs from file to file.

A level that goes along with composition or structure (every crystal by one functional, every molecule by another) is
explained by them: no test of the labels can tell it from the model's own error.

References
----------
Leave-one-out residuals of ridge regression: G. H. Golub, M. Heath, G. Wahba, Technometrics 21, 215 (1979), eq. 1.3.
Weights: P. J. Huber, Ann. Math. Stat. 35, 73 (1964). Two normal distributions against one, and their separation:
K. M. Ashman, C. M. Bird, S. E. Zepf, Astron. J. 108, 2348 (1994).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from retemper.prepare.mixture_fit import Errors, scatter, two_modes, unexplained
from retemper.records.e0s import Offset

Array = np.ndarray
Kind = Literal["second mode", "file", "step", "odd structures", "odd frames"]
FEWEST = 30  # frames that a test needs
MOST = 5_000  # frames that are tested, spread evenly over larger sets
LEAST_OFFSET = 0.01  # eV/atom: smaller ones are left to the model
SEPARATION = 5.0  # scatters between two modes; below, heavy tails look alike
STEP = 3.0  # scatters between files, and between the parts of a file
GAIN = 30.0  # of the Bayesian information criterion, by a second mode
COARSE = 8.0, 0.05  # the same, and eV/atom, where composition and charge alone explain
FEWEST_ODD = 4  # frames of a second mode; fewer are odd frames, not a level of theory
FEWEST_PART = 10  # frames of a file, or of a part of it, that are compared with others
APART = 0.05  # eV/atom: offset of new labels that are taken for wrong
ODD = 10.0  # scatters from where a frame is called odd


@dataclass(frozen=True)
class Finding:
    """Frames whose labels have an offset that nothing explains."""

    kind: Kind
    frames: Array  # indices
    of: int  # frames that they were compared with, themselves included
    offset: float  # eV/atom
    separation: float  # in scatters
    where: str  # in words

    @property
    def stops(self) -> bool:
        """Whether this is a mixture; what may be the model's fault is only told."""
        return not self.kind.startswith("odd")

    def recorded(self) -> Offset:
        """As it is written, without the list of frames."""
        return Offset(
            kind=self.kind,
            frames=len(self.frames),
            of=self.of,
            offset=self.offset,
            separation=self.separation,
            where=self.where,
        )

    def sentence(self) -> str:
        """In words."""
        return (
            f"{self.kind}: {len(self.frames)} of {self.of} frames lie {1000 * self.offset:+.3g} meV/atom from the "
            f"others, {self.separation:.1f} times the scatter ({self.where})"
        )


# ------------------------------------------------------------------ the tests


def examine(errors: Errors, rest: Array | None = None) -> list[Finding]:
    """What speaks against labels of one kind, in the plainest words; empty where nothing does.

    Files that differ are named before a step in one, a step before a second mode, and that before odd frames.

    Raises
    ------
    ValueError
        Fewer than `FEWEST` frames.
    """
    if len(errors) < FEWEST:
        raise ValueError(f"{len(errors)} frames are too few to be tested")
    rest = unexplained(errors) if rest is None else rest
    for test in (_of_files, _steps, _second_mode, _odd):
        if findings := test(rest, errors):
            return findings
    return []


def common_offset(errors: Errors, new: Array) -> tuple[float, float] | None:
    """Median offset and scatter (eV/atom) of `new` frames that lie together and apart from all others; else `None`.

    What a model does not know it misses now up, now down: new structures scatter as far as they lie off. The offset is
    sought in the errors themselves and in what composition and structure leave of them.
    """
    reference = np.setdiff1d(np.arange(len(errors)), new)
    if not len(new) or len(reference) < FEWEST_PART:
        return None
    for values in (errors.per_atom, unexplained(errors)):
        offset = float(np.median(values[new]) - np.median(values[reference]))
        width = max(scatter(values[new]), scatter(values[reference]))
        if (
            abs(offset) > max(APART, SEPARATION * width)
            and (np.sign(values[new] - np.median(values[reference])) == np.sign(offset)).all()
        ):
            return offset, width
    return None


def _second_mode(rest: Array, errors: Errors) -> list[Finding]:
    """Two normal distributions of one width against one, with descriptors and without.

    Descriptors explain more, but many of them can follow a large offset of many frames as well.
    """
    return _modes(rest, errors, True, SEPARATION, LEAST_OFFSET) or _modes(
        unexplained(errors, structure=False), errors, False, *COARSE
    )


def _modes(rest: Array, errors: Errors, structure: bool, separation: float, least: float) -> list[Finding]:
    """What explains the errors is fitted anew with the two modes in place, until these stay."""
    gain, centres, width, second = two_modes(rest)
    for _ in range(5):
        if gain < 0:
            return []
        before = second
        rest = _refit(errors, np.flatnonzero(second), float(centres[1] - centres[0]), structure)
        gain, centres, width, second = two_modes(rest)
        if (before == second).all():
            break
    offset = float(centres[1] - centres[0])
    few = np.flatnonzero(second)
    if gain < GAIN or len(few) < max(FEWEST_ODD, 0.01 * len(rest)):
        return []
    if abs(offset) < max(least, separation * width * float(np.median(_unknown(errors)[few]))):
        return []
    alike = _alike(few, errors)
    kind: Kind = "second mode" if alike >= max(FEWEST_ODD, len(few) / 2) else "odd structures"
    return [Finding(kind, few, len(rest), offset, abs(offset) / width, _where(few, errors))]


def _refit(errors: Errors, frames: Array, offset: float, structure: bool = True) -> Array:
    """Unexplained errors [n] with the offset of some `frames` left out of what is explained."""
    moved = np.zeros(len(errors))
    moved[frames] = offset
    scale = np.sqrt(errors.atoms / np.median(errors.atoms))
    return unexplained(replace(errors, per_atom=errors.per_atom - moved / scale), structure) + moved


def _unknown(errors: Errors) -> Array:
    """How much less than the others the model knows each frame [n], by its forces; at least 1."""
    return np.maximum(1.0, errors.forces / max(float(np.median(errors.forces)), 1e-9))


def _alike(frames: Array, errors: Errors) -> int:
    """How many of `frames` have a composition that other frames have too."""
    ratios = [row.tobytes() for row in errors.shares.round(6)]
    counts = Counter(ratios)
    counts.subtract(ratios[k] for k in frames)
    return sum(counts[ratios[k]] > 0 for k in frames)


def _of_files(rest: Array, errors: Errors) -> list[Finding]:
    """Files whose median differs from that of all others."""
    names, findings = errors.files, []
    for name in dict.fromkeys(names):
        members = names == name
        if min(members.sum(), (~members).sum()) < FEWEST_PART:
            continue
        offset, width = _apart(rest[members], rest[~members])
        if abs(offset) > max(LEAST_OFFSET, STEP * width):
            number = len(rest)
            findings.append(Finding("file", np.flatnonzero(members), number, offset, abs(offset) / width, str(name)))
    return findings


def _steps(rest: Array, errors: Errors) -> list[Finding]:
    """Files in whose order the errors step up or down once."""
    names, findings = errors.files, []
    place = np.array([int(source.rpartition(":")[2]) for source in errors.sources])
    for name in dict.fromkeys(names):
        members = np.flatnonzero(names == name)
        members = members[np.argsort(place[members], kind="stable")]
        n = len(members)
        if n < 2 * FEWEST_PART:
            continue
        cut = np.arange(FEWEST_PART, n - FEWEST_PART + 1)
        total = np.cumsum(rest[members])
        difference = total[cut - 1] / cut - (total[-1] - total[cut - 1]) / (n - cut)
        best = int(cut[np.argmax(np.abs(difference) * np.sqrt(cut * (n - cut)))])
        offset, width = _apart(rest[members[best:]], rest[members[:best]])
        if abs(offset) > STEP / 2 * width:  # what explains the errors was fitted to the step as well
            fitted = _refit(errors, members[best:], offset)
            offset, width = _apart(fitted[members[best:]], fitted[members[:best]])
        if abs(offset) > max(LEAST_OFFSET, STEP * width):
            where = f"from {errors.sources[members[best]]} on"
            findings.append(Finding("step", members[best:], n, offset, abs(offset) / width, where))
    return findings


def _apart(first: Array, second: Array) -> tuple[float, float]:
    """Difference of two medians, and the larger of the scatters within."""
    return float(np.median(first) - np.median(second)), max(scatter(first), scatter(second), 1e-9)


def _odd(rest: Array, errors: Errors) -> list[Finding]:
    """Frames far off, compared with how well the model knows them by their forces."""
    width = max(scatter(rest), 1e-9)
    odd = np.flatnonzero(np.abs(rest) > _unknown(errors) * max(LEAST_OFFSET, ODD * width))
    if not len(odd):
        return []
    offset = float(np.median(rest[odd]))
    return [Finding("odd frames", odd, len(rest), offset, abs(offset) / width, _where(odd, errors))]


def _where(frames: Array, errors: Errors) -> str:
    """Files of frames, with counts, and the first few."""
    counts = Counter(errors.files[frames])
    files = ", ".join(f"{number} in {name}" for name, number in counts.most_common(3))
    return f"{files}; such as {', '.join(errors.sources[k] for k in frames[:4])}"
