"""``python -m retemper``."""

from retemper.cli.main import main

main()
