"""Pretrain the embedded foundation `mini` again, and write its model card.

    python -m pipelines.pretrain          # train (resumable), then the card
    python -m pipelines.pretrain card     # the card alone, from foundations/mini.model

The structures and labels in foundations/pretraining/ are kept in the repository; they are
made by foundations/pretraining/structures.py in an environment of its own.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys

from retemper import launch
from retemper.cli import stage
from retemper.errors import RetemperError
from retemper.files import project_root


@stage
def main(what: str = "all") -> None:
    """Train with MACE's own command and evaluate on the held-out sets."""
    root = project_root()
    launch.prepare()
    work = root / ".cache/pretrain"
    data = root / "foundations/pretraining"
    if what == "all":
        work.mkdir(parents=True, exist_ok=True)
        for name in ("train", "valid"):  # ASE reads compressed files many times over
            with lzma.open(data / f"{name}.extxyz.xz") as packed, (work / f"{name}.extxyz").open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        command = [
            sys.executable, "-m", "mace.cli.run_train", f"--config={data / 'mace.yaml'}", f"--work_dir={work}",
            f"--train_file={work / 'train.extxyz'}", f"--valid_file={work / 'valid.extxyz'}",
        ]  # fmt: skip
        if subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}).returncode != 0:
            raise RetemperError(
                "Pretraining failed.", fix=f"see {work / 'logs'}; running again goes on from the last checkpoint"
            )
        shutil.copy2(work / "mini.model", root / "foundations/mini.model")
    from retemper.foundation_card import write_card

    print(write_card("mini", root))


if __name__ == "__main__":
    main(*sys.argv[1:])
