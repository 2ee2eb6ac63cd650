"""One SGD iteration on one worker or several, with the same bytes in both cases.

Begin with `iteration.py`: the train loop calls `Iteration.run`, which calls `TrainState.totals` and
`update`. Then `train_state.py` (loss, gradients, SGD), `process_group.py` (sums over workers),
`networks.py` (what is trained), `batch_norm.py` (over groups), `weights.py` (its files) and
`precision.py` (autocast).

May import torch and the torch-free rooms of `pipeline`, but not `feeding`, `measuring` or a module
of `pipeline.training` itself.
"""
