import gzip
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC, LinearSVC

from lenext.classical.machines import KernelMachine, LinearMachine, fit, from_arrays, stratified_order
from lenext.errors import DataError, UsageError
from lenext.spec import Svm

FASHION = Path("/usr/share/datasets/fashion-mnist")
KERNELS = ("linear", "rbf", "chi2", "exp_chi2", "intersection")
# Every kernel in each way that it is computed
WAYS = [
    Svm(c=10.0),
    Svm(c=10.0, loss="hinge", max_iterations=20_000),
    Svm(c=10.0, loss="softmax"),
    Svm(kernel="rbf", c=10.0, gamma=1.0),
    Svm(kernel="rbf", c=10.0, gamma=1.0, loss="hinge"),
    Svm(kernel="rbf", c=10.0, gamma=1.0, exact=0, landmarks=200),
    Svm(kernel="exp_chi2", c=10.0, gamma=1.0, exact=0, landmarks=200, loss="softmax"),
    Svm(kernel="chi2", c=10.0, exact=0),
    Svm(kernel="intersection", c=10.0),
]


def way(settings):
    return f"{settings.kernel}-{settings.loss}-{settings.exact}"


@pytest.fixture(scope="module")
def digits():
    """scikit-learn's digits, float32 [1797, 64] of length about 1, in an order without writers, and their labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    return (data.data[order] / 16 / 4).astype(np.float32), data.target[order].astype(np.int64)


def objectives(scores, squared_norms, labels, settings):
    """The primal objective of each machine, [K], as LIBLINEAR's paper states it; of softmax the common one, [1]."""
    if settings.loss == "softmax":
        losses = -np.log(np.exp(scores)[np.arange(len(labels)), labels] / np.exp(scores).sum(axis=1))
        return np.array([0.5 * squared_norms.sum() + settings.c * losses.sum()])
    signs = np.where(labels[:, None] == np.arange(scores.shape[1]), 1, -1)
    lack = np.maximum(0, 1 - signs * scores)
    return 0.5 * squared_norms + settings.c * (lack**2 if settings.loss == "squared_hinge" else lack).sum(axis=0)


def linear_objectives(weights, bias, features, labels, settings):
    weights, bias = weights.astype(np.float64), bias.astype(np.float64)
    return objectives(features @ weights.T + bias, (weights**2).sum(axis=1) + bias**2, labels, settings)


@pytest.mark.parametrize("c", [0.5, 20.0])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_every_machine_reaches_the_minimum_that_scikit_learn_finds(digits, loss, c):
    features, labels = digits[0][:600], digits[1][:600]
    settings = Svm(c=c, loss=loss, tolerance=1e-3 if loss == "squared_hinge" else 1e-4, max_iterations=20_000)
    fitted = fit(features, labels, 10, settings)
    direct = [
        LinearSVC(C=c, loss=loss, dual=True, tol=1e-6, max_iter=1_000_000, random_state=1).fit(features, labels == k)
        for k in range(10)
    ]
    weights, bias = np.concatenate([m.coef_ for m in direct]), np.concatenate([m.intercept_ for m in direct])
    expected = linear_objectives(weights, bias, features, labels, settings)
    ours = linear_objectives(fitted.machine.weights, fitted.machine.bias, features, labels, settings)
    assert ours == pytest.approx(expected, rel=1e-3)
    assert fitted.note == ""
    assert ("L-BFGS" if loss == "squared_hinge" else "LIBLINEAR") in fitted.solver


