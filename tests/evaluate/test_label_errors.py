"""Confident learning, counted by the definitions of Northcutt, Jiang and Chuang 2021."""

import numpy as np
import pytest

from lenext.errors import DataError
from lenext.evaluate import label_errors


def scores_of(probabilities):
    return np.log(np.asarray(probabilities, np.float64)).astype(np.float32)


def test_the_papers_figure_1():
    """Dogs, foxes and cows: so many of each label are confidently of each class, and the joint that this makes."""
    counts = np.array([[100, 40, 20], [56, 60, 0], [32, 12, 80]])
    p, labels = [], []
    for label, row in enumerate(counts):
        for seen, number in enumerate(row):
            p += [np.where(np.arange(3) == seen, 0.9, 0.05)] * number
            labels += [label] * number
    found = label_errors(scores_of(p), np.array(labels))
    assert (found.confident == counts).all()
    np.testing.assert_allclose(found.joint, [[0.25, 0.1, 0.05], [0.14, 0.15, 0], [0.08, 0.03, 0.2]], atol=1e-12)
    assert found.share == pytest.approx(0.4)
    assert len(found.suspects) == 40 + 20 + 56 + 32 + 12


def test_by_hand():
    p = np.array(
        [
            [0.9, 0.1, 0.0],  # label 0
            [0.7, 0.2, 0.1],
            [0.2, 0.6, 0.2],  # is a 1 by its threshold
            [0.3, 0.35, 0.35],  # reaches none
            [0.1, 0.5, 0.4],  # label 1
            [0.0, 0.6, 0.4],
            [0.6, 0.2, 0.2],  # is a 0
            [0.1, 0.4, 0.5],  # reaches both, and is a 2, the likelier
            [0.1, 0.3, 0.6],  # label 2
            [0.3, 0.3, 0.4],
        ]
    ).clip(1e-9)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    found = label_errors(scores_of(p), labels)
    np.testing.assert_allclose(found.thresholds, [2.1 / 4, 1.7 / 4, 1.0 / 2], atol=1e-6)
    assert found.confident.tolist() == [[2, 1, 0], [1, 2, 1], [0, 0, 1]]
    # Rows are scaled to the classes' 4, 4 and 2 images
    np.testing.assert_allclose(found.joint * 10, [[8 / 3, 4 / 3, 0], [1, 2, 1], [0, 0, 2]], atol=1e-6)
    # Margins of the three suspects: 0.2 - 0.6, 0.2 - 0.6, 0.4 - 0.5
    assert found.suspects.tolist() == [2, 6, 7]
    assert found.suggested.tolist() == [1, 0, 2]
    np.testing.assert_allclose(found.margins[[2, 6, 7, 0]], [-0.4, -0.4, -0.1, 0.8], atol=1e-6)


def by_definition(p, labels):
    """Equations 1 and 2, as sets."""
    n, k = p.shape
    thresholds = [np.mean([p[x, j] for x in range(n) if labels[x] == j]) for j in range(k)]
    joint = [[set() for _ in range(k)] for _ in range(k)]
    for x in range(n):
        reached = [j for j in range(k) if p[x, j] >= thresholds[j]]
        if reached:
            joint[labels[x]][max(reached, key=lambda j: p[x, j])].add(x)
    return joint


def test_random_probabilities_by_the_definition():
    noise = np.random.default_rng(0)
    labels = noise.integers(0, 5, 400)
    scores = (noise.normal(size=(400, 5)) + 2 * np.eye(5)[labels]).astype(np.float32)
    scores[:30] = np.roll(scores[:30], 1, axis=1)
    p = np.exp(scores.astype(float))
    p /= p.sum(axis=1, keepdims=True)
    joint, found = by_definition(p, labels), label_errors(scores, labels)
    assert found.confident.tolist() == [[len(images) for images in row] for row in joint]
    off_diagonal = {x for i, row in enumerate(joint) for j, images in enumerate(row) if i != j for x in images}
    assert set(found.suspects.tolist()) == off_diagonal
    assert (np.diff(found.margins[found.suspects]) >= 0).all()


def test_how_sure_a_model_is_of_itself_hardly_matters():
    """Thresholds are relative: a model that exaggerates everything doubts the same labels."""
    noise = np.random.default_rng(1)
    truth = noise.integers(0, 4, 1000)
    scores = (noise.normal(size=(1000, 4)) + 4 * np.eye(4)[truth]).astype(np.float32)
    labels = np.where(np.arange(1000) < 50, (truth + 1) % 4, truth)
    meek, bold = (set(label_errors(scores * np.float32(by), labels).suspects.tolist()) for by in (0.5, 2.0))
    assert len(meek & set(range(50))) >= 25
    assert len(bold & set(range(50))) >= 25


def test_equal_probabilities_and_a_class_without_images():
    found = label_errors(np.zeros((6, 3), np.float32), np.array([0, 0, 0, 1, 1, 1]))
    assert found.thresholds[2] == np.inf
    assert found.confident.sum() == 6  # each reaches both thresholds, and counts for the first
    assert np.isfinite(found.joint).all()


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 3)), [], "no images"),
        (np.zeros((2, 3)), [0, 3], "labels from 0 to 3"),
        (np.zeros((2, 3)), [0], "shape"),
        (np.full((2, 3), np.nan), [0, 1], "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(scores, labels, message):
    with pytest.raises(DataError, match=message):
        label_errors(scores.astype(np.float32), np.array(labels, np.int64))
