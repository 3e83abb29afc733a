"""The notebooks of the documentation run, and print what stands in them."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
PLACES = ("extracting", "is a project")  # lines that name a folder


def _texts(notebook) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text") or output["data"].get("text/plain", "") for output in outputs]
    return [line for text in texts for line in text.splitlines() if not any(word in line for word in PLACES)]


def test_they_print_what_stands_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers within a few per cent: processors round differently, and training carries that on."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/site/notebooks.py")
    assert spec is not None and spec.loader is not None
    notebooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebooks)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "platform"))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pictures = 0
    for name, notebook in notebooks.executed(tmp_path):
        stored = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
        now, then = _texts(notebook), _texts(stored)
        assert [NUMBER.sub("#", line).split() for line in now] == [NUMBER.sub("#", line).split() for line in then]
        numbers = [
            [float(text.replace(",", "")) for line in lines for text in NUMBER.findall(line)] for lines in (now, then)
        ]
        close = [abs(a - b) <= 0.1 * max(abs(a), abs(b)) + 0.02 for a, b in zip(*numbers, strict=True)]
        assert sum(close) > 0.9 * len(close)  # intervals of few groups and energies in a hole move further
        pictures += str(stored).count("image/png")
    assert pictures == 2
