"""Run folders as a run leaves them, of real pictures and a real classifier, and their pages in a browser."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from lenext.record import Record

DIGITS = tuple("0123456789")


class Opened:
    """A page in the browser, and what went wrong while it was open."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.route("**/*", self._allow_only_files)

    def _allow_only_files(self, route: Route) -> None:
        if route.request.url.startswith(("file://", "data:")):
            route.continue_()
        else:
            self.complaints.append(f"asked the network for {route.request.url}")
            route.abort()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """``open_page(path, width=1280, scheme="light")``; at the end no page may have complained."""
    contexts: list[BrowserContext] = []
    opened: list[Opened] = []

    def open_page(path: Path, width: int = 1280, scheme: Any = "light") -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        opened.append(Opened(context.new_page()))
        opened[-1].page.goto(path.as_uri())
        opened[-1].page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(c => c.closest('[hidden]') || c.querySelector('svg'))"
        )
        return opened[-1]

    yield open_page
    complaints = [complaint for page in opened for complaint in page.complaints]
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Record]:
    return _write_run


@pytest.fixture(scope="session")
def write_comparison() -> Callable[[Path], Record]:
    return _write_comparison


def _write_run(
    root: Path,
    *,
    classes: Sequence[str] = DIGITS,
    model: str = "lenet_relu",
    network: bool = True,
    evaluated: bool = True,
) -> Record:
    """A run on scikit-learn's digits, its labels folded onto `classes`, judged by the nearest class mean."""
    images, targets = load_digits(return_X_y=True)
    names = np.array(classes)
    # more classes than ten: the pictures of a digit go to its classes in turn
    labels = targets % len(names) if len(names) <= 10 else (targets + 10 * np.arange(len(targets))) % len(names)
    cut = 1000
    # the nearest class mean, a linear classifier without a solver
    means = np.stack([images[:cut][labels[:cut] == k].mean(axis=0) for k in range(len(names))])
    scores = (images[cut:] @ means.T - (means**2).sum(axis=1) / 2) / 40
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth, predicted = labels[cut:], probabilities.argmax(axis=1)
    probability = probabilities.max(axis=1)

    record = Record.create(root, model)
    record.write_text(
        "args.yaml", f"data:\n  source: digits\n  size: 8\nmodel:\n  name: {model}\nrecipe:\n  lr: 0.1\nseed: 0\n"
    )
    record.write_json("env.json", ENVIRONMENT)
    counts = {
        split: dict(zip(classes, np.bincount(part, minlength=len(names)), strict=True))
        for split, part in (("train", labels[:800]), ("val", labels[800:cut]), ("test", truth))
    }
    record.write_json(
        "data.json",
        {
            "name": "digits",
            "classes": list(classes),
            "fingerprint": "00ff",
            "counts": counts,
            "preprocess": {"size": 8, "channels": 1, "fit": "pad"},
            "left_out": [{"path": f"{classes[0]}/broken.png", "problem": "truncated: ends after 1,024 bytes"}],
            "findings": {"truncated": 1, "near_duplicate": 12, "exif_rotated": 0},
        },
    )
    if network:
        for epoch in range(1, 13):
            record.log(
                {
                    "epoch": float(epoch),
                    "step": 10 * epoch,
                    "seconds": 1.7 * epoch,
                    "lr": 0.1,
                    "train_loss": 2.3 * 0.7**epoch + 0.05,
                    "train_accuracy": 1 - 0.9 * 0.7**epoch,
                    "val_loss": 2.2 * 0.68**epoch + 0.09 + 0.002 * epoch,
                    "val_accuracy": 0.97 - 0.8 * 0.62**epoch,
                }
            )
    if not evaluated:
        return record

    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(len(names)), zero_division=0.0
    )
    accuracy = float((truth == predicted).mean())
    spread = 1.96 * (accuracy * (1 - accuracy) / len(truth)) ** 0.5
    evaluation = {
        "split": "test",
        "images": len(truth),
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - spread, accuracy + spread],
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "log_loss": 0.31,
        "calibration_error": 0.021,
        "classes": [
            {"class": name, "precision": p, "recall": r, "f1": f, "support": s}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        ],
        "confusion": confusion_matrix(truth, predicted, labels=range(len(names))),
    }
    record.write_json("evaluation.json", evaluation)
    record.write_json(
        "model.json",
        {"name": model, "family": "LeNet", "year": 1998, "params": 61_706, "macs": 416_520, "trained_on": 800},
    )
    worst = sorted(np.flatnonzero(truth != predicted), key=lambda i: -probability[i])[:24]
    record.write_csv(
        "worst.csv",
        ("path", "label", "predicted", "probability", "loss"),
        [(f"digits/{cut + i:05}", names[truth[i]], names[predicted[i]], probability[i], 3.1) for i in worst],
    )
    pictures = np.round(images[cut:][worst] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    np.save(record.path("worst.npy"), pictures)
    weights = (means - means.mean(axis=0)).reshape(-1, 8, 8, 1).astype(np.float32)
    small = np.random.default_rng(0).normal(size=(6, 5, 5, 1)).astype(np.float32)
    np.save(record.path("filters.npy"), small if network else weights)
    if network:
        record.write_json(
            "estimate.json",
            {"predicted": {"seconds": 18.0, "epochs": 12.0}, "actual": {"seconds": 20.4, "epochs": 12.0}},
        )
    record.write_json(
        "summary.json",
        {
            "model": model,
            "data": "digits",
            "state": "finished",
            "seconds": 21.3,
            "train_seconds": 20.4,
            "predict_ms_per_image": 0.042,
            "bundle_bytes": 251_904,
            "best_epoch": 11.0 if network else None,
            "accuracy": accuracy,
            "accuracy_interval": evaluation["accuracy_interval"],
            "next": f"lenext predict {root}/best.lenext PICTURES",
        },
    )
    return record


def _write_comparison(root: Path) -> Record:
    """Three rungs that worked, two of them with their run's folder, and one that failed."""
    record = Record.create(root, "compare-digits")
    record.write_json("env.json", ENVIRONMENT)
    _write_run(root / "lenet_relu", model="lenet_relu")
    _write_run(root / "svm_linear", model="svm_linear", network=False)
    rows = [
        ("softmax", "softmax", 1958, 0.953, 1.2, 650, 640, 0.011, 8_192, None),
        ("lenet", "LeNet", 1998, 0.969, 18.9, 61_706, 416_520, 0.058, 251_000, None),
        ("svm_linear", "SVM", 1995, 0.956, 0.4, 650, None, 0.012, 8_900, None),
        ("lenet_relu", "LeNet", 1998, 0.983, 20.4, 61_706, 416_520, 0.042, 251_904, None),
        (
            "alexnet",
            "AlexNet",
            2012,
            None,
            None,
            None,
            None,
            None,
            None,
            "alexnet needs images of 64 px or more; given 8",
        ),
    ]
    keys = ("train_seconds", "params", "macs", "predict_ms_per_image", "bundle_bytes")
    record.write_json(
        "comparison.json",
        {
            "data": "digits",
            "budget": 90.0,
            "winner": "lenet_relu",
            "verdict": "lenet_relu is best on the validation images; on the test images it is right 98.3% of the time.",
            "rungs": [
                {
                    "model": model,
                    "family": family,
                    "year": year,
                    "run": model,
                    "accuracy": accuracy,
                    "accuracy_interval": accuracy and [accuracy - 0.014, min(accuracy + 0.01, 1.0)],
                    "val_accuracy": accuracy,
                    **dict(zip(keys, costs, strict=True)),
                    "error": error,
                }
                for model, family, year, accuracy, *costs, error in rows
            ],
        },
    )
    return record


ENVIRONMENT = {
    "date": "2026-11-23T00:00:00+00:00",
    "machine": {"system": "Linux 6.1", "processor": "Some CPU @ 2.0 GHz", "cores": 2, "memory_bytes": 25_000_000_000},
    "python": "3.11.9",
    "versions": {"lenext": "0.1.0", "numpy": "2.4.6"},
    "commit": None,
}
