"""Which runs belong together, and the numbers of each run that everything above rests on.

It may import `stats`, `measured` and `paper`. Nothing is compared with the paper here. Begin with
`studies.py` (one dataset, one recipe), then `run_metrics.py` (one row a run); `curves.py` averages
over seeds, `sweeps.py` is what stands apart from the reproduction.
"""
