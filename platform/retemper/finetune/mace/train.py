"""One training run in this process: MACE sets up, our loop trains, the proof is written.

MACE's `mace.cli.run_train.run` builds data, model and optimiser. It is left at the point
where it would train: the marked place below puts our loop in place of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mace.tools
import numpy as np
import torch
from mace.cli import run_train
from mace.tools import build_default_arg_parser, model_script_utils

from retemper.config.strategies import Strategy
from retemper.core import sealed, weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import locked, sha256
from retemper.data.frames import stream_frames
from retemper.finetune import collect
from retemper.finetune.mace import (
    adapters,
    checkpoint,
    config_file,
    interpolation,
    lmdb_cache,
    loaded_labels,
    loop,
    verification,
)
from retemper.finetune.mace.setup import Setup
from retemper.finetune.plan import Flags, Plan, mace_flags
from retemper.models import architecture, fast_blocks, head_weights, model_file, model_writing
from retemper.models import mace as mace_models
from retemper.models.head_names import TARGET, name_of
from retemper.records.training import Effective, Outcome

Builder = Callable[..., torch.nn.Module]  # with the arguments of MACE's `_build_model`


class _Done(Exception):  # noqa: N818 (not an error)
    """Leaves MACE's `run` after training: its error tables and compiled copies are not needed."""


def train(plan: Plan, folder: Path, progress: loop.Progress, probe: loop.Probe | None = None) -> Outcome:
    """Run `plan` in `folder` and return what it came to; a finished run returns at once.

    What lies there is checked: a damaged file, or one of another run, is put aside and made again.
    `folder` gets ``model.safetensors``, ``history.csv``, ``effective.json``, ``mace.yaml``,
    ``training.log`` and the checkpoints; of a plan with a line the training is in a folder beside it.
    After a kill the same call goes on where it was.
    A lock keeps a second process out of the folder: it waits, and finds the run finished.

    Raises
    ------
    RetemperError
        The effective configuration differs from the plan, labels were changed, frozen
        parameters moved, or the loss diverged.
    """
    sealed.make_folder(folder)
    with locked(folder / ".lock", "trains the same"):
        finished = collect.finished(folder, plan.key)
        if finished is None:
            made = _train_anew if plan.line is None else _go_back
            finished = made(plan, folder, progress, probe)
            collect.finish(folder, plan.key, finished, collect.files_of(plan))
        return finished


def _go_back(plan: Plan, folder: Path, progress: loop.Progress, probe: loop.Probe | None) -> Outcome:
    """Train, or find the training in its own folder beside `folder`, and put a model on its line into this one."""
    sealed.plain_files(folder, collect.files_of(plan))
    trained = folder.with_name(plan.trained.key)
    outcome = train(plan.trained, trained, progress, probe)
    path, effective = trained / weight_files.NAME, Effective.read(trained / "effective.json")
    model, starts = model_file.load(path), _starts(plan, mace_models.heads(path))
    start = head_weights.with_heads(_foundation(plan), starts).to(next(model.parameters()).dtype)
    effective.ran.alpha = interpolation.walk(model, interpolation.parameters(start), plan, folder)
    model_writing.write(model, folder / weight_files.NAME)
    effective.write(folder / "effective.json")
    for name in ("history.csv", "mace.yaml"):
        shutil.copy2(trained / name, folder / name)
    weights = sha256(folder / weight_files.NAME)
    return outcome.model_copy(update={"key": plan.key, "sha256": weights})


def _train_anew(plan: Plan, folder: Path, progress: loop.Progress, probe: loop.Probe | None) -> Outcome:
    saved = checkpoint.read(folder, plan.key)
    sealed.plain_files(folder, (*collect.FILES, "training.log"))
    foundation = _foundation(plan)
    random = architecture.config(foundation) if plan.strategy.start == "random" else None
    flags = mace_flags(plan, folder / "mace", "model", architecture.flags(random) if random else None)
    flags |= lmdb_cache.flags(plan, folder.parent)
    config_file.write(folder / "mace.yaml", flags, plan, architecture.unflagged(random) if random else [])
    outcomes: list[Outcome] = []

    def in_place_of_mace_train(**keywords: Any) -> None:
        outcomes.append(_train(plan, Setup.of(keywords), folder, saved, progress, probe))
        raise _Done

    with (
        _quiet(folder / "training.log"),
        in_place_of(mace.tools, "train", in_place_of_mace_train),
        _built_by(architecture.builder(random) if random else _starting_from(foundation, plan)),
        model_file.pickled(plan.foundation) as pickle,  # MACE opens nothing else
        contextlib.suppress(_Done),
    ):
        flags |= {"foundation_model": str(pickle)} if flags.get("foundation_model") else {}
        run_train.run(arguments(flags))
    if not outcomes:
        raise RetemperError("MACE ended before training began.", fix=f"see {folder / 'training.log'}")
    return outcomes[0]


