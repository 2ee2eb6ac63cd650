"""A run's folder in storage: who may write it, what lies in it, and what may be continued from it.

It may import `errors`, `storage` and `recipe`, and never torch. The folder alone decides whether a
run is skipped, continued or started. Begin with `run.py` (identity and files), then `checkpoint.py`
(from where to resume) and `lease.py` (who holds the run); `provenance.py` says what a result was
made with.
"""
