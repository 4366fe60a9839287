"""The pages, opened in Chromium."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.images import encode, gradient
from support.runs import make_run, make_truth

from jobs.evaluate import main as evaluate
from pipeline.evaluation import evaluate_run
from pipeline.report.page import render
from pipeline.report.run_page import write_report
from pipeline.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
EVIL = "<img src=x onerror=document.title='owned'>.jpg"
COUNT = 30

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


def opened(browser: Browser, path: Path) -> Page:
    """A page opened from its file without network; an error on its console fails the test."""
    context = browser.new_context(viewport={"width": 1240, "height": 900}, offline=True)
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"{path}: {error}"))
    page.on("console", lambda message: pytest.fail(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    return page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on 30 photographs; the second has more accurate joints. One file name is HTML markup."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "photos").mkdir()
    names = [*(f"photo-{i:03d}.jpg" for i in range(COUNT - 1)), EVIL]
    for name in names:
        (folder / "photos" / name).write_bytes(encode(gradient(200, 120)))
    truth = make_truth(folder, names)
    make_run(folder / "before", truth, folder / "photos", off=8)
    make_run(folder / "now", truth, folder / "photos", off=3)
    assert evaluate([str(folder / "now"), "--report", "--compare", str(folder / "before"), "--by", "source"]) == 0
    return folder


def cells(page: Page, section: str, column: int) -> list[str]:
    """Texts of a column in the last table before the next section."""
    table = page.locator(f"#{section} ~ div.table").first
    return table.locator(f"tbody tr td:nth-child({column})").all_inner_texts()


def test_the_page_of_a_run_has_all_sections(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    assert page.title() == "now"
    headings = page.locator("h2").all_inner_texts()
    assert [h.split()[0] for h in headings] == [
        "Numbers",
        "Compared",
        "Error",
        "Results",
        "Worst",
        "Collection",
        "Images",
    ]
    charts = page.locator("figure svg")
    assert charts.count() == 9
    for i in range(charts.count()):
        box = charts.nth(i).bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
    assert page.locator("figure svg path").count() > 50
    pictures = page.locator(".pictures img")
    assert pictures.count() == 12
    pictures.last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('.pictures img')].at(-1).naturalWidth > 0")
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href") or "none").count() == 1
    assert "joints: " in page.locator(".pictures figcaption").first.inner_text()


def test_no_texts_of_a_chart_overlap(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    charts = page.locator("figure svg").evaluate_all(
        """charts => charts.map(chart => [...chart.querySelectorAll('text')]
            .filter(text => !/rotate\\((-?[1-9])/.test(text.getAttribute('transform')))
            .map(text => [text.textContent, text.getBoundingClientRect().toJSON()]))"""
    )
    assert sum(map(len, charts)) > 100
    assert "background" not in {text for chart in charts for text, _ in chart}, "long names must be rotated"
    for chart in charts:
        for (a, one), (b, other) in combinations(chart, 2):
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            along = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            assert across < 1 or along < 2, (a, b)  # the boxes of texts are higher than their letters


def test_tables_sort_and_filter(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    assert len(cells(page, "images", 1)) == COUNT
    table = page.locator("#images ~ div.table").first
    names = table.locator("th").all_inner_texts()
    assert "false positives" in names
    cost = names.index("cost") + 1
    table.locator("th", has_text="cost").click()
    descending = [float(v) for v in cells(page, "images", cost) if v]
    assert descending == sorted(descending, reverse=True)
    table.locator("th", has_text="cost").click()
    ascending = [float(v) for v in cells(page, "images", cost) if v]
    assert ascending == sorted(ascending)
    table.locator("input").fill("photo-01 ok")
    matches = cells(page, "images", 1)
    assert matches
    assert all(name.startswith("photo-01") for name in matches)
    assert f"of {len(matches)} rows" in table.locator(".tools").inner_text()
    table.locator("input").fill("unreadable")
    assert cells(page, "images", 2) == ["unreadable"]


def test_names_are_escaped(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    page.locator("#images ~ div.table").first.locator("input").fill("onerror")
    assert cells(page, "images", 1) == [EVIL]
    assert page.title() == "now"
    assert page.locator("img[onerror]").count() == 0


def test_two_runs_are_compared(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    tiles = page.locator("#comparison + .numbers .number").all_inner_texts()
    better, worse, same = (int(re.split(r"\s+", tile)[0]) for tile in tiles)
    assert better > worse, "the second run has more accurate joints"
    assert better + worse + same == COUNT
    numbers = page.locator("#comparison ~ div.table").first
    before, now, change = (
        float(numbers.locator(f"tbody tr:first-child td:nth-child({n})").inner_text()) for n in (2, 3, 4)
    )
    assert now - before == pytest.approx(change, abs=2e-3)
    assert change > 0


def test_a_run_without_annotations_has_a_page(browser: Browser, runs: Path) -> None:
    path = Path(write_report(Run.open(str(runs / "before"))))
    page = opened(browser, path)
    assert [h.split()[0] for h in page.locator("h2").all_inner_texts()] == ["Collection", "Images"]
    assert page.locator("figure svg").count() == 2


def test_the_page_of_a_large_run_shows_a_sample(browser: Browser, tmp_path: Path) -> None:
    """The table holds the images with the highest cost and a sample of the others."""
    (tmp_path / "photos").mkdir()
    names = [f"{i}.jpg" for i in range(5000)]
    for name in names[:20]:  # planning checks that the first images of a list exist
        (tmp_path / "photos" / name).write_bytes(encode(gradient(60, 120)))
    truth = make_truth(tmp_path, names, people=1)
    run = make_run(tmp_path / "run", truth, tmp_path / "photos", shard_size=500)
    path = Path(write_report(run, evaluate_run(run, str(truth), analysis=True)))
    assert path.stat().st_size < 3e6
    page = opened(browser, path)
    table = page.locator("#images ~ div.table").first
    assert "of 1500 rows" in table.locator(".tools").inner_text()
    assert page.locator("figcaption", has_text="over time").count() == 1
    table.locator("button").click()
    assert table.locator("tbody tr").count() == 1500


@pytest.mark.slow
def test_the_page_of_100_000_images_opens_in_three_seconds(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    names = [f"{i}.jpg" for i in range(100_000)]
    (tmp_path / "photos" / "0.jpg").write_bytes(encode(gradient(60, 120)))
    truth = make_truth(tmp_path, names, people=1)
    run = make_run(tmp_path / "run", truth, tmp_path / "photos", shard_size=1000)
    path = Path(write_report(run, evaluate_run(run, str(truth), analysis=True)))
    assert path.stat().st_size < 5e6
    start = time.monotonic()
    page = opened(browser, path)
    assert page.locator("#images ~ div.table").first.locator("tbody tr").count() > 0
    seconds = time.monotonic() - start
    print(f"{path.stat().st_size / 1e6:.1f} MB, opened in {seconds:.2f} s")
    assert seconds < 3


def test_a_template_without_a_value_fails() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("report.html", title="x")
