"""What published architectures cost on a CPU: retemper against MACE, through untrained twins, in one run.

    python -m benchmarks.twins                      # all twins: 20 minutes of CPU time
    python -m benchmarks.twins "MP-0 small" --only step labels

Twins have random weights, 89 elements, and the channels, blocks and radial functions of the released models; those of
MH-1 and OMOL have 128 channels and stand for the blocks alone. Structures have some 30 atoms. One thread; CPU seconds
and the peak of the memory of a process.

- step: a training step of four structures (forward, forces, gradients of a force loss, float32), in one process
- epoch: one epoch of 50 structures, from the start of the process to the model file, against `mace_run_train`
- labels: energies, forces and stresses of 200 structures in float64, against `MACECalculator` (of 20, times ten)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks.inference import one_at_a_time, structures
from retemper.config import strategies
from retemper.core.files import project_root, sha256
from retemper.data.frames import write_frames
from retemper.finetune.plan import Plan, head_data, versions
from retemper.models import mace, model_file, predict

PARTS = ("step", "epoch", "labels")
EPOCH, LABELS, SINGLE = 50, 200, 20  # structures
ELEMENTS = list(range(1, 90))
DENSITY = {"density": True, "pair_repulsion": True, "distance_transform": "Agnesi"}
TWINS: dict[str, dict[str, Any]] = {
    "OFF23 small": {"hidden": "96x0e", "r_max": 4.5},
    "MP-0 small": {"hidden": "128x0e"},
    "MP-0 medium": {"hidden": "128x0e + 128x1o"},
    "MPA-0 medium": {"hidden": "128x0e + 128x1o", **DENSITY},
    "MH-1 blocks": {"hidden": "128x0e + 128x1o", "nonlinear": True, "pair_repulsion": True},
    "OMOL blocks": {"hidden": "128x0e + 128x1o", "nonlinear": True, "charged": True},
}


def build(path: Path, hidden: str, r_max: float = 6.0, density: bool = False, nonlinear: bool = False,
          charged: bool = False, **arguments: Any) -> Path:  # fmt: skip
    """Save a twin in float32 with forces of some eV/A."""
    import torch
    from mace import modules
    from e3nn import o3  # isort: skip

    name = f"RealAgnostic{'Density' if density else ''}ResidualInteractionBlock"
    first = name if not density else "RealAgnosticDensityInteractionBlock"
    if nonlinear:
        name = first = "RealAgnosticResidualNonLinearInteractionBlock"
        arguments |= {
            "readout_cls": modules.blocks.NonLinearBiasReadoutBlock, "edge_irreps": o3.Irreps(hidden),
            "use_reduced_cg": True, "use_agnostic_product": True, "apply_cutoff": False, "distance_transform": "Agnesi",
        }  # fmt: skip
    if charged:
        spin = {"type": "categorical", "per": "graph", "num_classes": 101, "emb_dim": 64}
        charge = {"type": "categorical", "per": "graph", "num_classes": 201, "emb_dim": 64, "offset": 100}
        arguments |= {
            "embedding_specs": {"total_spin": spin, "total_charge": charge},
            "use_embedding_readout": True, "use_last_readout_only": True,
        }  # fmt: skip
    with mace.default_dtype("float32"):
        torch.manual_seed(0)
        model = modules.ScaleShiftMACE(
            r_max=r_max, num_bessel=10, num_polynomial_cutoff=5, max_ell=3, num_interactions=2, correlation=3,
            interaction_cls=modules.interaction_classes[name], interaction_cls_first=modules.interaction_classes[first],
            num_elements=len(ELEMENTS), atomic_numbers=ELEMENTS, hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"), atomic_energies=np.linspace(-10.0, -1.0, len(ELEMENTS))[None],
            avg_num_neighbors=30.0, gate=torch.nn.functional.silu, atomic_inter_scale=[1.0], atomic_inter_shift=[0.0],
            heads=["Default"], **arguments,
        )  # fmt: skip
        torch.save(model, path)
        forces = np.concatenate(predict.predict(path, frames_of(3), backend="torch").forces)
        model.scale_shift.scale /= float(np.sqrt((forces**2).mean()))
        torch.save(model, path)
    return path


def frames_of(number: int) -> list[Atoms]:
    """Salt in water of 26 to 35 atoms."""
    return [atoms for atoms in structures(12 * number) if 26 <= len(atoms) <= 35][:number]


def fastest(function: Callable[[], object], repeats: int) -> float:
    """The shortest CPU time (s)."""
    times = []
    for _ in range(repeats + 1):  # the first compiles
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times[1:])


def step(path: Path) -> tuple[float, float]:
    """A training step by retemper and by MACE (CPU s)."""
    from mace import data
    from mace.tools import AtomicNumberTable, torch_geometric

    from retemper.models import architecture, fast_blocks

    model: Any = model_file.load(path).float()
    with mace.default_dtype("float32"):
        table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
        graphs = [
            data.AtomicData.from_config(
                data.config_from_atoms(a), z_table=table, cutoff=float(model.r_max), heads=["Default"]
            )
            for a in frames_of(4)
        ]
        batch = next(iter(torch_geometric.dataloader.DataLoader(graphs, batch_size=len(graphs)))).to_dict()

        def once() -> None:
            model.zero_grad(set_to_none=True)
            with architecture.addition(model):
                out = model(dict(batch), training=True, compute_force=True)
            (out["forces"].square().mean() + 1e-3 * out["energy"].square().mean()).backward()

        def within(block: AbstractContextManager[Any]) -> float:
            with block:
                return fastest(once, 4)

        theirs = within(contextlib.nullcontext())
        return within(fast_blocks.fast(model)), theirs


def plan_for(folder: Path, path: Path) -> Plan:
    """One epoch of naive fine-tuning on energies and forces of the twin itself."""
    frames = frames_of(EPOCH + 5)
    labels = predict.predict(path, frames, backend="torch")
    for atoms, energy, forces in zip(frames, labels.energy, labels.forces, strict=True):
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(energy), forces
    write_frames(folder / "train.extxyz", frames[:EPOCH])
    write_frames(folder / "valid.extxyz", frames[EPOCH:])
    e0s = mace.atomic_energies(path)
    return Plan(
        strategy=strategies.load("naive", project_root()), seed=1, foundation=str(path),
        foundation_sha256=sha256(path), foundation_head=None, elements=sorted(e0s),
        target=head_data(folder / "train.extxyz", folder / "valid.extxyz", "target", e0s), replay=None, epochs=1,
        batch_size=5, valid_batch_size=5, dtype="float32", device="cpu", versions=versions(),
    )  # fmt: skip


def child(part: str, path: str, folder: str) -> None:
    """One part by one program in this process; its seconds are those that the parent reads."""
    if part == "retemper":
        from retemper.finetune.mace.train import train

        plan = pickle.loads((Path(folder) / "plan.pickle").read_bytes())  # of the parent, which made the labels
        train(plan, Path(folder) / "run", lambda row: None)
    elif part == "labels":
        frames = frames_of(LABELS)
        print(json.dumps(fastest(lambda: predict.predict(path, frames), 1)))
    else:
        frames = frames_of(SINGLE)
        print(json.dumps(fastest(lambda: one_at_a_time(Path(path), frames), 1) * LABELS / SINGLE))


def used(command: list[str]) -> tuple[float, float, str]:
    """CPU seconds, GiB at the peak, and the last line of a command."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} failed:\n{output[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, (output.splitlines() or [""])[-1]


