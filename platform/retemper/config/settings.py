"""``params.yaml`` as typed, frozen settings. Unknown keys are errors.

One class a section, one section a stage; the field comments are the reference of what
can be set. Paths are relative to the project root.
"""

from __future__ import annotations

import math
import os.path
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from retemper.config import metric_names, setting_errors
from retemper.config.setting_errors import Place
from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import RetemperError


class Section(BaseModel):
    """Settings: no unknown names, no conversions but from whole numbers to numbers, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _once(values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"each once: {value!r} is listed twice")
    return values


def _paths_once(values: list[str]) -> list[str]:
    _once([os.path.normpath(value) for value in values])
    return values


def _finite(value: Any) -> Any:
    """`value`, where no number within is infinite or not a number."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"be finite: {value} is no setting")
    return value


Item = TypeVar("Item")
Once = Annotated[list[Item], AfterValidator(_once)]
Paths = Annotated[list[Annotated[str, Field(min_length=1)]], AfterValidator(_paths_once)]
Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every random number generator takes
Head = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # of a foundation: it names metrics and folders
Symbol = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]
Open = Annotated[dict[str, Any], AfterValidator(_finite)]  # names and values that are checked where they are used
Objective = Literal["target", "target-loss", "retention", "holes"]
Source = Literal["frames", "seeds"]
Device = Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:[0-9]+)?)$")]


class Keys(Section):
    """Where a frame carries its labels; `None` means: not there."""

    energy: Name = "REF_energy"  # info key, total energy
    forces: Name = "REF_forces"  # array key [n_atoms, 3]
    stress: Name | None = "REF_stress"  # info key, 3x3, 9 or Voigt 6; used where a frame has it
    virial: Name | None = None  # info key; converted to stress by -virial / volume


class Dataset(Section):
    files: Paths = Field(min_length=1)  # anything ASE reads
    test_files: Paths = []  # the test set, where it is given, e.g. at other temperatures; `test` is not used then
    level_of_theory: Name  # what made the labels, e.g. "GFN2-xTB" or "PBE+D3"
    levels: dict[str, str] = {}  # of files at another level: their frames are left out, and counted
    keys: Keys = Keys()  # where a frame carries its labels
    energy_unit: str = "eV"  # eV, meV, Hartree, Ry, kcal/mol, kJ/mol
    length_unit: str = "Angstrom"  # Angstrom, Bohr, nm: unit of the labels; positions are always as ASE reads them
    weights: Literal["refuse", "use", "ignore"] = "refuse"  # of frames: config_energy_weight, ...: docs/labels.md
    group: str = "auto"  # info key that names trajectory or molecule; "composition"; "auto" picks
    valid: float = Field(0.1, gt=0, lt=1)  # share of the frames, by whole groups
    test: float = Field(0.1, gt=0, lt=1)  # share of the frames, by whole groups
    rounds: Once[Annotated[int, Field(ge=1)]] | None = None  # of data/rounds, beyond max_train; null: all there are
    max_train: int | None = Field(None, ge=1)  # size of a nested subset of the training frames; rounds come on top
    subset: Literal["groups", "random", "farthest-point", "first"] = "groups"  # which they are
    seed: Seed = 0  # of split and subset
    max_force: float = Field(50.0, gt=0)  # eV/A; frames above are rejected
    max_stress: float = Field(6.0, gt=0)  # eV/A^3, any component (6 are 960 GPa); frames above are rejected
    max_atoms: int = Field(20_000, ge=1)  # of a frame; larger ones are rejected: training needs GB for some thousand
    min_distance: float = Field(0.4, gt=0)  # times the sum of covalent radii; frames below are rejected
    max_net_force: float = Field(0.1, gt=0)  # eV/A per atom: mean force of a frame; above is rejected
    energy_window: float = Field(20.0, gt=0)  # eV/atom around the robust fit; frames outside are rejected
    near_duplicate: float = Field(1e-3, ge=0)  # A; same species within this RMS displacement is a duplicate
    near_test: Literal["warn", "refuse"] = "warn"  # where most test frames lie between training ones: data/nearness.py
    max_rejected: float = Field(0.05, ge=0, le=1)  # share of the frames that may fail the checks; above is an error

    @model_validator(mode="after")
    def _sets(self) -> Dataset:
        both = {os.path.normpath(name) for name in self.files} & {os.path.normpath(name) for name in self.test_files}
        if both:
            raise ValueError(f"have each file in files or in test_files: {min(both)} is in both")
        if not self.test_files and self.valid + self.test >= 1:
            raise ValueError(f"leave frames for training: valid {self.valid:g} and test {self.test:g} take all")
        return self

    @property
    def all_files(self) -> list[str]:
        """Test files first: of two duplicates, the one that comes later is left out."""
        return [*self.test_files, *self.files]