def _train(
    plan: Plan,
    built: Setup,
    folder: Path,
    saved: checkpoint.Content | None,
    progress: loop.Progress,
    probe: loop.Probe | None,
) -> Outcome:
    """Everything between MACE's set-up and the saved model."""
    model, strategy = built.model, plan.strategy
    _set_reference_energies(model, plan)
    if strategy.freeze is not None:
        architecture.freeze_embeddings(model)
    frames = built.frames()
    frame_weights, free_atoms = loaded_labels.check(plan, frames)
    setup, batch = built.with_replay(plan, frames), built.first_batch()
    with fast_blocks.fast(model), architecture.addition(model):
        gap = _gap_to_foundation(plan, built)
    trained = verification.trainable(model, setup.optimizer)
    effective = verification.compared(plan, setup, frames, free_atoms, gap, trained)
    if effective.differences:
        effective.write(folder / "effective.json")
        raise RetemperError(
            f"{strategy.name}, seed {plan.seed}: what MACE set up is not what was asked for.",
            got="; ".join(effective.differences),
            fix="this is a bug or a changed MACE release: report it with effective.json",
        )
    _rehearse_saving(model, strategy, batch)
    before = verification.fingerprint(model)
    with fast_blocks.fast(model), architecture.addition(model):
        course, best = loop.run(setup, folder, plan.key, saved, progress, probe)
    counts = verification.check_moved(before, model, trained)
    ran = effective.ran
    ran.frame_weights, ran.epochs, ran.counts = frame_weights, course.epochs, counts
    ran.start_gap, ran.versions = gap, plan.versions
    model.load_state_dict(best)
    if strategy.lora is not None:
        with architecture.addition(model):
            ran.merge_gap = _merge(model, batch)
    for parameter in model.parameters():
        parameter.requires_grad = True
    model_writing.write(model.to("cpu"), folder / weight_files.NAME)
    effective.write(folder / "effective.json")
    weights = sha256(folder / weight_files.NAME)
    return Outcome(**dict(course), **dict(counts), valid_loss=course.best_loss, key=plan.key, sha256=weights)


def _set_reference_energies(model: Any, plan: Plan) -> None:
    """Put the plan's E0s into the model.

    MACE (0.3.16, `load_foundations_elements`) copies every buffer of equal shape from the
    foundation over the new model's. With one head and all elements kept, the reference
    energies that it was given are among them, and are lost without a word.
    """
    energies = model.atomic_energies_fn.atomic_energies
    rows = [plan.heads[head].E0s for head in model.heads]
    values = [[row[int(z)] for z in model.atomic_numbers] for row in rows]
    energies.copy_(torch.tensor(values, dtype=energies.dtype, device=energies.device).reshape(energies.shape))


def _foundation(plan: Plan) -> torch.nn.Module:
    if sha256(plan.foundation) != plan.foundation_sha256:
        raise RetemperError(f"{plan.foundation} changed since the run was planned.", expected=plan.foundation_sha256)
    return model_file.load(plan.foundation)


def _starting_from(foundation: torch.nn.Module, plan: Plan) -> Builder:
    """In place of MACE's `_build_model`: every head begins as the foundation's, those kept alive as themselves."""
    of_mace: Builder = model_script_utils._build_model

    def build(args: Any, model_config: Any, foundation_config: Any, heads: list[str]) -> torch.nn.Module:
        if plan.strategy.lora is not None:  # MACE draws weights before adapters: mace.yaml gives the same adapters
            of_mace(args, model_config, foundation_config, heads)
        model = head_weights.with_heads(foundation, _starts(plan, heads)).to(torch.get_default_dtype())
        _count_bessel_weights(model)
        return model

    return build


def _starts(plan: Plan, heads: Iterable[str]) -> dict[str, str]:
    """The foundation's head that each of `heads` begins as."""
    head = mace_models.pick_head(plan.foundation, plan.foundation_head)
    return dict.fromkeys(heads, head) | {name_of(kept): kept for kept in plan.kept}


