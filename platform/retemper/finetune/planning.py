"""From settings and the files of earlier stages to the plans of one strategy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from retemper.config.project import Project
from retemper.config.settings import WEIGHT
from retemper.config.strategies import Point, Strategy, load
from retemper.core import sealed
from retemper.core.errors import RetemperError
from retemper.core.files import digest, sha256
from retemper.core.output import log
from retemper.data import rounds
from retemper.data.frames import labels_hash, read_frames, write_frames
from retemper.data.splits import leaks
from retemper.finetune import free_atoms
from retemper.finetune.plan import HeadData, Line, Plan, counted, head_data, versions
from retemper.models import heads, mace
from retemper.models.head_names import name_of
from retemper.prepare import inputs, pool_check
from retemper.records.e0s import ReferenceEnergies
from retemper.records.pseudolabel import PseudolabelledSet, PseudolabelManifest
from retemper.records.replay import ReplayManifest


def plans(project: Project, name: str, point: Point | None = None) -> list[Plan]:
    """One plan a seed for strategy `name`, from ``runs/{dataset,e0s,replay,pseudolabel}``.

    `point` maps paths to values that a sweep found; they win over ``finetune.overrides``.

    Raises
    ------
    RetemperError
        Missing upstream files, pseudolabels of another foundation, too few structures.
    """
    root, settings = project.root, project.settings
    strategy = load(name, root, settings.finetune.overrides, point)
    sha = sha256(project.weights)
    start, start_sha, start_head = _start(project, strategy, sha)
    e0s = ReferenceEnergies.read(root / "runs/e0s/e0s.json").E0s
    data = root / "runs/dataset"
    weighted = settings.dataset.weights == "use"
    train = free_atoms.joined(project, data / "train.extxyz")
    target = head_data(train, data / "valid.extxyz", "target", e0s, weighted)
    replay = _replay(project, strategy, sha) if strategy.replay is not None else None
    kept = _kept(project, strategy, sha)
    if start != project.weights:
        _require_heads(start, kept)
        _require_foundation(strategy)
    batch_size = strategy.training.batch_size or settings.finetune.batch_size
    if target.n_train < batch_size:
        log.info(
            f"batch size {batch_size} is above the {target.n_train} training structures, and MACE would train "
            f"on nothing: {target.n_train} used"
        )
        batch_size = target.n_train
    return [
        Plan(
            strategy=strategy,
            seed=seed,
            foundation=str(start.resolve()),
            foundation_sha256=start_sha,
            foundation_head=start_head,
            elements=sorted(e0s),
            target=target,
            replay=replay,
            kept=kept,
            line=_line(project, strategy, sha) if strategy.interpolate is not None else None,
            epochs=settings.finetune.epochs,
            batch_size=batch_size,
            valid_batch_size=settings.finetune.valid_batch_size,
            dtype=settings.finetune.dtype,
            device=settings.finetune.device,
            versions=versions(),
            code=digest(inputs.code(["retemper.finetune.mace.train"], inputs.REFUSING)),
            disk_above=settings.finetune.disk_above,
        )
        for seed in settings.seeds
    ]


def _start(project: Project, strategy: Strategy, sha: str) -> tuple[Path, str, str]:
    """Weights to start from, their hash and head: the foundation's, or those that explored in the last round."""
    settings, folder = project.settings, project.root / rounds.FOLDER
    model = rounds.last_model(folder) if settings.finetune.start == "last-round" else None
    if model is None or strategy.start == "random":
        return project.weights, sha, heads.of_foundation(project)
    _require_unseen(project.root, settings.dataset.near_duplicate)
    return model, sha256(model), mace.pick_head(model)


def _require_heads(start: Path, kept: Iterable[str]) -> None:
    """Raise where the last round's weights lack a head that is kept alive, or have it under another name."""
    there = mace.heads(start)
    lacking = [head for head in kept if head not in there or name_of(head) != head]
    if lacking:
        raise RetemperError(
            f"The last round's weights have no head {lacking[0]} to start from, which replay.heads keeps alive.",
            expected=f"weights with {', '.join(kept)}",
            got=f"heads {', '.join(there)}",
            fix="finetune.start: foundation; or empty replay.heads",
        )


def _require_foundation(strategy: Strategy) -> None:
    """Raise where a strategy goes back towards the foundation, and does not start there."""
    if strategy.interpolate is not None:
        raise RetemperError(
            f"Strategy {strategy.name} goes back towards the foundation, and finetune.start is last-round.",
            expected="a training that starts from the foundation",
            fix="finetune.start: foundation; or a strategy without `interpolate`",
        )


def _require_unseen(root: Path, tolerance: float) -> None:
    """Raise where structures that the last round's weights were trained on are now to judge what comes of them."""
    seen = rounds.seen(root / rounds.FOLDER)
    for name in ("valid", "test"):
        path = root / f"runs/dataset/{name}.extxyz"
        if not seen or not path.is_file() or not path.stat().st_size:
            continue
        known = leaks(seen, read_frames(path), tolerance)
        if known:
            raise RetemperError(
                f"The last round's weights were trained on structures that are now in the {name} set, or on others of "
                f"their groups: {len(known)}, the first {known[0]['kind']} {known[0]['b']}.",
                expected=f"a {name} set that the weights have not seen (the split moves when raw data are added)",
                fix="finetune.start: foundation; or put the raw data and the settings of the split back",
            )


def _replay(project: Project, strategy: Strategy, sha: str) -> HeadData:
    """The replay head's data: original labels, or pseudolabels that must be of this very foundation."""
    assert strategy.replay is not None
    head = heads.of_foundation(project)
    if strategy.replay.labels == "original":
        require_original(strategy.name, ReplayManifest.read(project.replay / "manifest.json"))
        return _replayed(project, strategy, project.replay, "original", head)
    manifest = _pseudolabels(project, sha)
    _require_labels(project.pseudolabel, manifest.train, manifest.valid)
    return _replayed(project, strategy, project.pseudolabel, f"foundation:{sha}", head)


