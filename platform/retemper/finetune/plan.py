"""What one training run is asked to do: settings, data, foundation, seed, and MACE's flags.

A plan is plain data. Its `key` is a hash of everything that decides the result, so the
folder of a run is found again after a kill, and a finished run is not repeated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from retemper.config.strategies import Strategy
from retemper.core.files import digest
from retemper.core.version import __version__
from retemper.data.charge import CHARGE, SPIN
from retemper.data.frames import LabelsHash, is_isolated_atom, stream_frames
from retemper.models.head_names import REPLAY, TARGET, name_of

Flags = dict[str, Any]  # MACE's settings, by the full names of its command line flags


@dataclass(frozen=True)
class HeadData:
    """Files of one head and what they hold, as counted and hashed here, before MACE reads them."""

    train: str
    valid: str
    n_train: int
    n_valid: int
    train_hash: str
    valid_hash: str
    label_source: str  # "target", "original" or "foundation:<sha256>"
    E0s: dict[int, float]  # eV by atomic number, every element of the model
    weighted: bool = False  # whether frames may have weights of their own; their hashes hold them
    free_atoms: int = 0  # free atoms among the training frames; their hash holds them


@dataclass(frozen=True)
class Line:
    """Where on the line from the foundation to the trained model the result is, and what decides it."""

    alpha: float | None  # 0: the foundation, 1: the trained model; None: by the scope
    weight: float  # of the foundation's side: `retemper.config.settings.WEIGHT` of the scope
    kind: str  # retention: validation structures with labels of the foundation's level; drift: with its own
    valid: str  # their file
    valid_hash: str


@dataclass(frozen=True)
class Plan:
    """Everything that decides one run. Paths are absolute."""

    strategy: Strategy
    seed: int
    foundation: str
    foundation_sha256: str
    foundation_head: str | None
    elements: list[int]
    target: HeadData
    replay: HeadData | None
    epochs: int
    batch_size: int
    valid_batch_size: int
    dtype: str
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    code: str = ""  # identity of the code that trains
    kept: dict[str, HeadData] = field(default_factory=dict)  # by further head of the foundation that is kept alive
    line: Line | None = None  # None: the trained model is the result
    disk_above: int = 50_000  # training frames above which they are read from disk; the result is the same

    def __post_init__(self) -> None:
        if (self.strategy.interpolate is None) != (self.line is None):
            raise ValueError("a plan has a line where its strategy interpolates, and nowhere else")

    @property
    def heads(self) -> dict[str, HeadData]:
        """The data of each head of the trained model, in MACE's order."""
        replayed = {REPLAY: self.replay} if self.replay is not None else {}
        return {**replayed, TARGET: self.target, **{name_of(head): data for head, data in self.kept.items()}}

    @property
    def trained(self) -> Plan:
        """The training by itself, which all places on its line share."""
        if self.line is None:
            return self
        return replace(self, strategy=self.strategy.model_copy(update={"interpolate": None}), line=None)

    @property
    def key(self) -> str:
        """Hash of the plan; paths, the device and prose do not count."""
        content = asdict(self)
        for name in ("foundation", "device", "disk_above"):
            content.pop(name)
        if not self.kept:
            content.pop("kept")
        if self.line is None:
            content.pop("line")
        else:
            content["line"].pop("valid")
        for head in (content["target"], content["replay"] or {}, *content.get("kept", {}).values()):
            for name in ("train", "valid", "weighted", "free_atoms"):
                head.pop(name, None)
        content["strategy"] = strategy = self.strategy.model_dump(exclude={"name", "about", "search"})
        strategy.pop("interpolate", None)  # `line` has it
        strategy["training"].pop("batch_size")  # the plan's own batch size is the one that runs
        if self.replay is not None:  # and its own replay set the one that is replayed
            strategy["replay"].pop("number")
        return digest(content)


def head_data(train: Path, valid: Path, label_source: str, E0s: dict[int, float], weighted: bool = False) -> HeadData:
    """Count and hash the frames of both files."""
    (n_train, train_hash, free_atoms), (n_valid, valid_hash, _) = counted(train), counted(valid)
    return HeadData(
        train=str(train.resolve()),
        valid=str(valid.resolve()),
        n_train=n_train,
        n_valid=n_valid,
        train_hash=train_hash,
        valid_hash=valid_hash,
        label_source=label_source,
        E0s=E0s,
        weighted=weighted,
        free_atoms=free_atoms,
    )


