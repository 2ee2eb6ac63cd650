"""What one GPU makes of the paper's rows, against named references in the same run.

`cifar.py` is `bench gpu` and `imagenet.py` is `bench gpu-imagenet`; `contestants.py` is what they
share.
"""
