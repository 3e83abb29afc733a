"""Studies: which of system, foundation, E0s, strategy, size and settings moves the result, measured run by run.

`spec` reads ``studies/<name>.yaml``, `design` turns its axes into points, `plan` each point into settings with a
key, `jobs` and `schedule` run them, `table` gathers the results, `claims` judge them and `report` shows them.
"""