def counted(path: Path) -> tuple[int, str, int]:
    """Number of frames of a file, the hash of their labels, and the number of free atoms among them.

    An unchanged file is read once.
    """
    status = path.stat() if path.is_file() else None
    return _count(path.resolve(), status.st_mtime_ns if status else 0, status.st_size if status else 0)


@lru_cache(maxsize=64)
def _count(path: Path, mtime: int, size: int) -> tuple[int, str, int]:
    """`mtime` and `size` are there for the cache's key."""
    total, number, free = LabelsHash(), 0, 0
    for atoms in stream_frames(path):
        total.add(atoms)
        number += 1
        free += is_isolated_atom(atoms)
    return number, total.digest(), free


def _numbers(energies: dict[int, float]) -> dict[int, float]:
    return {int(z): float(energy) for z, energy in energies.items()}


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    from importlib.metadata import version

    return {"retemper": __version__, **{name: version(name) for name in ("mace-torch", "torch", "e3nn")}}


def mace_flags(plan: Plan, work: Path, name: str, architecture: Flags | None) -> Flags:
    """MACE's settings for a plan, by the full names of its command line flags.

    `architecture` describes the foundation (see `architecture.flags`) and is used when
    the weights start at random.
    """
    strategy, training, loss = plan.strategy, plan.strategy.training, plan.strategy.loss
    flags: Flags = {
        "name": name,
        "seed": plan.seed,
        "work_dir": str(work),
        "device": plan.device.split(":")[0],
        "default_dtype": plan.dtype,
        "train_file": plan.target.train,
        "valid_file": plan.target.valid,
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "stress_key": "REF_stress",
        "total_charge_key": CHARGE,
        "total_spin_key": SPIN,
        "E0s": str(_numbers(plan.target.E0s)),
        "loss": "universal",
        "energy_weight": loss.energy_weight,
        "forces_weight": loss.forces_weight,
        "stress_weight": loss.stress_weight,
        "huber_delta": loss.huber_delta,
        "compute_stress": True,
        "error_table": "PerAtomRMSE",
        "batch_size": plan.batch_size,
        "valid_batch_size": plan.valid_batch_size,
        "max_num_epochs": plan.epochs,
        "eval_interval": 1,
        "lr": training.lr,
        "optimizer": training.optimizer,
        "weight_decay": training.weight_decay,
        "scheduler": training.scheduler,
        "lr_factor": training.lr_factor,
        "scheduler_patience": training.scheduler_patience,
        "patience": training.patience,
        "ema": training.ema_decay is not None,
        "clip_grad": training.clip_grad,
        "plot": False,
        "num_workers": 0,
        "multiheads_finetuning": plan.replay is not None,
    }
    if plan.target.free_atoms:
        flags["keep_isolated_atoms"] = True
    if training.ema_decay is not None:
        flags["ema_decay"] = training.ema_decay
    if strategy.start == "random":
        assert architecture is not None
        flags |= architecture
        flags["atomic_numbers"] = str(plan.elements)
        return flags
    flags |= {
        "model": "ScaleShiftMACE",
        "foundation_model": plan.foundation,
        "foundation_model_elements": True,
        "foundation_filter_elements": True,
    }
    if plan.foundation_head is not None:
        flags["foundation_head"] = plan.foundation_head
    if strategy.freeze is not None:
        flags["freeze"] = strategy.freeze
    if strategy.lora is not None:
        flags |= {"lora": True, "lora_rank": strategy.lora.rank, "lora_alpha": strategy.lora.alpha}
    if plan.replay is not None:
        flags |= {
            "pt_train_file": plan.replay.train,
            "pt_valid_file": plan.replay.valid,
            "force_mh_ft_lr": True,
            "real_pt_data_ratio_threshold": 0.0,
            "pseudolabel_replay": False,
        }
    if plan.kept:  # what an entry of MACE's setting `heads` lacks is as for all heads: the target's files are above
        flags["heads"] = str({TARGET: {}, **{name_of(head): _head_flags(data) for head, data in plan.kept.items()}})
    return flags


def _head_flags(data: HeadData) -> Flags:
    return {"train_file": data.train, "valid_file": data.valid, "E0s": str(_numbers(data.E0s))}
