"""Labelled structures: reading and writing, labels, charge, checks, duplicates, groups, splits."""
