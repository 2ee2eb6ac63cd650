"""Everything that speaks to MLflow: the only room that imports it.

What is here copies what the runs' folders hold, finds it again by a key, and sends only what is
missing: it may fail at any time and training goes on. Imports `jobs.grids`, `pipeline` and, for
reports, `analysis`. Begin with `run_publisher` (a run's copy); `best_effort` is what commands call.
"""
