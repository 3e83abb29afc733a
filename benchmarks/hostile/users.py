"""Two users with a project each, side by side on one MLflow server: is anything doubled, lost or left?

    python -m benchmarks.hostile.users WORK --number 200             # one registered model that both share
    python -m benchmarks.hostile.users WORK --number 200 --apart     # a model each
    python -m benchmarks.hostile.users WORK --report

Each user runs random commands one after the other, both at the same time, against a real ``mlflow server``. Every
promotion and rollback has a reason of its own, by which its move is found afterwards. The commands are lines of
``WORK/users.jsonl``; the faults that remain at the end are in ``WORK/faults.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile import project

sys.path.insert(0, str(project.ROOT / "tests"))
import servers

NAMES = ("ada", "bob")
PREPARED = ("dvc repro",)  # both users come with all its results, and neither is on the server yet
COMMANDS = {  # how often, of 100; {model} is a registered model, {name} and {other} versions or aliases of it
    "retemper sync": 14,
    "dvc repro -f -s register@naive": 6,
    "dvc repro promote": 6,
    "dvc repro -f -s promote": 6,
    "retemper promote {name} --reason {reason}": 16,
    "retemper promote {name} --alias challenger --reason {reason}": 8,
    "retemper promote {name}": 5,
    "retemper rollback {model} --reason {reason}": 10,
    "retemper models": 6,
    "retemper show {name}": 6,
    "retemper compare {name} {other}": 5,
    "retemper export {name} --to model --out exported": 4,
    "retemper lineage {hash}": 2,
    "retemper evaluate {strategy} --metrics short_range --out measured": 1,
    "dvc exp run -S finetune.epochs=1 finetune@naive register@naive": 1,
    "new seed": 2,
    "new epochs": 2,
}


class User:
    """A person with a clone; `system` is the registered model."""

    def __init__(self, name: str, folder: Path, variables: dict[str, str], chance: random.Random, system: str):
        self.name, self.folder, self.chance, self.system = name, folder, chance, system
        self.variables = {**variables, "USER": name, "LOGNAME": name}
        self.number = 0

    def run(self, command: str, timeout: float = 1200.0) -> dict[str, Any]:
        """A command to its end, as a line of the record."""
        ended = project.run(self.folder, command, timeout=timeout, **self.variables)
        self.number += 1
        return {
            "user": self.name,
            "number": self.number,
            "command": command,
            "status": ended.status,
            "seconds": round(ended.seconds, 1),
            "traceback": ended.traceback,
            "left": ended.left,
            "text": ended.text[-2500:],
        }

    def next(self, versions: int) -> str:
        """A random command; `versions` is how many there are on the server."""
        pattern = self.chance.choices(list(COMMANDS), list(COMMANDS.values()))[0]
        if pattern.startswith("new "):
            return self.change(pattern)
        names = [f"{self.system}/{k}" for k in range(1, max(versions, 1) + 1)]
        names += [f"{self.system}@{alias}" for alias in ("champion", "challenger", "candidate")]
        return pattern.format(
            model=self.system,
            name=self.chance.choice(names),
            other=self.chance.choice(names),
            reason=f"{self.name}-{self.number + 1}",
            strategy=self.chance.choice(project.SETTINGS["strategies"]),
            hash=self.data_hash(),
        )

    def data_hash(self) -> str:
        """The hash by which DVC knows the training data."""
        found = re.search(
            r"path: runs/dataset\n\s+hash: md5\n\s+md5: ([0-9a-f]{12})", (self.folder / "dvc.lock").read_text()
        )
        return found.group(1) if found else "0" * 12

    def change(self, what: str) -> str:
        """Other settings, so that ``dvc repro`` trains and registers models that were not there."""
        seeds = [1, 2]
        finetune = dict(project.SETTINGS["finetune"])
        if what == "new seed":
            seeds = [1, self.chance.randint(3, 99)]
        else:
            finetune["epochs"] = self.chance.choice([1, 2, 3])
        project.settings(self.folder, system=self.system, seeds=seeds, finetune=finetune)
        return "dvc repro promote"


class Server:
    """What stands on the server, by MLflow's own client."""

    def __init__(self, uri: str):
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def versions(self, system: str) -> list[Any]:
        return list(self.client.search_model_versions(f"name = '{system}'", max_results=1000))

    def runs(self) -> list[Any]:
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, max_results=5000))


