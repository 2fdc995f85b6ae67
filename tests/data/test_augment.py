"""Augmentation: deterministic per image, and what each effect is in words."""

import numpy as np
import pytest
from scipy import stats

from lenext.data import augment, balanced_order, mix, order, uniform
from lenext.spec import Augment

EVERYTHING = Augment(shift=3, flip=True, crop_area=0.4, erase=0.7, brightness=0.3, contrast=0.3)


def batch(n=64, side=20, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def run(images, settings, *, seed=0, epoch=0, indices=None, fill=None):
    indices = np.arange(len(images)) if indices is None else indices
    fill = np.full(images.shape[3], 7, np.uint8) if fill is None else fill
    return augment(images, settings, seed=seed, epoch=epoch, indices=indices, fill=fill)


def test_random_numbers_are_those_of_splitmix64():
    # the reference generator, one number after another, in Python's whole numbers
    def splitmix(state):
        z = state & (2**64 - 1)
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    key = splitmix(splitmix(5 + golden) + 2 + golden)
    stream = splitmix(key + 9 + golden)
    expected = [(splitmix(stream + k * golden + golden) >> 11) / 2**53 for k in (1, 2, 3)]
    assert uniform(5, 2, np.array([9]), 3).tolist() == [expected]


def test_random_numbers_are_uniform_and_unrelated():
    numbers = uniform(0, 0, np.arange(20_000), 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    neighbours = np.corrcoef(np.column_stack([numbers[:-1], numbers[1:], uniform(1, 0, np.arange(19_999), 4)]).T)
    assert np.abs(neighbours - np.eye(12)).max() < 0.04


def test_seed_epoch_and_index_all_matter():
    first = uniform(0, 0, np.arange(10), 2)
    assert not np.isin(first, uniform(1, 0, np.arange(10), 2)).any()
    assert not np.isin(first, uniform(0, 1, np.arange(10), 2)).any()
    assert len(np.unique(first)) == 20
    assert not np.isin(first, uniform(-1, 0, np.arange(10), 2)).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_alike_in_whatever_batch(channels):
    images = batch(channels=channels)
    whole = run(images, EVERYTHING, seed=3, epoch=5)
    assert whole.dtype == np.uint8
    assert whole.shape == images.shape
    assert not np.array_equal(whole, images)
    chosen = np.random.default_rng(1).permutation(64)
    assert np.array_equal(run(images[chosen], EVERYTHING, seed=3, epoch=5, indices=chosen), whole[chosen])
    for i in (0, 17, 63):
        alone = run(images[i : i + 1], EVERYTHING, seed=3, epoch=5, indices=np.array([i]))
        assert np.array_equal(alone[0], whole[i])
    assert not np.array_equal(run(images, EVERYTHING, seed=3, epoch=6), whole)
    assert not np.array_equal(run(images, EVERYTHING, seed=4, epoch=5), whole)


def test_input_is_left_alone_and_off_means_off():
    images = batch()
    before = images.copy()
    run(images, EVERYTHING)
    assert np.array_equal(images, before)
    assert np.array_equal(run(images, Augment()), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_shift_moves_the_image_and_fills_in(channels):
    images, fill = batch(500, 9, channels), np.arange(10, 10 + channels).astype(np.uint8)
    shifted = run(images, Augment(shift=2), fill=fill)
    seen = set()
    for old, new in zip(images, shifted, strict=True):
        padded = np.empty((13, 13, channels), np.uint8)
        padded[:] = fill
        padded[2:-2, 2:-2] = old
        places = [
            (dy, dx) for dy in range(5) for dx in range(5) if np.array_equal(padded[dy : dy + 9, dx : dx + 9], new)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 25


def test_flip_mirrors_one_in_two():
    images = batch(2000, 4)
    flipped = run(images, Augment(flip=True))
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 900 < mirrored.sum() < 1100


def test_resized_crop_keeps_its_area_and_stays_inside():
    # a ramp across and one down: the crop's span can be read off its edges
    side = 64
    ramp = np.arange(side, dtype=np.uint8) * 4
    images = np.repeat(np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :]), axis=2)[None], 300, axis=0)
    images = np.concatenate([images, images[..., :1]], axis=3)
    cropped = run(images, Augment(crop_area=0.25)).astype(float)
    tall = (cropped[:, -1, 0, 0] - cropped[:, 0, 0, 0]) / 252
    wide = (cropped[:, 0, -1, 1] - cropped[:, 0, 0, 1]) / 252
    area, aspect = tall * wide, wide / tall
    assert 0.2 < area.min() < 0.3
    assert area.max() > 0.85
    assert 0.7 < aspect.min() < 0.85
    assert 1.2 < aspect.max() < 1.4
    assert np.ptp(cropped[:, 0, 0, 0]) > 50  # from different places


def test_erasing_blanks_a_square():
    images = np.full((1000, 32, 32, 1), 200, np.uint8)
    erased = run(images, Augment(erase=0.5), fill=np.zeros(1, np.uint8))[..., 0] == 0
    touched = erased.any(axis=(1, 2))
    assert 430 < touched.sum() < 570
    for mask in erased[touched]:
        rows, columns = mask.any(1), mask.any(0)
        assert rows.sum() <= 16
        assert columns.sum() <= 16
        assert np.array_equal(mask, rows[:, None] & columns[None, :])
    whole = [mask for mask in erased[touched] if mask[1:-1, 1:-1].sum() == mask.sum()]  # not cut off by an edge
    sides = {int(mask.any(1).sum()) for mask in whole}
    assert {8, 10, 12, 14} <= sides <= {*range(8, 17)}
    assert all(mask.any(1).sum() == mask.any(0).sum() for mask in whole)


def test_brightness_and_contrast_are_straight_lines():
    images = np.full((500, 4, 4, 1), 100, np.uint8)
    bright = run(images, Augment(brightness=0.2))[:, 0, 0, 0].astype(int)
    assert 80 <= bright.min() < 83
    assert 117 < bright.max() <= 120
    halves = np.full((500, 4, 4, 1), 60, np.uint8)
    halves[:, :, 2:] = 140
    spread = run(halves, Augment(contrast=0.5)).astype(int)
    assert (spread.mean(axis=(1, 2, 3)).round() == 100).all()  # about the mean
    difference = spread[:, 0, 3, 0] - spread[:, 0, 0, 0]
    assert 40 <= difference.min() < 44
    assert 116 < difference.max() <= 120
    assert run(np.full((50, 2, 2, 1), 250, np.uint8), Augment(brightness=0.5)).max() == 255


def mixed(images, settings):
    labels = np.arange(len(images))
    return mix(images, labels, settings, seed=1, epoch=2, indices=labels)


def test_mixup_blends_with_the_next_image_by_the_stated_share():
    images = batch(4000, 6)
    result, others, share = mixed(images, Augment(mixup=0.4))
    assert share.dtype == np.float32
    assert np.array_equal(others, np.roll(np.arange(4000), -1))
    weight = share[:, None, None, None]
    expected = images * weight + images[others] * (1 - weight)
    assert np.abs(result - expected).max() <= 0.51
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert np.mean(share < level) == pytest.approx(stats.beta(0.4, 0.4).cdf(level), abs=0.03)


def test_cutmix_pastes_a_rectangle_of_the_stated_share():
    images = np.random.default_rng(0).permutation(np.arange(512) % 256).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (512, 32, 32, 3)).copy()
    result, others, share = mixed(images, Augment(cutmix=1.0))
    for i in range(512):
        if images[i, 0, 0, 0] == images[others[i], 0, 0, 0]:
            continue
        own = (result[i] == images[i]).all(axis=2)
        assert ((result[i] == images[others[i]]).all(axis=2) == ~own).all()
        assert share[i] == pytest.approx(own.mean())
        assert np.array_equal(~own, (~own).any(1)[:, None] & (~own).any(0)[None, :])
    assert np.ptp(share) > 0.7


