"""The page of Table 1 and Figures 2, 3 and 5, which follow from the layer lists alone."""

from base64 import b64encode

from analysis.figures import figures_2_3_and_5, style
from analysis.report.pages import render
from analysis.tables.table_1 import table_1
from analysis.tables.table_text import to_csv, to_latex, to_markdown

ARCHITECTURES = "architectures.html"


def architecture_files() -> dict[str, bytes]:
    """The page of Table 1 and Figures 2, 3 and 5, and each of them as a file."""
    table = table_1()
    shown = {
        "figure_2": (
            "Figure 2",
            figures_2_3_and_5.figure_2,
            "Residual learning: a building block.",
        ),
        "figure_3": (
            "Figure 3",
            figures_2_3_and_5.figure_3,
            "The 34-layer networks, plain and residual; dotted shortcuts increase the channels. "
            "The paper shows VGG-19 beside them.",
        ),
        "figure_5": (
            "Figure 5",
            figures_2_3_and_5.figure_5,
            "The building block of ResNet-34, on 64 channels, and the bottleneck block of "
            "ResNet-50.",
        ),
    }
    # Each figure is a file of its own and part of the page, from one drawing.
    images = style.images({name: draw() for name, (_, draw, _) in shown.items()})
    figures = [
        (name, title, caption, b64encode(images[f"{name}.svg"]).decode())
        for name, (title, _, caption) in shown.items()
    ]
    return {
        "table_1.csv": to_csv(table),
        "table_1.md": f"# Table 1\n\n{to_markdown(table)}".encode(),
        "table_1.tex": to_latex(table, "Table 1: architectures", ()).encode(),
        **images,
        ARCHITECTURES: render("architectures.html.j2", table=table, figures=figures),
    }
