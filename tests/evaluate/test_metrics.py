import json
import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
from scipy.special import softmax

from lenext.errors import DataError
from lenext.evaluate import evaluate, predictions, worst


def names(k):
    return tuple(f"class {i}" for i in range(k))


def random_problem(n=500, k=8, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, n, p=rng.dirichlet(np.ones(k))).astype(np.int64)
    scores = rng.normal(size=(n, k)).astype(np.float32)
    scores[np.arange(n), labels] += 1.5
    return scores, labels


def test_agrees_with_scikit_learn():
    scores, labels = random_problem()
    metrics = evaluate(scores, labels, names(8))
    predicted, every = scores.argmax(axis=1), np.arange(8)
    probabilities = softmax(scores.astype(np.float64), axis=1)

    assert metrics["images"] == 500
    assert metrics["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert metrics["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(labels, predicted))
    assert metrics["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predicted, average="macro"))
    top5 = sklearn.metrics.top_k_accuracy_score(labels, scores, k=5, labels=every)
    assert metrics["top5_accuracy"] == pytest.approx(top5)
    assert metrics["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=every))
    assert metrics["confusion"] == sklearn.metrics.confusion_matrix(labels, predicted).tolist()
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=every)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[key] for row in metrics["classes"]] == pytest.approx(values.tolist()), key
    assert [row["class"] for row in metrics["classes"]] == list(names(8))
    low, high = metrics["accuracy_interval"]
    assert low < metrics["accuracy"] < high


def test_keeps_every_class_where_the_split_lacks_some():
    # Class 1 is neither there nor predicted, class 3 is predicted once and absent
    labels = np.array([0, 0, 2, 2])
    scores = np.eye(4, dtype=np.float32)[[0, 3, 2, 2]]
    metrics = evaluate(scores, labels, names(4))
    assert metrics["confusion"] == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert metrics["balanced_accuracy"] == 0.75  # of classes 0 and 2
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)  # of classes 0, 2 and 3
    assert metrics["classes"][1] == {"class": "class 1", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_one_image_of_two_classes():
    metrics = evaluate(np.array([[0.0, math.log(3)]], np.float32), np.array([1]), names(2))
    assert metrics["accuracy"] == 1.0
    assert metrics["log_loss"] == pytest.approx(math.log(4 / 3))
    assert metrics["calibration_error"] == pytest.approx(0.25)
    assert metrics["confusion"] == [[0, 0], [0, 1]]
    assert "top5_accuracy" not in metrics


def test_top5_counts_ties_as_the_prediction_does():
    # All scores equal: the first five classes are the guess, not all seven
    metrics = evaluate(np.zeros((7, 7), np.float32), np.arange(7), names(7))
    assert metrics["top5_accuracy"] == pytest.approx(5 / 7)
    assert metrics["accuracy"] == pytest.approx(1 / 7)


def test_log_loss_of_extreme_scores_is_finite_and_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = evaluate(np.array([[3e38, 0.0], [-1000.0, 1000.0]], np.float32), np.array([0, 0]), names(2))
    assert metrics["log_loss"] == pytest.approx(1000.0)


def test_calibration_error_by_hand():
    # Ten predictions at 0.8 of which six are right, ten at 0.6 of which all are: (10 · 0.2 + 10 · 0.4) / 20
    p = np.repeat([0.8, 0.6], 10)
    scores = np.stack([np.log(p / (1 - p)), np.zeros(20)], axis=1).astype(np.float32)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 10)
    assert evaluate(scores, labels, names(2))["calibration_error"] == pytest.approx(0.3, abs=1e-6)


def test_is_plain_json():
    scores, labels = random_problem()
    metrics = evaluate(scores, labels, names(8))
    assert json.loads(json.dumps(metrics)) == metrics


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "no images"),
        (np.zeros((3, 2)), np.zeros(2, int), r"\[3, 2\].*\[2\]"),
        (np.zeros((3, 4)), np.zeros(3, int), r"\[3, 4\].*2 classes"),
        (np.zeros(3), np.zeros(3, int), "expected scores"),
        (np.zeros((2, 2)), np.array([0, 2]), "0 to 1"),
        (np.zeros((2, 2)), np.array([-1, 1]), "0 to 1"),
        (np.array([[0, np.nan], [np.inf, np.nan], [0, 1]]), np.zeros(3, int), "2 of 3 images"),
    ],
)
def test_says_what_cannot_be_evaluated(scores, labels, message):
    with pytest.raises(DataError, match=message):
        evaluate(scores.astype(np.float32), labels, names(2))


def test_predictions_are_class_and_probability():
    predicted, probability = predictions(np.array([[0.0, math.log(3)], [1000.0, 0.0]], np.float32))
    assert predicted.dtype == np.int64
    assert probability.dtype == np.float32
    assert predicted.tolist() == [1, 0]
    assert probability.tolist() == pytest.approx([0.75, 1.0])


def test_worst_are_wrong_and_ordered_by_confidence():
    scores = np.array([[9, 0, 0], [1, 0, 0], [0, 5, 0], [0, 5, 0.0], [3, 0, 0]], np.float32)
    labels = np.array([0, 1, 2, 0, 2])
    assert worst(scores, labels).tolist() == [2, 3, 4, 1]
    assert worst(scores, labels, 2).tolist() == [2, 3]
    # Equally confident: the true class's own probability decides
    scores = np.array([[4, 1, 0], [4, 1, 0]], np.float32)
    assert worst(scores, np.array([1, 2])).tolist() == [1, 0]


def test_worst_of_a_perfect_model_is_nothing():
    assert worst(np.eye(3, dtype=np.float32), np.arange(3)).tolist() == []
