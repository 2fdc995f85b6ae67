"""A comparison's folder as `lenext compare` leaves it: twelve rungs of three seeds, one that failed, one left out.

The pictures and their classes are Fashion-MNIST's; who gets which of them wrong is drawn by how hard a picture is, so
that models agree, differ and separate as real ones do. Differences, tests and agreement are counted from that.
"""

import gzip
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from lenext.record import Record

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TEST = 2000
SEEDS = (0, 1, 2)
WINNER = "resnet20"

# model, family, year, accuracy, training seconds, epochs (None: classical), parameters, MACs, ms per image, bytes
RUNGS = (
    ("softmax", "softmax regression", 1958, 0.844, 21.0, 30, 7_850, 7_840, 0.012, 34_900),
    ("svm_linear", "SVM", 1995, 0.841, 17.0, None, 7_850, 7_840, 0.013, 34_500),
    ("lenet", "LeNet", 1995, 0.904, 31.0, 12, 61_706, 416_520, 0.041, 251_000),
    ("lenet_relu", "LeNet", 1995, 0.914, 30.0, 14, 61_706, 416_520, 0.038, 251_900),
    ("bow_sift", "bag of words", 2004, 0.919, 41.0, None, 530_000, 31_600_000, 0.62, 2_150_000),
    ("hog_svm", "HOG", 2005, 0.917, 38.0, None, 1_300_000, 2_400_000, 0.31, 5_300_000),
    ("fisher_sift", "Fisher vectors", 2010, 0.929, 62.0, None, 1_050_000, 48_000_000, 0.81, 4_250_000),
    ("alexnet", "AlexNet", 2012, 0.924, 66.0, 6, 2_460_000, 18_200_000, 0.29, 9_900_000),
    ("vgg11_bn", "VGG", 2014, 0.928, 68.0, 5, 1_320_000, 23_000_000, 0.33, 5_300_000),
    ("googlenet", "GoogLeNet", 2014, 0.930, 70.0, 4, 388_000, 24_800_000, 0.52, 1_600_000),
    ("resnet20", "ResNet", 2015, 0.936, 71.0, 5, 272_474, 31_000_000, 0.44, 1_120_000),
    ("resnet9", "ResNet", 2018, 0.938, 72.0, 6, 1_650_000, 66_000_000, 0.71, 6_630_000),
)
FAILED = ("bow_surf", "bag of words", 2006)
ERROR = "bow_surf needs the extra [surf]: pip install 'lenext[surf]'"
LEFT_OUT = "resnet50"
REASON = "one epoch takes 9.8 min, its share is 2.5 min"


