"""What a run is and how one is trained; it knows no cluster, no grid, no tracking and no table.

From the bottom up: `errors`, `memory` and `storage`, `recipe` (what is trained), `runs` (a run's
folder), `data` (images), `training` (the only room that imports torch). Each imports only what
stands before it, as `tests/test_boundaries.py` holds.

Begin with `recipe/experiments.py`, the paper on one screen, and then `training/loop.py`.
"""
