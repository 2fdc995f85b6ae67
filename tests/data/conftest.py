"""Small data sets on disk."""

import pytest
from samples import MixedFolder, bad_file, good_file, stamps


@pytest.fixture(scope="session")
def mixed_folder(tmp_path_factory) -> MixedFolder:
    """3,000 files in 5 classes: real pictures in 20 formats, 60 that cannot be used, and odds and ends."""
    root = tmp_path_factory.mktemp("data") / "gemischt – 混合"
    pictures = stamps()
    bad, odd = {}, {}
    for i in range(3000):
        folder = root / f"class {i % 5}" / ("deeper/still" if i % 7 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        image = pictures[i % len(pictures)].copy()
        image.putpixel((0, 0), (i % 256, i // 256, 77, 255))  # no two files the same
        if i % 50 == 13:
            ending, content, kind = bad_file(i // 50, image)
            path = folder / f"bild ä {i}{ending}"
            bad[str(path)] = kind
        else:
            ending, content, oddities = good_file(i, image)
            path = folder / f"bild {i}{ending}"
            if oddities:
                odd[str(path)] = oddities
        path.write_bytes(content)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "labels.json"):
        (root / "class 1" / name).write_text("no picture, and not taken for one")
    return MixedFolder(root, bad, odd, 3000 - len(bad))
