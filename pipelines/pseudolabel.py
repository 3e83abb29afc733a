"""Stage pseudolabel: label the replay structures by the foundation; writes runs/pseudolabel/."""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.foundations import find, weights
from retemper.config.settings import load_settings
from retemper.core import processes
from retemper.core.files import project_root
from retemper.prepare import pseudolabel


@stage
def main() -> None:
    """Label ``runs/replay`` in batches; labels that exist under their address are used again."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    processes.prepare(settings.finetune.device)
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
