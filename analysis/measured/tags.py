"""Tags of MLflow runs that decide what a report shows, by name: whoever writes or reads one imports
these.
"""

COMPLETE = "complete"
"""Tag of a run whose points, outcome and files are all published (`yes`), and of a sweep with its
cells.
"""
ASKED, ALONE, IN_SWEEP = "asked", "alone", "sweep"
"""Tag of a run that says whether it was ever asked for outside a sweep, and its two values."""

LOOKED_AT = "looks"
"""Tag of a run of a grid that runs until it is decided (`yes`): its numbers are looked at several
times.
"""
