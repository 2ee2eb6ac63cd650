"""The terminal: tables, progress bars, durations, and the live view of runs that go on.

Imports `pipeline` alone. Begin with `following`.
"""
