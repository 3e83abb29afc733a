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
from retemper.study import cost, report, result_files, table, tracking
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
    study_runs = runs(study, root)
    (root / CACHE).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / CACHE / f"{study.name}.lock", timeout=0):
            forget(study_runs, retry, again)
            driver = Driver(study, study_runs, root)
            log.info(driver.plan())
            tracking.sync(root, study, study_runs)
            try:
                driver.work_off()
            finally:
                table.write(table.make(study, study_runs), table.place(study, root))
            log.info(f"{report.write(study, study_runs, root)}\n{driver.counts()}")
    except Timeout:
        raise RetemperError(f"Study {study.name} runs already.", fix="wait for it, or end it") from None


def dry(path: Path, root: Path) -> str:
    """How many runs a study has, how many are there, and how long the others will take."""
    study = load(path)
    return Driver(study, runs(study, root), root).plan()


def forget(study_runs: Sequence[Run], retry: bool = False, again: bool = False) -> None:
    """Delete the results of runs that are to be tried again; what is damaged of results and stages is put aside."""
    for job in jobs(study_runs):
        if job.kind != "run" and job.done:
            sealed.check_folder(job.folder, job.key)
    for study_run in study_runs:
        path = study_run.root / RESULTS / f"{study_run.key}.json"
        result = result_files.load(path)
        if result is None:
            continue
        failure = result if isinstance(result, Failure) else None
        if (failure and (failure.died or retry)) or (again and other_code(study_run, result)):
            path.unlink()


def other_code(study_run: Run, result: Result | Failure) -> list[str]:
    """Stages whose code is not what made the result `result` of `study_run`; all of them where it does not say."""
    if isinstance(result, Failure):
        return []
    return [stage for stage, code in study_run.code.items() if result.code.get(stage) != code]


