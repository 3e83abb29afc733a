"""The E0 doctor: chooses atomic reference energies, compares the choices, says what the data leave open.

`retemper.prepare.e0_methods` describes the four methods. With fixed ratios of elements (droplets
NaCl(H2O)n: Na and Cl 1:1, H and O 2:1) the frames cannot split an energy between elements.
Re-estimation then lets free atoms decide, and refuses when there are none: see `diagnose`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.core.files import write_json
from retemper.data.charge import charge_of
from retemper.data.composition import composition_matrix
from retemper.data.frames import ENERGY, in_blocks, read_frames, stream_frames
from retemper.data.units import require_units
from retemper.prepare.e0_evidence import evidence, left_out, separability
from retemper.prepare.e0_methods import METHODS, Problem, group_names, isolated_energies, new_compositions
from retemper.prepare.one_level import require_one_level
from retemper.prepare.predictor import predictor
from retemper.records.dataset import DatasetManifest

BLOCK = 20_000  # frames that are in memory at a time


def error_per_atom(shift: np.ndarray, counts: np.ndarray, error: np.ndarray) -> dict[str, float]:
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
    return {
        "rmse": float(np.sqrt(np.mean(left**2))),
        "mae": float(np.abs(left).mean()),
        "max": float(np.abs(left).max()),
        "mean": float(left.mean()),
    }


def diagnose(
    settings: Settings,
    dataset: Path,
    model: Path,
    out: Path,
    *,
    head: str | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Choose the E0s by ``e0s.method``, compare them with the other methods, write ``e0s.json``.

    Parameters
    ----------
    settings
        ``e0s`` and ``finetune.device`` are used.
    dataset
        Folder of the dataset stage: ``train``, ``valid`` and ``isolated.extxyz``.
    model, head
        The foundation's weights, and its head.
    out
        File to write; nothing is written when the diagnosis stops.
    report
        Receives the comparison table and the warnings.

    Returns
    -------
    dict
        What was written: ``method``, ``E0s`` {atomic number: eV} of every element of the foundation
        (those absent from the data: its own), ``elements_in_data``, the fields of `separability`,
        ``error_per_atom`` (meV/atom, training and validation frames), ``new_compositions`` (meV/atom, RMSE on
        compositions left out of the fit), `evidence` by element, `left_out` frames, and ``candidates`` by method.

    Raises
    ------
    RetemperError
        Elements that the foundation lacks, missing free atoms, E0s that the data do not determine, or an
        error above ``e0s.max_error``. What is not determined is a warning with ``e0s.force``. Wrong units, where
        the dataset stage could not test them without the foundation.
    """
    from retemper.models import mace
    from retemper.models import predict as inference

    dataset, out = Path(dataset), Path(out)
    for text in judge_units(settings, dataset, model, head):
        report(f"Warning: {text}")
    device, refuse = settings.finetune.device, settings.e0s.mixed == "refuse"
    levels = require_one_level(dataset, model, out.parent, head=head, device=device, refuse=refuse)
    chosen = settings.e0s.method
    own = mace.atomic_energies(model, head)
    known = sorted(own)
    rows: list[tuple[np.ndarray, ...]] = []  # of each block: counts, energies, predictions, charges
    groups: list[str] = []
    number = {"train": 0, "valid": 0}

    def both() -> Iterator[Atoms]:
        for name in number:
            for atoms in stream_frames(dataset / f"{name}.extxyz"):
                number[name] += 1
                yield atoms

    for frames in in_blocks(both(), BLOCK):
        found = inference.predict(model, frames, head=head, device=settings.finetune.device, progress=True)
        reference = np.array([float(atoms.info[ENERGY]) for atoms in frames])
        charges = np.array([charge_of(atoms) for atoms in frames])
        rows.append((composition_matrix(frames, known), reference, found.energy, charges))
        groups += map(sys.intern, group_names(frames))
    atoms_file = dataset / "isolated.extxyz"
    none = atoms_file.is_file() and atoms_file.stat().st_size == 0
    free = [] if none else read_frames(atoms_file)
    counts, energy, predicted, charge = (np.concatenate([row[k] for row in rows]) for k in range(4))
    m = number["train"]
    present = np.asarray(counts.any(axis=0))
    numbers, counts = np.array(known)[present].tolist(), counts[:, present]
    isolated = {z: e for z, e in isolated_energies(free).items() if z in numbers}
    own_here = np.array([own[z] for z in numbers])
    limit = settings.e0s.max_uncertainty
    problem = Problem(numbers, counts[:m], energy[:m], predicted[:m], own_here, isolated, charge[:m], groups[:m], limit)

    candidates: dict[str, Any] = {}
    for method in ("isolated", "foundation", "reestimate", *(["average"] if chosen == "average" else [])):
        try:
            values = METHODS[method](problem)
        except RetemperError as error:
            if method == chosen:
                raise
            candidates[method] = {"available": False, "reason": str(error).splitlines()[0]}
            continue
        candidates[method] = {
            "available": True,
            "E0s": {str(z): float(e) for z, e in zip(numbers, values, strict=True)},
            "error_per_atom": error_per_atom(values - own_here, counts, predicted - energy),
        }
    result = {
        "method": chosen,
        "E0s": {**{str(z): e for z, e in sorted(own.items())}, **candidates[chosen]["E0s"]},
        "elements_in_data": [chemical_symbols[z] for z in numbers],
        "isolated_atoms": [chemical_symbols[z] for z in isolated],
        "frames": number,
        **separability(problem, chosen),
        "unit": "eV; errors meV/atom",
        "error_per_atom": candidates[chosen]["error_per_atom"],
        "new_compositions": new_compositions(problem) if chosen == "reestimate" else None,
        "evidence": evidence(problem, chosen, np.array(list(candidates[chosen]["E0s"].values()))),
        "left_out": left_out(problem),
        "candidates": candidates,
        "levels": levels,
    }
    report(table(result))
    undetermined, far = open_question(result, limit), too_far(result, settings.e0s.max_error)
    if undetermined is not None and not settings.e0s.force:
        raise undetermined
    if undetermined is not None:
        report(f"Warning (e0s.force is true, going on): {undetermined}")
    if far is not None:
        raise far
    write_json(out, result)
    return result


