"""What one GPU makes of the paper's rows, against named references in the same run.

`cifar.py` is `bench gpu`, `imagenet.py` is `bench gpu-imagenet` and `packs.py` is `bench packs`;
`contestants.py` is what they share.
"""