class E0s(Section):
    method: Literal["isolated", "foundation", "reestimate", "average"] = "reestimate"  # how they are found
    max_error: float = Field(0.5, gt=0)  # eV/atom that the foundation may be off after the shift
    max_uncertainty: float = Field(0.1, gt=0)  # eV; what frames know to worse is for free atoms, or stays open
    force: bool = False  # go on with E0s that neither frames nor free atoms determine; max_error holds all the same
    mixed: Literal["refuse", "warn"] = "refuse"  # offsets that structures do not explain: prepare/one_level.py


DEFAULT, GENERATED = "default", "generated"  # of replay.pools


class Pool(Section):
    """Structures to replay; in YAML a bare name stands for the defaults."""

    pool: Name  # file, or published (mp, omat, ...); `default`: the foundation's own, else `generated`: made for it
    share: float | None = Field(None, gt=0, le=1)  # of what is replayed; null: pools without share the rest
    keys: Keys = Keys()  # of the labels in a file; units are eV and A

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"pool": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_files(self) -> Pool:
        if self.pool in (DEFAULT, GENERATED) and self.keys != Keys():
            raise ValueError(f"have keys of files alone: {self.pool} has its own")
        return self


class Replay(Section):
    pools: list[Pool] = Field([Pool(pool=DEFAULT)], min_length=1)  # chosen from together
    number: int = Field(200, ge=2)  # training structures
    valid: int = Field(40, ge=1)  # validation structures, from groups of the pools that training does not use
    heads: Once[Head] = []  # further heads of the foundation that are kept alive, each replayed with its own labels
    select: Literal["farthest-point", "random", "elements"] = "farthest-point"  # how they are chosen: docs/replay.md
    seed: Seed = 0  # of the choice

    @field_validator("pools", mode="before", json_schema_input_type=list[Pool] | str)
    @classmethod
    def _alone(cls, pools: Any) -> Any:
        return [pools] if isinstance(pools, str) else pools  # `pools: generated`, and levels of a study

    @field_validator("pools")
    @classmethod
    def _shared(cls, pools: list[Pool]) -> list[Pool]:
        _paths_once([pool.pool for pool in pools])
        shares = [pool.share for pool in pools if pool.share is not None]
        total, complete = sum(shares), len(shares) == len(pools)
        if total > 1 + 1e-6 or (complete and total < 1 - 1e-6) or (not complete and total > 1 - 1e-6):
            raise ValueError(f"have shares that sum to 1, or to less where a pool has none: they sum to {total:g}")
        return pools


class Pseudolabel(Section):
    dtype: Literal["float32", "float64"] = "float64"  # in which the foundation labels


# Of log(retention error) beside log(target error), by scope.
WEIGHT = {"single-system": 0.0, "family": 1.0, "broad": 4.0}


class Sweep(Section):
    trials: int = Field(0, ge=0)  # settings tried for each strategy; 0: no search, the strategy's own settings are used
    objectives: Once[Objective] = Field(["target", "retention"], min_length=1)  # what is made small
    scope: Literal["single-system", "family", "broad"] = "family"  # which point of the Pareto front is used
    epochs: int | None = Field(None, ge=1)  # of a trial; null: finetune.epochs, and the winner is not trained again
    prune: bool | None = None  # stop poor trials early; null: from 8 trials up
    concurrent: int | None = Field(None, ge=1)  # trials at a time; null: one a core (cpu) or as many as GPUs hold
    gpus: float = Field(1.0, gt=0)  # of a GPU for a trial, where finetune.device is not cpu; 0.5: two trials share one
    seed: Seed = 0  # of the sampler

    @field_validator("gpus")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError("be a part of one GPU, or a whole number of them")
        return value


