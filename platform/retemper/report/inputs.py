"""The report's sections about what went in: data, E0s, the proof of what ran, and where everything is."""

from __future__ import annotations

from typing import Any

from ase.data import atomic_numbers

from retemper.config.foundations import find
from retemper.records.e0s import ReferenceEnergies
from retemper.records.pseudolabel import PseudolabelManifest
from retemper.records.replay import ReplayManifest
from retemper.records.runs import Results, Training
from retemper.records.training import Effective
from retemper.report.comparison import number
from retemper.report.page import Block, Bullets, Cell, Details, Paragraph, Section, Table
from retemper.report.sections import absent


def data(results: Results) -> Section:
    """Counts, what was rejected and why, level of theory, replay sets."""
    manifest = results.dataset
    if manifest is None:
        return Section("Data", "Data", [absent("the data set", "dataset")])
    foundation = find(results.settings.foundation, results.root)
    sources = ", ".join(f"`{source.file}`" for source in manifest.sources)
    text = (
        f"Target: **{manifest.level_of_theory.declared}**; foundation: **{foundation.level_of_theory}**. "
        f"{manifest.frames_read:,} structures were read from {sources}."
    )
    blocks: list[Block] = [Paragraph(text)]
    titles = [
        ("Set", ""),
        ("Structures", ""),
        ("Atoms", ""),
        ("Groups", ""),
        ("With stress", ""),
        ("Energy", "eV/atom"),
        ("Force, RMS", "eV/Å"),
        ("Force, largest", "eV/Å"),
    ]
    rows = []
    for name, part in manifest.sets.items():
        energy, force = part.energy_per_atom, part.force
        span = f"{energy.min:.3f} … {energy.max:.3f}" if energy else "–"
        forces = [f"{force.rms:.3f}", f"{force.max:.3f}"] if force else ["–", "–"]
        numbers = [f"{number:,}" for number in (part.frames, part.atoms, part.groups, part.with_stress)]
        rows.append([Cell(text) for text in (name, *numbers, span, *forces)])
    blocks.append(Table(titles, rows))
    facts = [
        f"Elements: {' '.join(manifest.elements)}.",
        f"Split by whole groups ({manifest.grouping.rule}; {manifest.grouping.groups} groups): near copies stay in "
        "one set.",
    ]
    if manifest.unused:
        reasons = ", ".join(f"{count} for `{reason}`" for reason, count in manifest.unused.items())
        facts.append(f"Sound and not used: {reasons}. They are in `runs/dataset/unused.extxyz`.")
    if manifest.rejected:
        reasons = ", ".join(f"{count} for `{reason}`" for reason, count in manifest.rejected.items())
        facts.append(f"Rejected: {reasons}. The structures with their reasons are in `runs/dataset/rejected.extxyz`.")
    else:
        facts.append("No structure was rejected.")
    facts += [_replay(results.replay), _pseudolabel(results.pseudolabel)]
    blocks.append(Bullets(facts))
    findings = [finding.text for finding in results.replay.findings] if results.replay else []
    blocks += [Paragraph(text, "warning") for text in [*manifest.warnings, *findings]]
    return Section("Data", "Data", blocks)


def _replay(manifest: ReplayManifest | None) -> str:
    """How the replay structures were chosen."""
    if manifest is None:
        return "Replay structures: missing (`dvc repro replay`)."
    pools = [
        f"{pool.train} and {pool.valid} of the {pool.structures:,} structures of `{pool.name}`"
        + ("" if pool.labels == "original" else ", which has no labels: they are the foundation's own")
        for pool in manifest.pools
    ]
    text = (
        f"Replay structures: {manifest.train.n_frames} for training and {manifest.valid.n_frames} for validation, "
        f"{'; '.join(pools)} (choice: {manifest.select}, seed {manifest.seed}); "
        f"{len(manifest.train.elements)} elements."
    )
    kept = manifest.retention
    if kept is not None:
        what = "drift from the foundation" if kept.labels == "foundation" else "retention"
        text += (
            f" None of them is among the {kept.structures} structures of `{kept.source}` that {what} is measured on."
        )
    coverage = manifest.coverage
    if coverage is not None:
        text += (
            f" Farthest candidate in descriptor space: {number(coverage.radius)} from the chosen ones, "
            f"{number(coverage.radius_random)} from as many taken at random."
        )
    return text


