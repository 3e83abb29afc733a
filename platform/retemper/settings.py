"""``params.yaml`` as typed, frozen settings. Unknown keys are errors.

One class a section, one section a stage; the field comments are the reference of what
can be set. Paths are relative to the project root.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from retemper import metric_names
from retemper.errors import RetemperError, unknown


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Keys(Section):
    """Where a frame carries its labels; `None` means: not there."""

    energy: str = "REF_energy"  # info key, total energy
    forces: str = "REF_forces"  # array key [n_atoms, 3]
    stress: str | None = "REF_stress"  # info key, 3x3, 9 or Voigt 6; used where a frame has it
    virial: str | None = None  # info key; converted to stress by -virial / volume


class Dataset(Section):
    files: list[str]  # anything ASE reads
    test_files: list[str] = []  # the test set, where it is given, e.g. at other temperatures; `test` is not used then
    level_of_theory: str  # what made the labels, e.g. "GFN2-xTB" or "PBE+D3"
    levels: dict[str, str] = {}  # of files at another level: their frames are left out, and counted
    keys: Keys = Keys()
    energy_unit: str = "eV"  # eV, meV, Hartree, Ry, kcal/mol, kJ/mol
    length_unit: str = "Angstrom"  # Angstrom, Bohr, nm: unit of the labels; positions are always as ASE reads them
    weights: Literal["refuse", "use", "ignore"] = "refuse"  # of frames: config_energy_weight, ...: docs/labels.md
    group: str = "auto"  # info key that names trajectory or molecule; "composition"; "auto" picks
    valid: float = Field(0.1, gt=0, lt=1)  # share of the frames, by whole groups
    test: float = Field(0.1, gt=0, lt=1)
    rounds: list[int] | None = None  # of data/rounds, beyond max_train; null: all that are there
    max_train: int | None = Field(None, ge=1)  # size of a nested subset of the training frames; rounds come on top
    subset: Literal["groups", "random", "farthest-point", "first"] = "groups"  # which: retemper/subset.py
    seed: int = 0
    max_force: float = Field(50.0, gt=0)  # eV/A; frames above are rejected
    max_stress: float = Field(6.0, gt=0)  # eV/A^3, any component (6 are 960 GPa); frames above are rejected
    max_atoms: int = Field(20_000, ge=1)  # of a frame; larger ones are rejected: training needs GB for some thousand
    min_distance: float = Field(0.4, gt=0)  # times the sum of covalent radii; frames below are rejected
    max_net_force: float = Field(0.1, gt=0)  # eV/A per atom: mean force of a frame; above is rejected
    energy_window: float = Field(20.0, gt=0)  # eV/atom around the robust fit; frames outside are rejected
    near_duplicate: float = Field(1e-3, ge=0)  # A; same species within this RMS displacement is a duplicate
    near_test: Literal["warn", "refuse"] = "warn"  # where most test frames lie between training frames: nearness.py
    max_rejected: float = Field(0.05, ge=0, le=1)  # share of the frames that may fail the checks; above is an error

    @property
    def all_files(self) -> list[str]:
        """Test files first: of two duplicates, the one that comes later is left out."""
        return [*self.test_files, *self.files]


class E0s(Section):
    method: Literal["isolated", "foundation", "reestimate", "average"] = "reestimate"
    max_error: float = Field(0.5, gt=0)  # eV/atom that the foundation may be off after the shift
    max_uncertainty: float = Field(0.1, gt=0)  # eV; what frames know to worse is for free atoms, or stays open
    force: bool = False  # go on with E0s that neither frames nor free atoms determine; max_error holds all the same
    mixed: Literal["refuse", "warn"] = "refuse"  # labels with offsets that structures do not explain: one_level.py


class Replay(Section):
    pool: str | None = None  # file; null: the pool of the foundation's entry
    number: int = Field(200, ge=2)  # training structures
    valid: int = Field(40, ge=1)  # validation structures, from the pool's groups that training does not use
    select: Literal["farthest-point", "random", "elements"] = "farthest-point"
    seed: int = 0


class Pseudolabel(Section):
    dtype: Literal["float32", "float64"] = "float64"


class Sweep(Section):
    trials: int = Field(0, ge=0)  # settings tried for each strategy; 0: no search, the strategy's own settings are used
    objectives: list[Literal["target", "target-loss", "retention", "holes"]] = Field(
        ["target", "retention"], min_length=1
    )
    scope: Literal["single-system", "family", "broad"] = "family"  # which point of the Pareto front is used
    epochs: int | None = Field(None, ge=1)  # of a trial; null: finetune.epochs, and the winner is not trained again
    prune: bool | None = None  # stop poor trials early; null: from 8 trials up
    concurrent: int | None = Field(None, ge=1)  # trials at a time; null: one a core (cpu) or as many as GPUs hold
    gpus: float = Field(1.0, gt=0)  # of a GPU for a trial, where finetune.device is not cpu; 0.5: two trials share one
    seed: int = 0  # of the sampler

    @model_validator(mode="after")
    def _once(self) -> Sweep:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("an objective is listed twice")
        return self


class Finetune(Section):
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(8, ge=1)
    valid_batch_size: int = Field(16, ge=1)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"  # cpu, cuda, cuda:1, mps
    disk_above: int = Field(50_000, ge=0)  # training frames above which MACE reads from disk (LMDB), not from memory
    workers: int | None = None  # seeds at a time; null: one a core (cpu) or one (gpu)
    start: Literal["foundation", "last-round"] = "foundation"  # weights; last-round: the model that explored last
    overrides: dict[str, Any] = {}  # settings for every strategy, e.g. {scheduler_patience: 50}


class Evaluate(Section):
    retention: str | None = None  # labelled file; null: the held-out set of the foundation's entry
    max_retention: int | None = Field(None, ge=1)  # a fixed random subset of it, for speed
    backend: Literal["auto", "torch", "symmetrix"] = "auto"
    dtype: Literal["float32", "float64"] = "float64"
    confidence: float = Field(0.95, gt=0.5, lt=1)


class Robustness(Section):
    metrics: list[str] = Field(["all"], min_length=1)  # names as `retemper metrics` lists them; [all]: every one
    level: Literal["quick", "standard", "thorough"] = "quick"  # minutes for a small model, and hours
    seeds: list[int] | None = None  # training seeds to measure; null: the first
    elements: list[str] | None = None  # to test; null: those of the data set
    reference: str | None = None  # trajectory for radial distributions; null: the frames of the data set
    oracle: str | None = None  # reference method, ase:package.module:Class(keyword=value)
    oracle_level: str | None = None  # its level of theory; null: as xTB's calculators say themselves, else not known
    figures: str | None = None  # folder with reference figures: s66.extxyz, dmc_ice13.extxyz, path.extxyz
    temperature: float = Field(300.0, gt=0)  # K, of dynamics
    seed: int = 0  # of structures, velocities and noise: the same for every model
    workers: int | None = Field(None, ge=1)  # processes; null: one a core
    ray: bool = False  # send the work to the Ray cluster that RAY_ADDRESS names


class Plugin(Section):
    """A plugin with its options; in YAML its bare name stands for the defaults."""

    name: str
    options: dict[str, Any] = {}  # the fields of `Options` in the plugin's file

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Stop(Section):
    """When a campaign ends before its rounds and its budget are spent; null: not for this reason."""

    gates: int | None = Field(2, ge=1)  # rounds in a row in which a candidate passes all gates
    gain: float | None = Field(0.02, ge=0)  # share of the force error that the next round is predicted to take off


class Acquire(Section):
    oracle: Plugin = Plugin(name="xtb")  # files of platform/retemper/active/oracles
    explorers: list[Plugin] = Field([Plugin(name="md")], min_length=1)  # files of active/explore
    uncertainty: Plugin = Plugin(name="llpr")  # a file of active/uncertainty
    selector: Plugin = Plugin(name="combined")  # a file of active/select
    strategy: str | None = None  # whose models explore; null: the champion's, else the best one's
    labels: int = Field(20, ge=1)  # structures sent to the oracle in a round
    candidates: int = Field(400, ge=1)  # structures that exploration is to find in a round
    trust: float | None = Field(0.5, gt=0)  # eV/A; a trajectory ends where the expected error of a force is above
    elements: list[str] | None = None  # that may occur; null: those of the training set
    max_atoms: int = Field(200, ge=1)
    apart: float = Field(0.05, gt=0)  # A; within this RMS displacement of a labelled or chosen structure is a duplicate
    unphysical: bool = False  # whether structures that fail the checks of distance and temperature may be labelled
    verify: int = Field(2, ge=0)  # training structures that the oracle must reproduce before it labels; 0: trust it
    timeout: float = Field(3600.0, gt=0)  # s for a structure
    retries: int = Field(1, ge=0)  # further attempts after a failure
    workers: int | None = Field(None, ge=1)  # labels at a time; null: one a core
    ray: bool = False  # label on the Ray cluster that RAY_ADDRESS names
    seed: int = 0
    stop: Stop = Stop()


class Tracking(Section):
    experiment: str = "retemper"  # MLflow experiment


class Gate(Section):
    """One condition of promotion: exactly one of `max`, `min`, `relative_to`. A metric that is missing fails it."""

    metric: str  # target.force_rmse, forgetting_ratio, robustness.<metric>, ...: docs/registry.md lists them
    max: float | None = None  # the metric's largest accepted value
    min: float | None = None  # the smallest
    relative_to: Literal["champion", "foundation"] | None = None  # not worse than that by more than `margin`
    margin: float = 0.0  # share of the reference's error; in the metric's unit where there are no errors by frame
    better: Literal["lower", "higher"] = "lower"  # of a relative gate; errors are always better when lower
    by: Literal["bound", "value"] = (
        "bound"  # what max or min is compared with: the interval's bound, or the value alone
    )
    confidence: float = Field(0.95, gt=0.5, lt=1)  # one-sided, of a relative gate; shared among candidates and looks
    over: list[Literal["frames", "seeds"]] = Field(
        ["frames", "seeds"], min_length=1
    )  # what could have come out otherwise

    _known_metric = field_validator("metric")(metric_names.check)

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if sum(limit is not None for limit in (self.max, self.min, self.relative_to)) != 1:
            raise ValueError(f"the gate on {self.metric} needs exactly one of max, min, relative_to")
        if self.relative_to is None and (self.margin or self.better != "lower"):
            raise ValueError(f"margin and better belong to relative gates; the one on {self.metric} has max or min")
        if self.relative_to is not None and self.by != "bound":
            raise ValueError(f"by belongs to gates with max or min; the one on {self.metric} compares")
        quantity = metric_names.measured_names()[self.metric]
        if quantity is not None and self.better != quantity.better:
            raise ValueError(f"{self.metric} is better when {quantity.better}")
        return self


class Promotion(Section):
    objective: str = "target.force_rmse"  # among models that pass, the one where this is lowest is promoted
    gates: list[Gate] = []  # all must hold; without gates nothing is promoted
    hook: str | None = None  # command that is told of every move of champion and challenger: JSON on its input

    _known_metric = field_validator("objective")(metric_names.check)


class Settings(Section):
    system: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")  # name of the registered model
    foundation: str  # an entry of foundations/foundations.yaml
    strategies: list[str] = Field(min_length=1)  # names of strategies/*.yaml
    seeds: list[int] = Field(min_length=1)
    dataset: Dataset
    e0s: E0s = E0s()
    replay: Replay = Replay()
    pseudolabel: Pseudolabel = Pseudolabel()
    sweep: Sweep = Sweep()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    robustness: Robustness = Robustness()
    acquire: Acquire = Acquire()
    tracking: Tracking = Tracking()
    promotion: Promotion = Promotion()


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], content: Any, source: str) -> Model:
    """Validate `content` as `model`; the first problem becomes a readable `RetemperError`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fields = _fields_at(model, first["loc"][:-1])
            raise unknown(f"setting in {source} ({where})", first["loc"][-1], fields) from None
        raise RetemperError(
            f"{source}: {where or 'file'} is wrong ({error.error_count()} problem(s) in all).",
            expected=first["msg"],
            got=repr(first.get("input")) if first["type"] != "missing" else "nothing",
            fix=f"edit {source}",
        ) from None


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        model = field.annotation
    return list(model.model_fields)


def read_yaml(path: str | Path) -> Any:
    """Content of a YAML file; missing or broken files are `RetemperError`."""
    path = Path(path)
    try:
        return copy.deepcopy(_parsed(path.read_text()))
    except FileNotFoundError:
        raise RetemperError(f"{path} does not exist.", fix="check the path") from None
    except yaml.YAMLError as error:
        raise RetemperError(f"{path} is not YAML: {error}") from error


@lru_cache(maxsize=128)
def _parsed(text: str) -> Any:
    """Content of a YAML text; the same text is parsed once (a study reads the same few files for every run)."""
    return yaml.safe_load(text)


def load_settings(path: str | Path = "params.yaml") -> Settings:
    """Read and check ``params.yaml``."""
    return parse(Settings, read_yaml(path), str(path))
