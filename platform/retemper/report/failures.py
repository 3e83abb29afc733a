"""``failures.html``: the structures in which models failed the robustness suite, to be looked at without a network.

The viewer is chemiscope's (Fraux, Cersonsky and Ceriotti, J. Open Source Softw. 5, 2117, 2020), whose script is in its
wheel; without it the page has the list alone.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jinja2 import Environment, PackageLoader

from retemper.data.frames import read_frames
from retemper.records.runs import Results

MOST = 400  # structures on the page
NAME = "failures.html"


@dataclass(frozen=True)
class Failure:
    """A structure in which a model failed a metric."""

    model: str  # strategy, or the foundation
    seed: int
    metric: str
    why: str
    atoms: Atoms

    @property
    def nearest(self) -> float:
        """Smallest distance of two atoms over the sum of their covalent radii; NaN for a single atom."""
        distances = self.atoms.get_all_distances(mic=bool(self.atoms.pbc.any()))
        radii = covalent_radii[self.atoms.numbers]
        np.fill_diagonal(distances, np.inf)
        ratios = distances / (radii[:, None] + radii)
        return float(ratios.min()) if len(self.atoms) > 1 else float("nan")


def collect(results: Results) -> list[Failure]:
    """Of every model the first measured seed's, as the suite kept them; the same number of each model at most."""
    failures: list[Failure] = []
    share = MOST // max(1, len(results.robustness))
    for name, robustness in results.robustness.items():
        seed = min(robustness.seeds)
        of_model = [
            Failure(name, seed, path.stem, _reason(atoms), atoms)
            for path in sorted((results.project.robustness(name) / f"seed-{seed}" / "failed").glob("*.extxyz"))
            for atoms in read_frames(path)
        ]
        failures += of_model[:: max(1, -(-len(of_model) // share))]
    return failures


def _reason(atoms: Atoms) -> str:
    """What the metric wrote into the frame's info."""
    told = [str(atoms.info[key]) for key in ("config_type", "criteria", "failed", "reason") if key in atoms.info]
    return ", ".join(dict.fromkeys(told))


def page(failures: list[Failure]) -> str:
    """The page, in one file."""
    environment = Environment(
        loader=PackageLoader("retemper.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    script, data = _viewer(failures)
    return environment.get_template(NAME).render(failures=failures, script=script, data=data, most=MOST) + "\n"


def _viewer(failures: list[Failure]) -> tuple[str | None, str | None]:
    """chemiscope's script and its data; `None` where it is not installed, or there is nothing to see."""
    package = importlib.util.find_spec("chemiscope")
    if package is None or package.origin is None or not failures:
        return None, None
    script = Path(package.origin).parent / "sphinx/static/chemiscope.min.js"
    return script.read_text(encoding="utf-8"), json.dumps(_data(failures)).replace("</", "<\\/")


def _data(failures: list[Failure]) -> object:
    import chemiscope

    texts = {
        "model": [failure.model for failure in failures],
        "metric": [failure.metric for failure in failures],
        "why": [failure.why for failure in failures],
    }
    nearest = [failure.nearest for failure in failures]
    numbers = {
        "number": ([float(k) for k in range(1, len(failures) + 1)], ""),
        "smallest distance": (nearest, "sums of covalent radii"),
        "atoms": ([float(len(failure.atoms)) for failure in failures], ""),
    }
    properties = {name: {"target": "structure", "values": values} for name, values in texts.items()}
    properties |= {
        name: {"target": "structure", "values": np.nan_to_num(values).tolist(), **({"units": unit} if unit else {})}
        for name, (values, unit) in numbers.items()
    }
    bare = [Atoms(f.atoms.numbers, f.atoms.positions, cell=f.atoms.cell, pbc=f.atoms.pbc) for f in failures]
    settings = {
        "map": {
            "x": {"property": "number"},
            "y": {"property": "smallest distance"},
            "color": {"property": ""},
            "symbol": "model",
        },
        "structure": [{"unitCell": True, "keepOrientation": False}],
    }
    about = {"name": "Failed structures"}
    content: object = chemiscope.create_input(bare, properties=properties, metadata=about, settings=settings)
    return content
