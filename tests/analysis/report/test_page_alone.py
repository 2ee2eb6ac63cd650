"""A page of a report that is shown without the others."""

from analysis.report.page_alone import SCRIPT, page_alone

FILES = {
    "index.html": b'<a href="one/index.html">One</a> <a class="x" href="#claims">Claims</a>'
    b'<img class="y" src="one/figure_6.svg" alt="a"><img src="data:image/png;base64,AA==">'
    b'<a href="https://arxiv.org/abs/1512.03385">the paper</a>',
    "one/index.html": b'<a href="../index.html"><b>All\nstudies</b></a><img src="figure_6.svg">',
    "one/figure_6.svg": b"<svg/>",
}
PICTURE = "data:image/svg+xml;base64,PHN2Zy8+"


def test_links_within_the_page_stay_and_others_are_text() -> None:
    page = page_alone("index.html", FILES).decode()
    assert page.startswith('One <a class="x" href="#claims">Claims</a>')
    assert page.endswith(f"the paper (https://arxiv.org/abs/1512.03385){SCRIPT}")


def test_pictures_beside_the_page_are_part_of_it() -> None:
    assert f'<img class="y" src="{PICTURE}" alt="a">' in page_alone("index.html", FILES).decode()
    inner = page_alone("one/index.html", FILES).decode().removesuffix(SCRIPT)
    assert inner == f'<b>All\nstudies</b><img src="{PICTURE}">'
