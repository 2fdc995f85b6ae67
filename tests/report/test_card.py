"""The model card: every figure in it is the record's, whatever the names are, and hubs can read it."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from lenext.record import Record
from lenext.report.card import CARD, write_card
from lenext.run import Result, train


def parts(root: Path) -> tuple[dict, str, list[list[list[str]]]]:
    """Of a card: its metadata, its text, and its tables as rows of cells."""
    _, front, body = (root / CARD).read_text(encoding="utf-8").split("---\n", 2)
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    tables: list[list[list[str]]] = []
    for token, after in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("td_open", "th_open"):
            text = "".join(child.content for child in after.children or ())
            tables[-1][-1].append(text)
    return yaml.safe_load(front), body, tables


def number(cell: str) -> float:
    """``97.2 %``, ``1,259``, ``250 kB``, ``345 µs`` as a number of the records' units; seconds, bytes, shares."""
    found = re.fullmatch(r"([\d,.]+)\s?(%|[kMG]?B|µs|ms|s|min|h|)", cell)
    assert found, cell
    units = {"%": 0.01, "": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60,
             "h": 3600}  # fmt: skip
    return float(found[1].replace(",", "")) * units[found[2]]


def is_close(cell: str, value: float) -> bool:
    """Whether the cell says `value`, to the digits that it shows."""
    return number(cell) == pytest.approx(value, rel=0.06 if re.search("[sBnh]$", cell) else 1e-9, abs=5.1e-4)


