"""The paper's figures, drawn from a study: each module gives a matplotlib Figure and its caption.

It may import everything but `tables` (which it does not need) and `report`. Nothing is read or
written here. Begin with `style.py` (colours, lines, how the same bytes come out each time), then
`figures_1_and_6.py`; what Figures 1, 4 and 6 share is in `curve_axes.py`.
"""
