"""A study from its file to its table: what is there is skipped, what is missing is run, what fails is a row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from retemper.core import executor, processes, ray_session, sealed
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.records.result import Failure, Result
from retemper.study import cost, kept, report, table, tracking
from retemper.study.jobs import Job, Outcome, jobs
from retemper.study.places import CACHE, RESULTS, spent_on
from retemper.study.plan import Run, runs
from retemper.study.spec import Study, load


def run(path: Path, root: Path, *, retry: bool = False, again: bool = False) -> None:
    """Run what is missing of the study in `path` and write its table and report.

    `retry` tries failed runs again; those whose process died are tried again in any case. `again` runs those again
    whose result other code made.

    Raises
    ------
    RetemperError
        A study that is wrong, or that runs already.
    """
    study = load(path)
    every = runs(study, root)
    (root / CACHE).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / CACHE / f"{study.name}.lock", timeout=0):
            forget(every, retry, again)
            driver = Driver(study, every, root)
            log.info(driver.plan())
            tracking.sync(root, study, every)
            try:
                driver.work_off()
            finally:
                table.write(table.make(study, every), table.place(study, root))
            log.info(f"{report.write(study, every, root)}\n{driver.counts()}")
    except Timeout:
        raise RetemperError(f"Study {study.name} runs already.", fix="wait for it, or end it") from None


def dry(path: Path, root: Path) -> str:
    """How many runs a study has, how many are there, and how long the others will take."""
    study = load(path)
    return Driver(study, runs(study, root), root).plan()


def forget(every: Sequence[Run], retry: bool = False, again: bool = False) -> None:
    """Delete the results of runs that are to be tried again; what is damaged of results and stages is put aside."""
    for job in jobs(every):
        if job.kind != "run" and job.done:
            sealed.check_folder(job.folder, job.key)
    for one in every:
        path = one.root / RESULTS / f"{one.key}.json"
        found = kept.load(path)
        if found is None:
            continue
        failure = found if isinstance(found, Failure) else None
        if (failure and (failure.died or retry)) or (again and other_code(one, found)):
            path.unlink()


def other_code(run_: Run, found: Result | Failure) -> list[str]:
    """Stages whose code is not what made the result `found` of `run_`; all of them where it does not say."""
    if isinstance(found, Failure):
        return []
    return [stage for stage, code in run_.code.items() if found.code.get(stage) != code]


class Driver:
    """Knows what a study still needs, starts it, and records what came of it."""

    def __init__(self, study: Study, every: Sequence[Run], root: Path):
        self.study, self.every, self.root = study, list(every), root
        self.by_key = {one.key: one for one in self.every}
        self.jobs = jobs(self.every)
        self.model = cost.fit(self.root)
        self.stages = cost.of_stages(self.jobs)
        self.device = self.every[0].settings.finetune.device
        if study.budget is not None and (study.budget.gpu_hours is None) != (self.device == "cpu"):
            raise RetemperError(
                f"The budget of study {study.name} is not in what it uses.",
                expected="cpu_hours on a CPU, gpu_hours on a GPU",
                got=f"finetune.device {self.device}",
                fix="change budget, or base.finetune.device",
            )
        self.counted = {job.name: self._spent(job) for job in self.jobs}  # CPU seconds so far
        self.promised: set[str] = set()  # names of the jobs under way, and of the runs for whose sake stages are
        self.refused: set[str] = set()  # names of the runs that did not fit into the budget

    def _spent(self, job: Job) -> float:
        """CPU seconds that a job has taken: of a run that is done by its result, which may come from elsewhere."""
        return self._result(job).cpu_seconds if job.kind == "run" and job.done else spent_on(job.folder)

    @property
    def spent(self) -> float:
        """CPU seconds that all jobs have taken."""
        return sum(self.counted.values())

    def _result(self, job: Job) -> Result | Failure:
        found = kept.load(job.output)
        if found is None:
            raise RetemperError(f"{job.output} is not there any more, or was damaged.", fix="run the study again")
        return found

    @property
    def missing(self) -> list[Job]:
        """Runs without a result, and the stages that they need and that are not there."""
        runs_left = [job for job in self.jobs if job.kind == "run" and not job.done]
        needed = {need for job in runs_left for need in job.needs}
        for job in reversed(self.jobs):
            if job.name in needed:
                needed |= set(job.needs)
        return [job for job in self.jobs if not job.done and (job.kind == "run" or job.name in needed)]

    def expected(self, job: Job) -> float:
        """Seconds of a job; of a run without a fit its work."""
        return self.model.of(job.run) if job.kind == "run" else self.stages.get(job.kind, 0.0)

    def left(self) -> float | None:
        """Expected CPU seconds of what is missing; `None` without finished runs to judge by."""
        return sum(self.expected(job) for job in self.missing) if self.model.runs else None

    def plan(self) -> str:
        """What there is to do, in words."""
        missing = [job for job in self.missing if job.kind == "run"]
        there = len(self.by_key) - len(missing)
        by_design = Counter(design for one in self.every for design in one.designs)
        lines = [
            f"{self.study.name}: {len(self.by_key)} runs ({', '.join(f'{n} of {d}' for d, n in by_design.items())}), "
            f"{there} are there, {len(missing)} to run"
        ]
        other = [other_code(job.run, self._result(job)) for job in self.jobs if job.kind == "run" and job.done]
        if any(other):
            stages = ", ".join(dict.fromkeys(stage for one in other for stage in one))
            lines.append(
                f"{sum(map(bool, other))} of those that are there were made by other code than today's ({stages}): "
                "--again runs them again"
            )
        if missing and (left := self.left()) is not None:
            lines.append(
                f"estimate from {self.model.runs} finished runs (a run is off by a factor of {self.model.spread:.2f}): "
                f"{hours(left)} of one core left, {hours(left / processes.cores())} on {processes.cores()} cores here"
            )
        elif missing:
            lines.append("no run is finished: how long they take is not known yet; ask again after some")
        if self.study.budget is not None:
            lines.append(f"budget: {hours(self.spent)} of {hours(self.study.budget.seconds)} are spent")
        return "\n".join(lines)

    def counts(self) -> str:
        """How many runs ended how."""
        states = Counter(table.make(self.study, self.every)["state"])
        return f"{self.study.name}: " + ", ".join(f"{number} {state}" for state, number in sorted(states.items()))

    def work_off(self) -> None:
        """Run everything that is missing: here, or on the cluster that ``RAY_ADDRESS`` names; Ray hands out GPUs."""
        missing = self.missing
        if not missing:
            return
        from retemper.study.schedule import work_off
        from retemper.sweep import resources

        gpus = resources.gpus(self.every[0].settings)
        cluster = ray_session.address() != ray_session.LOCAL or gpus > 0
        words = self.root / CACHE / f"{self.study.name}.log"
        words.unlink(missing_ok=True)
        with executor.Executor(cluster=cluster, gpus=gpus, device=self.device, log=words) as pool:
            work_off(missing, {job.name: self.expected(job) for job in missing}, pool, self.may_start, self.ended)

    def may_start(self, job: Job) -> bool:
        """Whether the budget allows a run, or for a stage one of the runs that need it, beside those that are promised.

        A run is promised when the first of its stages starts, with its cost and that of all its missing stages: no
        stage is computed for runs that will not be started.
        """
        if self.study.budget is None:
            return True
        missing = {one.name: one for one in self.missing}
        of = [one for name, one in missing.items() if one.kind == "run" and job.name in (name, *one.needs)]
        of = [one for one in of if one.name not in self.refused]
        for one in sorted(of, key=lambda one: one.name not in self.promised):
            promised = {*self.promised, job.name, one.name}
            needed = promised.union(*(missing[name].needs for name in promised & missing.keys()))
            left = sum(self._priced(missing[name]) for name in needed & missing.keys())
            if self.spent + left <= self.study.budget.seconds:
                self.promised = promised
                return True
        self.refused.update(one.name for one in of)
        self.promised -= self.refused
        return False

    def _priced(self, job: Job) -> float:
        """Expected CPU seconds of a job as the budget counts them: none where nothing is known."""
        return self.expected(job) if job.kind != "run" or self.model.runs else 0.0

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Record how a job ended, and say so."""
        self.promised.discard(job.name)
        self.counted[job.name] = outcome.cpu_seconds  # in all, those before a kill included
        if job.kind != "run":
            self.stages = cost.of_stages(self.jobs)
            what = f"{outcome.cpu_seconds:.0f} CPU-s" if outcome.failed is None else f"failed: {outcome.failed}"
            log.info(f"  {job.kind} of {job.run.settings.system}: {what}")
            return
        if outcome.failed is not None and not job.done:
            failure = Failure(cpu_seconds=outcome.cpu_seconds, failed=outcome.failed, died=outcome.died)
            kept.keep(job.output, failure)
        self.model = cost.fit(self.root)
        tracking.record(self.root, self.study, job.run)
        left = [one for one in self.missing if one.kind == "run"]
        total = self.left()
        when = "" if total is None or not left else f", about {hours(total / processes.cores())}"
        log.info(f"{time.strftime('%H:%M:%S')} {words(job.run, self._result(job))}; {len(left)} left{when}")


def words(run_: Run, found: Result | Failure) -> str:
    """One line about a run that ended."""
    if isinstance(found, Failure):
        return f"{run_.words()}: failed: {found.failed}"
    values = found.values
    text = f"{run_.words()}: forces {values['target.force_rmse']:.1f} meV/A"
    if "forgetting_ratio" in values:
        text += f", forgetting {values['forgetting_ratio']:.3g}"
    return f"{text}, {found.cpu_seconds:.0f} CPU-s"


def hours(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
