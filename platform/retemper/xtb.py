"""Former place of `retemper.systems.xtb`, which settings name; for one release."""

from retemper.systems.xtb import calculator as calculator
