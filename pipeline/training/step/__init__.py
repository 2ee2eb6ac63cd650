"""One SGD iteration on one worker or several, with the same bytes in both cases.

Begin with `train_state.py` (`TrainState.step` is the iteration), then `process_group.py` (sums over
workers), `networks.py` (what is trained), `weights.py` (its files) and `precision.py` (autocast).

May import torch and the torch-free rooms of `pipeline`, but not `feeding`, `measuring` or a module
of `pipeline.training` itself.
"""