def prepare(work: Path, source: Path, systems: dict[str, str]) -> None:
    """One project with models, registered and judged on its own; both users get a copy without its store."""
    if not (work / "prepared").exists():
        folder = work / "prepared-once" / "project"
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir(parents=True)
        project.make(folder, source)
        project.run_all(folder, PREPARED)
        for path in (*folder.glob("mlflow.db*"), folder / "mlartifacts"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.rename(work / "prepared")
    for name, system in systems.items():
        shutil.rmtree(work / name, ignore_errors=True)
        shutil.copytree(work / "prepared", work / name / "project", symlinks=True)
        project.settings(work / name / "project", system=system)
        project.commit(work / name / "project", "Trained")


def campaign(work: Path, source: Path, number: int, seed: int, apart: bool) -> None:
    """Both users' commands at the same time, then a last `retemper sync` of each, then what is wrong."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    systems = {name: f"nacl-{name}" if apart else "nacl" for name in NAMES}
    prepare(work, source, systems)
    folder = work / "server"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    store = (
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    )
    record: list[dict[str, Any]] = []
    lock = threading.Lock()
    with servers.open_mlflow(folder, *store) as variables:
        os.environ.update(variables)
        server = Server(variables["MLFLOW_TRACKING_URI"])
        server.runs()  # its first answer takes long

        def note(line: dict[str, Any]) -> None:
            with lock:
                record.append(line)
                with (work / "users.jsonl").open("a") as file:
                    file.write(json.dumps({"seed": seed, "apart": apart, **line}) + "\n")
                print(
                    f"{len(record)} {line['user']}: {line['command']}: {line['status']}, {line['seconds']} s",
                    flush=True,
                )

        def work_off(user: User) -> None:
            note(user.run("retemper sync"))
            for _ in range(number // 2 - 1):
                note(user.run(user.next(len(server.versions(user.system)))))

        users = [
            User(name, work / name / "project", variables, random.Random(f"{seed}/{name}"), systems[name])
            for name in NAMES
        ]
        (work / "users.jsonl").unlink(missing_ok=True)
        threads = [threading.Thread(target=work_off, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for user in users:
            note(user.run("retemper sync"))
        faults = [*faults_of_commands(record), *faults_of_server(server, users, record)]
        faults += [f"server: {line}" for line in faults_in_log(folder / "log")]
    (work / "faults.json").write_text(json.dumps(faults, indent=1))
    print(report(record, faults))


def faults_of_commands(record: list[dict[str, Any]]) -> Iterator[str]:
    """Tracebacks, processes left behind, and refusals that do not say what they refuse."""
    for line in record:
        called = f"{line['user']} {line['number']}, {line['command']}"
        if line["traceback"]:
            yield f"traceback: {called}: {line['text'].strip().splitlines()[-1][:200]}"
        elif line["status"] < 0:
            yield f"ended by signal {-line['status']}: {called}"
        elif line["status"] and not re.search(r"error: |ERROR: ", line["text"]):
            yield f"failed without a word: {called}"
        yield from (f"left running: {called}: {name}" for name in line["left"])


def faults_in_log(path: Path) -> list[str]:
    """Errors that the server did not answer as such."""
    lines = path.read_text(errors="replace").splitlines()
    return sorted(
        {line[:200] for line in lines if re.search(r"IntegrityError|Traceback|\b500\b|database is locked", line)}
    )


def faults_of_server(server: Server, users: list[User], record: list[dict[str, Any]]) -> Iterator[str]:
    """What must not be: doubles, runs without an end, locks without an owner, aliases and moves out of step."""
    for run in server.runs():
        if run.info.status not in ("FINISHED", "FAILED", "KILLED"):
            yield f"run {run.info.run_name} is {run.info.status}"
    same = Counter(  # what both have trained is a run of each
        tuple(run.data.tags.get(f"retemper.{name}") for name in ("strategy", "seed", "key", "checkout"))
        for run in server.runs()
        if "retemper.superseded" not in run.data.tags and "retemper.key" in run.data.tags
    )
    yield from (f"run {name} is there {count} times" for name, count in same.items() if count > 1)
    for system in sorted({user.system for user in users}):
        versions = server.versions(system)
        content = Counter((v.tags.get("sha256"), v.tags.get("strategy"), v.tags.get("seed")) for v in versions)
        yield from (f"{system}: {count} versions of {name}" for name, count in content.items() if count > 1)
        yield from (f"{system}/{v.version} is {v.status}" for v in versions if v.status != "READY")
        yield from (f"{system}/{v.version} has no sha256" for v in versions if "sha256" not in v.tags)
        yield from _moves(server, system, [user for user in users if user.system == system], record)
    for model in server.client.search_registered_models(max_results=1000):
        if model.name not in {user.system for user in users}:
            yield f"registered model {model.name} is left"


def _moves(server: Server, system: str, users: list[User], record: list[dict[str, Any]]) -> Iterator[str]:
    at = dict(server.client.get_registered_model(system).aliases)
    aliases = {
        alias: server.client.get_model_version(system, str(at[alias])).tags.get("sha256") if alias in at else None
        for alias in ("champion", "challenger")
    }
    histories = {}
    for user in users:
        path = user.folder / "promotions.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        histories[user.name] = [line for line in lines if line["system"] == system]
    yield from (f"{system}: {fault}" for fault in out_of_step(aliases, histories, record))


def out_of_step(
    aliases: dict[str, str | None], histories: dict[str, list[dict[str, Any]]], record: list[dict[str, Any]]
) -> Iterator[str]:
    """A successful command's move is in every history once, a refused one's is not; the aliases follow from them.

    Parameters
    ----------
    aliases : dict
        Sha256 of the weights that each alias stands for on the server; `None` without.
    histories : dict
        Moves by user, as in ``promotions.jsonl``.
    record : list
        Commands of all users, as `User.run` gives them.
    """
    for name, history in histories.items():
        reasons = Counter(move["reason"] for move in history)
        for line in record:
            found = re.search(r"--reason (\S+)", line["command"])
            if found is None or line["user"] not in histories:
                continue
            happened = re.search(r" (now|again)$", line["text"], re.MULTILINE) is not None
            wanted = 1 if line["status"] == 0 and happened else 0
            there = reasons[found.group(1)]
            if there != wanted:
                yield f"the history of {name} has {there} moves for {line['command']}, not {wanted}"
        last: dict[str, Any] = {}
        for move in history:
            last[move["alias"]] = move["to"]
        for alias, sha256 in aliases.items():
            told = (last.get(alias) or {}).get("sha256")
            if sha256 != told:
                yield f"{alias} is {sha256}, the history of {name} ends with {told}"
        identities = Counter(move["id"] for move in history)
        yield from (f"move {i} is {n} times in the history of {name}" for i, n in identities.items() if n > 1)
    if len({json.dumps(sorted(move["id"] for move in history)) for history in histories.values()}) > 1:
        counts = {name: len(history) for name, history in histories.items()}
        yield f"the histories differ: {counts}"


def report(record: list[dict[str, Any]], faults: list[str]) -> str:
    """Commands by kind with how they ended, and the faults."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for line in record:
        words = line["command"].split()
        kind = " ".join(words[:2])
        first = next((text for text in line["text"].splitlines() if "error: " in text.lower()), "")
        kinds[kind][
            "done" if line["status"] == 0 else f"refused: {re.sub(r'[0-9a-f]{8,}|[0-9]+', '#', first)[:90]}"
        ] += 1
    rows = ["| command | times | outcome |", "|---|---|---|"]
    for kind, outcomes in sorted(kinds.items()):
        text = "; ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        rows.append(f"| `{kind}` | {outcomes.total()} | {text} |")
    return "\n".join([*rows, "", f"{len(record)} commands, {len(faults)} faults", *(f"- {fault}" for fault in faults)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile.users", description=__doc__)
    parser.add_argument("work", type=Path, help="folder of the projects, the server and the results")
    parser.add_argument("--number", type=int, default=200, help="commands of both users together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--apart", action="store_true", help="a registered model each")
    parser.add_argument("--source", type=Path, default=project.ROOT, help="repository whose last commit is tried")
    parser.add_argument("--report", action="store_true", help="the table of the results that are there")
    options = parser.parse_args()
    if options.report:
        lines = [json.loads(line) for line in (options.work / "users.jsonl").read_text().splitlines()]
        print(report(lines, json.loads((options.work / "faults.json").read_text())))
    else:
        campaign(options.work, options.source.resolve(), options.number, options.seed, options.apart)


if __name__ == "__main__":
    main()
