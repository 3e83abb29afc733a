"""What decides each stage's numbers, as one small file a stage in ``runs/inputs``. DVC compares these files.

Settings with their defaults, contents of the files that the settings or the foundation's entry name, wherever they
lie, and the package's own code. A stage runs again when its file changes, and only then.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from retemper.config import foundation_files, foundations, metric_names, pretraining_data
from retemper.config.foundations import Foundation
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import experiment, software, sources, weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, sha256
from retemper.core.hashes import Hashes
from retemper.models import opening
from retemper.records.inputs import Oracle, StageInputs
from retemper.records.record import OtherFormError

PROSE = frozenset({"name", "about", "licence", "citation", "mace"})  # of a foundation's entry
NAMING = frozenset({"file", "url", "sha256", "replay", "pool", "retention"})  # of it too: their contents count
# Settings of how fast and where: they decide no number.
EFFORT = frozenset(
    {"finetune.device", "finetune.disk_above", "finetune.workers", "robustness.ray", "robustness.workers"}
)

# Packages and modules that read, write, track, print or draw; what they carry is decided elsewhere.
CARRIERS = frozenset(
    sources.PACKAGE + name
    for name in (
        *("cli", "core", "plotting", "tracking"),
        *("config.foundation_files", "config.foundation_lock", "config.foundations", "config.licences"),
        "config.project",
        *("config.setting_errors", "config.setting_texts", "config.settings", "config.strict_yaml"),
        *("records.campaign", "records.dataset", "records.e0s", "records.evaluation", "records.inputs"),
        *("records.origin", "records.pseudolabel", "records.record", "records.replay", "records.robustness"),
        *("records.label", "records.result", "records.round", "records.sweep", "records.training"),
        *(
            "data.frame_store",
            "models.convert",
            "models.inspection",
            "models.lammps",
            "prepare.inputs",
            "simulation.sources",
        ),
        *("evaluation.robustness.figures", "evaluation.robustness.identity"),
        *(
            "registry.data_revisions",
            "registry.export",
            "registry.formats",
            "registry.load",
            "promotion.hook",
            "promotion.views",
        ),
        *("study.tracking", "sweep.file_transfer", "sweep.resources", "sweep.status", "sweep.table"),
    )
)
# Modules of the dataset stage: what later stages take from them can only refuse.
REFUSING = frozenset(sources.PACKAGE + name for name in ("data.labels", "data.units", "data.splits"))

Named = Iterator[tuple[str, str]]  # settings, and the files or folders that they name


@dataclass(frozen=True)
class Stage:
    """What one stage, or the stages of all strategies, depend on beside each other's outputs."""

    settings: tuple[str, ...]  # sections and keys of params.yaml that it reads
    code: tuple[str, ...]  # modules that it begins with; theirs follow
    files: tuple[Callable[[Settings, Foundation], Named], ...] = ()
    apart: frozenset[str] = frozenset()  # modules that are not followed, beside CARRIERS
    mace: bool = False  # whether the foundation's weights and MACE decide
    prose: bool = False  # whether it shows what the foundation's entry says of it


def _data(settings: Settings, entry: Foundation) -> Named:
    yield from (("dataset.test_files", name) for name in settings.dataset.test_files)
    yield from (("dataset.files", name) for name in settings.dataset.files)


def _pool(settings: Settings, entry: Foundation) -> Named:
    yield from ((pool.setting, pool.name) for pool in pretraining_data.pools(settings, entry) if not pool.generated)


def _retention(settings: Settings, entry: Foundation) -> Named:
    named = pretraining_data.retention(settings, entry)
    if named is not None:
        yield named[1], named[0]


def _references(settings: Settings, entry: Foundation) -> Named:
    if settings.robustness.reference:
        yield "robustness.reference", settings.robustness.reference
    if settings.robustness.figures:
        yield "robustness.figures", settings.robustness.figures