def test_mixup_and_cutmix_share_the_images():
    images = batch(2000, 8)
    _, _, both = mixed(images, Augment(mixup=0.2, cutmix=1.0))
    _, _, only = mixed(images, Augment(mixup=0.2))
    assert 850 < (both == only).sum() < 1150


def test_mixing_that_is_off_or_has_no_partner_changes_nothing():
    images = batch(4)
    for settings, some in ((Augment(), images), (Augment(mixup=1.0), images[:1])):
        result, others, share = mixed(some, settings)
        assert np.array_equal(result, some)
        assert np.array_equal(others, np.arange(len(some)))
        assert share.tolist() == [1.0] * len(some)


def test_when_an_image_comes_says_nothing_of_how_it_is_shifted():
    """Else each batch would be shifted one way."""
    images = np.zeros((600, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    shifted = run(images, Augment(shift=2), indices=order(0, 0, 600))
    down, across = (shifted.max(axis=axes).argmax(axis=1) for axes in ((2, 3), (1, 3)))
    for places in (down, across):
        assert sorted(set(places)) == [2, 3, 4, 5, 6]
        assert abs(stats.spearmanr(places, np.arange(600)).statistic) < 0.15


def test_order_is_a_permutation_of_its_own_for_every_epoch():
    first, second = order(0, 0, 1000), order(0, 1, 1000)
    assert first.dtype == np.int64
    assert sorted(first.tolist()) == list(range(1000))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, order(0, 0, 1000))
    assert abs(stats.spearmanr(first, second).statistic) < 0.1


LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3, 4], [60, 25, 9, 1]))  # none of class 2