@pytest.mark.parametrize("which", ["run", "svm_run"])
def test_every_figure_is_the_records(which, request):
    result: Result = request.getfixturevalue(which)
    record = Record(result.root)
    evaluation, data, model, summary, estimate = (
        record.read_json(f"{name}.json") for name in ("evaluation", "data", "model", "summary", "estimate")
    )
    front, body, (metrics, classes, images, training, cost) = parts(result.root)

    results = front["model-index"][0]["results"][0]
    assert {row["type"]: row["value"] for row in results["metrics"]} == {
        "accuracy": evaluation["accuracy"], "balanced_accuracy": evaluation["balanced_accuracy"],
        "f1": evaluation["macro_f1"], "top_5_accuracy": evaluation["top5_accuracy"],
        "log_loss": evaluation["log_loss"], "expected_calibration_error": evaluation["calibration_error"],
    }  # fmt: skip
    assert front["metrics"] == [row["type"] for row in results["metrics"]]
    assert results["dataset"]["split"] == evaluation["split"] == "test"

    shown = dict(metrics[1:])
    assert is_close(shown["accuracy"], evaluation["accuracy"])
    low, high = (float(bound) / 100 for bound in shown["its 95 % interval"].removesuffix(" %").split("–"))
    assert [low, high] == pytest.approx(evaluation["accuracy_interval"], abs=5.1e-4)
    assert is_close(shown["balanced accuracy: mean recall of the classes"], evaluation["balanced_accuracy"])
    assert is_close(shown["macro F1"], evaluation["macro_f1"])
    assert is_close(shown["log loss, in nats"], evaluation["log_loss"])
    assert is_close(shown["calibration error of the probabilities"], evaluation["calibration_error"])
    assert is_close(shown["accuracy on the validation images"], summary["val_accuracy"])

    assert [row[0] for row in classes[1:]] == [row["class"] for row in evaluation["classes"]]
    for cells, row in zip(classes[1:], evaluation["classes"], strict=True):
        assert all(
            is_close(cell, row[key])
            for cell, key in zip(cells[1:], ("support", "recall", "precision", "f1"), strict=True)
        )

    assert images[0] == ["class", "training", "validation", "test"]
    for cells in images[1:-1]:
        assert [number(cell) for cell in cells[1:]] == [data["counts"][part][cells[0]] for part in data["counts"]]
    with (result.root / "split.csv").open(encoding="utf-8", newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert [number(cell) for cell in images[-1][1:]] == [splits.count(part) for part in ("train", "val", "test")]
    assert data["fingerprint"] in body

    said = dict(training[1:])
    assert (said["model"], said["images"], said["seed"]) == (model["name"], f"{model['trained_on']:,}", "0")
    if which == "run":
        assert float(said["epochs"].split(";")[0]) == estimate["actual"]["epochs"] == 12
        assert f"after epoch {summary['best_epoch']:g}," in said["epochs"]
    else:
        assert "epochs" not in said
        assert model["solver"][1:] in said["note"]

    said = dict(cost[1:])
    assert number(said["parameters"]) == model["params"]
    assert number(said["multiply-adds for an image"]) == model["macs"]
    assert is_close(said["bundle"], result.bundle.stat().st_size)
    assert is_close(said["training"], summary["train_seconds"])
    assert number(said["predicting an image, by itself"]) * 1000 == pytest.approx(
        summary["predict_ms_per_image"], rel=0.06
    )

    confusion = evaluation["confusion"]
    for of, true, wrong, other in re.findall(r"Of (\d+) images? of (\S+), (\d+) \w+ taken for (\S+)\.\n", body):
        assert confusion[int(true)][int(other)] == int(wrong)
        assert sum(confusion[int(true)]) == int(of)
    for name, recall, support in re.findall(r"(\S+) \(([\d.]+ %) of (\d+) images found\)", body):
        assert is_close(recall, evaluation["classes"][int(name)]["recall"])
        assert int(support) == evaluation["classes"][int(name)]["support"]


def test_hubs_can_read_it(run):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(run.root / CARD)
    assert card.data.library_name == "lenext"
    assert card.data.license == "unknown"
    assert card.data.model_name == "lenet_relu on digits"
    by_type = {result.metric_type: result for result in card.data.eval_results}
    assert by_type["accuracy"].metric_value == run.accuracy
    assert by_type["accuracy"].dataset_split == "test"


def test_a_licence_is_the_one_given(tmp_path):
    for given, front in (
        ("cc-by-4.0", {"license": "cc-by-4.0"}),
        ("Ours alone", {"license": "other", "license_name": "Ours alone"}),
    ):
        root = train("digits", model="softmax", epochs=1, settings={"license": given}, out=tmp_path / given).root
        found, body, _ = parts(root)
        assert {key: value for key, value in found.items() if key.startswith("license")} == front
        assert f"{given}, as given by who trained it." in body


HOSTILE = ("a|b", "<img src=x>", "*bold* `code`", "[link](http://x)", "# title", "---", "under_score", "a\nb")


def test_names_are_shown_as_they_are(tmp_path, write_run):
    root = write_run(tmp_path / "run", classes=HOSTILE).root
    write_card(root)
    _, body, tables = parts(root)
    flat = [" ".join(name.split()) for name in HOSTILE]
    assert [row[0] for row in tables[1][1:]] == flat
    assert [row[0] for row in tables[2][1:-1]] == flat
    html = MarkdownIt("commonmark").enable("table").render(body)
    assert not re.search("<img|<a |<em>", html)
    assert html.count("<h1>") == 1
    assert "Left out, as it could not be used: 1 file" in body


def test_what_is_small_is_named(tmp_path, write_run):
    root = write_run(tmp_path / "run", classes=[f"kind {i:02}" for i in range(40)]).root
    record = Record(root)
    data = record.read_json("data.json")
    data["counts"]["train"]["kind 03"] = 900
    record.write_json("data.json", data)
    write_card(root)
    _, body, tables = parts(root)
    smallest = min(data["counts"]["train"].values())
    text = " ".join(body.split())
    assert f"900 training images of kind 03, {smallest} of kind" in text
    assert "so that their figures say little: kind 00, kind 01" in text
    assert "and 20 more" in text
    assert len(tables[1]) == 41


def test_a_card_does_not_say_where_the_images_lay(tmp_path, write_run):
    record = write_run(tmp_path / "run")
    record.write_text("args.yaml", "data: {source: /home/me/secret/birds}\nmodel: {name: lenet, weights: /x/w.pth}\n")
    write_card(record.root)
    body = record.path(CARD).read_text(encoding="utf-8")
    assert "/home/me" not in body
    assert "source: birds" in body
    assert "weights of others: w.pth" in body
    assert "whose licence applies as well" in body