# Of frames that the dataset stage does not read: pools and retention sets.
LIMITS = tuple(
    f"dataset.{name}"
    for name in ("weights", "max_rejected", "max_atoms", "max_stress", "max_force", "max_net_force", "min_distance")
)
JUDGED = ("system", "foundation", "dataset.level_of_theory", "evaluate.confidence")
STAGES: dict[str, Stage] = {
    "dataset": Stage(("foundation", "dataset"), ("prepare.dataset",), (_data,), mace=True),
    "e0s": Stage(("foundation", "e0s", "dataset.energy_unit", "dataset.length_unit"), ("prepare.e0s",), mace=True),
    "replay": Stage(
        (
            *("foundation", "pseudolabel", "evaluate.retention", "dataset.near_duplicate"),
            *("replay.pools", "replay.number", "replay.valid", "replay.select", "replay.seed"),
            *("dataset.near_test", *LIMITS),
        ),
        ("prepare.replay",),
        (_pool, _retention),
        apart=REFUSING - {sources.PACKAGE + "data.splits"},
        mace=True,
    ),
    "pseudolabel": Stage(("foundation", "pseudolabel", "replay.heads"), ("prepare.pseudolabel",), mace=True),
    "sweep": Stage(
        ("system", "foundation", "seeds", "sweep", "finetune", "dataset.weights", "replay.heads"),
        ("sweep.run",),
        apart=REFUSING,
        mace=True,
    ),
    "finetune": Stage(
        ("system", "foundation", "seeds", "finetune", "sweep.scope", "dataset.weights", "replay.heads"),
        ("finetune.planning", "finetune.mace.train", "finetune.collect"),
        apart=REFUSING,
        mace=True,
    ),
    "evaluate": Stage(
        ("system", "foundation", "evaluate", "dataset.near_duplicate", *LIMITS),
        ("evaluation.stage",),
        (_retention,),
        apart=REFUSING | {sources.PACKAGE + "prepare.overlap"},
        mace=True,
    ),
    "robustness": Stage(
        ("system", "foundation", "robustness", "evaluate.retention", "dataset.level_of_theory"),
        ("evaluation.robustness.stage",),
        (_retention, _references),
        mace=True,
    ),
    "register": Stage(
        (*JUDGED, "tracking", "finetune.dtype"),
        ("registry.register", "registry.served_model"),
        apart=REFUSING | {"retemper.promotion.promote"},
        prose=True,
    ),
    "promote": Stage((*JUDGED, "strategies", "promotion"), ("promotion.promote",), apart=REFUSING, prose=True),
    "report": Stage((*JUDGED, "strategies", "seeds", "e0s.max_error", "promotion.gates"), ("report",), prose=True),
}


def run(project: Project) -> list[str]:
    """Write ``runs/inputs/<stage>.json`` for every stage.

    Returns
    -------
    list of str
        One line for each stage whose file changed: which settings, files and modules. Empty where there was none.

    Raises
    ------
    RetemperError
        A setting or the foundation's entry names a file that is not there, or a model of a class that is not served.
    """
    hashes = Hashes(project.cache("inputs") / "hashes.json")
    before = {name: _before(project.inputs(name)) for name in STAGES}
    model = _weights(project, hashes)
    _require_served(project)
    now = {name: _stage_inputs(name, project, model, hashes) for name in STAGES}
    with atomic_folder(project.inputs("any").parent) as folder:
        for name, inputs in now.items():
            inputs.write(folder / f"{name}.json")
    hashes.save()
    changed = {name: differences(old, now[name]) for name, old in before.items() if old is not None}
    return [f"{name}: {', '.join(changes)}" for name, changes in changed.items() if changes]


def _before(path: Path) -> StageInputs | None:
    try:
        return StageInputs.read(path) if path.is_file() else None
    except OtherFormError:
        return None


def stages_of(setting: str) -> list[str]:
    """The stages whose numbers a setting decides, by its dotted path."""
    if setting in EFFORT:
        return []
    return [name for name, stage in STAGES.items() if any(f"{setting}.".startswith(f"{s}.") for s in stage.settings)]


def _stage_inputs(name: str, project: Project, model: str, hashes: Hashes) -> StageInputs:
    """`model`: hash of the foundation's weights."""
    stage, settings, root, files = STAGES[name], project.settings, project.root, {}
    for named in stage.files:
        for setting, path in named(settings, project.foundation):
            if setting == pretraining_data.PUBLISHED:
                files[f"{setting}: {path}"] = foundation_files.structures_sha256(foundations.structures()[path], root)
                continue
            if not (root / path).exists():
                raise _missing(setting, path, root)
            files[f"{setting}: {path}"] = hashes.of(root / path)
    hidden = set(NAMING if stage.prose else NAMING | PROSE)
    oracle = settings.robustness.oracle if name == "robustness" else None
    return StageInputs(
        settings=_settings(settings, stage.settings),
        foundation=project.foundation.model_dump(mode="json", exclude=hidden, exclude_none=True),
        weights=model if stage.mace else None,
        packages={"mace-torch": importlib.metadata.version("mace-torch").partition("+")[0]} if stage.mace else None,
        # register and promote do nothing in an experiment, and their work once it is kept
        experiment=experiment.name() is not None if name in ("register", "promote") else None,
        oracle=_oracle(oracle, root, hashes) if oracle else None,
        files=files,
        code=code_of(name, settings),
    )