def _pseudolabel(manifest: PseudolabelManifest | None) -> str:
    """Who labelled the replay structures again, and how far that is from their own labels."""
    if manifest is None:
        return "Pseudolabels: missing (`dvc repro pseudolabel`)."
    text = f"Pseudolabels: by `{manifest.foundation}` in {manifest.dtype} for the same structures"
    units = {"energy": "meV/atom", "force": "meV/Å", "stress": "meV/Å³"}
    errors = manifest.train.rmse_to_original
    differences = [f"{name} {number(value)} {units[name]}" for name, value in errors if value is not None]
    return text + (f"; RMSE to their original labels: {', '.join(differences)}." if differences else ".")


def e0s(results: Results) -> Section:
    """The E0 doctor: method, candidates, what the data do not determine."""
    doctor = results.e0s
    if doctor is None:
        return Section("E0s", "Atomic reference energies (E0s)", [absent("the E0 doctor's result", "e0s")])
    method, error = doctor.method, doctor.error_per_atom
    blocks: list[Block] = [
        Paragraph(
            f"Chosen: **{method}**. With these E0s the untouched foundation misses the target energies by "
            f"**{number(error.rmse)} meV/atom** (RMSE; mean {number(error.mean)}, largest {number(error.max)})."
        )
    ]
    if doctor.deficient:
        blocks.append(
            Paragraph(
                f"The data do not determine the E0s of {', '.join(doctor.deficient)} (compositions of rank "
                f"{doctor.rank} for {doctor.n_elements} elements): {'; '.join(doctor.open_ratios)}. "
                "Energies of structures with these ratios are not affected; energies of other ratios, free atoms and "
                "reactions are arbitrary by a constant for each element.",
                "warning",
            )
        )
    limit = 1000.0 * results.settings.e0s.max_error
    if error.rmse > limit:
        blocks.append(
            Paragraph(
                f"The error after the shift is above the limit of {number(limit)} meV/atom.",
                "warning",
            )
        )
    candidates, available = doctor.candidates, doctor.available
    titles = [("Element", ""), *((name, "eV" if name in available else "not available") for name in candidates)]
    rows = []
    for symbol in doctor.elements_in_data:
        row = [Cell(symbol)]
        for name in candidates:
            value = available[name].E0s.get(atomic_numbers[symbol]) if name in available else None
            row.append(Cell("–") if value is None else Cell(f"{value:.4f}", mark="chosen" if name == method else ""))
        rows.append(row)
    errors = {name: dict(candidate.error_per_atom) for name, candidate in available.items()}
    for key, title in (("rmse", "RMSE after the shift"), ("max", "largest error")):
        cells = [Cell(number(errors[name][key]) if name in errors else "–") for name in candidates]
        rows.append([Cell(title, "meV/atom"), *cells])
    blocks.append(Table(titles, rows))
    blocks += _basis(doctor)
    reasons = [f"{name}: {reason}" for name, reason in doctor.unavailable.items()]
    if reasons:
        blocks.append(Paragraph("Not available: " + "; ".join(reasons), "note"))
    return Section("E0s", "Atomic reference energies (E0s)", blocks)


def _basis(doctor: ReferenceEnergies) -> list[Block]:
    """Frames that were left out, what each E0 rests on, and what that does to other compositions."""
    blocks: list[Block] = [
        Paragraph(f"{count} training frame(s) {reason}", "note") for reason, count in doctor.left_out.items() if count
    ]
    blocks.append(_evidence(doctor))
    new = doctor.new_compositions
    blocks.append(
        Paragraph(
            "With each atom of an element more or less an energy is off by that element's standard error; an atom "
            "that leaves a structure is wrong by the last column."
            + ("" if new is None else f" On compositions left out of the fit: {number(new)} meV/atom (RMSE)."),
            "note",
        )
    )
    return blocks


def _evidence(doctor: ReferenceEnergies) -> Table:
    """What each element's E0 rests on."""
    rows = [
        [
            Cell(symbol),
            Cell(evidence.rests_on),
            Cell(f"{evidence.clusters:.1f}"),
            Cell("open" if evidence.standard_error is None else f"{evidence.standard_error:.3f}"),
            Cell("–" if evidence.off_free_atom is None else f"{evidence.off_free_atom:+.3f}"),
        ]
        for symbol, evidence in doctor.evidence.items()
    ]
    titles = [("Element", ""), ("Rests on", ""), ("Compositions or groups", ""), ("Standard error", "eV")]
    return Table([*titles, ("E0 minus free atom", "eV")], rows)


