"""Stage replay: choose pretraining structures to replay; writes runs/replay/."""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.foundations import find, weights
from retemper.config.settings import load_settings
from retemper.core import processes
from retemper.core.files import project_root
from retemper.data.frames import read_frames
from retemper.prepare import replay


@stage
def main() -> None:
    """Choose from ``replay.pool`` or the foundation's pool, and audit against the retention set."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    processes.prepare(settings.finetune.device)
    foundation = find(settings.foundation, root)
    retention = settings.evaluate.retention or foundation.retention
    target = [a for name in ("train", "valid", "test") for a in read_frames(root / f"runs/dataset/{name}.extxyz")]
    replay.make(
        settings.replay,
        foundation,
        weights(foundation, root),
        root / "runs/replay",
        retention=root / retention if retention else None,
        target=target,
        root=root,
        device=settings.finetune.device,
        tolerance=settings.dataset.near_duplicate,
        limits=settings.dataset,
    )


if __name__ == "__main__":
    main()
