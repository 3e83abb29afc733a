"""Random kills: is a project that was killed and run again the same as one that was left alone?

    python -m benchmarks.hostile.kills WORK --number 100               # over all stages in turn; goes on where it was
    python -m benchmarks.hostile.kills WORK --number 10 --stages sweep study
    python -m benchmarks.hostile.kills WORK --report                   # the table of what is there

In each trial a command gets SIGKILL (its process group, or itself alone) at a random time of its undisturbed duration,
is started again at once, one time in four killed again, and run to its end. Then files, registry, runs and commits are
compared with an undisturbed run from the same beginning. Results are lines of ``WORK/kills.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hostile import project, state

TOLERANCE = 1e-6  # of a number: resumed trainings differ from unbroken ones by rounding
TRIES = 4


@dataclass
class Stage:
    """A command with the stage whose end is its beginning, and what is changed before it."""

    command: str
    after: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    again: Callable[[Path, project.Ended], str | None] | None = None  # the command after a kill, where it is another
    view: Callable[[state.State], state.State] = dict  # what of the state must be equal


NOTHING_BEGUN = "No round has begun"


def _round_again(folder: Path, ended: project.Ended) -> str | None:
    """What finishes a round after `ended`: it goes on where it has begun, and is done when it is committed."""
    if NOTHING_BEGUN not in ended.text:
        return "retemper round --resume"
    done = subprocess.run(["git", "-C", str(folder), "log", "--format=%s"], capture_output=True, text=True, check=True)
    return None if "Round 1 of" in done.stdout else "retemper round"


STAGES = {
    "data": Stage("dvc repro dataset e0s replay pseudolabel"),
    "training": Stage("dvc repro finetune", "data"),
    "evaluation": Stage("dvc repro evaluate robustness", "training"),
    "registration": Stage("dvc repro register", "evaluation"),
    "promotion": Stage("dvc repro promote report", "registration"),
    "round": Stage("retemper round", "promotion", again=_round_again),
    "sweep": Stage("dvc repro sweep@naive", "data", {"sweep": {"trials": 2}}, view=state.without_numbers_of_trials),
    "study": Stage("retemper study studies/few.yaml"),
}


class Campaign:
    """Snapshots, undisturbed runs and results under one folder."""

    def __init__(self, work: Path, source: Path, seed: int, references: int):
        self.work, self.source, self.seed, self.count = work.resolve(), source, seed, references
        self.folder = self.work / "project"
        self.results = self.work / "kills.jsonl"
        self.work.mkdir(parents=True, exist_ok=True)

    def snapshot(self, name: str) -> Path:
        return self.work / f"snapshot-{name}"

    def before(self, name: str) -> None:
        """The project as it is when the stage begins."""
        stage = STAGES[name]
        if stage.after is None:
            if not self.snapshot("clone").exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                project.keep(project.make(self.folder, self.source), self.snapshot("clone"))
            project.restore(self.folder, self.snapshot("clone"))
        else:
            self.references(stage.after)
            project.restore(self.folder, self.snapshot(stage.after))
        if stage.settings:
            project.settings(self.folder, **stage.settings)
        project.commit(self.folder, f"Before {name}")

    def beginning(self, name: str) -> None:
        """The same beginning for every run of a stage: made once, with its commit."""
        if not self.snapshot(f"before-{name}").exists():
            self.before(name)
            project.keep(self.folder, self.snapshot(f"before-{name}"))
        project.restore(self.folder, self.snapshot(f"before-{name}"))

    def references(self, name: str) -> tuple[list[state.State], float]:
        """States after undisturbed runs, and the shortest duration (s); made once, kept in files."""
        path = self.work / f"undisturbed-{name}.json"
        if not path.exists():
            states, seconds = [], []
            for _ in range(self.count):
                self.beginning(name)
                ended = project.run(self.folder, STAGES[name].command)
                if ended.status:
                    raise RuntimeError(f"{name} fails undisturbed:\n{ended.text[-4000:]}")
                states.append(state.read(self.folder))
                seconds.append(ended.seconds)
                if ended.left or ended.traceback:
                    print(f"{name}, undisturbed: left {ended.left}, traceback {ended.traceback}", flush=True)
            project.keep(self.folder, self.snapshot(name))
            path.write_text(json.dumps([states, min(seconds)]))
        states, shortest = json.loads(path.read_text())
        return states, shortest

    def trial(self, name: str, number: int) -> dict[str, Any]:
        """One trial: kill, run again, compare."""
        states, duration = self.references(name)
        chance = random.Random(f"{self.seed}/{name}/{number}")
        stage = STAGES[name]
        self.beginning(name)
        begin, kills, runs = time.monotonic(), [], []
        command: str | None = stage.command
        wanted = 2 if chance.random() < 0.25 else 1
        while command is not None and len(runs) < TRIES + wanted:
            kill = chance.uniform(0.02, 0.98) * duration if len(kills) < wanted else None
            group = chance.random() < 0.5
            ended = project.run(self.folder, command, kill_after=kill, group=group)
            runs.append(ended)
            if ended.killed:
                kills.append({"after": round(kill or 0.0, 2), "group": group, "last": ended.text.splitlines()[-1:]})
            elif ended.status == 0:
                break
            elif NOTHING_BEGUN not in ended.text:
                time.sleep(5)
            command = stage.again(self.folder, ended) if stage.again else stage.command
        ended_well = command is None or runs[-1].status == 0
        left = [name for ended in runs for name in (*ended.left, *project.end_all(ended.mark))]
        states = [stage.view(one) for one in states]
        ignored, after = state.volatile(states), stage.view(state.read(self.folder))
        return {
            "stage": name,
            "number": number,
            "seed": self.seed,
            "source": self.commit(),
            "kills": kills,
            "duration": round(duration, 1),
            "seconds": round(time.monotonic() - begin, 1),
            "failed": [r.text[-1500:] for r in runs if r.status > 0 and NOTHING_BEGUN not in r.text],
            "tracebacks": [r.text[-3000:] for r in runs if r.traceback],
            "left": left,
            "ended": ended_well,
            "differences": state.differences(states[0], after, ignored, TOLERANCE),
            "exact": not state.differences(states[0], after, ignored),
        }

    def commit(self) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.source), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        return done.stdout.strip()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []

    def go(self, stages: list[str], number: int) -> None:
        """Trials in turn over the stages until `number` kills are counted in all."""
        turn = 0
        while (done := sum(len(line["kills"]) for line in self.lines() if line["stage"] in stages)) < number:
            name = stages[turn % len(stages)]
            own = [line["number"] for line in self.lines() if line["stage"] == name and line["seed"] == self.seed]
            turn += 1
            line = self.trial(name, max(own, default=-1) + 1)
            with self.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{done + len(line['kills'])}/{number} {summary(line)}", flush=True)


def summary(line: dict[str, Any]) -> str:
    """A trial in a line."""
    when = ", ".join(f"{kill['after']:.0f} s {'group' if kill['group'] else 'parent'}" for kill in line["kills"])
    faults = [f"{len(line['differences'])} differences"] if line["differences"] else []
    faults += ["did not end"] if not line["ended"] else []
    faults += [f"{len(line[name])} {name}" for name in ("tracebacks", "left", "failed") if line[name]]
    called = f"{line['stage']} #{line['number']} of {line['duration']} s, killed at {when or 'no time'}"
    return f"{called}: {', '.join(faults) or 'equal'}"


def table(lines: list[dict[str, Any]]) -> str:
    """The outcome by stage, in Markdown."""
    rows = [
        "| stage | kills | trials | equal | bit by bit | differing | other faults |",
        "|---|---|---|---|---|---|---|",
    ]
    every = [line for line in lines if line["kills"]]
    for name in [*STAGES, "all"]:
        own = [line for line in every if name in (line["stage"], "all")]
        if not own:
            continue
        faults = Counter(
            fault
            for line in own
            for fault, there in (
                ("traceback", line["tracebacks"]),
                ("a process left", line["left"]),
                ("a command to repeat", line["failed"]),
                ("never ended", not line["ended"]),
            )
            if there
        )
        cells = [name, sum(len(line["kills"]) for line in own), len(own), sum(not line["differences"] for line in own),
                 sum(line["exact"] for line in own), sum(bool(line["differences"]) for line in own),
                 ", ".join(f"{fault} {number}" for fault, number in faults.items()) or "none"]  # fmt: skip
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile.kills", description=__doc__)
    parser.add_argument("work", type=Path, help="folder of the project, its snapshots and the results")
    parser.add_argument("--number", type=int, default=100, help="kills in all")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--references", type=int, default=2, help="undisturbed runs of each stage; two or more")
    parser.add_argument("--source", type=Path, default=project.ROOT, help="repository whose last commit is tried")
    parser.add_argument("--report", action="store_true", help="the table of the results that are there")
    options = parser.parse_args()
    campaign = Campaign(options.work, options.source.resolve(), options.seed, options.references)
    if not options.report:
        campaign.go(options.stages, options.number)
    print(table(campaign.lines()))


if __name__ == "__main__":
    main()