def _count_bessel_weights(model: Any) -> None:
    """Make the roots of the Bessel functions a parameter, as MACE's own transfer of weights does.

    MACE's optimiser does not have them, but its clipping of gradients counts theirs in the norm
    (`load_foundations_elements` and `take_step` of mace-torch 0.3.16).
    """
    basis = model.radial_embedding.bessel_fn
    if type(basis).__name__ == "BesselBasis" and "bessel_weights" in dict(basis.named_buffers()):
        roots = basis.bessel_weights.clone()
        del basis.bessel_weights
        basis.bessel_weights = torch.nn.Parameter(roots)


@contextlib.contextmanager
def _built_by(builder: Builder) -> Iterator[None]:
    """Within the block MACE's set-up trains what `builder` builds, which has its weights already."""
    with (
        in_place_of(model_script_utils, "_build_model", builder),
        in_place_of(model_script_utils, "load_foundations_elements", lambda model, *rest, **options: model),
        in_place_of(run_train, "remove_pt_head", lambda model, head: model),
    ):
        yield


def _rehearse_saving(model: torch.nn.Module, strategy: Strategy, batch: Any) -> None:
    """Merge and describe a copy, with adapters as large as weights: what would fail at the end fails before it begins.

    Raises
    ------
    RetemperError
        Merged adapters are not the adapters, or the trained model could not be written (`model_writing.write`).
    """
    if strategy.lora is not None:
        model, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        with architecture.addition(model):
            _merge(model, batch)
    model_writing.require_describable(model)


def _gap_to_foundation(plan: Plan, built: Setup) -> float:
    """Largest difference (eV/A) of a head's forces on its first validation batch to those of the foundation's head.

    Of the head that learns the target, and of those that are kept alive.
    """
    from retemper.models.predict import predict

    gaps = []
    for name, head in {TARGET: plan.foundation_head, **{name_of(kept): kept for kept in plan.kept}}.items():
        data = plan.heads[name]
        frames = list(islice(stream_frames(data.valid), min(plan.valid_batch_size, data.n_valid)))
        forces = _forces(built.model, built.first_batch(name))
        reference = predict(
            Path(plan.foundation), frames, head=head, dtype=plan.dtype, device=plan.device, backend="torch"
        )
        gaps.append(float(np.abs(forces - np.concatenate(reference.forces)).max()))
    return max(gaps)


def _forces(model: Any, batch: Any) -> np.ndarray:
    """Forces [n_atoms, 3] (eV/A) of a batch."""
    output = model(batch.to_dict(), training=False, compute_force=True, compute_stress=False)
    forces: np.ndarray = output["forces"].detach().cpu().double().numpy()
    return forces


def _merge(model: Any, batch: Any) -> float:
    """Merge the adapters; the largest change of a force on a batch (eV/A), which only rounding may cause."""
    before = _forces(model, batch)
    adapters.merge(model)
    after = _forces(model, batch)
    gap = float(np.abs(after - before).max())
    if not gap <= 1e-3 + 1e-4 * float(np.abs(before).max()):
        raise RetemperError(
            "The model with merged adapters is not the one that was trained.",
            expected="forces that agree to 0.001 eV/A, or 0.01 % of the largest",
            got=f"{gap:.3g} eV/A",
            fix="report this with the foundation's architecture",
        )
    return gap


def arguments(flags: Flags) -> argparse.Namespace:
    """MACE's arguments with `flags` set by their full names; a name that MACE lacks is an error."""
    required = [f"--{name}={flags[name]}" for name in ("name", "train_file")]
    arguments: argparse.Namespace = build_default_arg_parser().parse_args(required)
    for name, value in flags.items():
        if not hasattr(arguments, name):
            raise RetemperError(f"This MACE has no setting {name!r}.", fix="install the version in constraints.txt")
        setattr(arguments, name, value)
    return arguments


@contextlib.contextmanager
def in_place_of(module: Any, name: str, replacement: Any) -> Iterator[None]:
    """The one place where MACE's code is replaced; fails loudly when the name has moved."""
    original = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """MACE's output into `log`; its log handlers and default dtype do not outlive the run."""
    root = logging.getLogger()
    handlers, filters, level, dtype = list(root.handlers), list(root.filters), root.level, torch.get_default_dtype()
    with (
        log.open("a") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        root.handlers[:] = []  # one that someone set up meanwhile would print what MACE logs
        try:
            yield
        finally:
            for handler in root.handlers:
                handler.close()
            root.handlers[:], root.filters[:] = handlers, filters
            root.setLevel(level)
            torch.set_default_dtype(dtype)
