"""Run the notebooks of the documentation, one after the other in one folder, and keep their outputs.

python docs/site/notebooks.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("compare", "failures")  # the second goes on in the project of the first
SECONDS = 900  # of a cell


def executed(folder: Path) -> Iterator[tuple[str, nbformat.NotebookNode]]:
    """Name and notebook with the outputs of running it in `folder`; a cell that fails is an error."""
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(
            notebook, timeout=SECONDS, resources=resources, coalesce_streams=True, record_timing=False
        )
        yield name, client.execute()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name, notebook in executed(Path(place)):
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
            print(f"{name}: {len(notebook.cells)} cells")
