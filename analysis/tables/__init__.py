"""The paper's tables with what was measured beside them: frames of raw numbers, and as text.

It may import everything but `figures` and `report`. Begin with `table_6.py`; `tables_2_to_5.py` is
its counterpart for ImageNet, `table_1.py` needs no run, and `study_tables.py` gathers those of
one study's page. `cost.py` is no table of the paper: what our runs took.
"""
