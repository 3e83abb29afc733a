"""The E0 doctor: chooses atomic reference energies, compares the choices, says what the data leave open.

`retemper.prepare.e0_methods` describes the four methods. With fixed ratios of elements (droplets
NaCl(H2O)n: Na and Cl 1:1, H and O 2:1) the frames cannot split an energy between elements.
Re-estimation then lets free atoms decide, and refuses when there are none: see `run`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.data.charge import charge_of
from retemper.data.composition import composition_matrix
from retemper.data.frames import ENERGY, in_blocks, read_frames, stream_frames
from retemper.data.units import require_units
from retemper.models import heads
from retemper.prepare.e0_evidence import evidence, left_out, separability
from retemper.prepare.e0_methods import METHODS, Problem, group_names, isolated_energies, new_compositions
from retemper.prepare.one_level import require_one_level
from retemper.prepare.predictor import predictor
from retemper.records.dataset import DatasetManifest
from retemper.records.e0s import Candidate, EnergyError, ReferenceEnergies, Unavailable

BLOCK = 20_000  # frames that are in memory at a time


def error_per_atom(shift: np.ndarray, counts: np.ndarray, error: np.ndarray) -> EnergyError:
    """The foundation's energy error after exchanging its E0s, in meV/atom.

    Parameters
    ----------
    shift
        [n] new minus own E0s, eV.
    counts
        [n_frames, n] atoms of each element.
    error
        [n_frames] E_foundation - E_ref with the foundation's own E0s, eV.
    """
    left = 1000.0 * (error + counts @ shift) / counts.sum(axis=1)
    return EnergyError(
        rmse=float(np.sqrt(np.mean(left**2))),
        mae=float(np.abs(left).mean()),
        max=float(np.abs(left).max()),
        mean=float(left.mean()),
    )


def run(project: Project) -> ReferenceEnergies:
    """Choose the E0s by ``e0s.method`` and compare them with the other methods.

    Training and validation frames and free atoms of the stage dataset are read. Nothing is written when the diagnosis
    stops.

    Raises
    ------
    RetemperError
        Elements that the foundation lacks, missing free atoms, E0s that the data do not determine, or an
        error above ``e0s.max_error``. What is not determined is a warning with ``e0s.force``. Wrong units, where
        the dataset stage could not test them without the foundation.
    """
    from retemper.models import mace

    settings = project.settings.e0s
    for text in judge_units(project):
        log.warning(f"Warning: {text}")
    levels = require_one_level(project)
    foundation_e0s = mace.atomic_energies(project.weights, heads.of_foundation(project))
    labels = _read(project, sorted(foundation_e0s))
    problem = _problem(project, labels, foundation_e0s)
    candidates = _compare(problem, labels, settings.method)
    candidate = candidates[settings.method]
    assert isinstance(candidate, Candidate)  # else `_compare` has raised
    result = ReferenceEnergies(
        method=settings.method,
        E0s=dict(sorted(foundation_e0s.items())) | candidate.E0s,
        elements_in_data=[chemical_symbols[z] for z in problem.numbers],
        isolated_atoms=[chemical_symbols[z] for z in problem.isolated],
        frames={"train": labels.train, "valid": len(labels.energy) - labels.train},
        error_per_atom=candidate.error_per_atom,
        new_compositions=new_compositions(problem) if settings.method == "reestimate" else None,
        evidence=evidence(problem, settings.method, np.array(list(candidate.E0s.values()))),
        left_out=left_out(problem),
        candidates=candidates,
        levels=levels,
        **dict(separability(problem, settings.method)),
    )
    log.info(table(result))
    undetermined, far = open_question(result, settings.max_uncertainty), too_far(result, settings.max_error)
    if undetermined is not None and not settings.force:
        raise undetermined
    if undetermined is not None:
        log.warning(f"Warning (e0s.force is true, going on): {undetermined}")
    if far is not None:
        raise far
    result.write(project.e0s)
    return result


@dataclass(frozen=True)
class _Labels:
    """Energies of all frames, those for training first; n elements, m frames."""

    numbers: list[int]  # [n] atomic numbers of the data, sorted
    counts: np.ndarray  # [m, n] atoms of each element
    energy: np.ndarray  # [m] eV, reference
    predicted: np.ndarray  # [m] eV, the foundation's
    charge: np.ndarray  # [m] e
    groups: list[str]  # [m]
    train: int  # frames for training


def _read(project: Project, known: list[int]) -> _Labels:
    """The labels of training and validation frames, and what the foundation predicts; `known`: its elements."""
    from retemper.models import predict as inference

    model, head, device = project.weights, heads.of_foundation(project), project.settings.finetune.device
    rows: list[tuple[np.ndarray, ...]] = []  # of each block: counts, energies, predictions, charges
    groups: list[str] = []
    number = {"train": 0, "valid": 0}

    def both() -> Iterator[Atoms]:
        for name in number:
            for atoms in stream_frames(project.structures(name)):
                number[name] += 1
                yield atoms

    for frames in in_blocks(both(), BLOCK):
        predicted = inference.predict(model, frames, head=head, device=device, progress=True)
        reference = np.array([float(atoms.info[ENERGY]) for atoms in frames])
        charges = np.array([charge_of(atoms) for atoms in frames])
        rows.append((composition_matrix(frames, known), reference, predicted.energy, charges))
        groups += map(sys.intern, group_names(frames))
    counts, energy, prediction, charge = (np.concatenate([row[k] for row in rows]) for k in range(4))
    present = np.asarray(counts.any(axis=0))
    numbers = np.array(known)[present].tolist()
    return _Labels(numbers, counts[:, present], energy, prediction, charge, groups, number["train"])


def _problem(project: Project, labels: _Labels, foundation_e0s: dict[int, float]) -> Problem:
    """The training frames, and the free atoms of their elements."""
    path, m = project.structures("isolated"), labels.train
    empty = path.is_file() and path.stat().st_size == 0
    free = isolated_energies([] if empty else read_frames(path))
    return Problem(
        labels.numbers,
        labels.counts[:m],
        labels.energy[:m],
        labels.predicted[:m],
        np.array([foundation_e0s[z] for z in labels.numbers]),
        {z: energy for z, energy in free.items() if z in labels.numbers},
        labels.charge[:m],
        labels.groups[:m],
        project.settings.e0s.max_uncertainty,
    )


def _compare(problem: Problem, labels: _Labels, selected: str) -> dict[str, Candidate | Unavailable]:
    """E0s by every method; averaging where it is `selected`, which must be available."""
    candidates: dict[str, Candidate | Unavailable] = {}
    for method in ("isolated", "foundation", "reestimate", *(["average"] if selected == "average" else [])):
        try:
            values = METHODS[method](problem)
        except RetemperError as error:
            if method == selected:
                raise
            candidates[method] = Unavailable(reason=str(error).splitlines()[0])
            continue
        candidates[method] = Candidate(
            E0s={z: float(e) for z, e in zip(problem.numbers, values, strict=True)},
            error_per_atom=error_per_atom(values - problem.own, labels.counts, labels.predicted - labels.energy),
        )
    return candidates


def judge_units(project: Project) -> list[str]:
    """Warnings on units that the dataset stage left untested, by what the foundation predicts; wrong ones raise.

    The manifest says what is open. A fixed choice of the training frames is judged.
    """
    if not project.manifest.is_file() or not DatasetManifest.read(project.manifest).units.untested:
        return []
    files = [path for path in map(project.structures, ("isolated", "train")) if path.stat().st_size]
    frames = list(islice(chain.from_iterable(map(stream_frames, files)), BLOCK))
    settings = project.settings
    predict = predictor(project.weights, heads.of_foundation(project), settings.finetune.device)
    units = settings.dataset.energy_unit, settings.dataset.length_unit
    return require_units({"training set": frames}, *units, predict).warnings


def open_question(result: ReferenceEnergies, limit: float) -> RetemperError | None:
    """The error for E0s that neither frames nor free atoms determine to `limit` (eV); None when all are determined."""
    if not result.deficient:
        return None
    atoms = ", ".join(result.add_atoms)
    got = f"rank {result.rank}"
    fix = f"set e0s.method: reestimate and have free atoms of at least {atoms} in the data"
    if result.method == "reestimate":
        fix = f"add free atoms of {atoms} (single-atom frames, ground-state multiplicity)"
        if result.isolated_atoms:
            got += f", and free atoms of {', '.join(result.isolated_atoms)}"
    return RetemperError(
        f"The data do not determine the E0s of {', '.join(result.deficient)} (method {result.method}): "
        + "; ".join(result.open_ratios)
        + ".\n  Energies of frames such as these hardly depend on how the E0s are split, so training on them is\n"
        "  unharmed; energies of anything else (other ratios, free atoms, reactions) would be arbitrary.",
        expected=f"compositions of rank {result.n_elements}, and E0s known to {limit:g} eV (e0s.max_uncertainty)",
        got=got,
        fix=f"{fix}, or frames with other ratios; e0s.force: true goes on with the smallest correction that fits",
    )


def too_far(result: ReferenceEnergies, max_error: float) -> RetemperError | None:
    """The error for a foundation that misses the shifted energies by more than `max_error` (eV/atom, RMSE)."""
    rmse = result.error_per_atom.rmse / 1000.0
    if rmse <= max_error:
        return None
    errors = {name: candidate.error_per_atom.rmse for name, candidate in result.available.items()}
    better = min(errors, key=lambda name: errors[name])
    advice = "check the energies' unit, that all are total energies at one level of theory, and the foundation's domain"
    if better != result.method:
        advice = f"set e0s.method: {better} ({errors[better]:.0f} meV/atom); if that is not enough, {advice}"
    return RetemperError(
        f"With the E0s of method '{result.method}' the foundation misses the data by {rmse:.2f} eV/atom (RMSE).\n"
        "  Fine-tuning would spend itself on this offset and forget what the foundation knows.",
        expected=f"at most {max_error:g} eV/atom (e0s.max_error)",
        fix=f"{advice}; a larger e0s.max_error accepts the offset",
    )


def table(result: ReferenceEnergies) -> str:
    """The comparison as text: E0s by method, and the foundation's error with each."""
    candidates = result.available
    lines = ["E0s (eV)".ljust(24) + "".join(f"{name:>14}" for name in candidates)]
    for symbol in result.elements_in_data:
        z = chemical_symbols.index(symbol)
        lines.append(f"  {symbol:<22}" + "".join(f"{candidate.E0s[z]:14.4f}" for candidate in candidates.values()))
    lines.append("error after the shift (meV/atom)")
    errors = [dict(candidate.error_per_atom) for candidate in candidates.values()]
    for key in ("rmse", "mae", "max", "mean"):
        lines.append(f"  {key:<22}" + "".join(f"{error[key]:14.1f}" for error in errors))
    lines += [f"{name}: {reason}" for name, reason in result.unavailable.items()]
    lines.append(
        f"chosen: {result.method}; compositions of rank {result.rank} of {result.n_elements}, "
        f"condition number {result.condition_number:.3g}; "
        f"{result.frames['train']} training and {result.frames['valid']} validation frames"
    )
    lines += [f"left out: {number} frame(s) {why}" for why, number in result.left_out.items() if number]
    lines.append(f"{'what they rest on':<46}{'compositions':>14}{'error, eV':>14}{'off atom, eV':>14}")
    for symbol, known in result.evidence.items():
        error, off = known.standard_error, known.off_free_atom
        last = ("open" if error is None else f"{error:.3f}", "" if off is None else f"{off:.3f}")
        start = f"  {symbol:<4}{known.rests_on:<40}{known.clusters:14.1f}"
        lines.append((start + "".join(f"{text:>14}" for text in last)).rstrip())
    if result.new_compositions is not None:
        lines.append(f"compositions left out of the fit: {result.new_compositions:.1f} meV/atom (RMSE)")
    lines.append(
        "energies change by these errors with every atom of an element more or less at else equal composition; "
        "free atoms are off by the last column"
    )
    if result.ratios and not result.deficient and result.method == "reestimate":
        lines.append(f"the frames alone leave open: {'; '.join(result.ratios)}. Free atoms settle it.")
    return "\n".join(lines)
