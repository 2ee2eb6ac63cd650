"""What it means: measured runs and the paper's numbers become tables, figures, claims and a report.

The rooms from the bottom up, each importing only what stands before it (`tests/test_boundaries.py`
holds this): `stats` (the tests), `measured` (frames of runs), `paper` (its numbers), `studies`
(which runs belong together, and the few numbers of each), `verdicts` (cells and claims), `tables`,
`figures`, `report`. Of `pipeline` only the torch-free rooms are imported, of `jobs` nothing.

Begin with `measured/frames.py`, which says what a row of each frame is, and then
`studies/studies.py`: everything above is a function of one study.
"""
