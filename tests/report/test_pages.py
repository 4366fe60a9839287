"""The pages, opened in Chromium."""

from __future__ import annotations

import json
import re
import time
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from support.browser import needs_chromium, opened
from support.images import encode, gradient
from support.runs import judged_run, make_run, make_truth

from jobs.evaluate import main as evaluate
from pipeline.evaluation import evaluate_run
from pipeline.report.page import render, render_text
from pipeline.report.run_page import write_report

EVIL = "<img src=x onerror=document.title='owned'>.jpg"
COUNT = 30

pytestmark = needs_chromium


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


def headings(page: Page) -> list[str]:
    return [h.split()[0] for h in page.locator("h2").all_inner_texts()]


def tiles(page: Page, section: str) -> dict[str, str]:
    """Numbers by name, of the tiles after a heading."""
    texts = page.locator(section).locator(".number").all_inner_texts()
    return {name: value for value, name in (text.split("\n") for text in texts)}


def test_the_page_of_a_run_has_all_sections(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    assert page.title() == "now"
    assert headings(page) == [
        "Verdict", "Compared", "Pictures", "Metrics", "Error", "Results", "Collection", "Failures", "Images",
        "Provenance",
    ]  # fmt: skip
    charts = page.locator(".chart svg")
    assert charts.count() == 13
    for i in range(charts.count()):
        box = charts.nth(i).bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
    assert page.locator(".chart svg path").count() > 50
    for link in page.locator("nav a, main p a").all():
        assert page.locator(link.get_attribute("href") or "none").count() == 1
    rows = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert rows["command"].startswith("uv run jobs/annotate.py --input.uri=")
    assert {"detector", "suppression", "hardware", "versions", "date", "speed"} <= set(rows)


def test_every_chart_has_a_text_alternative(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    labels = page.locator(".chart svg").evaluate_all(
        "charts => charts.map(c => [c.role, c.getAttribute('aria-label')])"
    )
    assert all(role == "img" and len(label) > 20 for role, label in labels)
    assert page.locator("[aria-label^='images by people in an image: 0: ']").count() == 1


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of known outcome, and the page that compares them.

    Before, one person in `a` and one in `b` are found, and `d` has a false positive. Now the person of `a` is lost, one
    of `c` is found, the false positive of `d` is gone, and `e` has a new one.
    """
    folder = tmp_path_factory.mktemp("judged")
    people = {"a.jpg": [(20.0, 30.0)], "b.jpg": [(20.0, 30.0), (150.0, 90.0)], "c.jpg": [(60.0, 60.0)]}
    names = [*people, "d.jpg", "e.jpg"]
    before = {"a.jpg": [(22.0, 31.0)], "b.jpg": [(20.0, 30.0)], "d.jpg": [(100.0, 50.0)]}
    now = {"b.jpg": [(20.0, 30.0)], "c.jpg": [(60.0, 62.0)], "e.jpg": [(100.0, 50.0)]}
    for name, predicted in (("before", before), ("now", now)):
        judged_run(folder / name, {n: (people.get(n, []), predicted.get(n, [])) for n in names})
    assert evaluate([str(folder / "now"), "--compare", str(folder / "before")]) == 0
    return folder


def test_the_verdict_counts_missed_and_invented_people(browser: Browser, judged: Path) -> None:
    page = opened(browser, judged / "now" / "report.html")
    poses, accurate, boxes = page.locator(".verdict").all_inner_texts()
    assert poses == (
        "Of 4 people with annotated joints, 2 were missed (50%; too few images for an interval). Of 3 predicted "
        "poses, 1 matches no annotated person (33%; too few images for an interval)."
    )
    assert accurate == "Of the 2 people found, 2 (100%) have an accurate pose (OKS 0.5 or more)."
    assert boxes.startswith("Of 4 annotated people, also without joints, 2 were missed")
    rate = tiles(page, "#verdict ~ .numbers >> nth=0")
    assert [(name.split(",")[0], value) for name, value in rate.items()][:3] == [
        ("recall", "0.50"), ("precision", "0.67"), ("false positives per image", "0.20")
    ]  # fmt: skip
    complete = tiles(page, "#verdict ~ h3:text('Completeness') + .numbers")
    assert complete == {
        "images planned": "5", "rows in the tables": "5", "images lost": "0", "images doubled": "0",
        "shards in quarantine": "0", "images failed": "0", "people": "3",
    }  # fmt: skip


def test_a_comparison_marks_newly_lost_people(browser: Browser, judged: Path) -> None:
    page = opened(browser, judged / "now" / "report.html")
    assert tiles(page, "#comparison + .numbers") == {
        "people newly found": "1", "people newly lost": "1", "false positives gone": "1", "false positives new": "1",
        "images with a newly lost person": "1", "images unchanged": "1",
    }  # fmt: skip
    changed = page.locator("h3:text('Images that changed') ~ .table").first
    lines = {row.locator("td").first.inner_text(): row for row in changed.locator("tbody tr").all()}
    assert {name: row.locator("td").all_inner_texts()[1:5] for name, row in lines.items()} == {
        "a.jpg": ["0", "1", "0", "0"],
        "c.jpg": ["1", "0", "0", "0"],
        "d.jpg": ["0", "0", "1", "0"],
        "e.jpg": ["0", "0", "0", "1"],
    }
    marked = [name for name, row in lines.items() if "marked" in (row.get_attribute("class") or "")]
    assert marked == ["a.jpg"]
    assert page.locator(".pairs .pair").count() == 4
    lines["a.jpg"].click()
    dialog = page.locator("dialog")
    assert dialog.locator(".frame").count() == 2
    assert [dialog.locator(".frame").nth(i).locator(".prediction rect").count() for i in (0, 1)] == [1, 0]


def test_pictures_show_the_errors(browser: Browser, judged: Path) -> None:
    page = opened(browser, judged / "now" / "report.html")
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    figure = page.locator("#invented ~ .gallery").first.locator("figure").first
    assert figure.locator("figcaption").inner_text().startswith("e.jpg: 1 false positive")
    assert figure.locator("text").text_content() == "0.8"
    assert figure.locator(".prediction rect.invented").count() == 1
    missed = page.locator("#missed ~ .gallery").first.locator("figure")
    assert sorted(text.split(":")[0] for text in missed.locator("figcaption").all_inner_texts()) == ["a.jpg", "b.jpg"]
    assert missed.first.locator(".truth rect.missed").count() == 1
    assert page.locator("#sample ~ .gallery").first.locator("circle.joint.good").count() >= 17
    page.locator("#show-truth").uncheck()
    assert not missed.first.locator(".truth rect.missed").is_visible()
    page.locator("#show-truth").check()
    assert missed.first.locator(".truth rect.missed").is_visible()


def test_a_row_of_the_table_opens_its_picture_by_keyboard(browser: Browser, judged: Path) -> None:
    page = opened(browser, judged / "now" / "report.html")
    row = page.locator("#images ~ .table tbody tr", has_text="c.jpg")
    row.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] figcaption").last.inner_text().startswith("c.jpg: status ok")
    assert page.locator("dialog text").all_text_contents() == ["#1"]
    assert page.locator("dialog li").all_inner_texts() == ["found, box score 0.8; jitter: nose, left eye, right eye"]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize("width", [390, 768, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_any_width_in_light_and_dark(browser: Browser, runs: Path, width: int, scheme: str) -> None:
    page = opened(browser, runs / "now" / "report.html", width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert abs(brightness[0] - brightness[1]) > 400
    assert (brightness[0] < brightness[1]) == (scheme == "light")
    text = page.locator(".chart svg text").first.evaluate("t => getComputedStyle(t).fill")
    assert text == ink


def test_a_print_shows_all_pictures(browser: Browser, judged: Path) -> None:
    page = opened(browser, judged / "now" / "report.html")
    page.emulate_media(media="print")
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator(".gallery img").count() > 10
    assert all(image.is_visible() for image in page.locator(".gallery img").all())
    assert not page.locator(".tools").first.is_visible()


def test_no_texts_of_a_chart_overlap(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    charts = page.locator(".chart svg").evaluate_all(
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
    names = table.locator("thead tr").first.locator("th").all_inner_texts()
    assert "false positives" in names
    cost = names.index("cost") + 1
    heading = table.get_by_role("button", name="cost", exact=True)
    heading.click()
    descending = [float(v) for v in cells(page, "images", cost) if v]
    assert descending == sorted(descending, reverse=True)
    heading.press("Enter")
    ascending = [float(v) for v in cells(page, "images", cost) if v]
    assert ascending == sorted(ascending)
    search = table.locator("input[type=search]")
    search.fill("photo-01 ok")
    matches = cells(page, "images", 1)
    assert matches
    assert all(name.startswith("photo-01") for name in matches)
    assert f"of {COUNT} rows, {len(matches)} match" in table.locator(".tools").inner_text()
    search.fill("unreadable")
    assert cells(page, "images", 2) == ["unreadable"]


def test_a_column_is_filtered_by_numbers(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    table = page.locator("#images ~ div.table").first
    names = table.locator("thead tr").first.locator("th").all_inner_texts()
    annotated = names.index("annotated") + 1
    everything = [int(v) for v in cells(page, "images", annotated)]
    assert sorted(set(everything)) == [0, 2]
    box = table.get_by_label("filter annotated")
    for text, kept in (("0", {0}), (">0", {2}), ("1..", {2}), ("..1", {0}), ("<=2", {0, 2}), ("=2", {2})):
        box.fill(text)
        shown = [int(v) for v in cells(page, "images", annotated)]
        assert shown == [v for v in everything if v in kept], text
    box.fill("2")
    assert f"of {COUNT} rows, {everything.count(2)} match" in table.locator(".tools").inner_text()
    box.fill("many")
    assert box.get_attribute("aria-invalid") == "true"
    assert "filters of numbers are 3, >2" in table.locator(".tools").inner_text()
    assert len(cells(page, "images", 1)) == COUNT
    box.fill("")
    table.get_by_label("filter status").fill("unread")
    assert cells(page, "images", 2) == ["unreadable"]


def test_failed_images_are_grouped_and_do_not_count_as_empty(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    assert page.locator("#failures ~ .table").first.locator("tbody td").all_inner_texts() == [
        "unreadable", "cut short", "1", "photo-002.jpg"
    ]  # fmt: skip
    verdict = page.locator(".verdict").first.inner_text()
    assert verdict.startswith("Of 52 people with annotated joints, 2 were missed (4%; 95 % interval 0% to ")
    people = page.locator("#images ~ .table tbody tr", has_text="photo-002.jpg").locator("td").nth(2)
    assert people.inner_text() == ""
    label = page.locator("[aria-label^='images by people in an image']").get_attribute("aria-label") or ""
    assert "0: 4, " in label, "every seventh of 30 images has no people; the failed one is not among them"


def test_names_are_escaped(browser: Browser, runs: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    page.locator("#images ~ div.table").first.locator("input[type=search]").fill("onerror")
    assert cells(page, "images", 1) == [EVIL]
    assert page.title() == "now"
    assert page.locator("img[onerror]").count() == 0
    page.locator("#images ~ div.table tbody tr").first.click()
    assert EVIL in page.locator("dialog[open]").inner_text()
    assert page.title() == "now"


def test_metrics_and_settings_of_two_runs_are_compared(browser: Browser, runs: Path, judged: Path) -> None:
    page = opened(browser, runs / "now" / "report.html")
    numbers = page.locator("h3:text('Metrics') + .table").first
    rows = {
        line[0]: line[1:] for line in (r.locator("td").all_inner_texts() for r in numbers.locator("tbody tr").all())
    }
    before, now, change = map(float, rows["keypoints: AP"][:3])
    assert now - before == pytest.approx(change, abs=2e-3)
    assert change > 0, "the second run has more accurate joints"
    low, high = map(float, rows["keypoints: AP"][3].split(" to "))
    assert low < change < high
    assert "person boxes: AP" not in rows, "the boxes were given"
    page = opened(browser, judged / "now" / "report.html")
    assert page.get_by_text("person boxes: AP medium").count() == 1
    assert page.get_by_text("None that changes results").count() == 1


def test_a_run_without_annotations_has_a_page(browser: Browser, tmp_path: Path) -> None:
    """Random sample, scores, and what is unusual: many people, copies."""
    crowd = [(float(10 * n), 20.0) for n in range(25)]
    names = {"a.jpg": ([], []), "b.jpg": ([], [(20.0, 30.0)]), "many.jpg": ([], crowd)}
    path = Path(write_report(judged_run(tmp_path / "run", names)))
    page = opened(browser, path)
    assert headings(page) == ["Verdict", "Pictures", "Collection", "Images", "Provenance"]
    verdict = page.locator(".verdict").inner_text()
    assert verdict.startswith(
        "The accuracy is unknown: the run was not compared with annotations. 2 images look unusual"
    )
    captions = page.locator("#unusual ~ .gallery").first.locator("figcaption").all_inner_texts()
    assert captions == ["many.jpg: 25 people; the same file as a.jpg", "b.jpg: the same file as a.jpg"]
    assert page.locator("#sample ~ .gallery").first.locator("figure").count() == 3
    assert page.locator(".chart").count() == 6
    assert not page.get_by_text("OKS").count(), "no explanation of what is not there"
    assert page.locator(".legend").inner_text().startswith("predicted person")
    assert page.locator(".frame rect.found").count() >= 26


def test_runs_whose_images_have_other_ids_are_compared(browser: Browser, tmp_path: Path) -> None:
    """The other run read the same photographs one folder up, and is incomplete."""
    places = {"a.jpg": ([(20.0, 30.0)], [(20.0, 30.0)]), "b.jpg": ([(20.0, 30.0)], [])}
    now = judged_run(tmp_path / "now" / "run", places)
    (tmp_path / "before" / "photos").mkdir(parents=True)
    nested = {f"photos/{name}": people for name, people in places.items()}
    before = judged_run(tmp_path / "before" / "run", nested)
    totals = Path(before.path("totals.json"))
    totals.write_text(json.dumps({**json.loads(totals.read_text()), "complete": False}))
    assert evaluate([now.uri, "--compare", before.uri]) == 0
    page = opened(browser, Path(now.path("report.html")))
    assert page.get_by_text("The other run is incomplete.").count() == 1
    assert tiles(page, "#comparison + .numbers")["images unchanged"] == "2"


def test_the_people_of_the_other_run_are_found_under_its_ids(browser: Browser, tmp_path: Path) -> None:
    now = judged_run(tmp_path / "now" / "run", {"a.jpg": ([(20.0, 30.0)], [])})
    (tmp_path / "before" / "photos" / "photos").mkdir(parents=True)
    before = judged_run(tmp_path / "before" / "run", {"photos/a.jpg": ([(20.0, 30.0)], [(20.0, 30.0)])})
    assert evaluate([now.uri, "--compare", before.uri]) == 0
    page = opened(browser, Path(now.path("report.html")))
    pair = page.locator(".pairs .pair .frame")
    assert [pair.nth(i).locator(".prediction rect").count() for i in (0, 1)] == [1, 0]


def test_images_that_failed_are_not_decoded_for_a_comparison(browser: Browser, tmp_path: Path) -> None:
    """A poison image has lost all its people, so it is first among the changes."""
    places = {f"{name}.jpg": ([(20.0, 30.0)], [(20.0, 30.0)]) for name in "ab"}
    before, now = judged_run(tmp_path / "before", places), judged_run(tmp_path / "now", places, poison=("a.jpg",))
    assert evaluate([now.uri, "--compare", before.uri]) == 0
    page = opened(browser, Path(now.path("report.html")))
    assert tiles(page, "#comparison + .numbers")["people newly lost"] == "1"
    assert not page.locator(".pairs .pair").count()


def test_large_and_small_numbers_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    rows = [[12345, 0.00045], [1_000_000, 0.12345], [0.5, 1234.5678]]
    data = {"columns": ["a", "b"], "rows": rows, "marked": [False] * 3}
    template = (
        '{% extends "page.html" %}{% from "parts.html" import table %}{% block main %}{{ table(data) }}{% endblock %}'
    )
    (tmp_path / "page.html").write_bytes(render_text(template, title="x", data=data))
    page = opened(browser, tmp_path / "page.html")
    assert page.locator("tbody td").all_inner_texts() == ["12345", "0.00045", "1000000", "0.123", "0.5", "1234.6"]


def test_one_changed_archive_loses_only_its_own_pictures(browser: Browser, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", {f"{n}.jpg": ([], [(20.0, 30.0)]) for n in range(4)}, archives=2)
    (tmp_path / "photos" / "0.zip").write_bytes(b"something else")
    page = opened(browser, Path(write_report(run)))
    assert page.get_by_text("2 images can no longer be read").count() == 1
    assert page.locator("#sample ~ .gallery").first.locator("figure").count() == 2


def test_a_page_is_written_although_images_were_deleted(browser: Browser, tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", {"a.jpg": ([], [(20.0, 30.0)]), "b.jpg": ([], [])})
    (tmp_path / "photos" / "a.jpg").unlink()
    page = opened(browser, Path(write_report(run)))
    assert page.get_by_text("1 images can no longer be read").count() == 1
    assert page.locator("#images ~ .table tbody tr").count() == 2


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
    assert "of 500 rows" in table.locator(".tools").inner_text()
    assert page.locator("figcaption", has_text="over time").count() == 1
    table.get_by_role("button", name="show all").click()
    assert table.locator("tbody tr").count() == 500


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