def judge_units(settings: Settings, dataset: Path, model: Path, head: str | None) -> list[str]:
    """Warnings on units that the dataset stage left untested, by what the foundation predicts; wrong ones raise.

    The manifest of `dataset` says what is open. A fixed choice of the training frames is judged.
    """
    manifest = dataset / "manifest.json"
    if not manifest.is_file() or not DatasetManifest.read(manifest).units.untested:
        return []
    names = ("isolated", "train")
    files = [path for path in (dataset / f"{name}.extxyz" for name in names) if path.stat().st_size]
    frames = list(islice(chain.from_iterable(map(stream_frames, files)), BLOCK))
    predict = predictor(model, head, settings.finetune.device)
    units = settings.dataset.energy_unit, settings.dataset.length_unit
    return require_units({"training set": frames}, *units, predict).warnings


def open_question(result: dict[str, Any], limit: float) -> RetemperError | None:
    """The error for E0s that neither frames nor free atoms determine to `limit` (eV); None when all are determined."""
    if not result["deficient"]:
        return None
    atoms = ", ".join(result["add_atoms"])
    got = f"rank {result['rank']}"
    fix = f"set e0s.method: reestimate and have free atoms of at least {atoms} in the data"
    if result["method"] == "reestimate":
        fix = f"add free atoms of {atoms} (single-atom frames, ground-state multiplicity)"
        if result["isolated_atoms"]:
            got += f", and free atoms of {', '.join(result['isolated_atoms'])}"
    return RetemperError(
        f"The data do not determine the E0s of {', '.join(result['deficient'])} (method {result['method']}): "
        + "; ".join(result["open_ratios"])
        + ".\n  Energies of frames such as these hardly depend on how the E0s are split, so training on them is\n"
        "  unharmed; energies of anything else (other ratios, free atoms, reactions) would be arbitrary.",
        expected=f"compositions of rank {result['n_elements']}, and E0s known to {limit:g} eV (e0s.max_uncertainty)",
        got=got,
        fix=f"{fix}, or frames with other ratios; e0s.force: true goes on with the smallest correction that fits",
    )


