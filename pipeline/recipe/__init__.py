"""What is trained: every configuration of the paper as data, and the pure functions that follow.

It imports only `pipeline.errors`, and nothing here touches torch, files or machines. Begin with
`experiments.py` (the rows), then `layers.py` (a row's network as a list) and `schedule.py` (what
happens at which iteration); `overrides.py` is `--set`, `metrics.py` names what is measured.
"""