def test_softmax_regression_is_scikit_learns(digits):
    features, labels = digits[0][:600], digits[1][:600]
    settings = Svm(c=20.0, loss="softmax", tolerance=1e-4, max_iterations=1000)
    fitted = fit(features, labels, 10, settings)
    # Its bias is not regularised, ours is: so it gets it as a feature
    padded = np.pad(features, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float64)
    direct = LogisticRegression(C=20.0, fit_intercept=False, tol=1e-8, max_iter=10_000).fit(padded, labels)
    expected = linear_objectives(direct.coef_[:, :-1], direct.coef_[:, -1], features, labels, settings)
    ours = linear_objectives(fitted.machine.weights, fitted.machine.bias, features, labels, settings)
    assert ours == pytest.approx(expected, rel=1e-3)
    assert fitted.machine.scores(features) == pytest.approx(padded @ direct.coef_.T, abs=0.1)


def test_an_exact_kernel_machine_satisfies_the_conditions_of_the_optimum(digits):
    features, labels = digits[0][:500], digits[1][:500]
    settings = Svm(kernel="rbf", c=3.0, gamma=1.0, tolerance=1e-5, max_iterations=2000)
    fitted = fit(features, labels, 10, settings)
    apart = ((features[:, None] - features[None]).astype(np.float64) ** 2).sum(axis=2)
    assert fitted.machine.gamma == pytest.approx(1 / apart[~np.eye(500, dtype=bool)].mean())
    assert fitted.solver.startswith("exact RBF kernel of 500 images")
    # The dual of the squared hinge loss has α = 2c · lack; primal and dual meet at the optimum and nowhere else
    kernel = rbf_kernel(features.astype(np.float64), gamma=fitted.machine.gamma)
    beta, bias = fitted.machine.coefficients, fitted.machine.bias.astype(np.float64)
    squared_norms = np.einsum("ki,ij,kj->k", beta, kernel, beta) + bias**2
    scores = kernel @ beta.T + bias
    assert fitted.machine.scores(features) == pytest.approx(scores, abs=1e-5)
    primal = objectives(scores, squared_norms, labels, settings)
    signs = np.where(labels[:, None] == np.arange(10), 1, -1)
    alpha = 2 * settings.c * np.maximum(0, 1 - signs * scores)
    signed = alpha * signs
    dual = alpha.sum(axis=0) - 0.5 * np.einsum("ik,ij,jk->k", signed, kernel + 1, signed)
    dual -= (alpha**2).sum(axis=0) / (4 * settings.c)
    assert (dual <= primal).all()
    assert dual == pytest.approx(primal, rel=5e-3)


def test_a_kernel_machine_with_hinge_loss_is_scikit_learns(digits):
    features, labels = digits[0][:500], digits[1][:500]
    fitted = fit(features, labels, 10, Svm(kernel="rbf", c=3.0, gamma=1.0, loss="hinge", tolerance=1e-5))
    for k in (0, 8):
        direct = SVC(C=3.0, gamma=fitted.machine.gamma, tol=1e-5).fit(features, labels == k)
        expected = direct.decision_function(digits[0][500:])
        assert fitted.machine.scores(digits[0][500:])[:, k] == pytest.approx(expected, abs=1e-3)
    assert len(fitted.machine.vectors) < 500  # those that support no machine are left out


def test_landmarks_and_maps_come_near_the_exact_kernel(digits):
    features, labels = digits[0][:600], digits[1][:600]
    for kernel in ("rbf", "exp_chi2", "chi2", "intersection"):
        exact = fit(features, labels, 10, Svm(kernel=kernel, c=3.0, gamma=1.0))
        near = fit(features, labels, 10, Svm(kernel=kernel, c=3.0, gamma=1.0, exact=599, landmarks=300))
        assert "exact" in exact.solver
        assert ("300 of 600" if "exp" in kernel or kernel == "rbf" else "map") in near.solver
        ours, theirs = near.machine.scores(digits[0][600:]), exact.machine.scores(digits[0][600:])
        assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.96
        assert (theirs.argmax(1) == digits[1][600:]).mean() > 0.95