def test_a_balanced_epoch_takes_every_class_equally_often_and_the_remainder_in_turns():
    n, taken = len(LABELS), np.zeros(5, int)
    for epoch in range(8):
        indices = balanced_order(3, epoch, LABELS)
        assert indices.dtype == np.int64
        assert len(np.unique(indices)) == n == len(indices)
        counts = np.bincount(LABELS[indices % n], minlength=5)
        assert sorted(set(counts)) == [0, n // 4, n // 4 + 1]
        taken += counts
    assert taken.tolist() == [2 * n, 2 * n, 0, 2 * n, 2 * n]


def test_no_image_comes_again_before_all_of_its_class_have_come():
    n, times = len(LABELS), np.zeros(len(LABELS), int)
    for epoch in range(5):
        times += np.bincount(balanced_order(3, epoch, LABELS) % n, minlength=n)
        for label in np.unique(LABELS):
            assert np.ptp(times[label == LABELS]) <= 1


def test_a_balanced_order_is_random_and_a_function_of_seed_and_epoch():
    n = len(LABELS)
    first = balanced_order(3, 0, LABELS)
    assert np.array_equal(first, balanced_order(3, 0, LABELS))
    for other in (balanced_order(3, 1, LABELS), balanced_order(4, 0, LABELS)):
        assert not np.array_equal(first % n, other % n)
    # neither classes nor an image's several visits lie together; which of a common class come differs
    assert abs(stats.spearmanr(LABELS[first % n], np.arange(n)).statistic) < 0.3
    common = [set(balanced_order(seed, 0, LABELS) % n) & set(np.flatnonzero(LABELS == 0)) for seed in range(5)]
    assert len(set(map(frozenset, common))) == 5


def test_where_classes_are_as_many_a_balanced_epoch_has_every_image_once():
    labels = np.arange(100) % 5
    for epoch in range(3):
        assert np.array_equal(np.sort(balanced_order(0, epoch, labels) % 100), np.arange(100))


def test_an_image_that_comes_again_is_augmented_otherwise():
    n = len(LABELS)
    indices = balanced_order(3, 0, LABELS)
    again = indices[LABELS[indices % n] == 4]  # the only image of its class
    assert len(again) >= n // 4
    augmented = run(np.repeat(batch(1), len(again), axis=0), EVERYTHING, indices=again)
    assert len({image.tobytes() for image in augmented}) == len(again)
