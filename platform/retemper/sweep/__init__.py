"""Search the settings of a strategy for accuracy and for what is kept.

`space` and `objectives` say what is searched and what counts, `trial` runs one setting, `search`
connects Optuna's study with Ray Tune, `run` is the sweep, `front` chooses, `status` reports.
Only this package imports Ray and Optuna.
"""
