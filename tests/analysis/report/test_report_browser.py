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


def test_a_cell_leads_to_its_run(build, tmp_path: Path, page: Page) -> None:
    test = {"plain20": [9.6, 9.7, 9.8], "plain56": [13.0, 13.2, 13.4], "resnet20": [8.7, 8.8, 8.9]}
    write_report(build(test, train={name: [1.0, 1.1, 1.2] for name in test}), tmp_path)
    page.goto((tmp_path / "index.html").as_uri())
    expect(page.get_by_role("heading", name="CIFAR-10, the paper's recipe")).to_be_visible()
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
    expect(page.get_by_text("8.70 %")).to_be_visible()
    expect(page.get_by_role("img", name="Error in percent over iterations")).to_be_visible()
    width = page.viewport_size["width"] if page.viewport_size else 0
    body = page.locator("body").bounding_box()
    assert (
        body is not None and body["width"] <= width
    )  # tables scroll in themselves, the page does not
    page.get_by_role("link", name="CIFAR-10, the paper's recipe").click()
    expect(page.get_by_role("heading", name="Table 6")).to_be_visible()
