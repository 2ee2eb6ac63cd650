"""What a person sees in `resnet-repro ui`: Chromium drives the MLflow UI of a store that a real
grid filled.

Every assertion is about what is on the screen. A picture of each step is kept in the folder that
RESNET_REPRO_SCREENSHOTS names, or in pytest's.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from jobs.tracking.other_publications import publish_stored
from pipeline.recipe.metrics import TEST_ERR
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.conftest import free_port, serving
from tests.jobs.tracking.paper_study import paper_study
from tests.jobs.tracking.published import store_of

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.ray,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]

GRID = (
    "plain20",
    "resnet20",
    "--data",
    "digits",
    "--seeds",
    "2",
    "--iterations",
    "8",
    "--set",
    "depth=8",
    "--set",
    "eval_every=2",
)
POINTS = 4
RESNET, PLAIN = "^resnet20 on digits", "^plain20 on digits"
SEED = "^resnet20 seed "
ROWS = {"plain20": "9.69", "plain56": "13.26", "resnet20": "8.75", "resnet56": "6.97"}
"""Of the paper's own data, with the error that the paper has (of plain networks, Figure 6's)."""


@pytest.fixture(scope="module")
def ui(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `resnet-repro ui` shows a finished grid."""
    place = tmp_path_factory.mktemp("grid")
    done = cli("grid", *GRID, "--storage", place, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    line = [sys.executable, "-m", "jobs.cli", "ui", "--storage", str(place), "--port", str(port)]
    with serving(line, port) as address:
        yield address


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The links that `resnet-repro ui` prints for a complete study, by what stands before them."""
    place, log = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("log")
    paper_study(Storage(str(place)), experiments=ROWS)
    publish_stored(store_of(place), Storage(str(place)), print)
    port = free_port()
    line = [sys.executable, "-m", "jobs.cli", "ui", "--storage", str(place), "--port", str(port)]
    # By this checkout, whatever the folder.
    with serving(line, port, folder=log, PYTHONPATH=os.getcwd()):
        said = ""
        while "the results:" not in said:
            said = (log / "server.log").read_text()
            sleep(0.1)
        yield dict(re.findall(r"^([^:]+): (http\S+)", said, re.MULTILINE))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=root)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("RESNET_REPRO_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@pytest.fixture
def page(ui: str, browser: Browser) -> Iterator[Page]:
    """The runs of our MLflow experiment, as a first visit reaches them from the front page."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(60_000)
    page.add_locator_handler(
        page.get_by_role("button", name="Got it"), lambda button: button.click()
    )  # tours
    page.goto(ui)
    page.get_by_text("Model training", exact=True).first.click()
    page.get_by_role("link", name="resnet-repro", exact=True).click()
    expect(run(page, RESNET)).to_be_visible()
    yield page
    page.close()


@pytest.fixture
def laptop(browser: Browser) -> Iterator[Page]:
    """A first visit by somebody with a screen of 1280 pixels."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


def run(page: Page, name: str) -> Locator:
    """The links to runs whose name fits a pattern."""
    return page.get_by_role("link", name=re.compile(name))


def expand(page: Page, name: str) -> None:
    page.get_by_role("row").filter(has=run(page, name)).get_by_role("button").click()


def corner(link: Locator) -> tuple[float, float]:
    """Left and top of a link once it is at rest."""
    link.hover(trial=True)
    box = link.bounding_box()
    assert box is not None
    return box["x"], box["y"]


def names(page: Page) -> list[str]:
    """The names in the table of runs from top to bottom, read in full in a column that is made wide
    enough.
    """
    page.get_by_role("columnheader", name="Run Name").locator(".ag-header-cell-resize").dblclick()
    links = page.locator('[col-id="attributes.`Run Name`"] a')
    for text in links.locator("span").all():  # none is cut off
        expect(text).to_have_js_property("clientWidth", text.evaluate("text => text.scrollWidth"))
    return [link.inner_text() for link in sorted(links.all(), key=lambda link: corner(link)[1])]


def test_the_table_of_runs_shows_seeds_under_their_row(page: Page, pictures: Path) -> None:
    for name in (PLAIN, RESNET, "^report "):
        expect(run(page, name)).to_be_visible()
    expect(run(page, " seed ")).to_have_count(0)
    page.screenshot(path=pictures / "1-rows.png")
    expand(page, RESNET)
    expect(run(page, SEED)).to_have_count(2)
    shown = names(page)
    page.screenshot(path=pictures / "2-seeds.png")
    parent = next(place for place, name in enumerate(shown) if re.search(RESNET, name))
    children = shown[parent + 1 : parent + 3]
    assert len(shown) == 5 and all(re.search(SEED, name) for name in children)
    assert {name.split()[2] for name in children} == {"0", "1"}
    assert all(corner(seed)[0] > corner(run(page, RESNET))[0] for seed in run(page, SEED).all()), (
        "not indented"
    )


def test_a_run_has_a_chart_of_its_test_error(page: Page, pictures: Path) -> None:
    expand(page, RESNET)
    run(page, SEED + r"0\b").click()
    expect(page.get_by_role("heading", name=re.compile(SEED + r"0\b"))).to_be_visible()
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill(TEST_ERR)
    group, _, title = TEST_ERR.partition(
        "/"
    )  # as the page shows a name; the legend cuts long ones off
    expect(page.get_by_text(re.compile(rf"^{group}\s*\(1\)$"))).to_be_visible()
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    chart = page.locator(".js-plotly-plot")
    expect(chart).to_have_count(1)
    points = chart.locator("path.point")
    expect(points).to_have_count(POINTS)
    for point in points.all():
        expect(point).to_be_visible()
    page.screenshot(path=pictures / "3-chart.png")
    boxes = [point.bounding_box() for point in points.all()]
    assert len({round(box["x"]) for box in boxes if box}) == POINTS


def test_the_printed_link_shows_a_curve_and_a_band_for_each_row(
    laptop: Page, links: dict[str, str], pictures: Path
) -> None:
    laptop.goto(links["MLflow UI"])
    expect(laptop.get_by_text("Learning curves")).to_be_in_viewport()
    chart = laptop.locator(".js-plotly-plot").first
    for name in ROWS:
        legend = laptop.get_by_text(f"{name} on cifar10 ({TEST_ERR})", exact=True)
        expect(legend).to_be_in_viewport()
    bands = chart.locator(".js-fill")
    expect(bands).to_have_count(len(ROWS))
    laptop.screenshot(path=pictures / "7-curves.png")
    for band in bands.all():  # from the least to the most of five seeds, over the whole schedule
        box = band.bounding_box()
        assert box is not None and box["width"] > 300 and box["height"] > 50
    colours = {band.evaluate("band => getComputedStyle(band).fill") for band in bands.all()}
    drawn = chart.locator(".js-line").evaluate_all(
        "lines => lines.map(line => getComputedStyle(line))"
        ".filter(style => style.strokeOpacity > 0).map(style => style.stroke)"
    )
    assert set(drawn) == colours and len(colours) == len(ROWS)
    assert laptop.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_other_link_shows_the_paper_beside_what_was_measured(
    laptop: Page, links: dict[str, str], pictures: Path
) -> None:
    laptop.goto(links["the results"])
    for name in ("mean", "std", "n", "paper"):
        head = laptop.get_by_role("columnheader", name=name, exact=True).last
        expect(head).to_be_in_viewport(ratio=1)
    # Not behind the panel that MLflow opens at a first visit.
    box = head.bounding_box()
    for panel in laptop.get_by_text("MLflow Assistant", exact=True).all():
        edge = panel.bounding_box()
        assert box and edge and box["x"] + box["width"] <= edge["x"]
    expect(run(laptop, " on cifar10$")).to_have_count(len(ROWS))
    laptop.screenshot(path=pictures / "8-results.png")
    order = [link.inner_text().partition(" ")[0] for link in run(laptop, " on cifar10$").all()]
    assert sorted(order) == sorted(ROWS)
    cells = {
        fact: laptop.locator(f'[role=gridcell][col-id="metrics.`{fact}`"]').all_inner_texts()
        for fact in ("mean", "std", "n", "paper")
    }
    tops = [corner(link)[1] for link in run(laptop, " on cifar10$").all()]
    shown = [name for _, name in sorted(zip(tops, order, strict=True))]
    assert cells["paper"] == [ROWS[name] for name in shown] and cells["n"] == ["5"] * len(ROWS)
    for mean, paper, std in zip(cells["mean"], cells["paper"], cells["std"], strict=True):
        assert abs(float(mean) - float(paper)) < 0.3 and 0 < float(std) < 0.5


def test_the_report_is_read_in_its_run(page: Page, pictures: Path) -> None:
    run(page, "^report ").click()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report", exact=True).click()
    expect(page.get_by_text("index.html", exact=True)).to_be_visible()
    page.get_by_text("figure_1.png", exact=True).click()
    image = page.get_by_alt_text("figure_1.png")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.screenshot(path=pictures / "4-figure.png")
    page.get_by_text("index.html", exact=True).click()
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="digits").first).to_be_visible()
    page.screenshot(path=pictures / "5-report.png")
    for link in report.get_by_role("link").all():
        assert str(link.get_attribute("href")).startswith("#")
    report.get_by_role("link", name="Claims").first.click()
    expect(report.get_by_role("heading", name="Claims").first).to_be_in_viewport()


def test_a_filter_leaves_the_runs_of_one_row(page: Page, pictures: Path) -> None:
    expect(run(page, PLAIN)).to_be_visible()
    page.get_by_placeholder(re.compile("^metrics")).fill('tags.experiment = "resnet20"')
    page.keyboard.press("Enter")
    expect(run(page, PLAIN)).to_have_count(0)
    expand(page, RESNET)
    expect(run(page, SEED)).to_have_count(2)
    shown = names(page)
    page.screenshot(path=pictures / "6-filter.png")
    assert len(shown) == 3 and all(name.startswith("resnet20 ") for name in shown)
