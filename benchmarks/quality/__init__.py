"""Every method against the true distribution of the world: `python -m benchmarks.quality` writes docs/quality.md.

`run` makes the pictures by `methods`, `measure` turns them into `features`, `summary` compares them by `distance`
and `tables`, `report` and `sheets` show it.
"""
