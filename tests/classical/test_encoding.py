import numpy as np
import pytest
import torch
from pictures import digit_patches
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from lenext.classical.codebook import learn
from lenext.classical.encoding import encode, encoded_size, encoding_macs, nearest_words, votes
from lenext.classical.patches import Patches
from lenext.errors import DataError
from lenext.spec import Codebook, Encoding

KINDS = ["hard", "soft", "vlad", "fisher"]


@pytest.fixture(scope="module")
def patches():
    return digit_patches(torch.tensor(load_digits().images[:300] / 16, dtype=torch.float32), contrast=0.5)


@pytest.fixture(scope="module")
def vocabularies(patches):
    """By kind: 12 words of the patches after PCA, with positions."""
    places = patches.places.expand(300, 25, 3)[patches.valid]
    settings = Codebook(words=12, pca=6, iterations=10)
    return {
        kind: learn(patches.values[patches.valid], places, settings, Encoding(kind=kind, positions=True), seed=0)
        for kind in KINDS
    }


def some(patches, images):
    """The patches of some images."""
    places = patches.places if len(patches.places) == 1 else patches.places[images]
    return Patches(patches.values[images], places, patches.valid[images])


def ragged(patches):
    """The same, told as if every image had its own places."""
    return Patches(patches.values, patches.places.repeat(len(patches.values), 1, 1), patches.valid)


def unit(vector):
    return vector / np.linalg.norm(vector)


def valid_points(patches, vocabulary, image):
    return vocabulary.describe(patches)[image][patches.valid[image]].double().numpy()


def directly(points, vocabulary, encoding):
    """The part of one cell, straight from the papers' formulae: loops over patches and words, in double precision."""
    arrays = {name: array.astype(np.float64) for name, array in vocabulary.arrays().items()}
    words = arrays["words"]
    k, d = words.shape
    count, difference, spread = np.zeros(k), np.zeros((k, d)), np.zeros((k, d))
    for x in points:
        squared = ((x - words) ** 2).sum(1)
        if encoding.kind == "soft":
            shares = np.exp(-encoding.softness / 2 * squared)
            count += shares / shares.sum()
        elif encoding.kind == "fisher":
            variances, priors = arrays["variances"], arrays["priors"]
            densities = np.exp(-0.5 * ((x - words) ** 2 / variances).sum(1)) / np.sqrt((2 * np.pi * variances).prod(1))
            shares = priors * densities / (priors * densities).sum()
            scaled = (x - words) / np.sqrt(variances)
            difference += (shares / np.sqrt(priors))[:, None] * scaled
            spread += (shares / np.sqrt(2 * priors))[:, None] * (scaled**2 - 1)
        else:
            count[squared.argmin()] += 1
            difference[squared.argmin()] += x - words[squared.argmin()]
    if encoding.kind == "vlad":
        lengths = np.linalg.norm(difference, axis=1, keepdims=True)
        return (difference / np.where(lengths > 0, lengths, 1)).ravel()
    if encoding.kind == "fisher":
        return np.concatenate([difference, spread], axis=1).ravel() / len(points)
    return count / len(points)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [1.0, 0.5, 0.3])
def test_agrees_with_the_formulae(patches, vocabularies, kind, power):
    encoding = Encoding(kind=kind, softness=8.0, pyramid=(1,), power=power)
    encoded = encode(some(patches, slice(20)), vocabularies[kind], encoding).numpy()
    assert encoded.dtype == np.float32
    for image in range(20):
        direct = directly(valid_points(patches, vocabularies[kind], image), vocabularies[kind], encoding)
        direct = np.sign(direct) * np.abs(direct) ** power
        assert encoded[image] == pytest.approx(unit(direct), abs=1e-4 if power == 1 else 3e-3)


