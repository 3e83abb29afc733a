"""Killed trainings go on as the same run, and leave no process behind."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from trainings import make_plan, run, weights


def test_killed_run_goes_on_as_the_same_run(files: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 after an epoch, run again: the same history and the same weights as an unbroken run."""
    plan = make_plan(files, "replay", epochs=4, training__lr=1e-3)
    _, rows = run(plan, tmp_path / "whole")
    script = tmp_path / "train.py"
    script.write_text(
        "import os, pickle, signal, sys\n"
        "from pathlib import Path\n"
        "from retemper.finetune.mace.train import train\n"
        "plan = pickle.load(open(sys.argv[1], 'rb'))\n"
        "die = lambda row: os.kill(os.getpid(), signal.SIGKILL) if row['epoch'] == 1 else None\n"
        "train(plan, Path(sys.argv[2]), die)\n"
    )
    (tmp_path / "plan.pkl").write_bytes(pickle.dumps(plan))
    killed = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "plan.pkl"), str(tmp_path / "killed")],
        env={**os.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/model.safetensors").exists()
    summary, rest = run(plan, tmp_path / "killed")
    assert summary.started_from == 2 and [row["epoch"] for row in rest] == [2, 3]
    assert rest[-1]["valid_loss"] == pytest.approx(rows[-1]["valid_loss"], rel=1e-10)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(np.allclose(a[key].numpy(), b[key].numpy(), rtol=0, atol=1e-10) for key in a)
    assert len((tmp_path / "killed/history.csv").read_text().splitlines()) == 5
    again, none = run(plan, tmp_path / "killed")  # a finished run is not repeated
    assert none == [] and again.sha256 == summary.sha256


def test_seeds_side_by_side_and_no_orphans(files: dict[str, Any], tmp_path: Path) -> None:
    """Two seeds train in two workers; kill -9 of the parent ends them; running again finishes both."""
    plans = [dataclasses.replace(make_plan(files, "naive", epochs=6), seed=seed) for seed in (1, 2)]
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(plans))
    script = tmp_path / "seeds.py"
    script.write_text(
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from retemper.finetune.parallel import train_all\n"
        "if __name__ == '__main__':\n"
        "    plans = pickle.load(open(sys.argv[1], 'rb'))\n"
        "    folders = [Path(sys.argv[2]) / str(plan.seed) for plan in plans]\n"
        "    done = train_all(plans, folders, 2, lambda seed, row: print(seed, int(row['epoch']), flush=True))\n"
        "    print('done', [one.epochs for one in done], flush=True)\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "plans.pkl"), str(tmp_path / "runs")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert first.stdout is not None and first.stdout.readline().split()[1] == "0"
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    second = subprocess.run(command, capture_output=True, text=True)
    assert "done [6, 6]" in second.stdout, second.stderr
    epochs = [line.split() for line in second.stdout.splitlines() if not line.startswith("done")]
    assert ["1", "5"] in epochs and ["2", "5"] in epochs and len(epochs) < 12
