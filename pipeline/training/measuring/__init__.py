"""What is measured of a network while it trains and once it is finished.

Begin with `measurements.py`, which the train loop calls. It uses `evaluate.py` (error and loss on a
split), `protocols.py` (the paper's tests of ImageNet networks), `responses.py` (Figure 7),
`signals.py` (forward variances and gradient norms, Sec. 4.1), `clock.py` (images a second) and
`cost.py` (what the run costs; `energy_counter.py` reads a card's joules).

May import `step`, `feeding` and the torch-free rooms of `pipeline`, but not a module of
`pipeline.training` itself. Nothing here changes weights or momentum; the final tests alone
replace the running statistics, by averaged ones on ImageNet.
"""
