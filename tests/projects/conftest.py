"""retemper as a user gets it: its wheel in an environment of its own, away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel; its other packages are those of the tests' environment."""

    wheel: Path
    bin: Path

    def run(self, folder: Path, *command: str, status: int = 0) -> str:
        """Output of a command of the environment, which must end with `status`."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RETEMPER_ROOT")}
        environment = kept | {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        assert done.returncode == status, output
        return output

    def dvc(self, folder: Path, *arguments: str, status: int = 0) -> str:
        return self.run(folder, "python", "-m", "dvc", *arguments, status=status)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("retemper-*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin/python"
    purelib = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # a path in a .pth file is added without reading the .pth files in it: an editable retemper there is not seen
    (Path(purelib) / "tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # pip would find retemper there
    install = [*pip, "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, cwd=folder, env=bare)
    return Installed(wheel, environment / "bin")
