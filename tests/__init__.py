"""Tests, in the folders of what they test. A package of its own: another one called `tests` may be installed."""
