"""Which git commits hold the data of registered versions, so that `dvc gc` can spare it. No MLflow here.

The commit that a run was started from is not the one: `dvc.lock` of that run is committed after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from retemper.core import vcs

Hashes = frozenset[str]


def data_hashes(tags: Mapping[str, str]) -> Hashes:
    """The DVC hashes that a version came of."""
    return frozenset(str(value) for name, value in tags.items() if name.startswith("dvc."))


def newest_commits(root: Path, hash_sets: Iterable[Hashes]) -> dict[Hashes, str]:
    """The newest commit, of any branch or tag, whose ``dvc.lock`` has all hashes of a set; absent: there is none."""
    remaining = {hashes for hashes in hash_sets if hashes}
    commits: dict[Hashes, str] = {}
    for commit in (vcs.ask(root, "rev-list", "--all", "--date-order", "--", "dvc.lock") or "").split():
        if not remaining:
            break
        lock = vcs.ask(root, "show", f"{commit}:./dvc.lock") or ""
        for hashes in [hashes for hashes in remaining if all(value in lock for value in hashes)]:
            commits[hashes] = commit
            remaining.discard(hashes)
    return commits


def spare(root: Path, versions: Mapping[str, Hashes]) -> list[str]:
    """How to keep the data of registered versions from `dvc gc`, in lines.

    Parameters
    ----------
    versions
        Hashes of the data by the name of the version.
    """
    commit_of = newest_commits(root, versions.values())
    commits = sorted({commit_of[hashes] for hashes in versions.values() if hashes in commit_of})
    lines = []
    if commits:
        tags = " && ".join(f"git tag -f retemper/{commit[:10]} {commit[:10]}" for commit in commits)
        lines += ["before `dvc gc`, keep the data of the registered versions:"]
        lines += [f"  {tags} && dvc gc --workspace --all-tags"]
    bare = [name for name, hashes in versions.items() if hashes and hashes not in commit_of]
    if bare:
        lines += [f"no commit here has the data of {', '.join(bare)} in its dvc.lock: `dvc gc` would remove what the"]
        lines += ["working tree does not use either; git add dvc.lock && git commit, or fetch the branch that has it"]
    return lines
