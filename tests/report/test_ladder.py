"""The page of a comparison of twelve rungs in a real browser, and of comparisons of which less is known."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ladder_folder import COSTS, ERROR, LEFT_OUT, REASON, RUNGS, WINNER, write_ladder
from PIL import Image

from lenext.errors import UsageError
from lenext.record import Record
from lenext.report import report
from seen import CONTRASTS, COVERED, OVERFLOW

NAMES = [rung[0] for rung in RUNGS]
NETWORKS = [rung[0] for rung in RUNGS if rung[5]]
NEW_KEYS = (
    "seconds", "seeds", "command", "test", "constraints", "plan", "pairs", "frontier", "agreement", "separating",
)  # fmt: skip
NEW_RUNG_KEYS = (
    "runs", "accuracy_spread", "accuracies", "log_loss", "calibration_error", "seconds", "epochs", "predicted_seconds",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    record = write_ladder(tmp_path_factory.mktemp("runs") / "ladder")
    report(record.root)
    return record.root


@pytest.fixture(scope="module")
def comparison(root) -> dict[str, Any]:
    return json.loads((root / "comparison.json").read_text())


@pytest.fixture
def changed(root, tmp_path):
    """A copy of the comparison's folder with other contents of comparison.json, and its page."""

    def change(**keys: Any) -> Path:
        copy = shutil.copytree(root, tmp_path / "copy")
        record = Record(copy)
        found = record.read_json("comparison.json") | keys
        record.write_json("comparison.json", {key: value for key, value in found.items() if value is not ...})
        return report(copy)

    return change


def test_the_verdict_comes_first_and_large_and_the_plan_was_kept(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    verdict = page.locator(".verdict")
    assert verdict.inner_text().startswith("Ship resnet20: ")
    assert f"{verdict.inner_text()} {page.locator('header .lead').inner_text()}" == comparison["verdict"]
    assert verdict.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 24
    assert page.locator(".kept").inner_text() == "✓ Plan kept: 29 min of a budget of 30 min."
    figures = page.locator("header .figures").inner_text()
    for expected in (WINNER, "93.6 %", "12", "3 seeds each, 1 failed, 1 left out", "2,000"):
        assert expected in figures


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1900.0, "✓ Plan kept: 32 min of a budget of 30 min, 6 % over."),
        (2400.0, "✗ Plan not kept: 40 min of a budget of 30 min, 33 % over."),
    ],
)
def test_a_plan_that_was_overrun_is_told(changed, open_page, seconds, said) -> None:
    assert open_page(changed(seconds=seconds)).page.locator(".kept").inner_text() == said


def test_every_rung_has_its_row_and_those_without_figures_say_why(root, open_page) -> None:
    page = open_page(root / "report.html").page
    rows = page.locator("#models tbody tr")
    assert rows.count() == len(RUNGS) + 2
    row = page.locator("tr.winner").inner_text()
    for expected in (WINNER, "ResNet, 2015", "93.6 %", "± 0.2, 3 seeds", "1.2 min", "5 epochs", "272 k", "31.0 M"):
        assert expected in row
    assert "predicted 1.2 min" in row
    assert "(1.1 min to 1.4 min)" in row
    assert f"failed: {ERROR}" in rows.nth(len(RUNGS)).inner_text()
    assert rows.last.inner_text().startswith(LEFT_OUT)
    assert f"left out: {REASON}" in rows.last.inner_text()


def test_what_missed_its_interval_and_seeds_that_were_not_run_are_told(changed, comparison, open_page) -> None:
    rungs = [dict(rung) for rung in comparison["rungs"]]
    rungs[0] |= {"seconds": 99.0}
    rungs[1] |= {"accuracies": [0.84], "accuracy_spread": None}
    page = open_page(changed(rungs=rungs)).page
    assert "up to 3 seeds, 1 failed, 1 left out" in page.locator("header .figures").inner_text()
    rows = page.locator("#models tbody tr")
    assert [row.split().count("missed") for row in rows.all_inner_texts()] == [1] + [0] * (len(RUNGS) + 1)
    assert "±" not in rows.nth(1).inner_text()
    caption = page.locator("#foretold figcaption").first.inner_text()
    assert "11 of 12 actual figures lie in the interval given before." in caption


