"""Datasets: what they are, where they come from, how they are stored, and which image comes when.

Begin with `datasets`: a specification, images in canonical order, an id. `stored` keeps datasets in
storage and finds them by name or id, `preparation` brings them there, `staging` reads them on a
worker's node, and `sampling` draws each iteration's batch. Photographs of any size take a way of
their own: `photo_sources` lists them as parts (`photo_parts`), which `photo_ingest` reads into
shards (`photo_shards`), whose images `photo_decoding` turns into what a network sees. What lies in
people's folders, and which of it is data, is `sources`.

This room imports `pipeline.errors`, `pipeline.storage` and `pipeline.recipe`, and never torch: what
is done to a batch of images is `pipeline.training.feeding`.

To add a dataset:

1. write a module of `catalogue` with its specification and how its files are found and read:
   `fashion_mnist.py` reads several files of a format of its own, `cifar100.py` one archive;
2. list it in `catalogue/table.py`, from which commands, dry runs and plans learn of it;
3. add its sizes to `tests/pipeline/data/test_catalogue.py`, and test it on files that the test
   makes, as `tests/pipeline/data/test_fashion_mnist.py` does.
"""
