"""What the paper says: its tables, curves and claims as CSV files, and typed loaders of them.

Where each number comes from is in `README.md` beside the files. It may import `measured` (for
walking over a frame) and nothing above. Begin with `reported.py`; `ledger.py` lists the details in
which reproductions differ.
"""
