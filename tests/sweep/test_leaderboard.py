"""The page of a sweep, opened in Chromium."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import Browser
from support.browser import needs_chromium, opened
from support.coco import SKELETON, eval_images_of, made_up

from pipeline.evaluation.errors import count_people
from pipeline.evaluation.keypoints import match_keypoints
from pipeline.settings.tree import Settings
from pipeline.sweep.candidates import Outcome, outcome_of
from pipeline.sweep.leaderboard import Row, ThresholdCurve, changes, leaderboard_page, leaderboard_table, ranked
from pipeline.sweep.trials import Trial

pytestmark = needs_chromium
THRESHOLDS = (0.0, 0.3, 0.6, 0.9)


def outcome(threshold: float) -> Outcome:
    """Of made-up results, without those of lower scores."""
    truth, poses, _ = made_up(3)
    images = eval_images_of(truth, [entry for entry in poses if entry["score"] >= threshold])
    matches = match_keypoints(images, SKELETON)
    (people,) = count_people(images, SKELETON)
    return outcome_of(matches, people, len(images.detections.scores))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    outcomes = [outcome(threshold) for threshold in THRESHOLDS]
    made = []
    for number, (threshold, result) in enumerate(zip(THRESHOLDS, outcomes, strict=True)):
        varied = {"detector.confidence": threshold, "pose.scales": (1.0,)}
        settings = Settings.model_validate({"detector": {"confidence": threshold}, "pose": {"scales": [1.0]}})
        speed = 10.0 if threshold == 0.3 else None
        command = f"uv run jobs/annotate.py --output=out/{number}"
        differences = changes(result, outcomes[0])
        made.append(Row(Trial(varied, settings), result, number == 0, *differences, speed, speed, "out/run", command))
    return ranked(made)


@pytest.fixture(scope="module")
def page_file(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "leaderboard.html"
    curve = ThresholdCurve("detector.confidence", 0.3, {t: outcome(t).people for t in THRESHOLDS})
    path.write_bytes(leaderboard_page(rows, "people.json", curve))
    return path


def test_rows_show_settings_rates_and_differences(browser: Browser, page_file: Path, rows: list[Row]) -> None:
    page = opened(browser, page_file)
    table = page.locator("h2:text('Trials') ~ .table").first
    names = table.locator("thead tr").first.locator("th").all_inner_texts()
    lines = [
        dict(zip(names, row.locator("td").all_inner_texts(), strict=True)) for row in table.locator("tbody tr").all()
    ]
    assert [line["rank"] for line in lines] == ["1", "2", "3", "4"]
    f1 = [float(line["F1"]) for line in lines]
    assert f1 == sorted(f1, reverse=True)
    assert {line["pose.scales"] for line in lines} == {"1.0"}
    for line, row in zip(lines, rows, strict=True):
        assert float(line["recall"]) == pytest.approx(row.outcome.people.recall.value, abs=5e-4)
        assert float(line["false positives per image"]) == pytest.approx(
            row.outcome.people.false_positives_per_image.value, abs=5e-4
        )
        assert line["images/s"] == ("10" if row.images_per_second else "")
        assert (line["AP change"] == "first trial") == (line["F1 change"] == "first trial") == row.is_first
    assert "The best F1 is first" in page.locator("main").inner_text()


def test_points_link_to_rows(browser: Browser, page_file: Path) -> None:
    page = opened(browser, page_file)
    links = page.locator(".chart a")
    assert links.count() >= 16, "points and labels of two charts"
    hrefs = links.evaluate_all("links => links.map(link => link.getAttribute('xlink:href'))")
    assert set(hrefs) == {f"#rank-{rank}" for rank in (1, 2, 3, 4)}
    page.locator(".chart a", has=page.locator("text=/^3$/")).first.click()
    assert page.url.endswith("#rank-3")
    assert page.locator("tr:target td").first.inner_text() == "3"
    captions = page.locator("figcaption").all_inner_texts()
    assert "Rank 1 with other thresholds (detector.confidence); its own is 0.3" in captions
    assert not any("speed" in caption for caption in captions), "one measurement shows no trade-off"


@pytest.mark.parametrize("width", [390, 2560])
def test_the_page_fits_any_width(browser: Browser, page_file: Path, width: int) -> None:
    page = opened(browser, page_file, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_table_file_has_numbers_and_intervals(rows: list[Row]) -> None:
    table: pa.Table = leaderboard_table(rows)
    for row in table.to_pylist():
        if row["ap_change"]:
            assert row["ap_change_low"] <= row["ap_change"] <= row["ap_change_high"]
            assert row["f1_change_low"] <= row["f1_change"] <= row["f1_change_high"]
        assert 0 <= row["recall"] <= 1
        assert row["detector.confidence"] in {"0.0", "0.3", "0.6", "0.9"}
