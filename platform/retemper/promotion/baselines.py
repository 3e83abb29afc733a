"""What candidates are compared with: the foundation, and the champion, on the frames of this run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from retemper.core import sealed
from retemper.core.files import digest
from retemper.core.output import log
from retemper.evaluation import stage
from retemper.promotion.gates import References
from retemper.records.evaluation import Accuracy, fields
from retemper.records.runs import FOUNDATION, Results
from retemper.registry import attachments, measurements
from retemper.registry.aliases import Standing
from retemper.registry.client import Registry, Version
from retemper.registry.measurements import Errors, Measured


def reference_measures(
    registry: Registry, results: Results, candidates: dict[str, Measured], champion: Standing | None
) -> References:
    """Measures of both, as far as there are any; a champion that was measured on other frames is measured on these."""
    foundation = measurements.collect(results, FOUNDATION, 0) if FOUNDATION in results.evaluations else None
    if champion is None:
        return References(foundation, None)
    for candidate in candidates.values():
        if candidate.model == champion.model:
            return References(foundation, candidate)
    if champion.version is None:
        return References(
            foundation, None, f"the champion ({champion.model.sha256[:12]}) is not registered in this store"
        )
    version = next(v for v in registry.versions(results.settings.system) if v.number == champion.version)
    measures = attachments.fetch(registry, version)
    if measures is None:
        return References(foundation, None, f"no measures are kept with the champion, version {champion.version}")
    first = next(iter(candidates.values()))
    if any(measures.identity.get(key) != first.identity.get(key) for key in ("target", "retention")):
        measures = remeasure(registry, results, version, measures)
    return References(foundation, measures)


def remeasure(registry: Registry, results: Results, version: Version, earlier: Measured) -> Measured:
    """Evaluate an earlier version on the frames of this run; its other seeds are not there any more.

    What cannot be measured again here (robustness) keeps its numbers. The result is cached by
    the weights and the frames.
    """
    sets = stage.read_sets(results.project)
    identity = stage.identity(sets)
    key = digest([earlier.sha256, identity, "groups"])
    path = results.project.cache("promotion") / f"{key}.json"
    content = sealed.read_json(path, key)
    if content is None:
        log.info(f"promote: {version.name} was measured on other frames: measuring it again")
        with tempfile.TemporaryDirectory() as folder:
            parts = stage.measure_fine_tuned(sets, attachments.weights(registry, version, Path(folder)))
        content = {
            part: {
                "report": evaluation.report.model_dump(mode="json"),
                "energy": evaluation.errors.energy.tolist(),
                "force_sq": evaluation.errors.force_sq.tolist(),
                "n_atoms": evaluation.errors.n_atoms.tolist(),
                "group": evaluation.errors.group,
            }
            for part, evaluation in parts.items()
        }
        sealed.write_json(path, key, content)
    numbers = {name: number for name, number in earlier.numbers.items() if name.startswith("robustness.")}
    level = results.settings.evaluate.confidence
    accuracy = Accuracy.model_validate(fields({part: entry["report"] for part, entry in content.items()}))
    numbers |= measurements.from_accuracy(accuracy, level)
    frames = {
        earlier.seed: {
            part: Errors.of(*(entry[key] for key in ("energy", "force_sq", "n_atoms", "group")))
            for part, entry in content.items()
        }
    }
    identity |= {name: value for name, value in earlier.identity.items() if name.startswith("robustness.")}
    return Measured(earlier.strategy, earlier.seed, earlier.sha256, identity, numbers, frames, earlier.units)
