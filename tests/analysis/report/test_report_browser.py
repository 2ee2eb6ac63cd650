"""The report in Chromium, from disk and without JavaScript, at a desk and on a phone."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from analysis.report.report import write_report

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]
WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=root)
        context = browser.new_context(
            viewport={"width": WIDTHS[request.param], "height": 900}, java_script_enabled=False
        )
        yield context.new_page()
        browser.close()


def no_wider_than_the_screen(page: Page) -> None:
    """The page itself does not scroll sideways, and no table hides a column."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    body = page.locator("body").bounding_box()
    assert body is not None and body["width"] <= width
    for table in page.locator("table:visible").all():
        box = table.bounding_box()
        assert box is not None and box["x"] + box["width"] <= width


def test_no_table_hides_a_column(build, tmp_path: Path, page: Page) -> None:
    write_report(build({"resnet20": [8.7, 8.8, 8.9]}), tmp_path)
    for name, shown in (("architectures", "11.3e9"), ("reimplementations", "8.80 ± 0.10 (3)")):
        page.goto((tmp_path / f"{name}.html").as_uri())
        expect(page.get_by_text(shown)).to_be_visible()
        no_wider_than_the_screen(page)


def test_a_cell_leads_to_its_run(build, tmp_path: Path, page: Page) -> None:
    test = {"plain20": [9.6, 9.7, 9.8], "plain56": [13.0, 13.2, 13.4], "resnet20": [8.7, 8.8, 8.9]}
    write_report(build(test, train={name: [1.0, 1.1, 1.2] for name in test}), tmp_path)
    page.goto((tmp_path / "index.html").as_uri())
    expect(page.get_by_role("heading", name="CIFAR-10, the paper's recipe")).to_be_visible()
    # The result first: the numbers, and the figure that has the cure too.
    for first in (
        page.get_by_text("Test error of 20 layers: plain 9.7 %, residual 8.8 %."),
        page.get_by_role("img", name="Training on CIFAR-10"),
    ):
        expect(first).to_be_in_viewport()
    no_wider_than_the_screen(page)
    # A claim is one line, and says more when it is opened.
    claim = page.locator("#C1")
    expect(claim.get_by_text("A plain network of 56 layers")).to_be_visible()
    expect(claim.get_by_text("digitised, mean of")).to_be_hidden()
    claim.get_by_text("A plain network of 56 layers").click()
    expect(claim.get_by_text("digitised, mean of")).to_be_visible()
    expect(page.locator("#C5")).to_be_hidden()  # not run: folded with the others
    row = (
        page.get_by_role("region", name="Table 6")
        .get_by_role("row")
        .filter(has_text="8.80 ± 0.10 (3)")
    )
    expect(row).to_contain_text("suggestive")
    row.get_by_role("link").click()
    runs = page.get_by_role("region", name="Runs", exact=True)
    first = runs.get_by_role("row").filter(has_text="resnet20").first
    expect(first).to_be_in_viewport()
    first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="resnet20, seed 0")).to_be_visible()
    expect(page.get_by_text("8.70 % test error after")).to_be_visible()
    expect(page.get_by_role("img", name="Error in percent over iterations")).to_be_visible()
    no_wider_than_the_screen(page)
    page.get_by_role("link", name="resnet20, seed 1").click()
    expect(page.get_by_text("8.80 % test error after")).to_be_visible()
    page.get_by_role("link", name="CIFAR-10, the paper's recipe").click()
    expect(page.get_by_role("heading", name="Table 6")).to_be_visible()
