"""``python -m retemper``."""

from retemper.cli import main

main()
