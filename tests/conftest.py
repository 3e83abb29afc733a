"""Shared fixtures: small real MACE models (random weights) and where optional real data lie."""

from __future__ import annotations

import functools
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted import COLLECTED, HOSTILE

from retemper.core import output

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # under nohup; programs that tests interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

output.show()  # as every command does

ROOT = Path(__file__).resolve().parents[1]
TINY_ELEMENTS = (1, 6, 7, 8, 11, 17)


def build_tiny(path: Path, heads: list[str], seed: int = 0, kind: str = "ScaleShiftMACE", **more: Any) -> Path:
    """Save an untrained two-layer MACE; energies are smooth, equivariant and not zero."""
    import torch
    from mace import modules
    from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    energies = np.linspace(-30.0, -1.0, len(TINY_ELEMENTS))
    plain = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    arguments = {
        "r_max": 4.0,
        "num_bessel": 6,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "num_interactions": 2,
        "num_elements": len(TINY_ELEMENTS),
        "hidden_irreps": o3.Irreps("8x0e + 8x1o"),
        "MLP_irreps": o3.Irreps("8x0e"),
        "interaction_cls": plain,
        "interaction_cls_first": plain,
        "correlation": 2,
        "gate": torch.nn.functional.silu,
        "atomic_energies": np.stack([energies + 0.5 * k for k in range(len(heads))]),
        "avg_num_neighbors": 8.0,
        "atomic_numbers": list(TINY_ELEMENTS),
        "atomic_inter_scale": [0.8] * len(heads),
        "atomic_inter_shift": [0.0] * len(heads),
        "heads": heads,
    }
    if kind == "MACE":
        del arguments["atomic_inter_scale"], arguments["atomic_inter_shift"]
    model = getattr(modules, kind)(**arguments | more)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model, path)
    return path


@functools.cache
def _as_trained(content: bytes) -> bytes:
    from retemper.core import weight_files
    from retemper.models import model_file, model_writing

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "given.model").write_bytes(content)
        model_writing.write(model_file.load(Path(folder) / "given.model"), Path(folder) / weight_files.NAME)
        return (Path(folder) / weight_files.NAME).read_bytes()


def as_trained(model: Path, out: Path) -> Path:
    """Write the model of a pickle as a training writes it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(_as_trained(model.read_bytes()))
    return out


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny") / "model.model", ["Default"])


@pytest.fixture(scope="session")
def tiny_multihead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny-multihead") / "model.model", ["pt_head", "Default"])


@pytest.fixture(scope="session")
def ionic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose energy depends on charge and spin, by embeddings like those of mace-omol."""
    embedded = {"type": "categorical", "per": "graph", "num_classes": 11, "emb_dim": 4, "offset": 5}
    specs = dict.fromkeys(("total_charge", "total_spin"), embedded)
    return build_tiny(tmp_path_factory.mktemp("ionic") / "model.model", ["Default"], embedding_specs=specs)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of optional real data sets; tests that ask for it skip without it."""
    folder = os.environ.get("RETEMPER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETEMPER_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """Small target and replay sets, see `trainings.make_files`."""
    from trainings import make_files

    return make_files(tmp_path_factory.mktemp("sets"), tiny_model)


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with registered models, see `promoted.build`."""
    from promoted import build

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return build(tmp_path_factory.mktemp("promotion"), tiny_model)


@pytest.fixture
def project(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project with registered models; what a test promotes and changes is taken back after it."""
    from promoted import taken_back

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(registered)
    with taken_back(registered, tmp_path):
        yield registered
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count hostile cases before any is left out; an unknown kind is an error (`benchmarks.hostile.cases`)."""
    from benchmarks.hostile.cases import count

    config.stash[COLLECTED] = {item.path for item in items}
    config.stash[HOSTILE] = dict(count(items))
