"""Whether the paper's numbers and claims were reproduced: equivalence tests and orderings.

It may import `stats`, `measured`, `paper` and `studies`. Begin with `cells.py` (one number of the
paper), then `evidence.py` (the parts that claims consist of); `claims.py` and `imagenet_claims.py`
are the claims as data.
"""

RULES_VERSION = 2
"""The version of the rules by which cells and claims are judged; a report says which it had.

It is raised with each change that can change a verdict: an audit knows then why a report differs.
"""
