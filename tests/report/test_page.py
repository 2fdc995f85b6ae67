"""The pages in a real browser, opened from the file, with no network to ask."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lenext.errors import UsageError
from lenext.record import Record
from lenext.report import report
from seen import OVERFLOW, brightness, check_readable

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run_root(tmp_path_factory, write_run) -> Path:
    root = tmp_path_factory.mktemp("runs") / "run"
    write_run(root)
    report(root)
    return root


@pytest.fixture(scope="module")
def comparison_root(tmp_path_factory, write_comparison) -> Path:
    root = tmp_path_factory.mktemp("runs") / "compare"
    write_comparison(root)
    report(root / "lenet_relu")
    report(root)
    return root


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_run_has_its_page_and_pictures(run_root) -> None:
    assert (run_root / "report.html").stat().st_size < 1_500_000
    for name in ("results.png", "confusion_matrix.png"):
        assert min(picture_size(run_root / name)) > 400


def test_a_comparison_has_its_page_and_picture(comparison_root) -> None:
    assert (comparison_root / "report.html").stat().st_size < 1_500_000
    assert min(picture_size(comparison_root / "comparison.png")) > 400


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["run_root", "comparison_root"])
def test_a_page_is_readable_light_and_dark(kind, width, request, open_page) -> None:
    page = open_page(request.getfixturevalue(kind) / "report.html", width).page
    check_readable(page, 60)


def test_every_chart_of_a_run_is_drawn(run_root, open_page) -> None:
    page = open_page(run_root / "report.html").page
    charts = page.locator(".chart")
    assert charts.count() == 3
    for curves in (charts.nth(0), charts.nth(1)):
        lines = curves.locator("svg .mark-line path")
        assert lines.count() == 2
        assert all(lines.nth(i).get_attribute("d").count("L") == 11 for i in range(2))
    matrix = np.array(Record(run_root).read_json("evaluation.json")["confusion"])
    assert charts.nth(2).locator("svg .mark-rect path").count() == (matrix > 0).sum()
    numbers = charts.nth(2).locator("svg .mark-text.role-mark text").all_text_contents()
    assert sorted(map(int, numbers)) == sorted(matrix[matrix > 0].tolist())


def test_the_confusion_matrix_stays_square(run_root, open_page) -> None:
    for width in (390, 1280):
        page = open_page(run_root / "report.html", width).page
        box = page.locator(".matrix .mark-rect path").first.bounding_box()
        assert box["width"] == pytest.approx(box["height"], rel=0.02)


def test_charts_follow_the_scheme_without_being_drawn_again_and_paper_is_light(run_root, open_page) -> None:
    page = open_page(run_root / "report.html", scheme="light").page
    ink = "getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill"
    line = "getComputedStyle(document.querySelector('.chart svg .mark-line path')).stroke"
    light = [page.evaluate(ink), page.evaluate(line)]
    page.emulate_media(color_scheme="dark")
    dark = [page.evaluate(ink), page.evaluate(line)]
    assert brightness(light[0]) < 110 < 150 < brightness(dark[0])
    assert light[1] != dark[1]
    page.emulate_media(color_scheme="dark", media="print")
    assert [page.evaluate(ink), page.evaluate(line)] == light
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 255


def test_pointing_at_a_chart_tells_its_figures(run_root, open_page) -> None:
    page = open_page(run_root / "report.html").page
    page.locator(".matrix .mark-rect path").first.hover(force=True)
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    assert re.fullmatch(r"\s*True\d+Predicted\d+Images\d+ of \d+ \([\d.]+ %\)\s*", tip.text_content())
    page.locator(".chart").first.hover()
    page.wait_for_function("document.getElementById('tip').textContent.includes('Training')")
    assert re.fullmatch(r"Epoch\d+Training\d\.\d{3}Validation\d\.\d{3}", tip.text_content())
    page.mouse.move(2, 2)
    tip.wait_for(state="hidden")


def test_columns_sort_by_keyboard(run_root, open_page) -> None:
    page = open_page(run_root / "report.html").page
    table = page.locator("#classes table")
    header = table.locator("th", has_text="Recall")
    shown = lambda: [float(cell) for cell in table.locator("td.bar").evaluate_all("c => c.map(e => e.dataset.value)")]  # noqa: E731
    before = shown()
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert shown() == sorted(before, reverse=True) != before
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert shown() == sorted(before)
    table.locator("th", has_text="Class").locator("button").click()
    assert header.get_attribute("aria-sort") is None
    assert table.locator("tbody th").all_text_contents() == list("9876543210")


def test_the_worst_mistakes_are_shown_with_sharp_pixels(run_root, open_page) -> None:
    page = open_page(run_root / "report.html").page
    pictures = page.locator("#mistakes img")
    rows = Record(run_root).read_csv("worst.csv")
    assert pictures.count() == len(rows) == 24
    assert pictures.evaluate_all("all => all.every(e => e.complete && e.naturalWidth === 8 && e.width > 80)")
    assert pictures.first.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    assert pictures.first.get_attribute("alt") == f"{rows[0]['label']} taken for {rows[0]['predicted']}"


def test_a_run_says_what_it_measured(run_root, open_page) -> None:
    text = open_page(run_root / "report.html").page.locator("body").inner_text()
    accuracy = Record(run_root).read_json("evaluation.json")["accuracy"]
    for expected in (
        f"{100 * accuracy:.1f} %",
        "797",
        "61.7 k",
        "42 µs",
        "252 kB",
        "800 to train, 200 to choose the model, 797 to judge it",
        "lenext predict",
        "0/broken.png",
        "truncated: ends after 1,024 bytes",
        "near duplicate",
        "It took 13 % longer than predicted.",
        "source: digits",
        "Some CPU @ 2.0 GHz",
    ):
        assert expected in text
    assert "exif rotated" not in text  # found nowhere, so not mentioned


def test_a_run_compares_what_was_foretold_with_what_came(tmp_path, open_page, write_run) -> None:
    record = write_run(tmp_path / "run")
    step = {"value": 0.02, "low": 0.018, "high": 0.022}
    told = {"seconds": {"value": 18.0, "low": 15.0, "high": 21.0}, "step_seconds": step, "epochs": 12.0}
    record.write_json(
        "estimate.json", {"predicted": told, "actual": {"seconds": 20.4, "step_seconds": 0.0235, "epochs": 12.0}}
    )
    section = open_page(report(record.root), width=360).page.locator("#times")
    sentence = "It took 13 % longer than predicted. That is within the interval given, 15 s to 21 s."
    assert section.locator("p").first.inner_text() == sentence
    rows = section.locator("tbody tr").all_inner_texts()
    assert [[" ".join(cell.split()) for cell in row.split("\t")] for row in rows] == [
        ["Time", "18 s 15 s to 21 s", "20 s within the interval"],
        ["Time of a step", "20 ms 18 ms to 22 ms", "24 ms outside the interval"],
        ["Epochs", "12", "12"],
    ]


def test_headings_tables_and_pictures_are_there_for_everyone(run_root, open_page) -> None:
    page = open_page(run_root / "report.html").page
    levels = [int(name[1]) for name in page.locator("h1, h2, h3").evaluate_all("all => all.map(e => e.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("thead th:not([scope])").count() == 0
    labels = page.locator(".chart[role=img]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    assert labels[0].startswith("Loss over epochs; on the validation images ")
    assert labels[2].startswith("Confusion matrix of 10 classes; most often, ")
    ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    targets = [link[1:] for link in page.locator("nav a").evaluate_all("all => all.map(e => e.getAttribute('href'))")]
    assert set(targets) <= set(ids)


def test_an_svm_has_templates_and_no_curves(tmp_path, open_page, write_run) -> None:
    root = write_run(tmp_path / "svm", model="svm_linear", network=False).root
    page = open_page(report(root)).page
    assert not (root / "results.png").exists()
    assert "was not trained in epochs" in page.locator("#curves").inner_text()
    assert page.locator("#filters li").all_inner_texts() == list("0123456789")


def test_an_interrupted_run_gives_what_it_has(tmp_path, open_page, write_run) -> None:
    root = write_run(tmp_path / "part", evaluated=False).root
    page = open_page(report(root), width=390).page
    assert "Not finished" in page.locator("header").inner_text()
    assert "Epochs so far" in page.locator("#summary").inner_text()
    assert page.locator(".chart svg").count() == 2
    assert page.locator("#confusion").count() == 0


def test_a_hostile_class_name_is_only_text(tmp_path, open_page, write_run) -> None:
    root = write_run(tmp_path / "hostile", classes=(HOSTILE, "even")).root
    page = open_page(report(root), width=390).page
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("#classes tbody th").first.text_content() == HOSTILE
    assert page.locator(".chart svg").count() == 3
    assert page.evaluate(OVERFLOW) == 0
    page.locator(".matrix .mark-rect path").first.hover(force=True)
    page.wait_for_function("!document.getElementById('tip').hidden")
    assert page.locator("#tip img").count() == 0


def test_many_classes_with_long_names_fit(tmp_path, open_page, write_run) -> None:
    names = [f"a class with a rather long name, number {number} of them" for number in range(120)]
    root = write_run(tmp_path / "many", classes=names).root
    assert open_page(report(root), width=390).page.evaluate(OVERFLOW) == 0
    page = open_page(root / "report.html").page
    assert page.evaluate(OVERFLOW) == 0
    assert page.locator(".matrix .mark-text.role-mark text").count() == 0
    assert page.locator("#classes tbody tr").count() == 120
    assert page.locator("#confusion tbody tr").count() == 40


def test_a_comparison_shows_every_rung(comparison_root, open_page) -> None:
    page = open_page(comparison_root / "report.html").page
    rows = page.locator("#models tbody tr")
    assert rows.count() == 5
    assert page.locator("tr.winner").count() == 1
    assert "lenet_relu" in page.locator("tr.winner").inner_text()
    assert "failed: alexnet needs images of 64 px or more" in rows.nth(4).inner_text()
    for expected in ("98.3 %", "96.9–99.3 %", "61.7 k", "417 k", "42 µs", "252 kB", "1998", "20 s"):
        assert expected in page.locator("tr.winner").inner_text()
    links = page.locator("#models a").evaluate_all("all => all.map(e => e.getAttribute('href'))")
    assert links == ["lenet_relu/report.html"]  # the only run that has a page
    page.locator("#models a").click()
    assert page.locator("h1").inner_text() == "lenet_relu on digits"


def test_failed_rungs_come_last_however_sorted(comparison_root, open_page) -> None:
    page = open_page(comparison_root / "report.html").page
    button = page.locator("#models thead button", has_text="Training time")
    for expected in ("lenet_relu", "svm_linear"):
        button.click()
        names = page.locator("#models tbody th").evaluate_all("all => all.map(e => e.dataset.value)")
        assert names[0] == expected
        assert names[-1] == "alexnet"


def test_the_cost_axis_can_be_chosen_on_a_telephone(comparison_root, open_page) -> None:
    page = open_page(comparison_root / "report.html", width=390).page
    shown = page.locator("#cost figure:visible")
    assert shown.count() == 1
    page.locator("input[value=train_seconds]").check()
    shown.locator("svg").wait_for()
    assert shown.count() == 1
    assert "Training time" in shown.locator("svg").text_content()
    assert shown.locator("svg .mark-symbol.role-mark path").count() == 4
    page.locator("input[value=macs]").check()
    assert shown.count() == 1
    assert "Multiply–accumulates per image" in shown.locator("svg").text_content()
    assert "svm_linear" in shown.locator("figcaption").inner_text()  # has no MACs, and is said not to be drawn
    page.keyboard.press("ArrowRight")
    page.locator("#cost-train_seconds svg").wait_for()
    assert page.locator("#cost input:checked").get_attribute("value") == "train_seconds"
    assert page.evaluate(OVERFLOW) == 0


def test_pointing_at_learning_curves_tells_the_nearest_point(comparison_root, open_page) -> None:
    page = open_page(comparison_root / "report.html").page
    page.locator("#curves .chart").hover()
    page.wait_for_function("!document.getElementById('tip').hidden")
    assert re.fullmatch(r"Modellenet_reluAfter[\d.]+ sEpoch\d+Accuracy[\d.]+ %", page.locator("#tip").text_content())


def test_labels_of_the_cost_chart_stay_inside(comparison_root, open_page) -> None:
    for width in (390, 1280):
        page = open_page(comparison_root / "report.html", width).page
        right = page.evaluate("document.documentElement.clientWidth")
        page.locator("input[value=train_seconds]").check()
        boxes = page.locator("#cost figure:visible .mark-text.role-mark text").evaluate_all(
            "all => all.map(e => [e.getBoundingClientRect().left, e.getBoundingClientRect().right])"
        )
        assert len(boxes) == 4
        assert all(0 <= a < b <= right for a, b in boxes)


def test_a_page_can_be_written_again(run_root) -> None:
    first = (run_root / "report.html").read_text(encoding="utf-8")
    assert report(run_root).read_text(encoding="utf-8") == first


def test_a_folder_that_is_neither_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="neither a run's folder"):
        report(tmp_path)
    with pytest.raises(UsageError, match="neither a run's folder"):
        report(tmp_path / "missing")


def test_a_run_without_any_measurement_is_refused(tmp_path) -> None:
    Record.create(tmp_path / "new", "new").write_text("args.yaml", "seed: 0\n")
    with pytest.raises(UsageError, match="nothing has been measured yet"):
        report(tmp_path / "new")


def test_a_comparison_of_nothing_is_refused(tmp_path) -> None:
    record = Record.create(tmp_path / "new", "new")
    record.write_json("comparison.json", {"data": "digits", "budget": None, "winner": None, "verdict": "", "rungs": []})
    with pytest.raises(UsageError, match="no model has been evaluated yet"):
        report(tmp_path / "new")


@pytest.mark.parametrize("name", ["evaluation.json", "worst.npy"])
def test_a_damaged_record_is_named(tmp_path, name, write_run) -> None:
    root = write_run(tmp_path / "damaged").root
    (root / name).write_bytes((root / name).read_bytes()[:40])
    with pytest.raises(UsageError, match="damaged"):
        report(root)


def test_records_of_the_least_give_a_page(tmp_path, open_page) -> None:
    record = Record.create(tmp_path / "least", "least")
    record.write_text("args.yaml", "seed: 0\n")
    classes = [{"class": name, "precision": None, "recall": None, "f1": None, "support": 0} for name in ("cat", "dog")]
    record.write_json(
        "evaluation.json",
        {"split": "val", "images": 1, "accuracy": 1.0, "classes": classes, "confusion": [[1, 0], [0, 0]]},
    )
    page = open_page(report(record.root)).page
    assert "Of 1 image that it was chosen on, least names 100 % correctly." in page.locator("header").inner_text()
    assert "None: every image was named correctly." in page.locator("#confusion").inner_text()
    assert page.locator(".chart svg").count() == 1
