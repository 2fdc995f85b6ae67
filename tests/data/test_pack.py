"""Packs: the same images as before packing, whatever happened while they were packed."""

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from safetensors import safe_open
from samples import file_of, on_white, stamps
from sklearn.datasets import load_digits

from lenext.data import LazyImages, check, decode, open_source, prepare, prepare_with
from lenext.data.pack import pack
from lenext.errors import DataError, UsageError
from lenext.run import train
from lenext.spec import Data

packing = sys.modules["lenext.data.pack"]


@pytest.fixture
def small_parts(monkeypatch) -> None:
    """Parts of a few images each, as a large data set has many."""
    monkeypatch.setattr(packing, "_PART_BYTES", 40_000)
    monkeypatch.setattr(packing, "_BATCH_BYTES", 10_000)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """90 JPEGs and 30 PNGs with alpha of real pictures, in 3 classes; two are equal."""
    root = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(stamps(96)[:120]):
        folder = root / f"class {i % 3}"
        folder.mkdir(exist_ok=True)
        if i % 4:
            (folder / f"{i}.jpg").write_bytes(file_of(on_white(image), "JPEG", quality=92))
        else:
            (folder / f"{i}.png").write_bytes(file_of(image, "PNG"))
    (root / "class 0" / "again.jpg").write_bytes((root / "class 0" / "3.jpg").read_bytes())
    return root


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def same(a, b) -> None:
    """The same data set, image by image."""
    assert (a.classes, a.preprocess, a.fingerprint) == (b.classes, b.preprocess, b.fingerprint)
    for part in ("train", "val", "test"):
        left, right = getattr(a, part), getattr(b, part)
        assert left.sha256 == right.sha256
        assert np.array_equal(left.labels, right.labels)
        assert left.images.shape == right.images.shape
        assert np.array_equal(left.images[:], right.images[:])


# ---- what is in a pack ----


def test_a_pack_is_the_data_set_it_was_made_of(photos, tmp_path):
    note = pack(str(photos), tmp_path / "a.pack")
    before, after = prepare(Data(str(photos), size=48)), prepare(Data(str(tmp_path / "a.pack"), size=48))
    same(before, after)
    assert isinstance(after.train.images, LazyImages)
    assert note["fingerprint"] == before.fingerprint
    assert note["images"] == 121
    assert before.train.paths == [str(photos / path) for path in after.train.paths]
    names = ("images", "classes", "sizes", "channels", "oddities", "counts", "problems")
    with_paths = {name: getattr(before.report, name) for name in names if name != "oddities"}
    assert with_paths == {name: getattr(after.report, name) for name in with_paths}
    assert [odd.kind for odd in before.report.oddities] == [odd.kind for odd in after.report.oddities]


def test_the_size_and_the_channels_are_chosen_as_from_the_files(tmp_path, photos):
    pack(str(photos), tmp_path / "photos.pack")
    assert prepare(Data(str(tmp_path / "photos.pack"))).preprocess == prepare(Data(str(photos))).preprocess
    gray = tmp_path / "gray"
    for i, image in enumerate(stamps(40)[:40]):
        path = gray / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(on_white(image).convert("L").convert("RGB"), "PNG"))  # gray, said to be colour
    pack(str(gray), tmp_path / "gray.pack")
    packed = prepare(Data(str(tmp_path / "gray.pack")))
    assert packed.preprocess.channels == 1
    same(prepare(Data(str(gray))), packed)


def test_arrays_can_be_packed(tmp_path):
    pack("digits", tmp_path / "digits.pack")
    same(prepare(Data("digits")), prepare(Data(str(tmp_path / "digits.pack"))))
    source = open_source(str(tmp_path / "digits.pack"))
    pixels = decode(source.read(7))[..., 0]
    assert np.array_equal(pixels, np.rint(load_digits().images[7] * (255 / 16)))


@pytest.mark.parametrize(("encoding", "error"), [("raw", 0.0), ("jpeg", 6.0)])
def test_reduced_pictures_are_pillows(photos, tmp_path, encoding, error):
    pack(str(photos), tmp_path / "a.pack", encoding=encoding, side=40)
    source = open_source(str(tmp_path / "a.pack"))
    assert source.packed is not None
    for i in range(0, len(source), 10):
        original = on_white_file(photos / source.paths[i])
        width, height = original.size
        scale = min(1, 40 / min(width, height))
        expected = np.asarray(original.resize((round(width * scale), round(height * scale)), 2)).astype(int)
        found = decode(source.read(i))
        assert found.shape[:2] == expected.shape[:2] == (source.packed.height[i], source.packed.width[i])
        assert np.abs(found - expected).mean() <= error
    assert prepare(Data(str(tmp_path / "a.pack"))).fingerprint == prepare(Data(str(photos))).fingerprint