def code_of(name: str, settings: Settings) -> dict[str, str]:
    """`code` of a stage; of robustness that of the metrics which `settings` ask for."""
    stage = STAGES[name]
    modules = [sources.PACKAGE + module for module in stage.code]
    if name == "robustness":
        asked = list(settings.robustness.metrics)
        modules += [
            f"{sources.PACKAGE}{metric_names.SUITE}.{metric}"
            for metric in (metric_names.suite_names() if asked == ["all"] else asked)
        ]
    return code(modules, stage.apart)


def code(modules: list[str], apart: frozenset[str] = frozenset()) -> dict[str, str]:
    """Hash of the statements of each module that decides, by name: `modules` and those of the package they import."""
    left = CARRIERS | apart

    def followed(module: str) -> bool:
        return module.startswith(sources.PACKAGE) and not any(
            module == parent or module.startswith(f"{parent}.") for parent in left
        )

    return {name: sources.statements(name) for name in sources.closure(modules, followed)}


def differences(before: StageInputs, now: StageInputs) -> list[str]:
    """What differs between two contents of one file, by the names of settings, files and modules."""
    names = []
    for part, old in before.model_dump().items():
        new = now.model_dump()[part]
        if isinstance(old, dict) and isinstance(new, dict):
            names += [
                f"{part}: {key}" if part == "code" else key for key in {**old, **new} if old.get(key) != new.get(key)
            ]
        elif old != new:
            names.append(part)
    return names


def _settings(settings: Settings, paths: tuple[str, ...]) -> dict[str, JsonValue]:
    """Values with their defaults, by dotted key; of a section all but `EFFORT`."""
    everything = settings.model_dump(mode="json")
    values: dict[str, JsonValue] = {}
    for path in paths:
        section, _, key = path.partition(".")
        value = everything[section][key] if key else everything[section]
        values |= {f"{path}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {path: value}
    return {key: value for key, value in values.items() if key not in EFFORT}


def _weights(project: Project, hashes: Hashes) -> str:
    """Hash of the foundation's weights: of a file, else what is fetched has to be; the first use fetches and remembers.

    Raises
    ------
    RetemperError
        As `foundation_files.weights`: a file that is not what it was, among others.
    """
    entry, root = project.foundation, project.root
    foundation_files.require_served(entry)
    if entry.file is not None and not (root / entry.file).is_file():
        raise _missing(f"The file of foundation {entry.name}", entry.file, root)
    known = foundation_files.known_sha256(entry, root)
    if known is not None and (entry.file is None or hashes.of(root / entry.file) == known.lower()):
        return known.lower()
    return sha256(project.weights)


def _require_served(project: Project) -> None:
    """Raise where the foundation's file is a model of a class that is not served. What is no model, others refuse."""
    path = foundation_files.place(project.foundation, project.root)
    if path.is_file() and not weight_files.described(path) and weight_files.whole(path):
        opening.require_served(path.read_bytes(), str(path))


def _oracle(spec: str, root: Path, hashes: Hashes) -> Oracle:
    """What decides the numbers of ``robustness.oracle``, as far as it is seen without importing it.

    Packages of the calculator's module, its statements where it is a file of the user's or of retemper's, and contents
    of the files that its keywords name.
    """
    module, _, call = spec.partition(":")[2].partition(":")
    has_source = sources.exists(module)
    names = {name.partition(".")[0] for name in (sources.imports(module) if has_source else [module])}
    named = re.findall(r"""['"]([^'"]+)['"]""", call)
    return Oracle(
        calculator=spec,
        packages=software.packages(*sorted({*names, module.partition(".")[0]} - {sources.PACKAGE.rstrip(".")})),
        source=sources.statements(module) if has_source else None,
        files={name: hashes.of(root / name) for name in named if (root / name).exists()},
    )


def _missing(setting: str, path: str, root: Path) -> RetemperError:
    return RetemperError(
        f"{setting} names {path}, which is not there.",
        expected=f"a file or folder, absolute or relative to {root}",
        fix="correct the path in params.yaml, or fetch the file (`dvc pull`, where DVC has it)",
    )
