"""Explorers, one a file: `Options`, and `explore(context, options)` that gives structures."""