@pytest.mark.parametrize("settings", WAYS, ids=way)
def test_scores_are_the_same_after_loading_and_in_every_batch(digits, settings):
    features, labels = digits
    fitted = fit(features[:600], labels[:600], 10, settings)
    machine = fitted.machine
    scores = machine.scores(features)
    assert (scores.dtype, scores.shape) == (np.float32, (1797, 10))
    assert (scores[600:].argmax(1) == labels[600:]).mean() > 0.9
    again = from_arrays(machine.arrays(), kernel=settings.kernel, features=64, classes=10)
    assert type(again) is type(machine)
    assert np.array_equal(again.scores(features), scores)
    assert (again.params, again.macs) == (machine.params, machine.macs)
    single = np.concatenate([machine.scores(features[i : i + 1]) for i in range(100)])
    assert single == pytest.approx(scores[:100], abs=1e-5)
    assert machine.scores(features[5:900:7]) == pytest.approx(scores[5:900:7], abs=1e-5)
    assert machine.scores(features[:0]).shape == (0, 10)
    assert np.array_equal(fit(features[:600], labels[:600], 10, settings).machine.scores(features), scores)


def test_arithmetic_of_machines():
    linear = LinearMachine(np.zeros((3, 20), np.float32), np.zeros(3, np.float32))
    assert (linear.params, linear.macs) == (63, 60)
    kernel = KernelMachine(np.zeros((5, 20), np.float32), np.zeros((3, 5)), np.zeros(3, np.float32), "rbf", 1.0)
    assert (kernel.params, kernel.macs) == (5 * 20 + 3 * 5 + 3, 5 * 20 + 3 * 5)


def test_arrays_that_do_not_fit_are_refused(digits):
    features, labels = digits[0][:200], digits[1][:200]
    linear = fit(features, labels, 10, Svm(c=1.0)).machine.arrays()
    kernel = fit(features, labels, 10, Svm(kernel="rbf", c=1.0, gamma=1.0)).machine.arrays()
    options = {"features": 64, "classes": 10}
    with pytest.raises(DataError, match="63"):
        from_arrays({**linear, "weights": linear["weights"][:, 1:]}, kernel="linear", **options)
    with pytest.raises(DataError, match="expected an SVM's arrays"):
        from_arrays({}, kernel="rbf", **options)
    with pytest.raises(DataError, match="192"):
        from_arrays(linear, kernel="chi2", **options)
    with pytest.raises(DataError, match="expected an SVM's arrays"):
        from_arrays(kernel, kernel="linear", **options)
    with pytest.raises(DataError, match="199"):
        from_arrays({**kernel, "vectors": kernel["vectors"][1:]}, kernel="rbf", **options)
    with pytest.raises(DataError, match="'bias'"):
        from_arrays({**kernel, "bias": np.full(10, np.nan, np.float32)}, kernel="rbf", **options)


@pytest.mark.parametrize("settings", WAYS, ids=way)
def test_two_classes_have_opposite_scores(digits, settings):
    features, labels = digits[0][digits[1] < 2], digits[1][digits[1] < 2]
    fitted = fit(features[:150], labels[:150], 2, settings)
    scores = fitted.machine.scores(features[150:])
    assert scores.shape[1] == 2
    assert scores[:, 0] == pytest.approx(-scores[:, 1], abs=1e-4)
    assert (scores.argmax(1) == labels[150:]).mean() > 0.98


def test_c_and_gamma_are_chosen_where_they_help(digits):
    features, labels = digits[0][:900], digits[1][:900]
    told = []
    fitted = fit(features, labels, 10, Svm(kernel="rbf"), progress=lambda *what: told.append(what))
    accuracy = (fitted.machine.scores(digits[0][900:]).argmax(1) == digits[1][900:]).mean()
    assert accuracy > 0.97  # scikit-learn's own example of digits has 0.97 with half of them for training
    assert fitted.settings.c > 0
    assert fitted.settings.gamma > 0
    assert fitted.trained_on == 900
    assert fitted.note == ""
    steps = ["cross-validation", "computing the kernel", "fitting the machines"]
    assert list(dict.fromkeys(what for what, done, of in told if done == of)) == steps
    # What was chosen is what is fitted
    given = fit(features, labels, 10, fitted.settings)
    assert np.array_equal(given.machine.coefficients, fitted.machine.coefficients)
    # Pixels ten times as bright ask for a c that is a hundredth, as the products of images are a hundred times as large
    dark, bright = (fit(times * features, labels, 10, Svm()).settings.c for times in (np.float32(1), np.float32(10)))
    assert dark == pytest.approx(100 * bright, rel=1e-3)