def test_the_table_sorts_and_what_has_no_figures_stays_last(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    shown = page.locator("#models tbody th")
    for column, key in (("Accuracy", "accuracy"), ("Whole run", "seconds"), ("Calibration", "calibration_error")):
        page.locator("#models thead button", has_text=column).click()
        names = shown.evaluate_all("all => all.map(e => e.dataset.value)")
        known = [rung for rung in comparison["rungs"] if rung[key] is not None]
        assert names[:-2] == [rung["model"] for rung in sorted(known, key=lambda rung: -rung[key])]
        assert set(names[-2:]) == {"bow_surf", LEFT_OUT}


def test_the_axis_of_costs_is_chosen_by_keyboard(root, open_page) -> None:
    page = open_page(root / "report.html").page
    shown = page.locator("#cost figure:visible")
    titles = ["Multiply–accumulates per image", "Training time", "Time to predict an image", "Size of the bundle"]
    titles.append("Parameters")
    page.locator("#cost input").first.focus()
    for index, title in enumerate(titles):
        assert shown.count() == 1
        assert title in shown.locator("svg").text_content()
        assert page.locator("#cost input:checked").count() == 1
        if index + 1 < len(titles):
            page.keyboard.press("ArrowRight")
    assert page.locator("#foretold input").first.is_checked()  # another group


def test_the_frontier_has_full_dots_and_a_stepped_line(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    for key in COSTS:
        page.locator(f"#cost input[value={key}]").check()
        figure = page.locator(f"#cost-{key}")
        dots = figure.locator("svg .mark-symbol.role-mark path")
        assert dots.count() == len(RUNGS)
        hollow = dots.evaluate_all("all => all.filter(e => e.getAttribute('fill') === 'var(--paper)').length")
        best = comparison["frontier"][key]
        assert hollow == len(RUNGS) - len(best)
        line = figure.locator("svg .mark-line path").get_attribute("d")
        assert line.count("L") == 2 * (len(best) - 1)
        assert f"cheapest first: {', '.join(best)}" in figure.locator(".chart").get_attribute("aria-label")
    caption = page.locator("#cost-predict_ms_per_image figcaption").text_content()
    assert "At most 750 µs was allowed." in " ".join(caption.split())


def test_pointing_at_a_dot_tells_its_figures(root, open_page) -> None:
    page = open_page(root / "report.html").page
    page.locator("#cost-macs .mark-symbol.role-mark path").last.hover(force=True)
    page.wait_for_function("!document.getElementById('tip').hidden")
    said = page.locator("#tip").text_content()
    for expected in ("Model", "Accuracy", "MACs", "On the frontieryes"):
        assert expected in said


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_names_of_twelve_points_can_be_read_at_any_width(root, open_page, width) -> None:
    page = open_page(root / "report.html", width).page
    charts = page.locator("#cost .chart, #curves .chart, #foretold .chart")
    assert charts.count() == 5 + 1 + 3
    for chart in charts.all():
        names = chart.locator(".mark-text.role-mark text").all_text_contents()
        assert set(names) <= set(NAMES)
        assert len(names) in (len(NAMES), len(NETWORKS))
        assert chart.evaluate(COVERED) == []


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_readable_light_and_dark(root, open_page, width) -> None:
    page = open_page(root / "report.html", width).page
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(OVERFLOW) == 0
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 500
        assert contrasts[0][0] >= 4.5, contrasts[:3]  # AA


def test_on_paper_everything_is_open(root, open_page) -> None:
    page = open_page(root / "report.html").page
    page.locator("#right-for").select_option("softmax")
    page.emulate_media(media="print")
    assert page.locator("#cost figure:visible svg").count() == 5
    assert page.locator("#foretold figure:visible svg").count() == 3
    assert page.locator("#separating .gallery > li:visible").count() == 24
    assert page.locator("fieldset:visible, .filter:visible").count() == 0
    hidden = "all => all.filter(e => e.scrollHeight > e.clientHeight + 1).length"
    assert page.locator(".scroll").evaluate_all(hidden) == 0


def test_a_sheet_of_paper_is_wide_enough(root, open_page) -> None:
    page = open_page(root / "report.html", 720).page  # A4 at 96 dpi, less its margins
    page.emulate_media(media="print")
    too_wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"
    assert page.locator(".scroll").evaluate_all(too_wide) == []


def test_real_differences_are_marked_by_more_than_colour(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    section = page.locator("#differences")
    pairs = comparison["pairs"]
    real = sum(pair["significant"] for pair in pairs)
    assert 0 < real < len(pairs) == 66
    assert f"{real} of 66 pairs differ by more than chance explains" in section.inner_text()
    marks = Counter(section.locator(".grid .mark").all_text_contents())
    assert marks == {"●": real, "○": 66 - real}
    weights = section.locator(".grid td.real").evaluate_all("all => all.map(e => +getComputedStyle(e).fontWeight)")
    assert len(weights) == real
    assert min(weights) >= 600
    rows = section.locator("table.models tbody tr")
    assert rows.count() == 66
    pair = max(pairs, key=lambda pair: abs(pair["difference"]))
    better, other = (pair["a"], pair["b"]) if pair["difference"] > 0 else (pair["b"], pair["a"])
    cells = rows.first.locator("th, td").all_inner_texts()
    assert cells[:3] == [better, other, f"{100 * abs(pair['difference']):.1f}"]
    assert cells[-2:] == ["< 0.001", "● yes"]
    assert not any(cell.startswith("−") for cell in rows.locator("td:nth-child(3)").all_inner_texts())


def test_a_cell_of_the_triangle_is_the_difference_of_its_row_and_column(root, comparison, open_page) -> None:
    table = open_page(root / "report.html").page.locator("#differences .grid")
    columns = table.locator("thead th").all_text_contents()
    accuracy = {rung["model"]: rung["accuracy"] for rung in comparison["rungs"]}
    for index, row in enumerate(table.locator("tbody tr").all()):
        model = row.locator("th").inner_text()
        cells = row.locator("td:not([colspan])").all_inner_texts()
        assert len(cells) == len(columns) - index
        for column, cell in zip(columns, cells, strict=False):
            assert float(cell[:-1]) == pytest.approx(100 * (accuracy[model] - accuracy[column]), abs=0.051)


def test_learning_curves_of_networks_and_marks_of_the_others(root, open_page) -> None:
    page = open_page(root / "report.html").page
    chart = page.locator("#curves .chart")
    assert chart.locator("svg .mark-line path").count() == len(NETWORKS)
    assert sorted(chart.locator(".mark-text.role-mark text").all_text_contents()) == sorted(NAMES)
    caption = page.locator("#curves figcaption").inner_text()
    assert "of each model's first seed" in caption
    assert "level mark" in caption
    assert "bow_surf" not in caption  # failed


def test_images_that_separate_are_shown_with_every_answer(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    tiles = page.locator("#separating .gallery > li")
    assert tiles.count() == 24
    assert tiles.locator("img").evaluate_all("all => all.every(e => e.complete && e.naturalWidth === 28 && e.alt)")
    row, said = comparison["separating"][0], tiles.first.inner_text()
    assert row["path"] in said
    assert f"✓ {row['label']}\n{', '.join(row['right'])}" in " ".join(said.split(" "))
    for model in row["wrong"]:
        answer = next(line for line in said.split("\n✗ ")[1:] if model in line.split("\n")[1].split(", "))
        assert answer.startswith(row["predicted"][model])


def test_images_are_chosen_by_who_is_right_and_who_is_wrong(root, comparison, open_page) -> None:
    page = open_page(root / "report.html", 360).page
    tiles = page.locator("#separating .gallery > li:visible")
    assert page.locator("#separating output").inner_text() == "24 images"
    page.get_by_label("Right:").select_option("resnet9")
    page.get_by_label("Wrong:").select_option("bow_sift")
    expected = [row for row in comparison["separating"] if "resnet9" in row["right"] and "bow_sift" in row["wrong"]]
    assert 0 < len(expected) < 24
    assert tiles.count() == len(expected)
    assert page.locator("#separating output").inner_text() in (f"{len(expected)} images", "1 image")
    assert [tile.locator(".note").inner_text() for tile in tiles.all()] == [row["path"] for row in expected]
    page.get_by_label("Right:").select_option("")
    page.get_by_label("Wrong:").select_option("")
    assert tiles.count() == 24


def test_the_agreement_of_every_two_is_a_number_and_a_shade(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    cells = page.locator("#agreement td.heat")
    matrix = np.array(comparison["agreement"]["matrix"])
    apart = ~np.eye(len(matrix), dtype=bool)
    assert cells.all_inner_texts() == [f"{100 * share:.1f}" for share in matrix[apart]]
    shades = cells.evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")
    assert len(set(shades)) > 10
    most = matrix[apart].max()
    assert f"({100 * most:.1f} %)" in page.locator("#agreement p").first.inner_text()
    assert page.locator("#agreement thead th").all_text_contents() == NAMES


def test_predicted_against_actual(root, comparison, open_page) -> None:
    page = open_page(root / "report.html").page
    inside = sum(
        rung["predicted_seconds"]["low"] <= rung["seconds"] <= rung["predicted_seconds"]["high"]
        for rung in comparison["rungs"]
        if rung["seconds"]
    )
    caption = page.locator("#foretold figcaption:visible").inner_text()
    assert f"{inside} of 12 actual figures lie in the interval given before." in caption
    page.get_by_role("radio", name="Peak memory").check()
    figure = page.locator("#foretold figure:visible")
    assert "Predicted peak memory" in figure.locator("svg").text_content()
    assert figure.locator("svg .mark-symbol.role-mark path").count() == len(NETWORKS)
    plan = page.locator("#foretold table tbody tr")
    assert plan.count() == len(RUNGS) + 1
    assert f"left out: {REASON}" in plan.last.inner_text()


def test_how_to_reproduce(root, comparison, open_page) -> None:
    said = open_page(root / "report.html").page.locator("#reproduce").inner_text()
    for expected in (
        comparison["command"],
        "0, 1, 2",
        "30 min",
        "At most",
        "750 µs to predict an image",
        "Some CPU @ 2.0 GHz, 2 cores",
        "2.11.0",
        "0123456789abcdef",
    ):
        assert expected in said


def test_headings_tables_and_controls_have_their_names(root, open_page) -> None:
    page = open_page(root / "report.html").page
    assert page.locator("h1").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("thead th:not([scope])").count() == 0
    labels = page.locator(".chart[role=img]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    assert len(labels) == 9
    assert all("model" in label or "network" in label for label in labels)
    unnamed = "all => all.filter(e => !e.labels.length).length"
    assert page.locator("input, select").evaluate_all(unnamed) == 0
    assert page.locator("fieldset:not(:has(legend))").count() == 0
    ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = page.locator("nav a").evaluate_all("all => all.map(e => e.getAttribute('href').slice(1))")
    assert links == [
        "models", "cost", "differences", "curves", "separating", "agreement", "foretold", "reproduce",
    ]  # fmt: skip
    assert set(links) <= set(ids)


def test_pictures_lie_beside_the_page(root) -> None:
    assert (root / "report.html").stat().st_size < 1_500_000
    for name in ("comparison.png", "curves.png", "foretold.png"):
        with Image.open(root / name) as picture:
            assert min(picture.size) > 400


@pytest.mark.parametrize(
    "keys",
    [
        ("plan", "verdict"),
        ("pairs", "seconds"),
        ("frontier", "agreement"),
        ("constraints", "test"),
        ("separating", "seeds"),
        ("command", "winner"),
        ("data", "budget", "next"),
    ],
)
def test_keys_may_be_missing(changed, open_page, keys) -> None:
    page = open_page(changed(**dict.fromkeys(keys, ...)), 360).page
    assert page.locator("#models tbody tr").count() >= len(RUNGS) + 1
    assert page.evaluate(OVERFLOW) == 0
    assert "None" not in page.locator("main").inner_text()


def test_a_comparison_of_an_older_version_has_what_it_had(changed, comparison, open_page) -> None:
    rungs = [{key: value for key, value in rung.items() if key not in NEW_RUNG_KEYS} for rung in comparison["rungs"]]
    page = open_page(changed(rungs=rungs, **dict.fromkeys(NEW_KEYS, ...))).page
    assert page.locator("#models tbody tr").count() == len(RUNGS) + 1
    assert page.locator("#cost .chart svg").count() == 5
    assert page.locator("#cost-macs svg .mark-line path").count() == 1  # the frontier is found all the same
    assert page.locator("#foretold figure:visible svg").count() == 1  # from each run's own estimate
    for section in ("differences", "separating", "agreement"):
        assert page.locator(f"#{section}").count() == 0


def test_a_comparison_under_way_shows_what_it_has(changed, comparison, open_page) -> None:
    done = comparison["rungs"][:2]
    keep = {"data", "budget", "plan", "seeds"}
    rest = {key: ... for key in comparison if key not in keep}
    page = open_page(changed(**rest | {"rungs": done})).page
    assert "has not finished" in page.locator(".verdict").inner_text()
    rows = page.locator("#models tbody tr")
    assert rows.count() == len(RUNGS) + 1
    assert "not run yet" in rows.nth(2).inner_text()
    assert f"left out: {REASON}" in rows.last.inner_text()
    assert page.locator("#cost .chart svg").count() == 5


def test_one_rung_alone_gives_a_page(changed, comparison, open_page) -> None:
    one = [{"model": "lenet", "accuracy": 0.9, "train_seconds": 3.0, "run": "lenet-seed0"}]
    page = open_page(changed(rungs=one, plan=..., pairs=[], agreement={"models": ["lenet"], "matrix": [[1.0]]})).page
    assert page.locator("#cost .chart svg").count() == 1
    assert page.locator("#differences, #agreement").count() == 0


def test_pictures_that_were_lost_or_damaged(changed, root, tmp_path, open_page) -> None:
    page = changed()
    (page.parent / "separating.npy").unlink()
    assert open_page(report(page.parent)).page.locator("#separating").count() == 0
    (page.parent / "separating.npy").write_bytes((root / "separating.npy").read_bytes()[:100])
    with pytest.raises(UsageError, match=r"separating\.npy is damaged"):
        report(page.parent)