def too_far(result: dict[str, Any], max_error: float) -> RetemperError | None:
    """The error for a foundation that misses the shifted energies by more than `max_error` (eV/atom, RMSE)."""
    rmse = result["error_per_atom"]["rmse"] / 1000.0
    if rmse <= max_error:
        return None
    errors = {name: c["error_per_atom"]["rmse"] for name, c in result["candidates"].items() if c["available"]}
    better = min(errors, key=lambda name: errors[name])
    advice = "check the energies' unit, that all are total energies at one level of theory, and the foundation's domain"
    if better != result["method"]:
        advice = f"set e0s.method: {better} ({errors[better]:.0f} meV/atom); if that is not enough, {advice}"
    return RetemperError(
        f"With the E0s of method '{result['method']}' the foundation misses the data by {rmse:.2f} eV/atom (RMSE).\n"
        "  Fine-tuning would spend itself on this offset and forget what the foundation knows.",
        expected=f"at most {max_error:g} eV/atom (e0s.max_error)",
        fix=f"{advice}; a larger e0s.max_error accepts the offset",
    )


def table(result: dict[str, Any]) -> str:
    """The comparison as text: E0s by method, and the foundation's error with each."""
    candidates = result["candidates"]
    names = [name for name in candidates if candidates[name]["available"]]
    numbers = [chemical_symbols.index(symbol) for symbol in result["elements_in_data"]]
    lines = ["E0s (eV)".ljust(24) + "".join(f"{name:>14}" for name in names)]
    for symbol, z in zip(result["elements_in_data"], numbers, strict=True):
        lines.append(f"  {symbol:<22}" + "".join(f"{candidates[name]['E0s'][str(z)]:14.4f}" for name in names))
    lines.append("error after the shift (meV/atom)")
    for key in ("rmse", "mae", "max", "mean"):
        lines.append(f"  {key:<22}" + "".join(f"{candidates[name]['error_per_atom'][key]:14.1f}" for name in names))
    lines += [f"{name}: {c['reason']}" for name, c in candidates.items() if not c["available"]]
    lines.append(
        f"chosen: {result['method']}; compositions of rank {result['rank']} of {result['n_elements']}, "
        f"condition number {result['condition_number']:.3g}; "
        f"{result['frames']['train']} training and {result['frames']['valid']} validation frames"
    )
    lines += [f"left out: {number} frame(s) {why}" for why, number in result["left_out"].items() if number]
    lines.append(f"{'what they rest on':<46}{'compositions':>14}{'error, eV':>14}{'off atom, eV':>14}")
    for symbol, known in result["evidence"].items():
        error, off = known["standard_error"], known["off_free_atom"]
        last = ("open" if error is None else f"{error:.3f}", "" if off is None else f"{off:.3f}")
        start = f"  {symbol:<4}{known['rests_on']:<40}{known['clusters']:14.1f}"
        lines.append((start + "".join(f"{text:>14}" for text in last)).rstrip())
    if result["new_compositions"] is not None:
        lines.append(f"compositions left out of the fit: {result['new_compositions']:.1f} meV/atom (RMSE)")
    lines.append(
        "energies change by these errors with every atom of an element more or less at else equal composition; "
        "free atoms are off by the last column"
    )
    if result["ratios"] and not result["deficient"] and result["method"] == "reestimate":
        lines.append(f"the frames alone leave open: {'; '.join(result['ratios'])}. Free atoms settle it.")
    return "\n".join(lines)
