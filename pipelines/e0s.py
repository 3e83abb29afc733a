"""Stage e0s: choose and check the atomic reference energies; writes runs/e0s/e0s.json."""

from __future__ import annotations

import sys


def main() -> int:
    from retemper.config.foundations import find, weights
    from retemper.config.settings import load_settings
    from retemper.core.errors import RetemperError
    from retemper.core.files import project_root
    from retemper.prepare.e0s import diagnose

    try:
        root = project_root()
        settings = load_settings(root / "params.yaml")
        foundation = find(settings.foundation, root)
        runs = root / "runs"
        model = weights(foundation, root)
        diagnose(settings, runs / "dataset", model, runs / "e0s" / "e0s.json", head=foundation.head)
    except RetemperError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
