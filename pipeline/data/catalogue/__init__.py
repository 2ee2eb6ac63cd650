"""The datasets that are known by name: a module for each, and `table`, which lists them.

A module says what its dataset is (`DatasetSpec`) and how its files are found, fetched and read
(`KnownDataset`). It may import `pipeline.data.datasets`, `download`, `progress` and `sources`, and
the module here that reads its format (`cifar_archives`); `table` alone imports them all.
"""
