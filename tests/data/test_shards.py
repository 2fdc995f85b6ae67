"""WebDataset's tar shards, and data behind URLs."""

import functools
import http.server
import importlib.util
import io
import json
import tarfile
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
from samples import file_of, on_white, stamps

from lenext.data import check, open_source, prepare
from lenext.data.pack import pack
from lenext.errors import DataError
from lenext.spec import Data


def pictures(n: int) -> list[bytes]:
    return [file_of(on_white(image), "JPEG", quality=90) for image in stamps(48)[:n]]


def shard(members: dict[str, bytes], *, mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def shards(count: int, each: int) -> list[bytes]:
    """Shards of `each` pictures of the classes 0, 1 and 2."""
    files = pictures(count * each)
    made = []
    for number in range(count):
        members: dict[str, bytes] = {}
        for i in range(number * each, (number + 1) * each):
            members |= {f"{i:06d}.jpg": files[i], f"{i:06d}.cls": str(i % 3).encode()}
        made.append(shard(members))
    return made


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def memory():
    """The file system of fsspec that is in memory, emptied."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


# ---- shards ----


def test_a_folder_of_shards_a_pattern_and_a_single_one(tmp_path):
    folder = write(tmp_path / "birds", {f"s-{i:03d}.tar": content for i, content in enumerate(shards(3, 20))})
    files = pictures(60)
    by_folder = open_source(str(folder))
    assert by_folder.name == "birds"
    assert by_folder.classes == ("0", "1", "2")
    assert by_folder.labels == [str(i % 3) for i in range(60)]
    assert [by_folder.read(i) for i in range(60)] == files
    assert by_folder.paths[25] == str(folder / "s-001.tar" / "000025.jpg")
    by_pattern = open_source(str(folder / "s-{000..001}.tar"))
    assert [by_pattern.read(i) for i in range(40)] == files[:40]
    assert len(by_pattern) == 40
    one = open_source(str(folder / "s-002.tar"))
    assert [one.read(i) for i in range(20)] == files[40:]
    data = prepare(Data(str(folder), size=28))
    assert len(data.train) + len(data.val) + len(data.test) == 60
    assert check(str(folder)).images == 60


def test_labels_are_found_in_each_of_the_usual_members(tmp_path):
    a, b, c, d = pictures(4)
    members = {
        "deep/er/x1.jpg": a, "deep/er/x1.txt": b"a tabby cat\n",
        "x2.json": json.dumps({"label": 7, "width": 5}).encode(), "x2.seg.png": b"", "x2.PNG": b,
        "x3.jpg": c, "x3.json": b'{"cls": "dog"}', "x3.cls": b"wolf",
        "notes.md": b"no sample",
        "x4.jpeg": d, "x4.small.jpg": a, "x4.cls": b"wolf",
    }  # fmt: skip
    del members["x2.seg.png"]
    source = open_source(str(write(tmp_path / "t", {"a.tar": shard(members)}) / "a.tar"))
    assert source.labels == ["a tabby cat", "7", "wolf", "wolf"]
    assert [source.read(i) for i in range(4)] == [a, b, c, d]
    assert [path.rpartition(".tar/")[2] for path in source.paths] == ["deep/er/x1.jpg", "x2.PNG", "x3.jpg", "x4.jpeg"]


def test_shards_named_after_splits_are_these_splits(tmp_path):
    first, second, third = shards(3, 10)
    folder = write(tmp_path / "t", {"train-0.tar": first, "train-1.tar": second, "val-0.tar": third})
    assert open_source(str(folder)).splits == ["train"] * 20 + ["val"] * 10


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"1.jpg": b"x"}, r"a\.tar: 1\.jpg has no label; expected 1\.cls, \.txt or \.json beside it"),
        ({"1.jpg": b"x", "1.json": b'{"name": 3}'}, r"1\.json holds no label"),
        ({"1.jpg": b"x", "1.json": b"[1]"}, r"1\.json holds no label"),
        ({"1.jpg": b"x", "1.cls": b"\xff\xfe"}, r"1\.cls holds no label; expected text in UTF-8"),
        ({"1.jpg": b"x", "1.cls": b" \n"}, r"1\.cls is empty; expected a label"),
        ({"readme.md": b"x"}, r"a\.tar.* hold no pictures; expected members such as 1\.jpg, 1\.cls"),
    ],
)
def test_shards_that_cannot_be_meant(tmp_path, members, expected):
    write(tmp_path, {"a.tar": shard(members)})
    with pytest.raises(DataError, match=expected):
        open_source(str(tmp_path / "a.tar"))


def test_shards_that_are_damaged_or_not_there(tmp_path):
    whole = shards(1, 10)[0]
    folder = write(tmp_path / "t", {"cut.tar": whole[:9_000], "no.tar": b"no tar file" * 100})
    (folder / "zipped.tar").write_bytes(shard({"1.jpg": b"x"}, mode="w:gz"))
    for name in ("no.tar", "zipped.tar"):
        with pytest.raises(DataError, match=f"{name} is no uncompressed tar file, or is damaged"):
            open_source(str(folder / name))
    with pytest.raises(DataError, match=r"cut\.tar"):
        open_source(str(folder / "cut.tar"))
    with pytest.raises(DataError, match=r"no such shard: .*x-1\.tar"):
        open_source(str(folder / "x-{1..3}.tar"))
    with pytest.raises(DataError, match=r"3\.\.1 runs backwards"):
        open_source(str(folder / "x-{3..1}.tar"))


def test_bad_pictures_in_shards_are_reported(tmp_path):
    good, cut = pictures(2)
    members = {"1.jpg": good, "1.cls": b"a", "2.jpg": cut[:400], "2.cls": b"b"}
    write(tmp_path, {"a.tar": shard(members)})
    problems = check(str(tmp_path / "a.tar")).problems
    assert [(problem.path, problem.kind) for problem in problems] == [(str(tmp_path / "a.tar" / "2.jpg"), "truncated")]


# ---- URLs ----


def test_shards_packs_and_manifests_are_read_from_a_store(memory, tmp_path):
    for number, content in enumerate(shards(3, 20)):
        memory.pipe(f"/set/s-{number:03d}.tar", content)
    files = pictures(60)
    local = write(tmp_path / "set", {f"s-{i:03d}.tar": content for i, content in enumerate(shards(3, 20))})
    expected = prepare(Data(str(local), size=28))
    for url in ("memory://set", "memory://set/s-{000..002}.tar"):
        found = prepare(Data(url, size=28))
        assert found.fingerprint == expected.fingerprint
        assert np.array_equal(found.train.images, expected.train.images)
    assert open_source("memory://set/s-001.tar").paths[0] == "memory://set/s-001.tar/000020.jpg"

    pack("memory://set", tmp_path / "set.pack")
    memory.put(str(tmp_path / "set.pack"), "/packs/set.pack", recursive=True)
    found = prepare(Data("memory://packs/set.pack", size=28))
    assert found.name == "set"
    assert found.fingerprint == expected.fingerprint
    assert np.array_equal(found.train.images[:], expected.train.images)

    memory.pipe("/set/all.csv", b"path,label\nimages/0.jpg,a\nmemory://other/1.jpg,b\nimages/2.jpg,b\n")
    for path, content in zip(("/set/images/0.jpg", "/other/1.jpg"), files, strict=False):
        memory.pipe(path, content)
    source = open_source("memory://set/all.csv")
    assert source.name == "all"
    assert [source.read(i) for i in range(2)] == files[:2]
    assert [(problem.path, problem.kind) for problem in check(source).problems] == [
        ("memory://set/images/2.jpg", "missing")
    ]


def test_a_file_url_is_a_file(tmp_path):
    folder = write(tmp_path / "set", {f"s-{i}.tar": content for i, content in enumerate(shards(2, 10))})
    pack(str(folder), tmp_path / "set.pack")
    for url in (f"file://{folder}", f"file://{tmp_path}/set.pack"):
        assert prepare(Data(url, size=28)).fingerprint == prepare(Data(str(folder), size=28)).fingerprint


def test_urls_that_cannot_be_read(memory, monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"gopher://host/a\.tar: unknown kind of address 'gopher'; accepted: those of"):
        open_source("gopher://host/a.tar")
    with pytest.raises(DataError, match=r"no such shard: memory://set/none\.tar"):
        open_source("memory://set/none.tar")
    with pytest.raises(DataError, match=r"memory://set/none\.csv.*no such file"):
        open_source("memory://set/none.csv")
    with pytest.raises(DataError, match=r"memory://none.*no such file"):
        open_source("memory://none")
    memory.pipe("/set/readme.md", b"x")
    with pytest.raises(DataError, match="memory://set holds 1 file; expected a pack, tar shards or"):
        open_source("memory://set")
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(DataError, match=r"s3://bucket/a\.tar: s3:// takes another library: .*s3fs"):
            open_source("s3://bucket/a.tar")
    memory.pipe("/half.pack/part-00000.arrow", b"x")
    with pytest.raises(DataError, match="unfinished pack"):
        open_source("memory://half.pack")


def test_a_part_missing_in_the_store_is_named_when_it_is_read(memory, tmp_path):
    pack("digits", tmp_path / "digits.pack")
    memory.put(str(tmp_path / "digits.pack"), "/digits.pack", recursive=True)
    data = prepare(Data("memory://digits.pack"))
    memory.rm("/digits.pack/part-00000.arrow")
    with pytest.raises(DataError, match=r"memory://digits\.pack/part-00000\.arrow: no such file"):
        data.train.images[:4]


@pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="fsspec reads http with aiohttp")
def test_shards_from_a_web_server(tmp_path):
    write(tmp_path, {"s.tar": shards(1, 20)[0]})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        source = open_source(f"http://127.0.0.1:{server.server_port}/s.tar")
        assert [source.read(i) for i in range(20)] == pictures(20)
    finally:
        server.shutdown()
        server.server_close()