def on_white_file(path: Path):
    from PIL import Image

    return on_white(Image.open(path).convert("RGBA"))


def test_parts_are_arrow_files_that_anything_reads(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(tmp_path / "a.pack" / "part-00000.arrow"))).read_all()
    row = table.slice(17, 1).to_pylist()[0]
    file_bytes = (photos / row["path"]).read_bytes()
    assert row["image"] == file_bytes
    assert row["sha256"] == hashlib.sha256(file_bytes).hexdigest()
    assert row["label"] == Path(row["path"]).parent.name


def test_splits_and_groups_go_with_the_images(tmp_path):
    rows = ["path,label,split,group"]
    for i, image in enumerate(stamps(32)[:60]):
        (tmp_path / f"{i}.png").write_bytes(file_of(image, "PNG"))
        rows.append(f"{i}.png,{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]},{i // 6}")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    pack(str(tmp_path / "all.csv"), tmp_path / "a.pack")
    before, after = open_source(str(tmp_path / "all.csv")), open_source(str(tmp_path / "a.pack"))
    assert (after.labels, after.splits, after.groups) == (before.labels, before.splits, before.groups)
    with_split, from_pack = check(before), check(after)
    assert [w.replace(str(tmp_path) + "/", "") for w in with_split.warnings] == list(from_pack.warnings)
    assert with_split.splits == from_pack.splits


def test_check_sees_in_a_pack_what_it_sees_in_the_folder(mixed_folder, tmp_path):
    note = pack(str(mixed_folder.root), tmp_path / "a.pack")
    assert len(note["left_out"]) == len(mixed_folder.bad)
    by_path = {str(mixed_folder.root / one["path"]): one["problem"] for one in note["left_out"]}
    assert {path: problem.partition(":")[0] for path, problem in by_path.items()} == mixed_folder.bad
    report = check(str(tmp_path / "a.pack"))
    assert report.images == mixed_folder.good
    assert not report.problems
    assert any(f"{len(mixed_folder.bad)} files left out" in warning for warning in report.warnings)
    odd: dict[str, set[str]] = {}
    for oddity in report.oddities:
        odd.setdefault(str(mixed_folder.root / oddity.path), set()).add(oddity.kind)
    assert odd == mixed_folder.odd
    same(prepare(Data(str(mixed_folder.root), size=32)), prepare(Data(str(tmp_path / "a.pack"), size=32)))


