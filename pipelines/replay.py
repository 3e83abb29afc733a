"""Stage replay: choose pretraining structures to replay; writes runs/replay/."""

from __future__ import annotations

from retemper import launch, replay
from retemper.cli import stage
from retemper.files import project_root
from retemper.foundations import find, weights
from retemper.frames import read_frames
from retemper.settings import load_settings


@stage
def main() -> None:
    """Choose from ``replay.pool`` or the foundation's pool, and audit against the retention set."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    launch.prepare(settings.finetune.device)
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
