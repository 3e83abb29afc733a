"""What `ray job submit` takes along, by Ray's own packaging: the code and settings, and no secret."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

SECRETS = (
    ".env", ".env.local", "id_rsa", "id_ed25519", "server.pem", "private.key", ".netrc", ".pgpass", "credentials",
    "credentials.json", ".aws/credentials", ".ssh/id_rsa", ".git-credentials", ".pypirc", ".kaggle/kaggle.json",
    "mlflow.db", "mlflow.db-wal", "token", "secrets.yaml.bak", ".dvc/config.local", "kubeconfig", "notes.txt",
)  # fmt: skip
FOLDERS = (".", "platform", "platform/retemper", "platform/retemper/sweep", "pipelines", "strategies", "foundations")
JOB = yaml.safe_load((ROOT / "pipelines/ray-job.yaml").read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, small files alone, with secrets in every folder."""
    root = tmp_path_factory.mktemp("upload") / "project"
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.split():
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 100_000:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(path.read_bytes())
    for folder in (*FOLDERS, ".cache/training", "data/raw", "runs/finetune"):
        for name in SECRETS:
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_text("secret")
    return root


def packed(root: Path, folder: Path, target: Path) -> set[str]:
    """Files that Ray would send of `folder`."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(root / folder), target, include_gitignore=True, excludes=JOB["excludes"])
    with zipfile.ZipFile(target) as file:
        return {name for name in file.namelist() if not name.endswith("/")}


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("folder", [".", *JOB["py_modules"]])
def test_no_secret_travels(folder: str, project: Path, tmp_path: Path) -> None:
    sent = packed(project, Path(folder), tmp_path / "package.zip")
    names = {Path(name).name for secret in SECRETS for name in (secret,)}
    assert not [name for name in sent if Path(name).name in names]
    assert {Path(name).suffix for name in sent} <= {".py", ".yaml", ".toml"}


def test_the_code_travels(project: Path, tmp_path: Path) -> None:
    """Every module, the released foundations, every stage and strategy, and the settings."""
    folder = ROOT / "platform/retemper"
    package = {str(path.relative_to(folder)) for kind in ("py", "yaml") for path in folder.rglob(f"*.{kind}")}
    assert packed(project, Path("platform/retemper"), tmp_path / "module.zip") == package
    sent = packed(project, Path(), tmp_path / "folder.zip")
    assert {f"platform/retemper/{name}" for name in package} <= sent
    for pattern in ("pipelines/*.py", "strategies/*.yaml", "systems/*.yaml", "params.yaml", "foundations/*.yaml"):
        wanted = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert wanted and wanted <= sent
