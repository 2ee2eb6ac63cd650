"""Tags of MLflow runs that decide what a report shows: who writes or reads one imports these."""

COMPLETE = "complete"
"""Tag (`yes`) of a run whose points, outcome and files are published, and of a whole sweep."""
ASKED, ALONE, IN_SWEEP = "asked", "alone", "sweep"
"""Tag of a run that says whether it was ever asked for outside a sweep, and its two values."""

INTERIM = "looks"
"""Tag (`yes`) of a run of a grid with interim analyses, whose tests share the level."""
