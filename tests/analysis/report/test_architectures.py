"""The page of the architectures and its files look the same each time."""

from xml.etree import ElementTree

from analysis.figures import style
from analysis.report.architectures import architecture_files


def test_the_pictures_are_the_same_bytes_each_time_and_valid():
    first, second = architecture_files(), architecture_files()
    assert first == second
    for name in ("figure_2.svg", "figure_3.svg", "figure_5.svg"):
        ElementTree.fromstring(first[name])
    assert {f"figure_{n}.{kind}" for n in (2, 3, 5) for kind in style.KINDS} <= first.keys()
