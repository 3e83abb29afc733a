"""The sweep stage: search the settings of one strategy, or use its own."""

from __future__ import annotations

from retemper.config.project import Project
from retemper.config.strategies import load
from retemper.core.output import log
from retemper.records.sweep import BestSetting
from retemper.sweep import output


def run(project: Project, strategy: str) -> BestSetting:
    """Search until ``sweep.trials`` trials are over, and write ``runs/sweep/<strategy>``; see `tuning.search`.

    Without trials the strategy's own settings are the result, and nothing heavy is imported.
    """
    load(strategy, project.root, project.settings.finetune.overrides)
    if project.settings.sweep.trials == 0:
        log.info(f"{strategy}: no search (sweep.trials is 0), its own settings are used")
        return output.write_defaults(project, strategy)
    from retemper.sweep import tuning

    return tuning.search(project, strategy)