def test_the_fisher_vector_is_the_gradient_of_scikit_learns_likelihood(patches, vocabularies):
    vocabulary = vocabularies["fisher"]
    words, variances, priors = (
        vocabulary.arrays()[name].astype(np.float64) for name in ("words", "variances", "priors")
    )
    k, d = words.shape
    points = valid_points(patches, vocabulary, 7)

    def likelihood(words, deviations):
        mixture = GaussianMixture(k, covariance_type="diag")
        mixture.weights_, mixture.means_, mixture.covariances_ = priors / priors.sum(), words, deviations**2
        mixture.precisions_cholesky_ = 1 / deviations
        return mixture.score_samples(points).sum()

    deviations, small = np.sqrt(variances), 1e-5
    gradient = np.zeros((k, 2, d))
    for word in range(k):
        for number in range(d):
            step = np.zeros((k, d))
            step[word, number] = small
            of_mean = likelihood(words + step, deviations) - likelihood(words - step, deviations)
            of_deviation = likelihood(words, deviations + step) - likelihood(words, deviations - step)
            # The Fisher information of a mean is prior / σ², that of a standard deviation twice as much
            scale = deviations[word, number] / np.sqrt(priors[word]) / (2 * small)
            gradient[word, :, number] = of_mean * scale, of_deviation * scale / np.sqrt(2)
    encoded = encode(some(patches, slice(7, 8)), vocabulary, Encoding(kind="fisher", pyramid=(1,), power=1.0))
    assert encoded[0].numpy() == pytest.approx(unit(gradient.ravel()), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_the_encoding_of_its_patches(patches, vocabularies, kind):
    vocabulary, pyramid = vocabularies[kind], Encoding(kind=kind, pyramid=(1, 2, 3), power=1.0)
    for whole in (patches, ragged(patches)):
        encoded = encode(whole, vocabulary, pyramid)
        assert encoded.shape == (300, encoded_size(vocabulary, pyramid))
        parts = encoded.view(300, 14, -1)
        x, y = patches.places[0, :, 0], patches.places[0, :, 1]
        at = 0
        for side in pyramid.pyramid:
            for row in range(side):
                for column in range(side):
                    inside = (x >= column / side) & (x < (column + 1) / side)
                    inside &= (y >= row / side) & (y < (row + 1) / side)
                    only = Patches(whole.values, whole.places, whole.valid & inside)
                    alone = encode(only, vocabulary, Encoding(kind=kind, pyramid=(1,), power=1.0))
                    part = torch.nn.functional.normalize(parts[:, at], dim=1)
                    assert torch.allclose(part, alone, atol=1e-5)
                    at += 1
    # The same words in all cells: what one of them holds differs from the next
    assert not torch.allclose(parts[:, 1], parts[:, 2], atol=0.1)


def test_all_cells_of_a_histogram_weigh_the_same(patches, vocabularies):
    encoded = encode(patches, vocabularies["soft"], Encoding(pyramid=(1, 2), power=1.0)).view(300, 5, 12)
    full = torch.stack(
        [patches.valid.view(300, 5, 5)[:, i : i + 3, j : j + 3].any(2).any(1) for i in (0, 2) for j in (0, 2)]
    )
    weights = encoded.sum(2)
    assert torch.allclose(weights[full.all(0)], weights[full.all(0)][:, :1].expand(-1, 5), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_places_on_the_border_belong_to_the_image(patches, vocabularies, kind):
    encoded = []
    for border in (0.0, 1e-5):
        places = patches.places.clone()
        places[0, :5, 1], places[0, -5:, 1] = border, 1 - border
        moved = Patches(patches.values, places, patches.valid)
        encoded.append(encode(moved, vocabularies[kind], Encoding(kind=kind, pyramid=(2,), power=1.0)))
    # The place itself is part of what is compared with the words, but such a step does not change much
    assert (encoded[0] * encoded[1]).sum(1).min() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_the_others(patches, vocabularies, kind):
    # More than are worked on at a time
    many = Patches(patches.values.repeat(12, 1, 1), patches.places, patches.valid.repeat(12, 1))
    for together in (many, ragged(many)):
        for power in (1.0, 0.5):
            encoding = Encoding(kind=kind, pyramid=(1, 2), power=power)
            encoded = encode(together, vocabularies[kind], encoding)
            for image in (0, 299, 1234, 3599):
                alone = encode(some(together, slice(image, image + 1)), vocabularies[kind], encoding)
                # Products of other shapes round differently; the exponents of Gaussians and the square root magnify it
                tolerance = (1e-5 if kind == "fisher" else 1e-6) if power == 1 else 1e-3
                assert torch.allclose(encoded[image], alone[0], atol=tolerance)
    assert encode(some(many, slice(0)), vocabularies[kind], encoding).shape == (0, encoded.shape[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_votes_add_up_and_the_order_of_patches_does_not_matter(patches, vocabularies, kind, power):
    encoding, images = Encoding(kind=kind, pyramid=(1, 2), power=power), some(patches, slice(40))
    vectors = encode(images, vocabularies[kind], encoding)
    direction = torch.randn(vectors.shape[1], generator=torch.Generator().manual_seed(0))
    found = votes(images, vocabularies[kind], encoding, direction)
    assert found.shape == (40, 25)
    assert found.sum(1).numpy() == pytest.approx((vectors @ direction).numpy(), abs=5e-3)
    assert (found[~images.valid] == 0).all()
    order = torch.randperm(25, generator=torch.Generator().manual_seed(1))
    shuffled = Patches(images.values[:, order], images.places[:, order], images.valid[:, order])
    again = votes(shuffled, vocabularies[kind], encoding, direction)
    assert torch.allclose(again, found[:, order], atol=2e-3 * float(found.abs().max()))


@pytest.mark.parametrize("kind", ["hard", "soft", "fisher"])
def test_a_vote_is_a_patchs_own_part_of_the_sum(patches, vocabularies, kind):
    """Where no powers are taken, by the formulae: the part of each patch, over the length of them all."""
    encoding, vocabulary = Encoding(kind=kind, softness=8.0, pyramid=(1,), power=1.0), vocabularies[kind]
    direction = torch.randn(encoded_size(vocabulary, encoding), generator=torch.Generator().manual_seed(0))
    found = votes(some(patches, slice(10)), vocabulary, encoding, direction).numpy()
    for image in range(10):
        points = valid_points(patches, vocabulary, image)
        alone = np.stack([directly(point[None], vocabulary, encoding) for point in points]) / len(points)
        expected = alone @ direction.double().numpy() / np.linalg.norm(alone.sum(0))
        assert found[image][patches.valid[image]] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_patches_does_not_matter(patches, vocabularies, kind):
    encoding = Encoding(kind=kind, pyramid=(1, 2))
    expected = encode(patches, vocabularies[kind], encoding)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    shuffled = Patches(patches.values[:, order], patches.places[:, order], patches.valid[:, order])
    assert torch.allclose(encode(shuffled, vocabularies[kind], encoding), expected, atol=1e-3)
    assert torch.allclose(encode(ragged(shuffled), vocabularies[kind], encoding), expected, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_that_are_not_valid_count_for_nothing(patches, vocabularies, kind):
    encoding = Encoding(kind=kind, pyramid=(1, 2))
    expected = encode(patches, vocabularies[kind], encoding)
    assert torch.allclose(expected.norm(dim=1), torch.ones(300), atol=1e-5)
    assert not patches.valid.all()
    filled = torch.where(patches.valid[..., None], patches.values, 0.7)
    others = Patches(filled, patches.places, patches.valid)
    assert torch.allclose(encode(others, vocabularies[kind], encoding), expected, atol=1e-6)
    # Images that have fewer patches than there is room for
    room = torch.nn.functional.pad(patches.values, (0, 0, 0, 7))
    places = torch.nn.functional.pad(patches.places, (0, 0, 0, 7)).repeat(300, 1, 1)
    padded = Patches(room, places, torch.nn.functional.pad(patches.valid, (0, 7)))
    assert torch.allclose(encode(padded, vocabularies[kind], encoding), expected, atol=1e-3)

    valid = patches.valid.clone()
    valid[3] = False
    encoded = encode(Patches(patches.values, patches.places, valid), vocabularies[kind], encoding)
    assert not encoded[3].any()
    assert torch.allclose(encoded[4], expected[4], atol=1e-6)


def test_images_without_room_for_patches_are_zero(vocabularies):
    nothing = Patches(torch.zeros(2, 0, 16), torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool))
    for kind in KINDS:
        encoding = Encoding(kind=kind)
        encoded = encode(nothing, vocabularies[kind], encoding)
        assert encoded.shape == (2, encoded_size(vocabularies[kind], encoding))
        assert not encoded.any()
        assert nearest_words(nothing, vocabularies[kind]).shape == (2, 0)


def test_patches_that_are_their_words_have_no_direction(patches):
    # VLAD brings every difference to length 1: rounding must not count as one
    values, places = patches.values[patches.valid], patches.places.expand(300, 25, 3)[patches.valid]
    encoding = Encoding(kind="vlad", pyramid=(1,), power=1.0)
    vocabulary = learn(values[:9], places[:9], Codebook(words=9), encoding, seed=0)
    same = Patches(
        values[None, :9].repeat(1, 5, 1), places[None, :9].repeat(1, 5, 1), torch.ones(1, 45, dtype=torch.bool)
    )
    assert float(encode(same, vocabulary, Encoding(kind="hard", pyramid=(1,)))[0].min()) == pytest.approx(1 / 3)
    mixed = Patches(
        torch.cat([same.values, values[None, 20:21]], 1), places[None, :46], torch.ones(1, 46, dtype=torch.bool)
    )
    lengths = encode(mixed, vocabulary, encoding).view(9, -1).norm(dim=1)
    assert sorted(lengths.tolist()) == pytest.approx([0] * 8 + [1], abs=0.02)


def test_the_nearest_word(patches, vocabularies):
    for kind in KINDS:
        vocabulary = vocabularies[kind]
        words = nearest_words(patches, vocabulary)
        assert (words.dtype, words.shape) == (torch.int64, (300, 25))
        assert (words[~patches.valid] == -1).all()
        points = vocabulary.describe(patches)[patches.valid].double()
        if kind == "fisher":
            mixture = GaussianMixture(12, covariance_type="diag")
            mixture.weights_, mixture.means_ = vocabulary.priors.numpy(), vocabulary.words.numpy()
            mixture.precisions_cholesky_ = 1 / vocabulary.variances.sqrt().numpy()
            expected = torch.from_numpy(mixture.predict(points.numpy()))
        else:
            expected = torch.cdist(points, vocabulary.words.double()).argmin(1)
        assert (words[patches.valid] == expected).float().mean() > 0.999


def test_any_softness(patches, vocabularies):
    vocabulary = vocabularies["soft"]
    everything = Encoding(kind="soft", softness=1e9, pyramid=(1,))
    hard = encode(patches, vocabulary, Encoding(kind="hard", pyramid=(1,)))
    assert torch.allclose(encode(patches, vocabulary, everything), hard, atol=1e-4)
    even = encode(patches, vocabulary, Encoding(kind="soft", softness=1e-9, pyramid=(1,)))
    assert torch.allclose(even, torch.full_like(even, 12**-0.5), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "numbers"), [("hard", 256), ("soft", 256), ("vlad", 256 * 64), ("fisher", 2 * 256 * 64)]
)
def test_sizes_are_the_published_ones(kind, numbers):
    # 2 K D for Fisher vectors (Perronnin et al. 2010), K D for VLAD (Jégou et al. 2010); 21 cells in (1, 2, 4)
    assert encoded_size((256, 64), Encoding(kind=kind, pyramid=(1,))) == numbers
    assert encoded_size((256, 64), Encoding(kind=kind, pyramid=(1, 2, 4))) == 21 * numbers


def test_arithmetic():
    # 100 patches of 128 numbers against 256 words, then all words for each patch at three levels
    assert encoding_macs(256, 100, 128, None, Encoding()) == 100 * (256 * 128 + 256 * 3)
    assert encoding_macs(256, 100, 128, None, Encoding(kind="hard", pyramid=(1,))) == 100 * (256 * 128 + 1)
    # PCA to 62 and two coordinates; squares and numbers against 64 Gaussians, and back, with the counts
    fisher = Encoding(kind="fisher", pyramid=(1,), positions=True)
    assert encoding_macs(64, 200, 128, 62, fisher) == 200 * (128 * 62 + 64 * 128 + 64 * 129)
    vlad = Encoding(kind="vlad", pyramid=(1, 2))
    assert encoding_macs(64, 200, 128, 64, vlad) == 200 * (128 * 64 + 64 * 64 + 2 * 64)


def test_refuses_other_descriptors(patches, vocabularies):
    wrong = Patches(patches.values[:, :, :9], patches.places, patches.valid)
    with pytest.raises(DataError, match=r"expected descriptors of length 16.* given 9"):
        encode(wrong, vocabularies["soft"], Encoding())
