"""The catalogue of systems, ``systems/<name>.yaml``: what is fitted, and what is known about its labels.

A system's labelled structures are either made (``generator``, a file of `retemper.systems.generate`),
converted (``importer``, a file of `retemper.systems.importers`, and its ``source``), or simply there.
``python -m pipelines.system NAME`` makes or converts them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from retemper.config.setting_errors import in_file
from retemper.config.settings import (
    Dataset,
    Keys,
    Name,
    Once,
    Paths,
    Plugin,
    Robustness,
    Section,
    Symbol,
    parse,
    parse_named,
)
from retemper.config.strict_yaml import read_yaml
from retemper.core import plugins
from retemper.core.errors import unknown
from retemper.core.files import project_root
from retemper.core.template import template_root

FOLDER = Path("systems")
DATASET = ("files", "test_files", "level_of_theory", "energy_unit", "length_unit", "group")


def _split(symbols: Any) -> Any:
    """Elements may be written as in a sentence: ``H O Na Cl``."""
    return symbols.split() if isinstance(symbols, str) else symbols


class System(Section):
    """One system. `name` is the file's stem."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    about: str
    elements: Annotated[Once[Symbol], BeforeValidator(_split), Field(min_length=1)]  # "H O Na Cl"
    level_of_theory: Name  # what made the labels
    licence: str  # of the structures and labels
    citation: str  # of the method that made the labels, or of the data
    files: Paths = Field(min_length=1)  # labelled structures, relative to the project root
    test_files: Paths = []  # a test set of its own, where there is one
    keys: Keys = Keys()
    energy_unit: str = "eV"  # as in the dataset section of params.yaml
    length_unit: str = "Angstrom"
    group: str = "auto"  # info key that keeps a trajectory or molecule together
    charge: int | str = 0  # of every frame but the free atoms; or the info key that holds it
    multiplicity: int | str = 1  # 2S + 1 of every frame but the free atoms; or the info key that holds it
    observables: Once[Literal["s66", "ice", "cohesion", "barrier"]] = []  # cases of the metric `observables`
    oracle: str | None = None  # what makes such labels, ase:package.module:Class(keyword=value), where it is at hand
    figures: str | None = None  # folder with reference figures: docs/robustness.md
    generator: str | None = None  # a file of platform/retemper/systems/generate
    importer: Plugin | None = None  # a file of platform/retemper/systems/importers
    source: str | None = None  # what the importer reads
    references: list[str] = []  # of the structures, of figures to compare with

    @model_validator(mode="after")
    def _one_origin(self) -> System:
        if self.generator and self.importer:
            raise ValueError("give a generator or an importer, not both")
        if bool(self.importer) != bool(self.source):
            raise ValueError("an importer needs a source, and a source an importer")
        if (self.generator or self.importer) and len(self.files) != 1:
            raise ValueError("a generator or an importer writes one file")
        return self

    @property
    def origin(self) -> str:
        """Where the labelled structures come from, in words."""
        if self.generator:
            return f"generator {self.generator}"
        return f"importer {self.importer.name} of {self.source}" if self.importer else "files as they are"

    def dataset(self, **changes: Any) -> Dataset:
        """The ``dataset`` section of params.yaml for this system; `changes` are fields of it.

        Raises
        ------
        RetemperError
            A change that is no such field, or is out of its range.
        """
        content = self.model_dump(include=set(DATASET)) | {"keys": self.keys.model_dump(exclude_unset=True)}
        return parse(Dataset, content | changes, f"{FOLDER}/{self.name}.yaml as dataset")

    def robustness(self, **changes: Any) -> Robustness:
        """The ``robustness`` section of params.yaml for this system: its oracle and figures; `changes` as above."""
        content = {"oracle": self.oracle, "figures": self.figures}
        return parse(Robustness, content | changes, f"{FOLDER}/{self.name}.yaml as robustness")


def generator_names() -> list[str]:
    """Names of all generators: the files of `retemper.systems.generate`."""
    return plugins.names("systems.generate")


def importer_names() -> list[str]:
    """Names of all importers: the files of `retemper.systems.importers`."""
    return plugins.names("systems.importers")


def catalogue(root: Path | None = None) -> dict[str, System]:
    """All systems by name: those that come with retemper, and over them those of the project at `root`.

    Raises
    ------
    RetemperError
        A file with an unknown or wrong key, generator or importer.
    """
    folders = (template_root() / FOLDER, (root or project_root()) / FOLDER)
    paths = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    return {name: _read(paths[name]) for name in sorted(paths)}


def _read(path: Path) -> System:
    system = parse_named(System, path.stem, read_yaml(path), in_file(path, f"{FOLDER}/{path.name}"))
    if system.generator and system.generator not in generator_names():
        raise unknown(f"generator in {FOLDER}/{path.name}", system.generator, generator_names())
    if system.importer and system.importer.name not in importer_names():
        raise unknown(f"importer in {FOLDER}/{path.name}", system.importer.name, importer_names())
    return system


def find(name: str, root: Path | None = None) -> System:
    """The system called `name`; an unknown name lists the options."""
    entries = catalogue(root)
    if name not in entries:
        raise unknown("system", name, entries)
    return entries[name]


def lines_for_params(system: System) -> str:
    """YAML to paste into params.yaml."""
    dataset = system.dataset().model_dump(exclude_defaults=True)
    dataset["keys"] = system.keys.model_dump(include={"energy", "forces", "stress"})
    content: dict[str, object] = {"system": system.name, "dataset": dataset}
    robustness = system.robustness().model_dump(exclude_defaults=True)
    if robustness:
        content["robustness"] = robustness
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
