"""Stage promote: judge the registered models and move the aliases that the gates allow.

python -m pipelines.promote
"""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core import experiment
from retemper.core.files import project_root
from retemper.promotion import promote, verdict


@stage
def main() -> None:
    """Write ``runs/promote/verdict.json`` and ``verdict.md`` and print the decision."""
    root = project_root()
    if (name := experiment.name()) is not None:
        experiment.promote(root, name)
        print(experiment.keep(name))
        return
    content = promote.run(root, load_settings(root / "params.yaml"))
    for name, one in content["candidates"].items():
        state = "passes" if one["passed"] else "; ".join(one["failures"]) or "is the champion"
        print(f"{name} ({content['model']}/{one['version']}): {state}")
    print("\n".join(verdict.decision(content)))


if __name__ == "__main__":
    main()
