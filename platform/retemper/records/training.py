"""What trainings leave: ``summary.json`` of a strategy and of a kept training, and ``effective.json``."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from retemper.config.strategies import Lora, Point, Strategy
from retemper.records.origin import Origin
from retemper.records.record import Part, Record


def _absent(value: Any) -> bool:
    return value is None


def _zero(value: Any) -> bool:
    return bool(value == 0)


class Counts(Part):
    """Numbers of parameters."""

    parameters: int
    trainable: int
    moved: int  # changed by training


class Course(Part):
    """What the epochs came to."""

    best_epoch: int  # from 0; -1: before training
    best_loss: float
    epochs: int  # run in all
    seconds: float  # by the clock
    cpu_seconds: float  # of the process that trained
    started_from: int  # epoch at which the last process took up the training
    converged: bool  # the best epoch is not the last


class Outcome(Course, Counts):
    """What a training came to."""

    valid_loss: float  # of the best epoch
    key: str  # of the plan
    sha256: str  # of the weights

    @property
    def trainable_share(self) -> float:
        """Trained parameters by all parameters, 0 to 1."""
        return self.trainable / self.parameters


class KeptTraining(Outcome):
    """``summary.json`` in the folder of a training under ``.cache``."""

    files: dict[str, str]  # sha256 by name

    @property
    def outcome(self) -> Outcome:
        """The same without the files."""
        return Outcome(**self.model_dump(exclude={"files"}))


class SeedOutcome(Outcome):
    """What the training of a strategy with one seed came to."""

    ended: float  # s since 1970


class TrainingSummary(Record):
    """``runs/finetune/<strategy>/summary.json``."""

    STAGE: ClassVar[str] = "finetune"

    strategy: str
    foundation: str
    settings: Strategy
    found_by_sweep: Point
    origin: Origin
    seeds: dict[int, SeedOutcome]


# ------------------------------------------------------------------ the proof of what ran


class LossSettings(Part):
    """A loss, and what it weighs."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    kind: str = Field(alias="class")
    energy_weight: float
    forces_weight: float
    stress_weight: float
    huber_delta: float


class Configuration(Part):
    """What is asked of a training, and is read back from what MACE built."""

    heads: list[str]
    elements: list[int]  # atomic numbers
    E0s: dict[str, dict[int, float]]  # eV by head and atomic number
    optimizer: str
    lr: float | list[float]  # several, where groups of parameters differ
    weight_decay: float | list[float]
    ema_decay: float | None
    clip_grad: float | None
    scheduler: str
    batch_size: int
    max_epochs: int
    dtype: str
    loss: LossSettings
    frames: dict[str, list[int]]  # training and validation, by head
    free_atoms: int = Field(0, exclude_if=_zero)  # among the training frames of the target
    lora: Lora | None
    starts_from_foundation: bool
    replay_loss: LossSettings | None = Field(None, exclude_if=_absent)
    replay_weight: float | None = Field(None, exclude_if=_absent)
    replay_batch_size: int | None = Field(None, exclude_if=_absent)


class WeightRange(Part):
    """Weights of frames in the loss that are not 1."""

    frames: int
    min: float
    max: float


class Ran(Configuration):
    """What ran; what is known only at the end is absent from a training that was refused."""

    frame_weights: dict[str, dict[str, dict[str, WeightRange]]] | None = Field(None, exclude_if=_absent)
    # by head, set (train, valid) and label
    epochs: int | None = Field(None, exclude_if=_absent)
    counts: Counts | None = Field(None, exclude_if=_absent)
    start_gap: float | None = Field(None, exclude_if=_absent)  # eV/A, of forces to the foundation's before training
    versions: dict[str, str] | None = Field(None, exclude_if=_absent)
    alpha: float | None = Field(None, exclude_if=_absent)  # place between foundation and trained model, read back
    merge_gap: float | None = Field(None, exclude_if=_absent)  # eV/A, of forces by merging adapters


class Effective(Record):
    """``effective.json`` of a training: what was asked for, what ran, and where they differ."""

    STAGE: ClassVar[str] = "finetune"

    asked: Configuration
    ran: Ran
    differences: list[str]