def fashion(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test pictures, uint8 [count, 28, 28, 1], and their labels [count]."""
    with gzip.open(FASHION / "t10k-images-idx3-ubyte.gz") as file:
        pixels = file.read(16 + count * 784)[16:]
    with gzip.open(FASHION / "t10k-labels-idx1-ubyte.gz") as file:
        labels = file.read(8 + count)[8:]
    return np.frombuffer(pixels, np.uint8).reshape(count, 28, 28, 1), np.frombuffer(labels, np.uint8).astype(int)


def answers(labels: np.ndarray) -> np.ndarray:
    """What each rung says of each picture, [rungs, N]: the harder a picture, the more of them err, and mostly alike."""
    random = np.random.default_rng(6)
    hardness, usual = random.normal(size=len(labels)), (labels + random.integers(1, 10, len(labels))) % 10
    said = []
    for _, _, _, accuracy, *_ in RUNGS:
        felt = hardness + 0.5 * random.normal(size=len(labels))
        wrong = felt > np.quantile(felt, accuracy)
        other = (labels + random.integers(1, 10, len(labels))) % 10
        mistake = np.where(random.random(len(labels)) < 0.7, usual, other)
        said.append(np.where(wrong, mistake, labels))
    return np.array(said)


def pairs(right: np.ndarray) -> list[dict[str, Any]]:
    """McNemar's exact test of every pair, corrected after Holm."""
    found = []
    for a, b in itertools.combinations(range(len(RUNGS)), 2):
        more, less = int((right[a] & ~right[b]).sum()), int((~right[a] & right[b]).sum())
        share, error = (more - less) / TEST, math.sqrt(more + less - (more - less) ** 2 / TEST) / TEST
        found.append(
            {
                "a": RUNGS[a][0],
                "b": RUNGS[b][0],
                "difference": share,
                "interval": [share - 1.96 * error, share + 1.96 * error],
                "p": binomtest(more, more + less).pvalue,
            }
        )
    largest = 0.0
    for rank, pair in enumerate(sorted(found, key=lambda pair: pair["p"])):
        largest = max(largest, min(1.0, pair["p"] * (len(found) - rank)))
        pair |= {"p_corrected": largest, "significant": largest < 0.05}
    return found


def write_ladder(root: Path) -> Record:
    """Writes the folder and those of the runs, with what the comparison's page reads of them."""
    record = Record.create(root, "compare-fashion-mnist")
    images, labels = fashion(TEST)
    said = answers(labels)
    right = said == labels
    random = np.random.default_rng(0)
    names = [rung[0] for rung in RUNGS]
    rows, plan = [], []
    for index, (model, family, year, _, train, epochs, params, macs, ms, size) in enumerate(RUNGS):
        accuracy = float(right[index].mean())
        error = 1.96 * math.sqrt(accuracy * (1 - accuracy) / TEST)
        seconds = train + 6.0
        foretold = seconds * float(np.exp(random.normal(scale=0.08)))
        predicted = {"value": foretold, "low": 0.86 * foretold, "high": 1.16 * foretold}
        runs = [f"{model}-seed{seed}" for seed in SEEDS]
        write_run(record, runs, RUNGS[index], predicted, random)
        seeds = [accuracy + delta for delta in (0.0, 0.002, -0.0015)]
        rows.append(
            {
                "model": model,
                "family": family,
                "year": year,
                "run": runs[0],
                "runs": runs,
                "accuracy": accuracy,
                "accuracy_interval": [accuracy - error, accuracy + error],
                "accuracy_spread": float(np.std(seeds, ddof=1)),
                "accuracies": seeds,
                "val_accuracy": accuracy + 0.004,
                "log_loss": 3.0 * (1 - accuracy),
                "calibration_error": 0.011 + 0.002 * index,
                "train_seconds": train,
                "seconds": seconds,
                "epochs": epochs,
                "params": params,
                "macs": macs,
                "predict_ms_per_image": ms,
                "bundle_bytes": size,
                "predicted_seconds": predicted,
                "error": None,
            }
        )
        plan.append(
            {"model": model, "seeds": 3, "epochs": epochs, "seconds": 3 * 80.0, "predicted": predicted}
            | {"included": True, "reason": None}
        )
    model, family, year = FAILED
    rows.append(dict.fromkeys(rows[0]) | {"model": model, "family": family, "year": year, "runs": [], "error": ERROR})
    plan.append(
        {"model": LEFT_OUT, "seeds": 0, "epochs": None, "seconds": 0.0}
        | {"predicted": {"value": 590.0, "low": 480.0, "high": 720.0}, "included": False, "reason": REASON}
    )
    chosen = np.argsort(np.abs(right.mean(axis=0) - 0.5), kind="stable")[:24]
    np.save(record.path("separating.npy"), images[chosen])
    record.write_json("env.json", ENVIRONMENT)
    record.write_json(
        "comparison.json",
        {
            "data": "fashion-mnist",
            "budget": 1800.0,
            "seconds": 1761.0,
            "seeds": list(SEEDS),
            "winner": WINNER,
            "verdict": "Ship resnet20: of the rungs that are not significantly worse than the best, resnet9, it is the "
            "cheapest to run, with 31.0 M multiply-adds an image against 66.0 M. Of the 2,000 test images, which had "
            "no part in the choice, it gets 93.6 % right (95 % interval 92.5–94.7 %, the mean of 3 seeds). One rung "
            "up, resnet9 would gain 0.2 points on validation and cost 2.1 times the multiply-adds.",
            "next": f"lenext predict {root}/best.lenext PICTURES",
            "command": "lenext compare fashion-mnist --budget 30m --seeds 3 --max-latency 0.75ms",
            "test": {"name": "test", "images": TEST},
            "constraints": {"max_latency_ms": 0.75, "max_size_bytes": None, "max_macs": None},
            "plan": plan,
            "rungs": rows,
            "pairs": pairs(right),
            "frontier": {key: frontier(rows, key) for key in COSTS},
            "agreement": {"models": names, "matrix": (said[:, None] == said[None]).mean(axis=2)},
            "separating": [
                {
                    "path": f"t10k/{i:05}",
                    "label": CLASSES[labels[i]],
                    "right": [name for name, ok in zip(names, right[:, i], strict=True) if ok],
                    "wrong": [name for name, ok in zip(names, right[:, i], strict=True) if not ok],
                    "predicted": {name: CLASSES[k] for name, k in zip(names, said[:, i], strict=True)},
                }
                for i in chosen
            ],
        },
    )
    return record


COSTS = ("macs", "train_seconds", "predict_ms_per_image", "bundle_bytes")


def frontier(rows: list[dict[str, Any]], key: str) -> list[str]:
    """Of the rungs with an accuracy those that no other equals or beats in both."""
    known = [row for row in rows if row["accuracy"] is not None]
    beats = lambda a, b: (  # noqa: E731
        a["accuracy"] >= b["accuracy"] and a[key] <= b[key] and (a["accuracy"], a[key]) != (b["accuracy"], b[key])
    )
    best = [row for row in known if not any(beats(other, row) for other in known)]
    return [row["model"] for row in sorted(best, key=lambda row: row[key])]


def write_run(record: Record, runs: list[str], rung: tuple[Any, ...], predicted: dict[str, float], random: Any) -> None:
    """The folders of a rung's runs: the model, its history where it has epochs, and what it was foretold."""
    model, family, year, accuracy, train, epochs, params, macs, *_ = rung
    for name in runs:
        run = Record.create(record.path(name), name)
        run.write_json("model.json", {"name": model, "family": family, "year": year, "params": params, "macs": macs})
        for epoch in range(1, (epochs or 0) + 1):
            reached = accuracy + 0.004 - (accuracy - 0.45) * math.exp(-4.2 * epoch / epochs)
            reached += 0.004 * float(random.normal()) * (epoch < epochs)
            run.log({"epoch": float(epoch), "seconds": 1.5 + train * epoch / epochs, "val_accuracy": reached})
        estimate = {"predicted": {"seconds": predicted}, "actual": {"seconds": train + 6.0}}
        if epochs:
            step = train / epochs / 234
            told = step * float(np.exp(random.normal(scale=0.06)))
            memory = 2e8 + 40 * params + 4 * macs
            estimate["predicted"] |= {
                "step_seconds": {"value": told, "low": 0.88 * told, "high": 1.12 * told},
                "peak_memory_bytes": {"value": 1.04 * memory, "low": 0.93 * memory, "high": 1.15 * memory},
                "epochs": epochs,
            }
            estimate["actual"] |= {"step_seconds": step, "peak_memory_bytes": memory, "epochs": epochs}
        run.write_json("estimate.json", estimate)


ENVIRONMENT = {
    "date": "2026-11-25T00:00:00+00:00",
    "machine": {"system": "Linux 6.1", "processor": "Some CPU @ 2.0 GHz", "cores": 2, "memory_bytes": 25_000_000_000},
    "python": "3.11.9",
    "versions": {"lenext": "0.1.0", "torch": "2.11.0", "numpy": "2.4.6"},
    "commit": "0123456789abcdef",
}
