"""The jobs of a study: stages that runs share, and the runs themselves; each calls what its pipeline stage calls.

A job writes below ``.cache/study`` under the key of its content and code, whole or not at all, and is skipped when
that is there. A run happens in a small project folder of links to the stages' outputs; its result goes to
``studies/results/<key>.json``, which is kept and can be shared.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from retemper.config.project import FOUNDATION, Project
from retemper.core import processes, sealed
from retemper.core.errors import RetemperError
from retemper.core.files import clear_leftovers
from retemper.models import library
from retemper.study.places import CACHE, RESULTS, SPENT, spent_on
from retemper.study.plan import Run, places

LINKED = ("strategies", "foundations", "data", "systems", ".cache")  # of the project, in the folder of a run
CHECKPOINTS = ("state.last", "state.before")  # of a training; nothing reads them once it is finished
STAGES: dict[str, tuple[str, ...]] = {  # and those whose outputs they read
    "dataset": (),
    "whole": (),  # the data set with every training structure
    "e0s": ("dataset",),
    "replay": ("whole",),
    "pseudolabel": ("replay",),
    "foundation": ("dataset", "e0s"),
    "foundation-robustness": ("dataset",),
}


def needs_of(kind: str, run: Run) -> tuple[str, ...]:
    """Stages whose outputs a stage reads; the foundation may be measured on what the replay stage kept apart."""
    return (*STAGES[kind], "replay") if run.keeps_apart and kind.startswith("foundation") else STAGES[kind]


@dataclass(frozen=True)
class Job:
    """A stage of some runs, or a run."""

    kind: str  # one of STAGES, or "run"
    key: str
    run: Run  # whose settings count; of several runs with the same key, the first
    needs: tuple[str, ...] = ()  # names of jobs that come before

    @property
    def name(self) -> str:
        """Unique in a study; whole sets are datasets as any other."""
        return f"{'dataset' if self.kind == 'whole' else self.kind}/{self.key}"

    @property
    def folder(self) -> Path:
        """Where a stage's output and a run's project lie."""
        return self.run.root / CACHE / self.name

    @property
    def output(self) -> Path:
        """The file that makes the job's output whole."""
        if self.kind == "run":
            return self.run.root / RESULTS / f"{self.key}.json"
        job_project = Project(self.folder, self.run.settings)
        outputs = {
            "dataset": job_project.manifest,
            "whole": job_project.manifest,
            "e0s": job_project.e0s,
            "replay": job_project.replay / "manifest.json",
            "pseudolabel": job_project.pseudolabel / "manifest.json",
            "foundation": job_project.evaluation(FOUNDATION) / "metrics.json",
            "foundation-robustness": job_project.robustness(FOUNDATION) / "metrics.json",
        }
        return outputs[self.kind]

    @property
    def done(self) -> bool:
        return self.output.is_file()


def jobs(runs: Sequence[Run]) -> list[Job]:
    """The jobs of `runs`, each once: stages before what needs them, then the runs in their order."""
    stages: dict[str, Job] = {}
    run_jobs: list[Job] = []
    for run in runs:
        names = {kind: f"{'dataset' if kind == 'whole' else kind}/{key}" for kind, key in run.folders.items()}
        for kind in STAGES:
            if kind in run.folders:
                job = Job(kind, run.folders[kind], run, tuple(names[need] for need in needs_of(kind, run)))
                stages.setdefault(job.name, job)
        run_jobs.append(Job("run", run.key, run, tuple(names.values())))
    return [*stages.values(), *{job.name: job for job in run_jobs}.values()]


# ------------------------------------------------------------------ in a worker


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    cpu_seconds: float  # that it has taken in all (on a GPU by the clock), kills included
    failed: str | None = None  # the reason where it failed
    died: bool = False  # whether that was the death of its process


def perform(job: Job) -> Outcome:
    """Do a job, or find it done. What fails fails again, so a run's failure is its result."""
    processes.prepare(job.run.settings.finetune.device)
    warnings.simplefilter("ignore")
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{job.folder}.lock"), _clock(job) as spent:
            if not job.done:
                library.import_mace()
                _run(job, spent) if job.kind == "run" else _whole_stage(job)
                clear_leftovers(job.folder)
            return Outcome(spent())
    except Exception as error:  # whatever it is, it would come again: recorded, not retried
        return Outcome(spent_on(job.folder), reason_of(error, job.run.root))
    finally:
        processes.release_memory()