def _line(project: Project, strategy: Strategy, sha: str) -> Line:
    """The place on the line, and the validation structures of the foundation's side: with its labels, or its own."""
    assert strategy.interpolate is not None
    alpha = strategy.interpolate.alpha
    labelled = ReplayManifest.read(project.replay / "manifest.json").labels == "original"
    if not labelled:
        manifest = _pseudolabels(project, sha)
        _require_labels(project.pseudolabel, manifest.train, manifest.valid)
    folder = project.replay if labelled else project.pseudolabel
    frames, identity, _ = counted(folder / "valid.extxyz")
    if not frames:
        raise RetemperError(
            f"Strategy {strategy.name} looks at the foundation's side too, and {folder}/valid.extxyz is empty.",
            fix="raise replay.valid, or name more structures in replay.pools",
        )
    return Line(
        alpha=None if alpha == "scope" else alpha,
        weight=WEIGHT[project.settings.sweep.scope] if alpha == "scope" else 0.0,
        kind="retention" if labelled else "drift",
        valid=str((folder / "valid.extxyz").resolve()),
        valid_hash=identity,
    )


def _kept(project: Project, strategy: Strategy, sha: str) -> dict[str, HeadData]:
    """Pseudolabels of the further heads that are kept alive, by head."""
    names = heads.kept_alive(project)
    if strategy.replay is None or not names:
        return {}
    require_labels_of(strategy, names)
    manifest, kept = _pseudolabels(project, sha), {}
    for head in names:
        if head not in manifest.heads:
            raise RetemperError(f"There are no pseudolabels of head {head}.", fix="dvc repro pseudolabel")
        folder = project.pseudolabel / head
        _require_labels(folder, manifest.heads[head].train, manifest.heads[head].valid)
        kept[head] = _replayed(project, strategy, folder, f"foundation:{sha}", head)
    return kept


def require_labels_of(strategy: Strategy, names: list[str]) -> None:
    """Raise where a strategy replays original labels, which the heads `names` of ``replay.heads`` do not have."""
    if names and strategy.replay is not None and strategy.replay.labels == "original":
        raise RetemperError(
            f"Strategy {strategy.name} replays original labels, and {', '.join(names)} of replay.heads have none.",
            expected="labels of each head for the same structures",
            fix="use pseudolabel-replay, which replays the foundation's labels by every head; or empty replay.heads",
        )


def _pseudolabels(project: Project, sha: str) -> PseudolabelManifest:
    """The manifest of pseudolabels by this very foundation and head."""
    manifest = PseudolabelManifest.read(project.pseudolabel / "manifest.json")
    head = heads.of_foundation(project)
    if (manifest.sha256, manifest.head) != (sha, head):
        raise RetemperError(
            "The pseudolabels were made by another foundation, or another head of it.",
            expected=f"sha256 {sha}, head {head}",
            got=f"sha256 {manifest.sha256}, head {manifest.head}",
            fix="dvc repro pseudolabel",
        )
    return manifest


def _require_labels(folder: Path, train: PseudolabelledSet, valid: PseudolabelledSet) -> None:
    for name, part in (("train", train), ("valid", valid)):
        if counted(folder / f"{name}.extxyz")[1] != part.labels_hash:
            raise RetemperError(
                f"{folder / name}.extxyz does not hold the pseudolabels of its manifest.",
                fix="dvc repro -f pseudolabel",
            )


def _replayed(project: Project, strategy: Strategy, folder: Path, source: str, head: str) -> HeadData:
    """The files of `folder`, with the reference energies of the foundation's `head`."""
    train = folder / "train.extxyz"
    if train.is_file() and train.stat().st_size == 0:
        raise RetemperError(
            f"Strategy {strategy.name} replays pretraining structures, but the replay set is empty.",
            expected="structures in runs/replay",
            fix="dvc repro -f replay",
        )
    if strategy.replay is not None and strategy.replay.number is not None:
        train = _first(train, strategy.replay.number, project.root)
    e0s = mace.atomic_energies(project.weights, head)
    return head_data(train, folder / "valid.extxyz", source, e0s, project.settings.dataset.weights == "use")


def require_original(strategy: str, manifest: ReplayManifest) -> None:
    """Raise where the replay set has no labels of its own, or labels that are not of the foundation's kind."""
    replayed = [pool for pool in manifest.pools if pool.train or pool.valid]
    for pool in replayed:
        if pool.labels == "foundation":
            raise RetemperError(
                f"Strategy {strategy} replays original labels, and {pool.name} has none.",
                expected="pools with labels of the foundation's level of theory",
                got="structures that the foundation labelled",
                fix="use pseudolabel-replay, which replays the foundation's labels, or name labelled files in "
                "replay.pools",
            )
        if pool.agreement is not None:
            pool_check.require_own_kind(pool.agreement, pool.name)


def _first(path: Path, number: int, root: Path) -> Path:
    """A file with the first `number` frames (farthest-point order makes the subsets nested)."""
    frames = read_frames(path)
    if number > len(frames):
        raise RetemperError(
            f"replay.number is {number}, but the replay stage chose {len(frames)} structures.",
            fix="raise replay.number in params.yaml, or lower the strategy's replay.number",
        )
    if number == len(frames):
        return path
    identity = labels_hash(frames[:number])
    subset = root / ".cache/replay" / f"{identity}.extxyz"
    return sealed.file(subset, identity, lambda temporary: write_frames(temporary, frames[:number]))
