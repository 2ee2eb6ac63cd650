"""What can be asked for by name: the paper's grids, and sweeps of an experiment's fields.

Imports `pipeline` and the claims and ledger of `analysis`; starts nothing. Begin with `grids`.
"""