def reason_of(error: Exception, root: Path) -> str:
    """A sentence that does not depend on where the project lies."""
    text = str(error) if isinstance(error, RetemperError) else f"{type(error).__name__}: {error}"
    return text.replace(f"{root}/", "").replace("\n", " ").strip()


def seconds(device: str) -> float:
    """CPU time of this process and of the processes that it has seen end; on a GPU the time by the clock."""
    if device != "cpu":
        return time.monotonic()
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def _clock(job: Job) -> Iterator[Callable[[], float]]:
    """Yield a function that writes down and returns what a job has taken; it is called at the end in any case."""
    device = job.run.settings.finetune.device
    earlier, start = spent_on(job.folder), seconds(device)

    def spent() -> float:
        total = round(earlier + seconds(device) - start, 2)
        sealed.write_json(job.folder / SPENT, job.folder.name, {"cpu_seconds": total})
        return total

    try:
        yield spent
    finally:
        spent()


def _whole_stage(job: Job) -> None:
    """A stage, and the checksums of what it wrote."""
    _stage(job)
    paths = [Path(folder) / name for folder, _, names in os.walk(job.folder) for name in names]  # not through links
    outputs = [path for path in paths if path.name not in (SPENT, sealed.FOLDER_SEAL) and not path.is_symlink()]
    sealed.seal_folder(job.folder, job.key, [str(path.relative_to(job.folder)) for path in outputs])


def _stage(job: Job) -> None:
    """One stage in a project folder of its own, by the function that its script in ``pipelines`` calls."""
    settings = job.run.everything if job.kind == "whole" else job.run.settings
    shutil.rmtree(job.folder / "runs", ignore_errors=True)  # of a process that was killed
    job_project = Project(project(job.folder, job.run, needs_of(job.kind, job.run)), settings)
    if job.kind in ("dataset", "whole"):
        from retemper.prepare import dataset

        dataset.run(job_project)
    elif job.kind == "e0s":
        from retemper.prepare import e0s

        e0s.run(job_project)
    elif job.kind == "replay":
        from retemper.prepare import replay

        replay.run(job_project)
    elif job.kind == "pseudolabel":
        from retemper.prepare import pseudolabel

        pseudolabel.run(job_project)
    elif job.kind == "foundation":
        from retemper.evaluation import stage

        stage.run(job_project, FOUNDATION)
    else:
        from retemper.evaluation.robustness import stage as robustness

        robustness.run(job_project, FOUNDATION)


def project(folder: Path, run: Run, stages: Sequence[str]) -> Path:
    """A project folder for `run`: links to the project's folders, to what its settings name and to `stages`."""
    for name in dict.fromkeys([*LINKED, *places(run.settings, run.root)]):
        if (run.root / name).exists():
            _link(folder / name, run.root / name)
    for kind in stages:
        job = Job(kind, run.folders[kind], run)
        output = job.output.parent
        _link(folder / output.relative_to(job.folder), output)
    return folder


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)


def _run(job: Job, spent: Callable[[], float]) -> None:
    """Train, evaluate and measure one run; its result is written last."""
    from retemper.evaluation import stage
    from retemper.finetune import collect, planning
    from retemper.finetune.mace.train import train
    from retemper.study.result import gather
    from retemper.study.result_files import keep

    run, settings = job.run, job.run.settings
    project_folder = project(job.folder, run, [kind for kind in run.folders if kind != "whole"])
    (plan,) = planning.plans(Project(project_folder, settings), run.name)
    folder = run.root / ".cache/training" / plan.key

    def note(epoch: dict[str, float]) -> None:
        spent()

    train(plan, folder, note)
    for name in CHECKPOINTS:
        (folder.with_name(plan.trained.key) / name).unlink(missing_ok=True)
    collect.collect(Project(project_folder, settings), run.name, [plan], [folder], {})
    processes.release_memory()
    stage.run(Project(project_folder, settings), run.name)
    processes.release_memory()
    if settings.robustness.metrics:
        from retemper.evaluation.robustness import stage as robustness

        robustness.run(Project(project_folder, settings), run.name)
    keep(job.output, gather(Project(project_folder, settings), run, spent))
    shutil.rmtree(project_folder / "runs", ignore_errors=True)
    for path in project_folder.iterdir():
        if path.is_symlink():
            path.unlink()
