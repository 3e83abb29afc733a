"""Selectors, one a file: `Options`, and `choose(pool, number, options, seed)` that gives indices."""
