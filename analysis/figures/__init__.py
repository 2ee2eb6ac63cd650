"""The paper's figures, drawn from a study: each module gives a matplotlib Figure.

It may import everything but `tables` (which it does not need) and `report`. Nothing is read or
written here. Begin with `style.py` (colours, lines, how the same bytes come out each time), then
`figures_1_and_6.py`; what Figures 1, 4 and 6 share is in `curve_axes.py`. Captions of a study's
figures are in `captions.py`, but for Figure 4's.

To add a figure to a study's page:

1. write a module here that makes a study's Figure, and its caption;
2. list it in `_figures` of `analysis.report.study_pages`; no template has to change, but
   `style.css.j2` has its width;
3. name it among the `artifacts` of the rows that it shows, from which its list of origins is made.
"""

from pipeline.errors import InputError, first_line

# Here, because this is read before any module that draws. matplotlib reads a user's settings as it
# is imported: none of them counts in a figure, but a file that is no text ends the import.
try:
    import matplotlib  # noqa: F401
except (OSError, ValueError) as error:
    raise InputError(
        f"matplotlib cannot read its settings ({first_line(error)}); move the matplotlibrc away "
        "that is in this folder, named by MATPLOTLIBRC or in ~/.config/matplotlib"
    ) from error
