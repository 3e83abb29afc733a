"""The structure holds: who may import what, and every strategy, foundation and stage is complete."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import retemper
from retemper.active.plugins import KINDS
from retemper.config import foundation_files, foundations, strategies
from retemper.config.settings import load_settings
from retemper.core.files import sha256
from retemper.evaluation.robustness import ensembles, metrics
from retemper.evaluation.robustness.context import LEVELS

PACKAGE = ROOT / "platform/retemper"
HEAVY = {"torch", "torch_sim", "mace", "e3nn", "mlflow", "ray", "optuna", "tblite", "symmetrix", "rdkit", "matplotlib",
         "dvc", "numba", "pyxtal"}  # fmt: skip
# Modules that may import a heavy package at their top: they are imported by stages and workers only.
TOP_LEVEL = {
    "finetune/mace/loss.py",
    "finetune/mace/loaders.py",
    "finetune/mace/checkpoint.py",
    "models/contraction.py",
    "models/convolution.py",
    "models/element_mixing.py",
    "models/fast_blocks.py",
    "finetune/mace/loop.py",
    "finetune/mace/interpolation.py",
    "finetune/mace/adapters.py",
    "finetune/mace/setup.py",
    "models/architecture.py",
    "models/head_weights.py",
    "models/ase_calculator.py",
    "finetune/mace/pretrain.py",
    "finetune/mace/verification.py",
    "finetune/mace/train.py",
    "sweep/tuning.py",
    "sweep/search.py",
    "sweep/optuna_study.py",
    "sweep/callbacks.py",
    "registry/served_model.py",
}
# One module alone touches each big dependency: package -> path prefixes that may import it anywhere.
OWNERS = {
    "mace": ("models/", "finetune/mace/"),
    "e3nn": ("models/", "finetune/mace/"),
    "mlflow": (
        "registry/artifact.py",
        "registry/client.py",
        "registry/logged_model.py",
        "tracking/embedded_store.py",
        "registry/serve.py",
        "tracking/runs.py",
        "tracking/content.py",
        "tracking/sweeps.py",
        "tracking/rows.py",
        "registry/register.py",
        "tracking/store.py",
        "registry/served_model.py",
        "tracking/lock.py",
    ),
    "torch_sim": ("models/convert.py", "registry/export.py"),
    "ray": (
        "core/executor/places.py",
        "core/ray_capacity.py",
        "core/ray_session.py",
        "sweep/resources.py",
        "sweep/tuning.py",
        "sweep/search.py",
        "sweep/file_transfer.py",
        "sweep/trial.py",
        "sweep/callbacks.py",
    ),
    "optuna": ("sweep/tuning.py", "sweep/search.py", "sweep/optuna_study.py", "sweep/callbacks.py"),
    "tblite": ("systems/xtb.py",),
    "symmetrix": ("models/symmetrix.py",),
    "numba": ("simulation/radial_distribution.py",),
    "pyxtal": ("simulation/random_structures.py",),
    "matplotlib": ("plotting/plots.py", "evaluation/robustness/figures.py", "active/figures.py", "study/figures.py"),
    "rdkit": ("systems/structures.py",),
    "dvc": (),  # its command alone is used: core/vcs.py
    "pyscf": ("active/oracles/pyscf.py",),
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Top-level packages that a module imports at run time, and whether at its top."""
    tree = ast.parse(path.read_text())
    found = []
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found += [(name.split(".")[0], node in tree.body) for name in names if id(node) not in checking]
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    for package, at_top in imports(path):
        assert package != "pipelines", f"{name} imports a stage"
        if package in HEAVY and at_top:
            assert name in TOP_LEVEL, f"{name} imports {package} when it is imported"
        if package in OWNERS:
            assert name.startswith(OWNERS[package]), f"{name} imports {package}, which belongs to {OWNERS[package]}"