def measure(name: str, parts: list[str]) -> None:
    """Print a row for each part."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = build(folder / "twin.model", **TWINS[name])
        here = [sys.executable, "-m", "benchmarks.twins", "child"]
        if "step" in parts:
            ours, theirs = step(path)
            row(name, "step", ours, theirs)
        if "epoch" in parts:
            (folder / "plan.pickle").write_bytes(pickle.dumps(plan_for(folder, path)))
            ours, gib, _ = used([*here, "retemper", str(path), str(folder)])
            config = (folder / "run/mace.yaml").read_text().replace(str(folder / "run/mace"), str(folder / "theirs"))
            (folder / "mace.yaml").write_text(config)
            theirs, gib_theirs, _ = used(
                [sys.executable, "-m", "mace.cli.run_train", "--config", str(folder / "mace.yaml")]
            )
            row(name, "epoch", ours, theirs, gib, gib_theirs)
        if "labels" in parts:
            _, gib, seconds = used([*here, "labels", str(path), str(folder)])
            _, gib_theirs, single = used([*here, "single", str(path), str(folder)])
            row(name, "labels", json.loads(seconds), json.loads(single), gib, gib_theirs)


def row(name: str, part: str, ours: float, theirs: float, *gib: float) -> None:
    memory = f" {gib[0]:.1f} | {gib[1]:.1f} |" if gib else " | |"
    print(f"| {name} | {part} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |{memory}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(TWINS), help=f"of {', '.join(TWINS)}")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| twin | what | retemper (s) | MACE (s) | times | GiB | GiB of MACE |\n|---|---|---|---|---|---|---|")
    for name in options.names:
        measure(name, options.only)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        main()
