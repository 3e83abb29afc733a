"""Stage pseudolabel: label the replay structures by the foundation; writes runs/pseudolabel/."""

from __future__ import annotations

from retemper import launch, pseudolabel
from retemper.cli import stage
from retemper.files import project_root
from retemper.foundations import find, weights
from retemper.settings import load_settings


@stage
def main() -> None:
    """Label ``runs/replay`` in batches; labels that exist under their address are used again."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    launch.prepare(settings.finetune.device)
    foundation = find(settings.foundation, root)
    pseudolabel.make(
        weights(foundation, root),
        foundation.name,
        foundation.head,
        settings.pseudolabel.dtype,
        root / "runs/replay",
        root / "runs/pseudolabel",
        cache=root / pseudolabel.CACHE,
        device=settings.finetune.device,
    )


if __name__ == "__main__":
    main()