def proof(results: Results) -> Section:
    """For every run: whether what ran is what was asked for."""
    trainings = [t for seeds in results.trainings.values() for t in seeds.values()]
    if not trainings:
        return Section("Proof", "What ran", [absent("the trainings", "finetune")])
    proven = [t for t in trainings if t.proven]
    text = (
        "After MACE had built model, optimiser, loss and data, their settings were read back from these objects and "
        f"compared with what was asked for: **{len(proven)} of {len(trainings)} runs** have no difference."
    )
    blocks: list[Block] = [Paragraph(text)]
    for training in trainings:
        if not training.proven:
            effective = training.effective
            differences = effective.differences if effective else ["not read back: the run did not finish"]
            blocks.append(Paragraph(f"{training.strategy}, seed {training.seed}: {'; '.join(differences)}", "warning"))
    titles = [
        ("Strategy", ""),
        ("Seed", ""),
        ("Points compared", ""),
        ("Differences", ""),
        ("Trained parameters", ""),
        ("Epochs", ""),
        ("Best epoch", ""),
        ("Validation loss", ""),
        ("Model", "sha256"),
    ]
    blocks.append(Table(titles, [_proof_row(training) for training in trainings]))
    for name, seeds in results.trainings.items():
        first = next(iter(seeds.values()))
        if first.effective is not None:
            table = _settings_table(first.effective)
            blocks.append(Details(f"{name}: settings, asked and ran (seed {first.seed})", [table]))
    note = "`mace.yaml` beside each model is the same run for `mace_run_train --config`, without this project."
    return Section("Proof", "What ran", [*blocks, Paragraph(note, "note")])


def _proof_row(training: Training) -> list[Cell]:
    effective, outcome = training.effective, training.outcome
    points = len(effective.asked.model_dump()) if effective else 0
    differences = "none" if training.proven else str(len(effective.differences)) if effective else "unknown"
    first = [training.strategy, str(training.seed), str(points), differences]
    if outcome is None:
        return [*map(Cell, first), Cell("–"), Cell(str(len(training.history))), Cell("–"), Cell("–"), Cell("–")]
    return [
        *map(Cell, first),
        Cell(f"{outcome.trainable:,}", f"of {outcome.parameters:,}"),
        Cell(str(outcome.epochs)),
        Cell(str(outcome.best_epoch + 1)),
        Cell(number(outcome.valid_loss)),
        Cell(outcome.sha256[:12]),
    ]


def _settings_table(effective: Effective) -> Table:
    asked, ran = effective.asked.model_dump(), effective.ran.model_dump()
    keys = [*asked, *(key for key in ran if key not in asked)]
    rows = [
        [Cell(key), Cell(_short(asked[key]) if key in asked else "–"), Cell(_short(ran[key]) if key in ran else "–")]
        for key in keys
    ]
    return Table([("Setting", ""), ("Asked", ""), ("Ran", "")], rows, textual=True)


def _short(value: Any) -> str:
    """A setting in one line; long lists and tables by their size."""
    if isinstance(value, dict):
        if len(value) > 8:
            return f"{len(value)} entries"
        return ", ".join(f"{key}: {_short(part)}" for key, part in value.items())
    if isinstance(value, list):
        return f"{len(value)} entries" if len(value) > 8 else ", ".join(_short(part) for part in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def where(results: Results) -> Section:
    """Registered versions, commands and files."""
    blocks: list[Block] = []
    if results.registered:
        rows = []
        for name, record in results.registered.items():
            versions = ", ".join(f"{record.model}/{number} (seed {seed})" for seed, number in record.versions.items())
            best = record.best.version if record.best else "–"
            rows.append([Cell(name), Cell(versions), Cell(f"{record.model}/{best}")])
        blocks.append(
            Table([("Strategy", ""), ("Registered versions", ""), ("Lowest target force RMSE", "")], rows, textual=True)
        )
        model = results.settings.system
        blocks.append(
            Paragraph(f'As ASE calculator: `import retemper; atoms.calc = retemper.load("{model}@candidate")`.')
        )
    else:
        blocks.append(absent("registered models", "register"))
    blocks.append(
        Bullets(
            [
                "Runs, curves and registered models: `retemper open mlflow` in the project's folder.",
                "Models with history, proof and MACE configuration: `runs/finetune/<strategy>/seed-<k>/`.",
                "Errors of every frame, element and configuration type: `runs/evaluate/<strategy>/`.",
                "This table for other programs: `runs/report/table.csv`, `metrics.json`, `pareto.csv`, `curves.csv`.",
            ]
        )
    )
    return Section("Files", "Where to look", blocks)
