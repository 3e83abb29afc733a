"""What is kept of a run: numbers with intervals and counts, and what was measured beside it. Plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retemper.core.files import read_json
from retemper.finetune.plan import versions
from retemper.records.dataset import DatasetManifest
from retemper.records.runs import FOUNDATION, read_results
from retemper.study import groups, work
from retemper.study.plan import Run


def gather(here: Path, run: Run) -> dict[str, Any]:
    """The result of a run from the files in its project folder.

    Returns
    -------
    dict
        ``values`` and ``foundation``: the numbers of `Results.flat` of the model, and of the
        foundation itself on the same structures; ``groups``: the errors of both by group; ``counts``: structures or
        curves behind each robustness value; ``unmeasured``: why a robustness metric has no value; ``e0s``: rank,
        elements that stay open, and the error of the foundation after the shift, meV/atom; ``structures`` by set;
        ``training``; ``cost``; ``versions``; ``code``: hash of the code of each stage.
    """
    settings, name = run.settings, run.name
    found = read_results(here, settings, strategies=[name])
    robust = found.robustness[name].measures(run.seed) if name in found.robustness else {}
    manifest, e0s = DatasetManifest.read(here / "runs/dataset/manifest.json"), read_json(here / "runs/e0s/e0s.json")
    training = found.trainings[name][run.seed].finished
    return {
        "values": found.flat(name, run.seed),
        "foundation": found.flat(FOUNDATION, 0),
        "groups": {
            "model": groups.of_run(here / f"runs/evaluate/{name}/frames.csv", run.seed),
            "foundation": groups.of_run(here / f"runs/evaluate/{FOUNDATION}/frames.csv", 0),
        },
        "counts": {metric: measure.n for metric, measure in robust.items()},
        "unmeasured": {metric: measure.reason for metric, measure in robust.items() if measure.value is None},
        "e0s": {
            "error": e0s["error_per_atom"]["rmse"],
            "rank": e0s["rank"],
            "elements": e0s["n_elements"],
            "open": e0s["deficient"],
        },
        "structures": {name: part.frames for name, part in manifest.sets.items()},
        "elements": manifest.elements,
        "training": training.model_dump(include={"key", "best_epoch", "epochs", "sha256", "trainable", "parameters"}),
        "cost": work.about(run),
        "versions": versions(),
        "code": run.code,
    }
