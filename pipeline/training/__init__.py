"""How a run is trained, measured and saved: the only room of `pipeline` that imports torch.

Begin with `loop.py`: the one train loop of every experiment, readable from top to bottom. What it
calls lies in the rooms below, and imports go one way, from the end of this list to its start:

1. `step/` is one SGD iteration: networks, weights, the state in training, sums over workers.
2. `feeding/` hands batches of images to it.
3. `measuring/` says how good, how fast and how healthy the network is.
4. This folder's own modules are the run around them: `loop`, `attempts` (what it was made with),
   `run_writer` (its folder), `packs` (several runs at once) and `verify` (proofs about a stored
   run).

From the rest of `pipeline` it imports `recipe`, `data`, `runs` and what lies in no room, and none
of them imports it. It knows neither Ray nor MLflow, and neither the command line nor the
environment.
"""
