"""What a user asked for, made exact and refused in one line before anything starts.

Options that commands share, the runs and resources they come to, and what `--dry-run` shows.
Imports `jobs.execution` and what is below it. Begin with `requested_runs`.
"""
