"""Training through retemper against MACE's own command, side by side in one run.

    python -m benchmarks.training          # ratios; about ten minutes on two cores

Three ratios: a run of some minutes against ``mace_run_train`` with the same settings; the
set-up of a further run in a warm worker against the start of ``mace_run_train``; two seeds
side by side with one thread each against one after the other with two threads each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from retemper.config import foundation_files, foundations, strategies
from retemper.core import processes
from retemper.core.files import project_root
from retemper.data.frames import is_isolated_atom, read_frames, write_frames
from retemper.finetune import collect
from retemper.finetune.plan import Plan, head_data, versions

EPOCHS = 6


def plan_for(folder: Path, epochs: int, seed: int = 1) -> Plan:
    """Naive fine-tuning of `mini` on held-out structures of its own level: E0s as the foundation's."""
    from retemper.models.mace import atomic_energies

    root = project_root()
    entry = foundations.find("mini", root)
    weights = foundation_files.weights(entry, root)
    if not (folder / "train.extxyz").exists():
        frames = [a for a in read_frames(root / str(entry.retention)) if not is_isolated_atom(a) and len(a) > 4]
        write_frames(folder / "train.extxyz", frames[:240])
        write_frames(folder / "valid.extxyz", frames[240:280])
    e0s = atomic_energies(weights)
    return Plan(
        strategy=strategies.load("naive", root),
        seed=seed,
        foundation=str(weights),
        foundation_sha256=str(entry.sha256),
        foundation_head=None,
        elements=sorted(e0s),
        target=head_data(folder / "train.extxyz", folder / "valid.extxyz", "target", e0s),
        replay=None,
        epochs=epochs,
        batch_size=8,
        valid_batch_size=16,
        dtype="float32",
        device="cpu",
        versions=versions(),
    )


def timed(command: list[str], threads: int) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, check=True, env=env, capture_output=True)
    return time.perf_counter() - start


def child(folder: str, out: str, epochs: str, seed: str) -> None:
    """One retemper run in this process; prints the seconds of a second, warm one."""
    from retemper.finetune.mace.train import train

    plan = plan_for(Path(folder), int(epochs), int(seed))
    train(plan, Path(out), lambda row: None)
    start = time.perf_counter()
    summary = train(dataclasses.replace(plan, epochs=1, seed=99), Path(out + "-warm"), lambda row: None)
    print(json.dumps({"warm_setup": time.perf_counter() - start - summary.seconds}))


def main() -> None:
    processes.prepare()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = plan_for(folder, EPOCHS)
        here = [sys.executable, "-m", "benchmarks.training", "child", str(folder)]
        mace = [sys.executable, "-m", "mace.cli.run_train", "--config"]
        ours, theirs, starts, warm = [], [], [], []
        for k in range(2):
            out = folder / f"ours-{k}"
            start = time.perf_counter()
            done = subprocess.run([*here, str(out), str(EPOCHS), "1"], check=True, capture_output=True, text=True)
            total = time.perf_counter() - start
            warm.append(json.loads(done.stdout.splitlines()[-1])["warm_setup"])
            summary = json.loads((out / collect.SUMMARY).read_text())
            config = (out / "mace.yaml").read_text().replace(str(out / "mace"), str(folder / f"mace-{k}"))
            (folder / "mace.yaml").write_text(config)
            theirs.append(timed([*mace, str(folder / "mace.yaml")], 1))
            (folder / "zero.yaml").write_text(config.replace(f"max_num_epochs: {EPOCHS}", "max_num_epochs: 1"))
            one = timed([*mace, str(folder / "zero.yaml")], 1)
            per_epoch = summary["seconds"] / EPOCHS
            starts.append(one - per_epoch)
            ours.append(total - warm[-1] - per_epoch)  # the warm run is not part of the first
            print(f"run {k}: retemper {ours[-1]:.1f} s, mace_run_train {theirs[-1]:.1f} s; "
                  f"warm set-up {warm[-1]:.1f} s, mace_run_train start {starts[-1]:.1f} s", flush=True)  # fmt: skip
        print(f"whole run, retemper / mace_run_train: {min(ours) / min(theirs):.2f}")
        print(f"set-up of a further run, warm worker / mace_run_train: {min(warm) / min(starts):.2f}")
        del plan
        start = time.perf_counter()
        both = [
            subprocess.Popen([*here, str(folder / f"side-{s}"), str(EPOCHS), str(s)], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL) for s in (11, 12)
        ]  # fmt: skip
        for process in both:
            process.wait()
        side = time.perf_counter() - start
        after = sum(timed([*here, str(folder / f"after-{s}"), str(EPOCHS), str(s)], 2) for s in (21, 22))
        print(f"two seeds, one after the other with two threads / side by side with one: {after / side:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        main()
