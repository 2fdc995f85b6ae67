import numpy as np
import pytest
import torch
from pictures import digit_patches
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from lenext.classical import codebook
from lenext.classical.codebook import Vocabulary, gaussian_mixture, k_means, learn, principal_components
from lenext.classical.patches import Patches
from lenext.errors import DataError, UsageError
from lenext.spec import Codebook, Encoding


@pytest.fixture(scope="module")
def images():
    """scikit-learn's digits, float32 [1797, 64] in 0-1."""
    return torch.tensor(load_digits().data / 16, dtype=torch.float32)


@pytest.fixture(scope="module")
def patches(images):
    return digit_patches(images.view(-1, 8, 8), contrast=0.1)


@pytest.fixture(scope="module")
def sample(patches):
    """The valid ones among them: values [n, 16] and places [n, 3]."""
    return patches.values[patches.valid], patches.places.expand(1797, 25, 3)[patches.valid]


def inertia(points, centres):
    return float(torch.cdist(points.double(), centres.double()).min(1).values.square().sum())


@pytest.mark.parametrize(("what", "words"), [("images", 10), ("images", 150), ("patches", 64)])
def test_k_means_is_as_good_as_scikit_learns(images, sample, what, words):
    points = images if what == "images" else sample[0]
    ours, theirs = [], []
    for seed in range(3):
        centres = k_means(points, words, iterations=50, seed=seed)
        assert (centres.dtype, centres.shape) == (torch.float32, (words, points.shape[1]))
        ours.append(inertia(points, centres))
        theirs.append(KMeans(words, n_init=1, max_iter=50, random_state=seed).fit(points.numpy()).inertia_)
    assert np.mean(ours) < 1.015 * np.mean(theirs)


