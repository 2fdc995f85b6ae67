"""The loader: an exact order, whatever the threads, the world and where it begins."""

import io
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import file_of, on_white, stamps

from lenext.data import Loader, Subset, augment, balanced_order, loader_rate, mix, order, prepare
from lenext.data.augment import crop_boxes
from lenext.data.pack import pack
from lenext.errors import DataError
from lenext.spec import Augment, Data

EVERYTHING = Augment(shift=2, flip=True, erase=0.5, brightness=0.2, contrast=0.2, mixup=0.3, cutmix=1.0)
FILL = np.array([9, 99, 199], np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """150 JPEGs of real pictures, not square, in 3 classes; some gray, progressive, turned by EXIF, one a PNG."""
    root = tmp_path_factory.mktemp("folder")
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, image in enumerate(stamps(160)[:150]):
        plain = on_white(image)
        kinds = [{}, {"progressive": True}, {"exif": exif}, {"quality": 95}]
        path = root / f"class {i % 3}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        content = file_of(plain.convert("L") if i % 10 == 7 else plain, "JPEG", **kinds[i % 4])
        path.write_bytes(file_of(image, "PNG") if i == 5 else content)
    return root


@pytest.fixture(scope="module")
def packs(folder, tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("packs")
    pack(str(folder), root / "keep.pack")
    pack(str(folder), root / "raw.pack", encoding="raw", side=128)
    return {name: str(root / f"{name}.pack") for name in ("keep", "raw")}


def train_part(source, **settings):
    return prepare(Data(str(source), size=32, **settings)).train


def loaded(subset, settings, *, step=0, batches=5, **options):
    options = {"batch_size": 16, "seed": 3, "fill": FILL, **options}
    return list(itertools.islice(Loader(subset, settings, **options).batches(step), batches))


def same(left, right) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.epoch, a.position) == (b.epoch, b.position)
        for name in ("images", "labels", "others", "shares"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("source", ["memory", "keep"])
def test_batches_are_what_the_training_loop_makes_step_by_step(folder, packs, source):
    memory = train_part(folder)
    subset = memory if source == "memory" else train_part(packs[source])
    epochs = len(memory) // 16
    for step, batch in enumerate(loaded(subset, EVERYTHING, batches=2 * epochs + 1)):
        epoch, position = divmod(step, epochs)
        indices = order(3, epoch, len(memory))[position * 16 : (position + 1) * 16]
        key = {"seed": 3, "epoch": epoch, "indices": indices}
        images = augment(memory.images[indices], EVERYTHING, fill=FILL, **key)
        images, others, shares = mix(images, memory.labels[indices], EVERYTHING, **key)
        assert (batch.epoch, batch.position) == (epoch, position)
        assert np.array_equal(batch.images, images)
        assert np.array_equal(batch.labels, memory.labels[indices])
        assert np.array_equal(batch.others, others)
        assert np.array_equal(batch.shares, shares)
        assert [array.dtype for array in (batch.labels, batch.others, batch.shares)] == ["i8", "i8", "f4"]


CROPPED = Augment(crop_area=0.2, flip=True, mixup=0.2, cutmix=0.5)


@pytest.mark.parametrize("source", ["memory", "keep", "raw"])
def test_threads_the_world_and_the_first_step_do_not_matter(folder, packs, source):
    subset = train_part(folder if source == "memory" else packs[source])
    whole = loaded(subset, CROPPED, batches=12, ahead=0)
    same(loaded(subset, CROPPED, batches=12, ahead=1), whole)
    same(loaded(subset, CROPPED, batches=12, ahead=5), whole)
    same(loaded(subset, CROPPED, step=7, batches=5), whole[7:])
    for world in (2, 3):
        shares = [loaded(subset, CROPPED, batches=3, rank=rank, world=world) for rank in range(world)]
        for step in range(3):
            for name in ("images", "labels", "others", "shares"):
                together = np.concatenate([getattr(share[step], name) for share in shares])
                assert np.array_equal(together, getattr(whole[step], name))
    sizes = [len(loaded(subset, CROPPED, batches=1, rank=rank, world=3)[0].labels) for rank in range(3)]
    assert sizes == [len(part) for part in np.array_split(np.arange(16), 3)]


def thinned(subset):
    """50 images of class 0, 10 of class 1, 2 of class 2."""
    chosen = np.concatenate([np.flatnonzero(subset.labels == label)[:n] for label, n in enumerate((50, 10, 2))])
    images = subset.images[chosen] if isinstance(subset.images, np.ndarray) else subset.images.of(chosen)
    return Subset(images, subset.labels[chosen], [subset.paths[i] for i in chosen], [""] * len(chosen))


def test_a_balanced_epoch_is_made_of_the_images_that_its_order_says(folder):
    subset = thinned(train_part(folder))
    n, steps = len(subset), len(subset) // 16
    assert set(np.bincount(subset.labels)) != {n // 3}
    for step, batch in enumerate(loaded(subset, EVERYTHING, batches=2 * steps, balanced=True)):
        epoch, position = divmod(step, steps)
        indices = balanced_order(3, epoch, subset.labels)[position * 16 : (position + 1) * 16]
        key = {"seed": 3, "epoch": epoch, "indices": indices}
        images = augment(subset.images[indices % n], EVERYTHING, fill=FILL, **key)
        images, others, shares = mix(images, subset.labels[indices % n], EVERYTHING, **key)
        assert np.array_equal(batch.images, images)
        assert np.array_equal(batch.labels, subset.labels[indices % n])
        assert np.array_equal(batch.others, others)
        assert np.array_equal(batch.shares, shares)


@pytest.mark.parametrize("source", ["memory", "keep", "raw"])
def test_balanced_batches_do_not_hang_on_threads_the_world_or_the_first_step(folder, packs, source):
    subset = thinned(train_part(folder if source == "memory" else packs[source]))
    whole = loaded(subset, CROPPED, batches=8, ahead=0, balanced=True)
    same(loaded(subset, CROPPED, batches=8, ahead=3, balanced=True), whole)
    same(loaded(subset, CROPPED, step=5, batches=3, balanced=True), whole[5:])
    for world in (2, 3):
        shares = [loaded(subset, CROPPED, rank=rank, world=world, balanced=True) for rank in range(world)]
        for step in range(5):
            for name in ("images", "labels", "others", "shares"):
                together = np.concatenate([getattr(share[step], name) for share in shares])
                assert np.array_equal(together, getattr(whole[step], name))


@pytest.mark.parametrize("settings", [Augment(), Augment(crop_area=0.2)])
@pytest.mark.parametrize("source", ["memory", "keep", "raw"])
def test_an_image_that_comes_again_in_an_epoch_is_another_part_of_the_same_picture(folder, packs, source, settings):
    subset = thinned(train_part(folder if source == "memory" else packs[source]))
    batches = loaded(subset, settings, batches=len(subset) // 16, balanced=True)
    rare = [image for batch in batches for image in batch.images[batch.labels == 2]]
    assert len(rare) > 10  # of 2 images
    assert len({image.tobytes() for image in rare}) == (len(rare) if settings.crop_area < 1 else 2)


def test_seeds_and_epochs_differ(folder):
    subset = train_part(folder)
    first = loaded(subset, CROPPED, batches=len(subset) // 16 + 1)
    assert first[-1].epoch == 1
    assert not np.array_equal(first[0].images, first[-1].images)
    assert not np.array_equal(first[0].images, loaded(subset, CROPPED, batches=1, seed=4)[0].images)


@pytest.mark.parametrize(("fit", "squash"), [("pad", False), ("crop", False), ("squash", True)])
@pytest.mark.parametrize("source", ["keep", "raw"])
def test_crops_are_pillows_of_the_box_in_the_picture(folder, packs, source, fit, squash):
    """Whatever the file's format: the box cut out of the whole upright picture, resized with antialiasing."""
    subset = train_part(packs[source], fit=fit)
    images = subset.images
    batch = loaded(subset, Augment(crop_area=0.3), batches=1, ahead=0)[0]
    indices = order(3, 0, len(subset))[:16]
    differences = []
    for image, index in zip(batch.images, indices, strict=True):
        if source == "raw":
            whole = Image.fromarray(np.squeeze(images.pack.pixels(images.rows[index]), 2) if images.pack.channels[
                images.rows[index]] == 1 else images.pack.pixels(images.rows[index]))  # fmt: skip
        else:
            with Image.open(io.BytesIO((folder / subset.paths[index]).read_bytes())) as file:
                turned = file.transpose(Image.Transpose.ROTATE_270) if file.getexif().get(0x0112) == 6 else file
                whole = on_white(turned.convert("RGBA"))
        height, width = (np.array([length]) for length in (whole.height, whole.width))
        key = {"seed": 3, "epoch": 0, "indices": np.array([index]), "squash": squash}
        top, left, bottom, right = crop_boxes(height, width, 0.3, **key)[0].tolist()
        expected = whole.convert("RGB").crop((left, top, right, bottom)).resize((32, 32), Image.Resampling.BILINEAR)
        differences.append(np.abs(np.asarray(expected).astype(int) - image).mean())
    # of 255; a JPEG decoded at half or a quarter is averaged otherwise
    assert max(differences) < (0.6 if source == "raw" else 8)
    assert np.median(differences) < (0.1 if source == "raw" else 3)


def test_boxes_keep_their_area_and_their_aspect_in_pixels():
    n = 4000
    heights, widths = np.full(n, 300), np.full(n, 400)
    top, left, bottom, right = crop_boxes(heights, widths, 0.25, seed=0, epoch=0, indices=np.arange(n)).T
    tall, wide = bottom - top, right - left
    assert min(top.min(), left.min()) == 0
    assert (bottom.max(), right.max()) == (300, 400)
    area, aspect = tall * wide / 120_000, wide / tall
    assert 0.24 < area.min() < 0.27
    assert 0.98 < area.max() <= 1
    assert aspect[tall < 300].min() == pytest.approx(3 / 4, abs=0.02)
    assert aspect[(tall < 300) & (wide < 400)].max() == pytest.approx(4 / 3, abs=0.02)
    assert np.median(top[tall < 200] / (300 - tall[tall < 200])) == pytest.approx(0.5, abs=0.05)


def test_small_pictures_are_enlarged_and_gray_stays_gray(tmp_path):
    pack("digits", tmp_path / "digits.pack")
    subset = prepare(Data(str(tmp_path / "digits.pack"), size=40)).train
    batch = loaded(subset, Augment(crop_area=0.5), batches=1, fill=FILL[:1])[0]
    assert batch.images.shape == (16, 40, 40, 1)
    assert batch.images.std() > 30


def test_closing_ends_the_threads(packs):
    before = threading.active_count()
    batches = Loader(train_part(packs["keep"]), CROPPED, batch_size=16, seed=0, fill=FILL).batches()
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_the_rate_counts_images_and_not_what_was_prepared_before(packs, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    loader = Loader(train_part(packs["keep"]), CROPPED, batch_size=16, seed=0, fill=FILL, ahead=2)
    real = loader.batches

    def batches():
        for number, batch in enumerate(real()):
            clock[0] += 7.0 if number < 3 else 0.125
            yield batch

    monkeypatch.setattr(loader, "batches", batches)
    assert loader_rate(loader, 1.0) == 16 / 0.125


def test_no_more_is_prepared_than_was_asked_for(packs, monkeypatch):
    """However long nobody takes a batch."""
    subset = train_part(packs["keep"])
    begun = []
    real = type(subset.images).resized_crops

    def counted(self, indices, *arguments, **options):
        begun.extend(indices)
        return real(self, indices, *arguments, **options)

    monkeypatch.setattr(type(subset.images), "resized_crops", counted)
    batches = Loader(subset, Augment(crop_area=0.5), batch_size=32, seed=0, fill=FILL, ahead=2).batches()
    next(batches)
    for _ in range(100):
        threading.Event().wait(0.001)
    assert len(begun) <= 32 + 2 * 32
    batches.close()


def test_a_damaged_pack_ends_training_with_its_name(tmp_path, folder):
    pack(str(folder), tmp_path / "a.pack")
    subset = train_part(tmp_path / "a.pack")
    (tmp_path / "a.pack" / "part-00000.arrow").write_bytes(b"")
    with pytest.raises(DataError, match=r"part-00000\.arrow ends where an image should be"):
        loaded(subset, CROPPED)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 0}, "batch_size 0: accepted: 1 to"),
        ({"batch_size": 1000}, "batch_size 1000: accepted: 1 to"),
        ({"rank": 2, "world": 2}, "rank 2 of world 2"),
        ({"batch_size": 2, "world": 3}, "rank 0 of world 3"),
    ],
)
def test_what_cannot_be_loaded(folder, options, expected):
    with pytest.raises(ValueError, match=expected):
        loaded(train_part(folder), CROPPED, **options)