def test_equal_accuracies_are_settled_for_the_smaller_c():
    # Far apart: every c is right
    features = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    fitted = fit(features, np.repeat(np.arange(3), 10), 3, Svm())
    assert fitted.settings.c == pytest.approx(0.1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_image_of_each_class(kernel):
    features = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    fitted = fit(features, np.arange(3), 3, Svm(kernel=kernel))
    assert fitted.machine.scores(features).argmax(1).tolist() == [0, 1, 2]
    assert fitted.settings.c == 1.0
    assert "cross-validation, which needs" in fitted.note


@pytest.mark.parametrize("settings", [*WAYS, Svm(), Svm(kernel="rbf")], ids=way)
@pytest.mark.parametrize("width", [1, 5])
def test_features_that_say_nothing(settings, width):
    labels = np.array([0, 1, 1, 2, 2, 2, 2])
    for value in (0.0, 0.5):
        fitted = fit(np.full((7, width), value, np.float32), labels, 3, settings)
        scores = fitted.machine.scores(np.full((2, width), 0.25, np.float32))
        assert np.isfinite(scores).all()
    # All that is left to go by is how many images the classes have
    assert fitted.machine.scores(np.full((1, width), 0.5, np.float32)).argmax() == 2


def test_one_feature_that_says_it_all():
    features = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    labels = (features[:, 0] > 0.6).astype(np.int64)
    for kernel in KERNELS:
        fitted = fit(features, labels, 2, Svm(kernel=kernel))
        assert (fitted.machine.scores(features).argmax(1) == labels).mean() > 0.9


def test_kernels_of_histograms_refuse_negative_features(digits):
    features, labels = digits[0][:100].copy(), digits[1][:100]
    features[70, 3] = -0.25
    for kernel in ("chi2", "exp_chi2", "intersection"):
        with pytest.raises(UsageError, match=r"given features of -0.25, accepted: 0 or more"):
            fit(features, labels, 10, Svm(kernel=kernel))


@pytest.mark.parametrize("settings", [Svm(c=10.0), Svm(kernel="chi2", c=1.0, exact=0)], ids=way)
def test_half_precision_on_disk_is_as_good(digits, settings, tmp_path, monkeypatch):
    features, labels = digits
    file = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float16, features.shape)
    file[:] = features
    half = np.load(tmp_path / "features.npy", mmap_mode="r")
    # Columns go to disk, too, and leave nothing behind
    monkeypatch.setattr("lenext.classical.machines.spaces._IN_MEMORY", 1000)
    ours, theirs = fit(half, labels, 10, settings), fit(features, labels, 10, settings)
    assert ours.machine.scores(features) == pytest.approx(theirs.machine.scores(features), abs=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npy"]


def test_says_when_it_stopped_early_without_a_warning(digits):
    for loss in ("squared_hinge", "hinge", "softmax"):
        fitted = fit(*digits, 10, Svm(c=1000.0, loss=loss, tolerance=1e-8, max_iterations=2))
        assert "2 iterations" in fitted.note
        assert "svm.max_iterations" in fitted.note


def test_a_stratified_order_has_every_class_first_and_their_shares_then():
    labels = np.repeat([0, 1, 2], [600, 300, 1])
    order = stratified_order(labels, seed=3)
    assert sorted(order.tolist()) == list(range(901))
    assert set(labels[order[:3]].tolist()) == {0, 1, 2}
    assert np.bincount(labels[order[:301]])[:2].tolist() == [200, 100]
    assert not np.array_equal(order, stratified_order(labels, seed=4))


def test_memory_that_is_short_is_spent_on_a_stratified_share(digits, monkeypatch):
    monkeypatch.setattr("lenext.classical.machines.fitting.memory_bytes", lambda: 1_000_000)
    features, labels = digits
    fitted = fit(features, labels, 10, Svm(c=1.0, loss="hinge", max_iterations=20_000))
    assert fitted.trained_on == 500_000 // (64 * 24)
    assert fitted.note == f"fitted on {fitted.trained_on:,} of 1,797 images, as this machine's memory allows no more"
    assert (fitted.machine.scores(features).argmax(1) == labels).mean() > 0.9


def test_many_classes_take_turns_where_memory_is_short(digits, monkeypatch):
    together = fit(*digits, 10, Svm(c=1.0, tolerance=1e-4))
    monkeypatch.setattr("lenext.classical.machines.training.memory_bytes", lambda: 4 * 3 * (48 * 1797 + 120 * 64))
    turns = fit(*digits, 10, Svm(c=1.0, tolerance=1e-4))
    assert turns.machine.weights == pytest.approx(together.machine.weights, abs=0.02)


def fashion(kind):
    images = np.frombuffer(
        gzip.decompress((FASHION / f"{kind}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((FASHION / f"{kind}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 784).astype(np.float32) / 255 / 28, labels.astype(np.int64)


@pytest.mark.alone
@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [
        # Fashion-MNIST's README has 0.836 for the best linear SVM, and 0.897 for the best with an RBF kernel
        (Svm(), 0.78),
        (Svm(loss="hinge", c=20.0), 0.78),
        (Svm(kernel="rbf", c=10.0), 0.78),
    ],
    ids=lambda value: way(value) if isinstance(value, Svm) else None,
)
def test_a_budget_that_is_short_is_kept(settings, accuracy):
    features, labels = fashion("train")
    start = time.perf_counter()
    fitted = fit(features, labels, 10, settings, deadline=start + 4.0)
    assert time.perf_counter() - start < 12  # twice over on a busy machine
    assert "the budget" in fitted.note
    if fitted.trained_on < 60_000:
        assert f"{fitted.trained_on:,} of 60,000 images" in fitted.note
    test, truth = fashion("t10k")
    assert (fitted.machine.scores(test[:2000]).argmax(1) == truth[:2000]).mean() > accuracy


def test_a_budget_that_suffices_changes_nothing(digits):
    for settings in (Svm(), Svm(loss="hinge", c=1.0), Svm(kernel="rbf", c=1.0, gamma=1.0)):
        features, labels = digits[0][:400], digits[1][:400]
        free = fit(features, labels, 10, settings)
        bounded = fit(features, labels, 10, settings, deadline=time.perf_counter() + 300)
        assert np.array_equal(free.machine.scores(features), bounded.machine.scores(features))
        assert bounded.note == free.note


@pytest.mark.parametrize("settings", [*WAYS, Svm(), Svm(kernel="rbf")], ids=way)
def test_a_budget_that_cannot_suffice_still_gives_every_class(digits, settings):
    features, labels = np.tile(digits[0], (1, 30)), digits[1]
    fitted = fit(features, labels, 10, settings, deadline=time.perf_counter() - 1)
    assert "budget" in fitted.note
    scores = fitted.machine.scores(features)
    assert np.isfinite(scores).all()
    assert (scores.argmax(1) == labels).mean() > 0.2
    assert len(np.unique(scores.argmax(1))) == 10


def test_threads_do_not_change_what_is_fitted(digits):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = fit(*digits, 10, Svm(c=10.0, tolerance=1e-4))
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = fit(*digits, 10, Svm(c=10.0, tolerance=1e-4))
    finally:
        torch.set_num_threads(before)
    assert two.machine.scores(digits[0]) == pytest.approx(one.machine.scores(digits[0]), abs=0.02)