def test_k_means_repeats_itself(sample):
    points = sample[0]
    one, again, other = (k_means(points, 32, iterations=5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_centres_are_the_means_of_their_points(sample):
    points = sample[0]
    centres = k_means(points, 20, iterations=500, seed=0)
    nearest = torch.cdist(points, centres).argmin(1)
    means = torch.stack([points[nearest == word].mean(0) for word in range(20)])
    assert torch.allclose(centres, means, atol=0.02)


def test_as_many_words_as_there_are_different_points(images):
    # So many copies that a sample of them misses the others
    rare = images[[3, 500, 900, 1200]]
    points = torch.cat([images[:1].expand(20_000, 64), rare])
    centres = k_means(points, 16, iterations=10, seed=0)
    assert sorted(centres.tolist()) == sorted(torch.cat([images[:1], rare]).tolist())
    assert k_means(images[:1], 4, iterations=3, seed=0).tolist() == images[:1].tolist()
    few = images[:20]
    assert inertia(few, k_means(few, 20, iterations=10, seed=1)) == 0


def test_centres_without_points_start_again(images, monkeypatch):
    # k-means++ hardly ever leaves a centre without points; these seeds leave eight
    seeds = torch.cat([images[:1].expand(9, 64), images[1:2]])
    monkeypatch.setattr(codebook, "_seeds", lambda *_: seeds)
    centres = k_means(images, 10, iterations=100, seed=0)
    assert len(torch.cdist(images, centres).argmin(1).unique()) == 10
    assert inertia(images, centres) < 1.03 * KMeans(10, init=seeds.numpy(), n_init=1).fit(images.numpy()).inertia_


def test_principal_components_are_scikit_learns(sample):
    values = sample[0]
    mean, components = principal_components(values, 8)
    direct = PCA(8).fit(values.double().numpy())
    assert mean.numpy() == pytest.approx(direct.mean_, abs=1e-6)
    signs = np.sign((components.numpy().T * direct.components_).sum(1))
    assert np.allclose(components.T, signs[:, None] * direct.components_, atol=1e-4)
    # The sign is not left to chance either
    assert (components.max(0).values > -components.min(0).values).all()


def start_of(points, words):
    """Gaussians around some of the points, as wide as all of them."""
    return points[:words].clone(), points.var(0).expand(words, -1).clone(), torch.full((words,), 1 / words)


def scikit_learns(points, start, iterations):
    means, variances, priors = (part.double().numpy() for part in start)
    mixture = GaussianMixture(
        len(means),
        covariance_type="diag",
        reg_covar=0,
        tol=0,
        max_iter=iterations,
        means_init=means,
        precisions_init=1 / variances,
        weights_init=priors / priors.sum(),
        random_state=0,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        return mixture.fit(points.double().numpy())


def likelihood(points, means, variances, priors):
    """The mean log-likelihood of points, directly, in double precision."""
    x, means, variances, priors = (part.double() for part in (points, means, variances, priors))
    normal = torch.distributions.Normal(means, variances.sqrt())
    return float((normal.log_prob(x[:, None]).sum(2) + priors.log()).logsumexp(1).mean())


@pytest.mark.parametrize("iterations", [1, 4])
def test_steps_of_expectation_maximisation_are_scikit_learns(sample, iterations):
    # Far from zero and in other units: what is added and multiplied must not show
    points = sample[0][::7] * torch.linspace(0.1, 30, 16) + 50
    start = start_of(points, 6)
    means, variances, priors = gaussian_mixture(points, *start, iterations=iterations)
    direct = scikit_learns(points, start, iterations)
    assert means.numpy() == pytest.approx(direct.means_, rel=1e-4)
    assert variances.numpy() == pytest.approx(direct.covariances_, rel=5e-3)
    assert priors.numpy() == pytest.approx(direct.weights_, rel=2e-3)


def test_the_mixture_is_as_likely_as_scikit_learns(sample):
    values, places = (part[::5] for part in sample)
    learnt = learn(values, places, Codebook(words=16, iterations=50), Encoding(kind="fisher"), seed=0)
    ours = likelihood(values, learnt.words, learnt.variances, learnt.priors)
    points = values.double().numpy()
    theirs = [
        GaussianMixture(16, covariance_type="diag", reg_covar=6e-4, random_state=seed).fit(points).score(points)
        for seed in range(2)
    ]
    # In nats per patch of 16 numbers. scikit-learn adds about what our floor is to every variance: it stays below
    assert np.mean(theirs) - 0.05 < ours < np.mean(theirs) + 0.5


def test_variances_have_a_floor(images):
    # Half of the points are equal: a Gaussian on them would shrink to nothing
    points = torch.cat([images[:500, 20:30], images[:1, 20:30].expand(500, 10)])
    means, variances, priors = gaussian_mixture(points, *start_of(points, 5), iterations=30)
    least = points.var(0, correction=0) / 100
    assert (variances >= least * 0.999).all()
    assert float(variances[0].sum()) == pytest.approx(float(least.sum()), rel=0.01)
    assert float(priors[0]) == pytest.approx(0.5, abs=0.02)
    assert all(part.isfinite().all() for part in (means, variances, priors))


def test_gaussians_without_points_are_dropped(images):
    points = images[:300, 20:30]
    means, variances, priors = start_of(points, 4)
    means[2] = 40.0
    means, variances, priors = gaussian_mixture(points, means, variances, priors, iterations=10)
    assert len(means) == len(variances) == len(priors) == 3
    assert float(priors.sum()) == pytest.approx(1)
    assert (priors > 0).all()


@pytest.mark.parametrize("kind", ["soft", "fisher"])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_numbers_that_never_change_and_patches_that_are_all_equal(sample, kind, n):
    values, places = sample[0][:n].clone(), sample[1][:n]
    values[:, 4:9] = 0.25
    for points in (values, values[:1].expand(n, 16)):
        learnt = learn(points, places, Codebook(words=8, pca=12), Encoding(kind=kind), seed=0)
        assert 1 <= len(learnt.words) <= min(n, 8)
        assert all(np.isfinite(array).all() for array in learnt.arrays().values())
        if kind == "fisher":
            assert (learnt.variances > 0).all()
            described = learnt.describe(Patches(points[None], places[None], torch.ones(1, n, dtype=torch.bool)))
            assert learnt.scores(described[0]).isfinite().all()


@pytest.mark.parametrize("kind", ["hard", "soft", "vlad", "fisher"])
@pytest.mark.parametrize("pca", [None, 6])
@pytest.mark.parametrize("positions", [False, True])
def test_learns_describes_and_is_restored(patches, sample, kind, pca, positions):
    encoding = Encoding(kind=kind, positions=positions)
    learnt = learn(*sample, Codebook(words=12, pca=pca, iterations=4), encoding, seed=0)
    length = (pca or 16) + 2 * positions
    assert learnt.words.shape == (12, length)
    mixture = {"variances": (12, length), "priors": (12,)} if kind == "fisher" else {}
    reduction = {} if pca is None else {"mean": (16,), "components": (16, 6)}
    arrays = learnt.arrays()
    assert {name: array.shape for name, array in arrays.items()} == {"words": (12, length), **reduction, **mixture}
    assert all(array.dtype == np.float32 for array in arrays.values())

    described = learnt.describe(patches)
    assert described.shape == (1797, 25, length)
    expected = patches.values.flatten(0, 1).numpy()
    if pca:
        expected = (expected - arrays["mean"]) @ arrays["components"]
    assert np.allclose(described.flatten(0, 1)[:, : length - 2 * positions], expected, atol=1e-5)
    if positions:
        centred = patches.places[0, :, :2] - 0.5
        assert np.corrcoef(described[0, :, -2], centred[:, 0])[0, 1] == pytest.approx(1)
        assert np.corrcoef(described[0, :, -1], centred[:, 1])[0, 1] == pytest.approx(1)
        # They weigh as much as a number of the descriptor
        spread = described[patches.valid].std(0)
        mean = float(spread[:-2].square().mean().sqrt())
        assert spread[-2:].numpy() == pytest.approx(mean, rel=0.5)

    again = Vocabulary.from_arrays(arrays)
    assert torch.equal(again.describe(patches), described)
    assert torch.equal(again.scores(described[0]), learnt.scores(described[0]))
    assert again.arrays().keys() == arrays.keys()


def test_the_same_seed_learns_the_same(sample):
    settings = Codebook(words=12, pca=6, iterations=4), Encoding(kind="fisher", positions=True)
    one, two = (learn(*sample, *settings, seed=5).arrays() for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("kind", "steps"), [("soft", 7), ("fisher", 14)])
def test_tells_how_far_it_is(sample, kind, steps):
    told = []
    learn(*sample, Codebook(words=8, iterations=7), Encoding(kind=kind), seed=0, progress=lambda *at: told.append(at))
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert {of for _, of in told} == {steps}
    assert len(done) > 3
    assert done[-1] == steps


def test_says_what_cannot_be_learnt(sample):
    values, places = sample
    with pytest.raises(DataError, match="no patch with any contrast in the training images"):
        learn(values[:0], places[:0], Codebook(), Encoding(), seed=0)
    with pytest.raises(UsageError, match=r"codebook\.pca: given 17, accepted: 1 to 16"):
        learn(values, places, Codebook(pca=17), Encoding(), seed=0)


def test_refuses_other_descriptors(patches, sample):
    wrong = Patches(patches.values[:, :, 1:], patches.places, patches.valid)
    for pca, expected in ((6, "expected descriptors of length 16"), (None, "length 16 or 14")):
        learnt = learn(*sample, Codebook(words=4, pca=pca, iterations=2), Encoding(), seed=0)
        with pytest.raises(DataError, match=f"{expected}.* given 15"):
            learnt.describe(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"words": None},
        {"words": np.zeros((12, 9), np.float32)},
        {"words": np.zeros((12, 8), np.float64)},
        {"words": np.zeros(12, np.float32)},
        {"mean": None},
        {"mean": np.zeros(15, np.float32)},
        {"components": None},
        {"components": np.zeros((16, 7), np.float32)},
        {"variances": None},
        {"variances": np.ones((11, 8), np.float32)},
        {"priors": None},
        {"priors": np.ones((12, 1), np.float32)},
        {"centres": np.zeros((12, 8), np.float32)},
    ],
)
def test_damaged_arrays_are_refused(sample, change):
    encoding = Encoding(kind="fisher", positions=True)
    arrays = learn(*sample, Codebook(words=12, pca=6, iterations=2), encoding, seed=0).arrays()
    damaged = {name: array for name, array in {**arrays, **change}.items() if array is not None}
    with pytest.raises(DataError, match=r"expected a vocabulary's float32 arrays words \[K, d\]"):
        Vocabulary.from_arrays(damaged)
    with pytest.raises(DataError, match=r"given \{\}"):
        Vocabulary.from_arrays({})