class Driver:
    """Knows what a study still needs, starts it, and records what came of it."""

    def __init__(self, study: Study, study_runs: Sequence[Run], root: Path):
        self.study, self.study_runs, self.root = study, list(study_runs), root
        self.by_key = {study_run.key: study_run for study_run in self.study_runs}
        self.jobs = jobs(self.study_runs)
        self.model = cost.fit(self.root)
        self.stages = cost.stage_seconds(self.jobs)
        self.device = self.study_runs[0].settings.finetune.device
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
        result = result_files.load(job.output)
        if result is None:
            raise RetemperError(f"{job.output} is not there any more, or was damaged.", fix="run the study again")
        return result

    @property
    def missing(self) -> list[Job]:
        """Runs without a result, and the stages that they need and that are not there."""
        runs_left = [job for job in self.jobs if job.kind == "run" and not job.done]
        needed = {need for job in runs_left for need in job.needs}
        for job in reversed(self.jobs):
            if job.name in needed:
                needed |= set(job.needs)
        return [job for job in self.jobs if not job.done and (job.kind == "run" or job.name in needed)]

    def expected_seconds(self, job: Job) -> float:
        """Seconds of a job; of a run without a fit its work."""
        return self.model.seconds(job.run) if job.kind == "run" else self.stages.get(job.kind, 0.0)

    def seconds_left(self) -> float | None:
        """Expected CPU seconds of what is missing; `None` without finished runs to judge by."""
        return sum(self.expected_seconds(job) for job in self.missing) if self.model.runs else None

    def plan(self) -> str:
        """What there is to do, in words."""
        missing = [job for job in self.missing if job.kind == "run"]
        finished = len(self.by_key) - len(missing)
        by_design = Counter(design for study_run in self.study_runs for design in study_run.designs)
        lines = [
            f"{self.study.name}: {len(self.by_key)} runs ({', '.join(f'{n} of {d}' for d, n in by_design.items())}), "
            f"{finished} are there, {len(missing)} to run"
        ]
        stale = [other_code(job.run, self._result(job)) for job in self.jobs if job.kind == "run" and job.done]
        if any(stale):
            stages = ", ".join(dict.fromkeys(stage for stages_of_run in stale for stage in stages_of_run))
            lines.append(
                f"{sum(map(bool, stale))} of those that are there were made by other code than today's ({stages}): "
                "--again runs them again"
            )
        if missing and (seconds := self.seconds_left()) is not None:
            lines.append(
                f"estimate from {self.model.runs} finished runs (a run is off by a factor of {self.model.spread:.2f}): "
                f"{hours(seconds)} of one core left, {hours(seconds / processes.cores())} on {processes.cores()} "
                "cores here"
            )
        elif missing:
            lines.append("no run is finished: how long they take is not known yet; ask again after some")
        if self.study.budget is not None:
            lines.append(f"budget: {hours(self.spent)} of {hours(self.study.budget.seconds)} are spent")
        return "\n".join(lines)

    def counts(self) -> str:
        """How many runs ended how."""
        states = Counter(table.make(self.study, self.study_runs)["state"])
        return f"{self.study.name}: " + ", ".join(f"{number} {state}" for state, number in sorted(states.items()))

    def work_off(self) -> None:
        """Run everything that is missing: here, or on the cluster that ``RAY_ADDRESS`` names; Ray hands out GPUs."""
        missing = self.missing
        if not missing:
            return
        from retemper.study.schedule import work_off
        from retemper.sweep import resources

        gpus = resources.gpus(self.study_runs[0].settings)
        cluster = ray_session.address() != ray_session.LOCAL or gpus > 0
        words = self.root / CACHE / f"{self.study.name}.log"
        words.unlink(missing_ok=True)
        with executor.Executor(cluster=cluster, gpus=gpus, device=self.device, log=words) as pool:
            work_off(
                missing, {job.name: self.expected_seconds(job) for job in missing}, pool, self.may_start, self.record
            )

    def may_start(self, job: Job) -> bool:
        """Whether the budget allows a run, or for a stage one of the runs that need it, beside those that are promised.

        A run is promised when the first of its stages starts, with its cost and that of all its missing stages: no
        stage is computed for runs that will not be started.
        """
        if self.study.budget is None:
            return True
        missing = {candidate.name: candidate for candidate in self.missing}
        candidates = [
            candidate
            for name, candidate in missing.items()
            if candidate.kind == "run" and job.name in (name, *candidate.needs)
        ]
        candidates = [candidate for candidate in candidates if candidate.name not in self.refused]
        for candidate in sorted(candidates, key=lambda candidate: candidate.name not in self.promised):
            promised = {*self.promised, job.name, candidate.name}
            needed = promised.union(*(missing[name].needs for name in promised & missing.keys()))
            seconds = sum(self._price(missing[name]) for name in needed & missing.keys())
            if self.spent + seconds <= self.study.budget.seconds:
                self.promised = promised
                return True
        self.refused.update(candidate.name for candidate in candidates)
        self.promised -= self.refused
        return False

    def _price(self, job: Job) -> float:
        """Expected CPU seconds of a job as the budget counts them: none where nothing is known."""
        return self.expected_seconds(job) if job.kind != "run" or self.model.runs else 0.0

    def record(self, job: Job, outcome: Outcome) -> None:
        """Record how a job ended, and say so."""
        self.promised.discard(job.name)
        self.counted[job.name] = outcome.cpu_seconds  # in all, those before a kill included
        if job.kind != "run":
            self.stages = cost.stage_seconds(self.jobs)
            ending = f"{outcome.cpu_seconds:.0f} CPU-s" if outcome.failed is None else f"failed: {outcome.failed}"
            log.info(f"  {job.kind} of {job.run.settings.system}: {ending}")
            return
        if outcome.failed is not None and not job.done:
            failure = Failure(cpu_seconds=outcome.cpu_seconds, failed=outcome.failed, died=outcome.died)
            result_files.keep(job.output, failure)
        self.model = cost.fit(self.root)
        tracking.record(self.root, self.study, job.run)
        runs_left = [missing for missing in self.missing if missing.kind == "run"]
        total = self.seconds_left()
        when = "" if total is None or not runs_left else f", about {hours(total / processes.cores())}"
        log.info(f"{time.strftime('%H:%M:%S')} {words(job.run, self._result(job))}; {len(runs_left)} left{when}")


def words(study_run: Run, result: Result | Failure) -> str:
    """One line about a run that ended."""
    if isinstance(result, Failure):
        return f"{study_run.words()}: failed: {result.failed}"
    values = result.values
    text = f"{study_run.words()}: forces {values['target.force_rmse']:.1f} meV/A"
    if "forgetting_ratio" in values:
        text += f", forgetting {values['forgetting_ratio']:.3g}"
    return f"{text}, {result.cpu_seconds:.0f} CPU-s"


def hours(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