class Finetune(Section):
    epochs: int = Field(30, ge=1)  # at most; a strategy's training.patience may end earlier
    batch_size: int = Field(8, ge=1)  # target structures in a step, where the strategy does not say
    valid_batch_size: int = Field(16, ge=1)  # structures at a time in validation; decides memory and speed alone
    dtype: Literal["float32", "float64"] = "float32"  # in which models are trained
    device: Device = "cpu"  # cpu, cuda, cuda:1, mps
    disk_above: int = Field(50_000, ge=0)  # training frames above which MACE reads from disk (LMDB), not from memory
    workers: int | None = Field(None, ge=1)  # seeds at a time; null: one a core (cpu) or one (gpu)
    start: Literal["foundation", "last-round"] = "foundation"  # weights; last-round: the model that explored last
    free_atoms: int = Field(0, ge=0)  # how often each free atom of the data is a training frame: docs/labels.md
    overrides: Open = {}  # settings for every strategy, e.g. {scheduler_patience: 50}


class Evaluate(Section):
    retention: str | None = None  # labelled file; null: the held-out set of the foundation's entry
    max_retention: int | None = Field(None, ge=1)  # a fixed random subset of it, for speed
    backend: Literal["auto", "torch", "symmetrix"] = "auto"  # what computes; auto: symmetrix where it agrees with MACE
    dtype: Literal["float32", "float64"] = "float64"  # in which models are evaluated
    confidence: float = Field(0.95, gt=0.5, lt=1)  # level of the intervals


class Robustness(Section):
    metrics: Once[str] = Field(["all"], min_length=1)  # names as `retemper metrics` lists them; [all]: every one
    level: Literal["quick", "standard", "thorough"] = "quick"  # minutes for a small model, and hours
    seeds: Once[Seed] | None = None  # training seeds to measure; null: the first
    elements: Once[Symbol] | None = Field(None, min_length=1)  # to test; null: those of the data set
    reference: str | None = None  # trajectory for radial distributions; null: the frames of the data set
    oracle: str | None = None  # reference method, ase:package.module:Class(keyword=value)
    oracle_level: str | None = None  # its level of theory; null: as xTB's calculators say themselves, else not known
    figures: str | None = None  # folder with reference figures: s66.extxyz, dmc_ice13.extxyz, path.extxyz
    temperature: float = Field(300.0, gt=0)  # K, of dynamics
    seed: Seed = 0  # of structures, velocities and noise: the same for every model
    workers: int | None = Field(None, ge=1)  # processes; null: one a core
    ray: bool = False  # send the work to the Ray cluster that RAY_ADDRESS names

    _known_metrics = field_validator("metrics")(metric_names.check_suite)


class Plugin(Section):
    """A plugin with its options; in YAML its bare name stands for the defaults."""

    name: str  # stem of the plugin's file
    options: Open = {}  # the fields of `Options` in the plugin's file

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
    elements: Once[Symbol] | None = Field(None, min_length=1)  # that may occur; null: those of the training set
    max_atoms: int = Field(200, ge=1)  # of a structure that may be labelled
    apart: float = Field(0.05, gt=0)  # A; within this RMS displacement of a labelled or chosen structure is a duplicate
    unphysical: bool = False  # whether structures that fail the checks of distance and temperature may be labelled
    verify: int = Field(2, ge=0)  # training structures that the oracle must reproduce before it labels; 0: trust it
    timeout: float = Field(3600.0, gt=0)  # s for a structure
    retries: int = Field(1, ge=0)  # further attempts after a failure
    workers: int | None = Field(None, ge=1)  # labels at a time; null: one a core
    ray: bool = False  # label on the Ray cluster that RAY_ADDRESS names
    seed: Seed = 0  # of exploration and choice
    stop: Stop = Stop()  # when a campaign ends


class Tracking(Section):
    experiment: Name = "retemper"  # MLflow experiment
    project: Name | None = None  # tells projects on one server apart; null: the first commit of the git repository


