import dataclasses
import sys

import cv2
import numpy as np
import pytest
import torch
from pictures import needs_stamps, stamps

from lenext.classical.descriptors import check, extract, layout
from lenext.errors import UsageError
from lenext.nn import on_threads
from lenext.spec import Descriptors

SIFT = Descriptors(kind="sift", root=False)
SURF = Descriptors(kind="surf")


def counts(patches):
    return patches.valid.sum(dim=1).tolist()


@needs_stamps
def test_sift_is_opencvs():
    images = stamps(128)
    patches = extract(images, SIFT)
    assert patches.places.shape == (len(images), patches.values.shape[1], 3)
    assert sum(counts(patches)) > 1000
    for image, values, places, number in zip(images, patches.values, patches.places, counts(patches), strict=True):
        points, expected = cv2.SIFT_create().detectAndCompute(image[..., 0], None)
        assert number == min(len(points), SIFT.keypoints)
        assert not values[number:].any()
        if not points:
            continue
        order = np.argsort([-point.response for point in points], kind="stable")[:number]
        assert places[:number, 0].numpy() * 128 - 0.5 == pytest.approx([points[i].pt[0] for i in order], abs=1e-3)
        expected = expected[order] / np.linalg.norm(expected[order], axis=1, keepdims=True)
        assert (values[:number].numpy() * expected).sum(axis=1).mean() > 0.999


@needs_stamps
def test_surf_is_mahotas():
    pytest.importorskip("mahotas")
    from mahotas.features import surf

    images = stamps(128)
    patches = extract(images, SURF)
    assert sum(counts(patches)) > 200
    for image, values, places, number in zip(images, patches.values, patches.places, counts(patches), strict=True):
        rows = surf.surf(image[..., 0])
        assert number == min(len(rows), 300)
        rows = rows[np.argsort(-rows[:, 3], kind="stable")]
        assert places[:number, 1].numpy() * 128 - 0.5 == pytest.approx(rows[:, 0], abs=1e-3)
        assert places[:number, 0].numpy() * 128 - 0.5 == pytest.approx(rows[:, 1], abs=1e-3)
        assert values[:number].numpy() == pytest.approx(rows[:, 6:], abs=1e-4)


@needs_stamps
@pytest.mark.parametrize(("settings", "least"), [(SIFT, 0.6), (SURF, 0.3)], ids=["sift", "surf"])
def test_a_turned_picture_has_the_same_keypoints_elsewhere(settings, least):
    if settings is SURF:
        pytest.importorskip("mahotas")
    images = stamps(160, every=60)
    upright, turned = extract(images, settings), extract(np.rot90(images, axes=(1, 2)).copy(), settings)
    found = total = 0
    for row in range(len(images)):
        here, there = upright.valid[row], turned.valid[row]
        if not here.any() or not there.any():
            continue
        x, y, width = upright.places[row, here].T
        expected = torch.stack([y, 1 - x, width], dim=1)  # counter-clockwise
        likeness, nearest = (upright.values[row, here] @ turned.values[row, there].T).max(dim=1)
        near = (expected - turned.places[row, there][nearest]).abs().amax(dim=1) < 0.02
        found += int((near & (likeness > 0.9)).sum())
        total += len(near)
    assert total > 150
    assert found / total > least


@needs_stamps
@pytest.mark.parametrize("settings", [SIFT, SURF], ids=["sift", "surf"])
def test_the_strongest_come_first(settings):
    if settings is SURF:
        pytest.importorskip("mahotas")
    images = stamps(128, every=100)
    all_of_them = extract(images, settings)
    few = extract(images, Descriptors(kind=settings.kind, root=settings.root, keypoints=7))
    assert few.values.shape[1] == 7
    assert torch.equal(few.values, all_of_them.values[:, :7])
    assert torch.equal(few.places, all_of_them.places[:, :7])


