"""Whether the paper's numbers and claims were reproduced: equivalence tests and orderings.

It may import `stats`, `measured`, `paper` and `studies`. Begin with `cells.py` (one number of the
paper), then `evidence.py` (the parts that claims consist of); `claims.py` and `imagenet_claims.py`
are the claims as data.
"""
