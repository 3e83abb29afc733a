"""The tutorial is run as it stands, command by command, in the project that it makes, with fewer epochs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

TUTORIAL = ROOT / "docs/tutorial.md"


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_command_of_the_tutorial(tmp_path: Path) -> None:
    text = TUTORIAL.read_text()
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "platform"),
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    folder, said = tmp_path, ""
    for block in _blocks(text, "sh"):
        for command in block.splitlines():
            if command.startswith("cd "):
                folder = folder / command.removeprefix("cd ")
                _make_small(folder / "params.yaml")
                continue
            done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            said += done.stdout
    assert "nothing that would stop it was seen" in said and "with them the foundation misses 6.5 meV/atom" in said
    (program,) = _blocks(text, "python")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < -1000  # eV, GFN2-xTB of some thirty atoms


def _make_small(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    settings |= {"strategies": ["naive", "lora"], "promotion": {"gates": [{"metric": "target.force_rmse", "max": 1e6}]}}
    settings["finetune"]["epochs"] = 2
    settings["robustness"]["metrics"] = ["short_range"]
    path.write_text(yaml.safe_dump(settings))


def test_numbers_of_the_tutorial_are_those_of_the_results() -> None:
    """Errors in its table stand in docs/results.md, where the example was measured."""
    table = next(block for block in _blocks(TUTORIAL.read_text(), "text") if "Target forces" in block)
    results = (ROOT / "docs/results.md").read_text()
    forces = re.findall(r"^.. ?([a-z0-9-]+) +\S+ \([^)]*\)\S* +(\S+) \((\S+) – (\S+)\)", table, re.MULTILINE)
    assert len(forces) == 5
    for strategy, *numbers in forces:
        row = next(line for line in results.splitlines() if line.startswith(f"| {strategy} "))
        assert all(number in row for number in numbers), (strategy, numbers, row)
