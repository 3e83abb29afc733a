"""A project: its folder, its settings, and where everything lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from retemper.config import foundation_files, foundations
from retemper.config.foundations import Foundation
from retemper.config.settings import Settings, load_settings
from retemper.core import weight_files
from retemper.core.errors import unknown
from retemper.core.files import project_root

FOUNDATION = "foundation"  # in the place of a strategy's name: the model that all of them begin from


@dataclass(frozen=True)
class Project:
    """The folder with ``params.yaml``, its settings, and every path under ``runs`` and ``.cache``."""

    root: Path
    settings: Settings

    @classmethod
    def here(cls, start: Path | None = None) -> Project:
        """The project at or above `start` (default: the working directory), its settings read and checked."""
        root = project_root(start)
        return cls(root, load_settings(root / "params.yaml"))

    def check_name(self, name: str) -> str:
        """`name`, if it is a strategy of ``params.yaml`` or "foundation"; otherwise an error that names the nearest."""
        if name not in (FOUNDATION, *self.settings.strategies):
            raise unknown("strategy in params.yaml", name, (FOUNDATION, *self.settings.strategies))
        return name

    # ------------------------------------------------------------------ the foundation

    @cached_property
    def foundation(self) -> Foundation:
        """The catalogue's entry of the foundation, with the head that the settings choose."""
        return foundations.of_settings(self.settings, self.root)

    @cached_property
    def weights(self) -> Path:
        """The foundation's weights on this machine, fetched at first use, and the same file ever after."""
        return foundation_files.weights(self.foundation, self.root)

    # ------------------------------------------------------------------ what stages write

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def rounds(self) -> Path:
        """Folder of the rounds of active learning."""
        return self.root / "data/rounds"

    @property
    def campaign(self) -> Path:
        """What came of each round."""
        return self.root / "data/campaign.json"

    @property
    def to_label(self) -> Path:
        """Folder of structures that wait for labels by hand, by round."""
        return self.root / "data/to-label"

    def inputs(self, stage: str) -> Path:
        """Settings, files and code that decide a stage."""
        return self.runs / f"inputs/{stage}.json"

    @property
    def dataset(self) -> Path:
        """Folder of the data set: train, valid and test structures and their manifest."""
        return self.runs / "dataset"

    def structures(self, name: str) -> Path:
        """Structures of the data set: train, valid, test, or isolated (free atoms)."""
        return self.dataset / f"{name}.extxyz"

    @property
    def manifest(self) -> Path:
        """What the data set was made of."""
        return self.dataset / "manifest.json"

    @property
    def e0s(self) -> Path:
        """The atomic reference energies."""
        return self.runs / "e0s/e0s.json"

    @property
    def replay(self) -> Path:
        """Folder of the replayed pretraining structures."""
        return self.runs / "replay"

    @property
    def pseudolabel(self) -> Path:
        """Folder of the replayed structures with the foundation's labels."""
        return self.runs / "pseudolabel"

    def sweep(self, strategy: str) -> Path:
        """Folder of what a sweep found."""
        return self.runs / "sweep" / strategy

    def finetuned(self, strategy: str) -> Path:
        """Folder of a strategy's models."""
        return self.runs / "finetune" / strategy

    def live(self, strategy: str) -> Path:
        """Epochs of a strategy's trainings, while they run."""
        return self.runs / f"live/{strategy}.csv"

    def summary(self, strategy: str) -> Path:
        """What a strategy's trainings came to."""
        return self.finetuned(strategy) / "summary.json"

    def seed(self, strategy: str, seed: int) -> Path:
        """Folder of one training."""
        return self.finetuned(strategy) / f"seed-{seed}"

    def model(self, strategy: str, seed: int) -> Path:
        """Weights of one training."""
        return self.seed(strategy, seed) / weight_files.NAME

    def evaluation(self, name: str) -> Path:
        """Folder of the accuracy of a strategy, or of the foundation."""
        return self.runs / "evaluate" / name

    def robustness(self, name: str) -> Path:
        """Folder of the robustness of a strategy, or of the foundation."""
        return self.runs / "robustness" / name

    def registered(self, strategy: str) -> Path:
        """The versions that a strategy's models have in the registry."""
        return self.runs / f"register/{strategy}.json"

    @property
    def promotion(self) -> Path:
        """Folder of the verdict."""
        return self.runs / "promote"

    @property
    def verdict(self) -> Path:
        """Which model is fit for use, and why."""
        return self.promotion / "verdict.json"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.runs / "report"

    # ------------------------------------------------------------------ what is kept to be used again

    def cache(self, name: str) -> Path:
        """Folder of kept work, by kind."""
        return self.root / ".cache" / name

    def training(self, key: str) -> Path:
        """Folder of a training that is kept under its key."""
        return self.cache("training") / key