def test_a_pack_can_be_packed_again(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    pack(str(tmp_path / "a.pack"), tmp_path / "b.pack")
    same(prepare(Data(str(tmp_path / "a.pack"))), prepare(Data(str(tmp_path / "b.pack"))))
    pack(str(tmp_path / "a.pack"), tmp_path / "raw.pack", encoding="raw", side=64)
    assert prepare(Data(str(tmp_path / "raw.pack"))).fingerprint == prepare(Data(str(photos))).fingerprint


def test_a_model_is_judged_on_the_part_that_was_held_out_before_packing(photos, tmp_path):
    data = prepare(Data(str(photos)))
    pack(str(photos), tmp_path / "a.pack")
    judged = prepare_with(Data(str(tmp_path / "a.pack")), data.preprocess, data.classes, fingerprint=data.fingerprint)
    assert judged.same_data
    assert judged.part == "test"
    assert judged.subset.sha256 == data.test.sha256
    assert np.array_equal(judged.subset.images[:], data.test.images)


def test_a_smaller_limit_of_pixels_holds_for_a_pack_too(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    settings = {"size": 32, "max_pixels": 9000, "max_bad": 0.9}
    before, after = prepare(Data(str(photos), **settings)), prepare(Data(str(tmp_path / "a.pack"), **settings))
    assert {problem.kind for problem in before.report.problems} == {"too many pixels"}
    assert [problem.detail for problem in before.report.problems] == [p.detail for p in after.report.problems]
    same(before, after)
    with pytest.raises(DataError, match=r"data\.max_bad allows 10%"):
        prepare(Data(str(tmp_path / "a.pack"), size=32, max_pixels=4000))


def test_lazy_images_are_read_as_an_array_is(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    data = prepare(Data(str(tmp_path / "a.pack"), size=32))
    lazy, array = data.train.images, data.train.images[:]
    assert (len(lazy), lazy.shape, lazy.dtype, lazy.ndim) == (len(array), array.shape, array.dtype, array.ndim)
    some = np.array([5, 0, 5, 71])
    for chosen in (3, -1, slice(4, 60, 7), slice(None, None, -50), some, some.tolist(), np.array([], np.int64)):
        assert np.array_equal(lazy[chosen], array[chosen])
    with pytest.raises(IndexError):
        lazy[len(array)]


def test_all_images_of_the_three_parts_and_some_of_them(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    lazy = prepare(Data(str(tmp_path / "a.pack"), size=32))
    eager = prepare(Data(str(photos), size=32))
    parts = (eager.train, eager.val, eager.test)
    rows = np.array([5, 100, 0, 118])
    for whole in (lazy.whole(), eager.whole()):
        assert [Path(path).name for path in whole.paths] == [Path(path).name for part in parts for path in part.paths]
        assert (whole.images[:] == np.concatenate([part.images for part in parts])).all()
        some = whole.of(rows)
        assert isinstance(some.images, LazyImages) == isinstance(whole.images, LazyImages)
        assert (some.images[:] == whole.images[:][rows]).all()
        assert (some.labels == whole.labels[rows]).all()
        assert (some.paths, some.sha256) == ([whole.paths[i] for i in rows], [whole.sha256[i] for i in rows])


@pytest.mark.parametrize("model", ["lenet_relu", "svm_linear"])
def test_a_model_becomes_the_same_from_a_pack(photos, tmp_path, model):
    pack(str(photos), tmp_path / "a.pack")
    epochs = {"epochs": 2} if model == "lenet_relu" else {}
    settings = {"data": {"size": 28}}
    runs = [train(str(data), model=model, settings=settings, out=tmp_path / f"run {i}", **epochs)
            for i, data in enumerate((photos, tmp_path / "a.pack"))]  # fmt: skip
    with safe_open(runs[0].bundle, "np") as left, safe_open(runs[1].bundle, "np") as right:
        assert set(left.keys()) == set(right.keys())
        for name in left.keys():  # noqa: SIM118 - a file, no mapping
            assert np.array_equal(left.get_tensor(name), right.get_tensor(name)), name


# ---- settings ----


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encoding": "png"}, "encoding 'png': accepted: keep, jpeg, raw"),
        ({"encoding": "rwa"}, "did you mean 'raw'"),
        ({"side": 256}, "side 256: with encoding keep the files stay as they are"),
        ({"encoding": "raw", "side": 0}, "side 0: accepted are pixels, 1 or more"),
        ({"encoding": "raw", "quality": 80}, "quality 80: accepted with encoding jpeg only"),
        ({"encoding": "jpeg", "quality": 101}, "quality 101: accepted: 1 to 100"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path, settings, expected):
    with pytest.raises(UsageError, match=expected):
        pack("digits", tmp_path / "a.pack", **settings)
    assert not (tmp_path / "a.pack").exists()


def test_too_many_bad_files_stop_packing(tmp_path, photos):
    for i in range(10):
        (tmp_path / "data" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        good = (photos / "class 1" / "1.jpg").read_bytes() + bytes([i])
        (tmp_path / "data" / str(i % 2) / f"{i}.jpg").write_bytes(b"no picture" if i < 2 else good)
    with pytest.raises(DataError, match=r"2 files of 10 cannot be used, for example 0/0\.jpg: not an image"):
        pack(str(tmp_path / "data"), tmp_path / "a.pack")
    note = pack(str(tmp_path / "data"), tmp_path / "a.pack", max_bad=0.2)
    assert [one["path"] for one in note["left_out"]] == ["0/0.jpg", "1/1.jpg"]


# ---- stopped, damaged, full ----

SCRIPT = """
import sys
import lenext.data.pack
packing = sys.modules["lenext.data.pack"]
packing._PART_BYTES, packing._BATCH_BYTES = 40_000, 10_000
print("begins", flush=True)
packing.pack(sys.argv[1], sys.argv[2], encoding="jpeg", side=48)
"""


def test_killed_at_any_instant_a_pack_is_continued_to_the_same_bytes(photos, tmp_path, small_parts):
    pack(str(photos), tmp_path / "whole.pack", encoding="jpeg", side=48)
    whole = content(tmp_path / "whole.pack")
    assert len(whole) > 6  # several parts
    out, chance, killed = tmp_path / "killed.pack", random.Random(0), 0
    for _attempt in range(8):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(photos), str(out)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        parts = len(list(out.glob("part-*")))
        until = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < until and len(list(out.glob("part-*"))) < parts + 1:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        if process.wait() == 0:
            break
        killed += 1
        if not (out / "pack.json").exists():
            with pytest.raises(DataError, match=r"is an unfinished pack.*given again, continues it"):
                open_source(str(out))
    assert killed >= 2
    pack(str(photos), out, encoding="jpeg", side=48)
    assert content(out) == whole


def test_the_finished_parts_are_kept(photos, tmp_path, small_parts):
    out = tmp_path / "a.pack"
    pack(str(photos), out)
    whole = content(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    (out / "pack.json").unlink()
    (out / "index.arrow").unlink()
    (out / "part-00003.arrow").unlink()
    (out / ".part-00003.arrow.123.tmp").write_bytes(b"half")
    pack(str(photos), out)
    assert content(out) == whole
    kept = {name for name, before in times.items() if (out / name).stat().st_mtime_ns == before}
    assert kept == {"part-00000.arrow", "part-00001.arrow", "part-00002.arrow"}


def test_a_finished_pack_is_left_as_it_is(photos, tmp_path):
    first = pack(str(photos), tmp_path / "a.pack")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a.pack").iterdir()}
    second = pack(str(photos), tmp_path / "a.pack")
    assert second == json.loads(json.dumps(first))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a.pack").iterdir()} == times


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_no_pack_of_the_same_is_not_touched(photos, tmp_path, finished):
    out = tmp_path / "a.pack"
    pack(str(photos), out)
    if not finished:
        (out / "pack.json").unlink()
    before = content(out)
    with pytest.raises(UsageError, match="is a pack of other images or settings; give another --out"):
        pack("digits", out)
    with pytest.raises(UsageError, match="is a pack of other images or settings"):
        pack(str(photos), out, encoding="raw")
    assert content(out) == before
    with pytest.raises(UsageError, match="holds other files than a pack's; give another --out"):
        pack("digits", photos)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("part-00001.arrow", lambda content: content[:-100]),
        ("part-00001.arrow", lambda content: b""),
        ("part-00001.arrow", None),
        ("index.arrow", lambda content: content[:500] + b"x" + content[501:]),
        ("pack.json", lambda content: content[:50]),
        ("pack.json", lambda content: content.replace(b'"parts"', b'"pasta"')),
    ],
)
def test_damage_is_named_when_a_pack_is_opened_and_mended_by_packing_again(photos, tmp_path, small_parts, name, damage):
    out = tmp_path / "a.pack"
    pack(str(photos), out)
    whole = content(out)
    if damage is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes(damage((out / name).read_bytes()))
    with pytest.raises(DataError, match=name):
        open_source(str(out))
    pack(str(photos), out)
    assert content(out) == whole


def test_a_newer_format_is_refused(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    note = json.loads((tmp_path / "a.pack" / "pack.json").read_text())
    (tmp_path / "a.pack" / "pack.json").write_text(json.dumps({**note, "format": 2}))
    with pytest.raises(DataError, match="is a pack of format 2; this lenext reads format 1"):
        open_source(str(tmp_path / "a.pack"))


def test_check_finds_a_bit_that_fell_over(photos, tmp_path):
    out = tmp_path / "a.pack"
    pack(str(photos), out)
    packed = open_source(str(out)).packed
    assert packed is not None
    path = out / "part-00000.arrow"
    file = bytearray(path.read_bytes())
    file[packed.spans.offset[20] + packed.spans.length[20] // 2] ^= 1
    path.write_bytes(file)
    report = check(str(out))
    assert [problem.kind for problem in report.problems] == ["damaged"]
    assert report.problems[0].path == packed.columns["path"][20]
    assert "part-00000.arrow" in report.problems[0].detail


def test_a_part_cut_off_after_the_pack_was_opened_is_named(photos, tmp_path):
    pack(str(photos), tmp_path / "a.pack")
    data = prepare(Data(str(tmp_path / "a.pack")))
    os.truncate(tmp_path / "a.pack" / "part-00000.arrow", 1000)
    with pytest.raises(DataError, match=r"part-00000\.arrow ends where an image should be; is it cut off\?"):
        data.train.images[:10]


def test_a_file_that_may_not_grow_is_said_and_nothing_half_stays(photos, tmp_path, small_parts):
    pack(str(photos), tmp_path / "whole.pack")
    out = tmp_path / "a.pack"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # less than a part
    try:
        with pytest.raises(DataError, match=r"cannot write the pack .*: File too large; what is whole of it stays"):
            pack(str(photos), out)
        assert list(out.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    pack(str(photos), out)
    assert content(out) == content(tmp_path / "whole.pack")


def test_no_space_left_in_the_midst_of_it(photos, tmp_path, small_parts, monkeypatch):
    pack(str(photos), tmp_path / "whole.pack")
    out, calls = tmp_path / "a.pack", []
    real = os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device; what is whole of it stays"):
        pack(str(photos), out)
    monkeypatch.setattr(os, "fsync", real)
    left = sorted(path.name for path in out.iterdir())
    assert left
    assert all(name.startswith("part-") for name in left)
    with pytest.raises(DataError, match="unfinished pack"):
        open_source(str(out))
    pack(str(photos), out)
    assert content(out) == content(tmp_path / "whole.pack")


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out, why in ((tmp_path / "file" / "a.pack", "Not a directory"), (Path("/proc/a.pack"), "No such file"),
                     (tmp_path / "file", "File exists")):  # fmt: skip
        with pytest.raises(DataError, match=f"cannot write the pack .*{out.name}.*: {why}"):
            pack("digits", out)
