"""Uncertainties, one a file: `INFO`, `Options`, and `fit(context, options)` that gives an `Estimator`."""
