"""What is kept of a run: numbers with intervals and counts, and what was measured beside them."""

from __future__ import annotations

from collections.abc import Callable

from retemper.config.project import FOUNDATION, Project
from retemper.finetune.plan import versions
from retemper.records.dataset import DatasetManifest
from retemper.records.e0s import ReferenceEnergies
from retemper.records.result import E0Quality, Groups, Result, Training
from retemper.records.runs import read_results
from retemper.study import groups, work
from retemper.study.plan import Run


def gather(project: Project, run: Run, spent: Callable[[], float]) -> Result:
    """The result of a run from the files in its project folder; `spent` gives its CPU seconds."""
    name = run.name
    results = read_results(project, strategies=[name])
    robust = results.robustness[name].measures(run.seed) if name in results.robustness else {}
    manifest, e0s = DatasetManifest.read(project.manifest), ReferenceEnergies.read(project.e0s)
    training = results.trainings[name][run.seed].finished
    return Result(
        values=results.flat(name, run.seed),
        foundation=results.flat(FOUNDATION, 0),
        groups=Groups(
            model=groups.run_groups(project.evaluation(name) / "frames.csv", run.seed),
            foundation=groups.run_groups(project.evaluation(FOUNDATION) / "frames.csv", 0),
        ),
        counts={metric: measure.n for metric, measure in robust.items()},
        unmeasured={metric: measure.reason or "" for metric, measure in robust.items() if measure.value is None},
        e0s=E0Quality(error=e0s.error_per_atom.rmse, rank=e0s.rank, elements=e0s.n_elements, open=e0s.deficient),
        structures={name: part.frames for name, part in manifest.sets.items()},
        elements=manifest.elements,
        training=Training.model_validate(training.model_dump(include=set(Training.model_fields))),
        cost=work.cost(run),
        versions=versions(),
        code=run.code,
        cpu_seconds=spent(),
    )