class Gate(Section):
    """One condition of promotion: exactly one of `max`, `min`, `relative_to`. A metric that is missing fails it."""

    metric: str  # target.force_rmse, forgetting_ratio, robustness.<metric>, ...: docs/registry.md lists them
    max: float | None = None  # the metric's largest accepted value
    min: float | None = None  # the smallest
    relative_to: Literal["champion", "foundation"] | None = None  # not worse than that by more than `margin`
    margin: float = 0.0  # share of the reference's error; in the metric's unit where there are no errors by frame
    by: Literal["bound", "value"] = "bound"  # what max or min is compared with: the interval's bound, or the value
    confidence: float = Field(0.95, gt=0.5, lt=1)  # one-sided, of a relative gate; shared among candidates and looks
    over: Once[Source] = Field(["frames", "seeds"], min_length=1)  # what could have come out otherwise

    _known_metric = field_validator("metric")(metric_names.check)

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if sum(limit is not None for limit in (self.max, self.min, self.relative_to)) != 1:
            raise ValueError(f"the gate on {self.metric} needs exactly one of max, min, relative_to")
        if self.relative_to is None and self.margin:
            raise ValueError(f"margin belongs to relative gates; the one on {self.metric} has max or min")
        part = metric_names.set_of(self.metric)
        if self.relative_to == "foundation" and (part in metric_names.OF_DRIFT or metric_names.of_kept(part)):
            raise ValueError(f"{self.metric} is the distance from the foundation: its gate has max, or the champion")
        if self.relative_to is not None and self.by != "bound":
            raise ValueError(f"by belongs to gates with max or min; the one on {self.metric} compares")
        return self


class Promotion(Section):
    objective: str = "target.force_rmse"  # of the models that pass and the champion, the best here is champion
    gates: list[Gate] = []  # all must hold; without gates nothing is promoted
    hook: str | None = None  # command that is told of every move of champion and challenger: JSON on its input

    _known_metric = field_validator("objective")(metric_names.check)


class Settings(Section):
    system: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")  # name of the registered model
    foundation: Name  # of `retemper foundations`, a model file, or an address: docs/foundations.md
    head: Name | None = None  # of a foundation with several; null: the one of its entry
    strategies: Once[Name] = Field(min_length=1)  # names of strategies/*.yaml
    seeds: Once[Seed] = Field(min_length=1)  # one training each; two or more tell what chance does
    dataset: Dataset  # labelled structures, their keys and units, checks and split
    e0s: E0s = E0s()  # atomic reference energies
    replay: Replay = Replay()  # structures of the pretraining domain that are trained on beside the target's
    pseudolabel: Pseudolabel = Pseudolabel()  # the foundation's labels for them
    sweep: Sweep = Sweep()  # search of each strategy's settings
    finetune: Finetune = Finetune()  # what all trainings share
    evaluate: Evaluate = Evaluate()  # errors on test and retention sets
    robustness: Robustness = Robustness()  # what models do away from their test sets
    acquire: Acquire = Acquire()  # active learning
    tracking: Tracking = Tracking()  # MLflow
    promotion: Promotion = Promotion()  # which model is fit for use

    @model_validator(mode="after")
    def _kept(self) -> Settings:
        kept = {f"{metric_names.DRIFT_OF}{head}" for head in self.replay.heads}
        for name in (self.promotion.objective, *(gate.metric for gate in self.promotion.gates)):
            if metric_names.of_kept(name) and metric_names.set_of(name) not in kept:
                raise ValueError(f"have {name} of a head in replay.heads, which are {self.replay.heads or 'none'}")
        return self


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], content: Any, place: str | Place) -> Model:
    """Validate `content` as `model`; `place` says where a setting stands, for the error.

    Raises
    ------
    RetemperError
        The first problem.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        where = (lambda _: place) if isinstance(place, str) else place
        raise setting_errors.explain(error.errors(include_url=False), model, where) from None


def parse_named(model: type[Model], name: str, content: Any, place: Place) -> Model:
    """`parse` for settings whose `name` is that of their file or entry, and is not written again in it."""
    if not isinstance(content, dict):
        raise RetemperError(f"{place(())}: {name} is no section.", expected="names and values", got=repr(content))
    if content.get("name", name) != name:
        position = place(("name",))
        raise RetemperError(
            f"{position}: the name is {name}, not {content['name']!r}.", fix=f"delete name in {position}"
        )
    return parse(model, {**content, "name": name}, place)


def load_settings(path: str | Path = "params.yaml") -> Settings:
    """Read and check ``params.yaml``."""
    return parse(Settings, read_yaml(path), setting_errors.in_file(path))