@pytest.mark.parametrize("settings", [SIFT, SURF], ids=["sift", "surf"])
@pytest.mark.parametrize("side", [1, 8, 40])
def test_without_keypoints_nothing_is_valid(settings, side):
    if settings is SURF:
        pytest.importorskip("mahotas")
    patches = extract(np.full((2, side, side, 1), 200, np.uint8), settings)
    length = layout(settings, side, 1).length
    assert patches.values.shape == (2, 1, length)
    assert patches.places.shape == (2, 1, 3)
    assert not patches.valid.any()
    assert not patches.values.any()
    assert extract(np.zeros((0, side, side, 1), np.uint8), settings).values.shape == (0, 1, length)


@needs_stamps
def test_threads_do_not_show():
    images, threads = stamps(96, every=80), cv2.getNumThreads()
    results = []
    for number in (1, 3):
        with on_threads(number):
            results.append(extract(images, SIFT))
    assert torch.equal(results[0].values, results[1].values)
    assert torch.equal(results[0].places, results[1].places)
    assert cv2.getNumThreads() == threads


@needs_stamps
def test_sift_in_colour_looks_at_the_same_keypoints():
    images = stamps(128, "RGB", every=60)
    gray, colour = extract(images, SIFT), extract(images, Descriptors(kind="sift", root=False, colour="opponent"))
    assert torch.equal(colour.places, gray.places)
    assert colour.values.shape[2] == layout(Descriptors(kind="sift", colour="opponent"), 128, 3).length == 384
    valid = gray.valid
    # The third plane is the plain mean of the colours, which is near their luminance
    assert (colour.values[:, :, 256:] * gray.values).sum(dim=2)[valid].mean() > 0.95
    # In a gray picture the other two say nothing
    same = extract(np.repeat(images[..., :1], 3, axis=3), Descriptors(kind="sift", colour="opponent"))
    assert same.valid.any()
    assert not same.values[:, :, :256].any()


@needs_stamps
def test_root_and_side():
    images = stamps(128, every=80)
    plain, rooted = extract(images, SIFT), extract(images, Descriptors(kind="sift"))
    shares = plain.values / plain.values.sum(dim=2, keepdim=True).clamp(min=1e-9)
    assert torch.allclose(rooted.values.square(), shares, atol=1e-6)
    larger = extract(images, Descriptors(kind="sift", side=256))
    assert sum(counts(larger)) != sum(counts(rooted))
    assert 0.9 < float(larger.places[..., :2].max()) < 1


def test_what_cannot_be_described_is_said(monkeypatch):
    gray, colour = np.zeros((1, 40, 40, 1), np.uint8), np.zeros((1, 40, 40, 3), np.uint8)
    with pytest.raises(UsageError, match=r"opponent.*gray"):
        extract(gray, Descriptors(kind="sift", colour="opponent"))
    with pytest.raises(UsageError, match=r"opponent.*SURF knows no colour"):
        extract(colour, Descriptors(kind="surf", colour="opponent"))
    monkeypatch.setitem(sys.modules, "mahotas", None)
    for describe in (lambda: extract(gray, SURF), lambda: check(SURF)):
        with pytest.raises(UsageError, match=r"pip install 'lenext\[surf\]'"):
            describe()


def test_what_is_told_beforehand():
    told = layout(SIFT, 40, 1)
    assert (told.length, told.patches, told.places) == (128, 300, None)
    # The scale space grows with the picture's area, the rest with the number of keypoints
    more = layout(dataclasses.replace(SIFT, keypoints=600), 40, 1).macs
    assert more - told.macs == 300 * (told.macs - layout(dataclasses.replace(SIFT, keypoints=299), 40, 1).macs)
    large, larger = (layout(dataclasses.replace(SIFT, keypoints=1), side, 1).macs for side in (512, 1024))
    assert larger / large == pytest.approx(4, rel=0.02)
    assert layout(SURF, 40, 1).length == 64
