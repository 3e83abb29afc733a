"""Stage sweep@S: search the settings of one strategy for accuracy and retention.

python -m pipelines.sweep lora
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.config.strategies import load
from retemper.core.files import project_root
from retemper.sweep import output


@stage
def main(strategy: str) -> None:
    """Work off ``sweep.trials`` trials and put the setting to use into ``runs/sweep/<strategy>/best.yaml``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    load(strategy, root, settings.finetune.overrides)
    if settings.sweep.trials == 0:
        output.write_defaults(strategy, root)
        print(f"{strategy}: no search (sweep.trials is 0), its own settings are used")
        return
    from retemper.sweep import run

    run.run(settings, strategy, root)


if __name__ == "__main__":
    main(*sys.argv[1:])
