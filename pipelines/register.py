"""Stage register@S: put the models of one strategy into MLflow's model registry.

python -m pipelines.register lora
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core import experiment
from retemper.core.files import project_root
from retemper.registry import register


@stage
def main(strategy: str) -> None:
    """Register every seed and write ``runs/register/<strategy>.json``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    if (name := experiment.name()) is not None:
        experiment.register(root, settings.system, strategy, name)
        print(experiment.keep(name))
        return
    record = register.register(root, settings, strategy)
    best, versions = record["best"], record["versions"]
    print(
        f"{strategy}: " + ", ".join(f"seed {seed} is {record['model']}/{number}" for seed, number in versions.items())
    )
    print(f"best: {record['model']}/{best['version']}, target force RMSE {best['target.force_rmse']:.1f} meV/A")


if __name__ == "__main__":
    main(*sys.argv[1:])