@pytest.mark.parametrize("name", metrics.names())
def test_metric_files(name: str) -> None:
    """Every metric says what it is, has a size for each level, and imports no other metric."""
    module = metrics.load(name)
    info = module.INFO
    assert info.title and info.cost and info.reference
    assert (info.good > info.bad) == (info.direction == "higher")
    assert callable(module.plan) and callable(module.measure)
    sizes = getattr(module, "SIZES", ensembles.SIZES)
    assert set(sizes) == set(LEVELS)
    tree = ast.parse((PACKAGE / f"evaluation/robustness/metrics/{name}.py").read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [m for m in modules if m.startswith("retemper.evaluation.robustness.metrics")]
    assert not {m.split(".")[0] for m in modules} & HEAVY


ACTIVE = [path for kind in KINDS for path in sorted((PACKAGE / "active" / kind).glob("[a-z]*.py"))]


@pytest.mark.parametrize("path", ACTIVE, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_active_learning_plugins(path: Path) -> None:
    """Every explorer, uncertainty, selector and oracle has options and imports no other."""
    tree = ast.parse(path.read_text())
    assert "Options" in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [m for m in modules if m.startswith("retemper.active.") and m.split(".")[2] in KINDS]


def test_stages_do_not_import_each_other() -> None:
    for path in (ROOT / "pipelines").glob("*.py"):
        assert "pipelines" not in {package for package, _ in imports(path)}, path.name


def test_one_module_moves_champions() -> None:
    """Registration alone points besides: to the candidate."""
    for path in MODULES:
        name, text = str(path.relative_to(PACKAGE)), path.read_text()
        assert name == "registry/client.py" or "registered_model_alias(" not in text, name
        assert name in ("registry/aliases.py", "registry/register.py") or "registry.point(" not in text, name


def test_a_tag_of_a_release_is_its_version() -> None:
    """``v0.1.0`` stands on a commit whose ``core/version.py`` says 0.1.0; the build reads the version there."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert ROOT / build["tool"]["hatch"]["version"]["path"] == PACKAGE / "core/version.py"
    git = ["git", "-C", str(ROOT)]
    tags = subprocess.run([*git, "tag", "--list", "v[0-9]*"], capture_output=True, text=True, check=True).stdout.split()
    for tag in tags:
        file = subprocess.run(
            [*git, "show", f"{tag}:platform/retemper/core/version.py"], capture_output=True, text=True, check=True
        )
        assert f'__version__ = "{tag.removeprefix("v")}"' in file.stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+", retemper.__version__)


def test_folders() -> None:
    assert not (ROOT / "platform/__init__.py").exists()  # would hide the standard library's platform
    assert not list((ROOT / "strategies").rglob("*.py"))
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        module = stage["cmd"].split()[2]
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()


def test_the_command_answers_without_heavy_imports() -> None:
    code = f"import sys, retemper.cli.main; print(sorted(set(sys.modules) & {HEAVY | {'ase', 'numpy', 'pandas'}!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_params_are_valid() -> None:
    settings = load_settings(ROOT / "params.yaml")
    assert set(settings.strategies) <= set(strategies.names(ROOT))
    foundations.find(settings.foundation, ROOT)


@pytest.mark.parametrize("name", strategies.names(ROOT))
def test_strategy_files(name: str) -> None:
    """Every strategy loads; every path of its search space exists and accepts its bounds."""
    strategy = strategies.load(name, ROOT)
    assert strategy.about and "training.lr" in strategy.search
    for path, alternatives in strategy.search.items():
        for search in alternatives:
            for value in search.choices or [search.low, search.high]:
                changed = strategies.load(name, ROOT, {path: value})
                assert changed != strategy or value == strategies.value_at(strategy, path)


@pytest.mark.parametrize(
    ("name", "lr", "ema", "clip"),
    [  # arXiv:2606.12704, hyper-parameters of the strategies
        ("scratch", 1e-2, 0.99, 10.0),
        ("naive", 1e-3, 0.999, 1.0),
        ("freeze-5", 1e-3, 0.999, 1.0),
        ("freeze-6", 1e-3, 0.999, 1.0),
        ("lora", 1e-2, 0.99, 10.0),
        ("replay", 1e-4, 0.9999, 1.0),
        ("pseudolabel-replay", 1e-4, 0.9999, 1.0),
        ("replay-lora", 1e-3, 0.999, 10.0),
    ],
)
def test_defaults_are_the_papers(name: str, lr: float, ema: float, clip: float) -> None:
    strategy = strategies.load(name, ROOT)
    training, loss = strategy.training, strategy.loss
    assert (training.lr, training.ema_decay, training.clip_grad, training.weight_decay) == (lr, ema, clip, 0.0)
    assert (loss.energy_weight, loss.forces_weight, loss.stress_weight, loss.huber_delta) == (10.0, 10.0, 1.0, 0.01)
    assert training.optimizer == "adamw"
    if strategy.replay is not None:
        assert (strategy.replay.energy_weight, strategy.replay.forces_weight) == (1.0, 10.0)


@pytest.mark.parametrize("name", sorted(foundations.catalogue(ROOT)))
def test_foundation_entries(name: str) -> None:
    entry = foundations.find(name, ROOT)
    if entry.file:
        assert sha256(foundation_files.weights(entry, ROOT)) == entry.sha256
        card = (ROOT / f"foundations/{name}.md").read_text()
        assert entry.sha256 in card
        for extra in (entry.pool, entry.retention):
            assert extra and (ROOT / extra).is_file()
    assert foundations.published(entry) is None or entry.url


def test_released_models_are_those_of_mace() -> None:
    """Every model that mace-torch names, at its address, and no other; and the structures that it knows for replay."""
    from mace.calculators import foundations_models
    from mace.tools import multihead_tools

    ours: dict[str, dict[str, str]] = {}
    for entry in foundations.shipped().values():
        function, name = str(entry.mace).split()
        ours.setdefault(function, {})[name] = str(entry.url)
    assert ours.pop("mace_mp") == foundations_models.mace_mp_urls
    assert ours.pop("mace_off") == foundations_models.mace_off_urls
    assert ours.pop("mace_polar") == foundations_models.polar_model_urls
    written = {"mace_omol": ("extra_large",), "mace_anicc": ("ani500k_large_CC",)}  # without a table
    for function, names in written.items():
        code = inspect.getsource(getattr(foundations_models, function))
        assert tuple(ours[function]) == names and set(ours.pop(function).values()) == addresses(code)
    assert ours == {} and foundations_models.mace_mp_names == [None, *foundations_models.mace_mp_urls]
    code = inspect.getsource(multihead_tools.assemble_replay_data)
    published = foundations.structures()
    assert {one.url for one in published.values()} == addresses(code)
    for name, one in published.items():
        assert f'name == "{name}":\n            checkpoint_url = "{one.url}"' in code
        stress = None if name == "matpes_pbe" else "stress"  # which its frames lack
        assert (one.keys.energy, one.keys.forces, one.keys.stress) == ("energy", "forces", stress)


def addresses(code: str) -> set[str]:
    """Addresses of files in Python code."""
    return {
        url for url in re.findall(r'"(https://[^"]+)"', code) if url.rpartition(".")[2] in ("model", "xyz", "extxyz")
    }


def test_released_foundations_are_complete() -> None:
    from ase.data import atomic_numbers

    entries = foundations.shipped()
    for entry in entries.values():
        symbols = (entry.elements or "").split()
        assert set(symbols) <= set(atomic_numbers) and len(set(symbols)) == len(symbols)
        assert entry.url and entry.level_of_theory and entry.citation
        assert (terms := foundations.licence(entry)) is not None and terms.url.startswith("https://")
        assert entry.heads is None or entry.heads[str(entry.head)] == entry.level_of_theory
    assert len((entries["mace-mp-0-small"].elements or "").split()) == 89
    assert {name for name, entry in entries.items() if entry.licence == "MIT"} == {
        *(f"mace-mp-0-{size}" for size in ("small", "medium", "large")),
        *(f"mace-mp-0b-{size}" for size in ("small", "medium")),
        *(f"mace-mp-0b2-{size}" for size in ("small", "medium", "large")),
        "mace-mp-0b3-medium",
        "mace-mpa-0-medium",
        "mace-ani-cc",
    }


def test_a_reader_may_leave_early() -> None:
    """``retemper metrics | head`` ends without a traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "retemper", "strategies"], cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, text=True
    )
    os.close(write_end)
    assert done.returncode == 0 and done.stderr == ""
