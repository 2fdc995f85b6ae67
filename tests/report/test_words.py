"""The visual words of a run on the page: records of Fashion-MNIST's pictures, in a real browser."""

import gzip
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans

from lenext.errors import UsageError
from lenext.record import Record
from lenext.report import report

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SIDES = (8, 12)  # pixels of 28
STEP = 2
NEAREST = 8
SHOWN = 16
PLACED = 8

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
MADE_OF = [
    {
        "step": "dense SIFT",
        "what": "2 bin sizes (4, 6 px) every 4 px: 221 patches of 128 numbers",
        "params": None,
        "macs": 1_630_000,
        "seconds": 22.4,
    },
    {
        "step": "vocabulary",
        "what": "64 words by k-means from 200,000 patches",
        "params": 8192,
        "macs": None,
        "seconds": 9.1,
    },
    {"step": "linear SVM", "what": "squared hinge, C = 1", "params": 13_450, "macs": 13_440, "seconds": 14.0},
]


def fashion(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures, uint8 [count, 28, 28], and their labels."""
    with gzip.open(FASHION / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = file.read(16 + count * 784)[16:]
    with gzip.open(FASHION / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = file.read(8 + count)[8:]
    return np.frombuffer(pixels, np.uint8).reshape(count, 28, 28), np.frombuffer(labels, np.uint8)


def patches_of(image: np.ndarray) -> tuple[list[tuple[float, float, float]], list[np.ndarray], list[np.ndarray]]:
    """Places, contents and descriptors of the patches that have any contrast; a descriptor is the patch at 8 px."""
    places, contents, described = [], [], []
    for side in SIDES:
        for top in range(0, 28 - side + 1, STEP):
            for left in range(0, 28 - side + 1, STEP):
                patch = image[top : top + side, left : left + side]
                values = np.asarray(Image.fromarray(patch).resize((8, 8)), np.float32).ravel()
                values -= values.mean()
                if (length := np.linalg.norm(values)) > 80:
                    places.append(((left + side / 2) / 28, (top + side / 2) / 28, side / 28))
                    contents.append(patch)
                    described.append(values / length)
    return places, contents, described


def write_words(root: Path) -> dict[str, Any]:
    """Writes the three records into the run's folder `root`; returns what words.json holds."""
    training, _ = fashion("train", 120)
    looked_at = [patches_of(image) for image in training]
    contents = [patch for _, some, _ in looked_at for patch in some]
    owner = np.repeat(np.arange(len(training)), [len(some) for _, some, _ in looked_at])
    described = np.array([values for *_, some in looked_at for values in some])
    machine = KMeans(64, n_init=1, max_iter=10, random_state=0).fit(described)
    shares = np.bincount(machine.labels_, minlength=64) / len(described)
    shown = np.argsort(-shares, kind="stable")[:SHOWN]
    distances = machine.transform(described)
    nearest = [np.argsort(distances[:, word])[:NEAREST] for word in shown]
    tiles = [
        [np.asarray(Image.fromarray(contents[i]).resize((24, 24), Image.Resampling.NEAREST)) for i in some]
        for some in nearest
    ]
    images, labels = fashion("t10k", PLACED)
    placed = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        places, _, values = patches_of(image)
        words = machine.predict(np.array(values)).tolist()
        placed.append(
            {
                "path": f"test/{index:05}",
                "label": CLASSES[label],
                "predicted": CLASSES[label] if index else "Sneaker",
                "patches": [[*where, word] for where, word in zip(places, words, strict=True)],
            }
        )
    vocabulary = {
        "words": [
            {
                "word": int(word),
                "share": float(shares[word]),
                "images": len(set(owner[machine.labels_ == word])) / len(training),
            }
            for word in shown
        ],
        "total": 64,
        "described": "dense SIFT",
        "placed": placed,
    }
    Record(root).write_json("words.json", vocabulary)
    np.save(root / "words.npy", np.array(tiles)[..., None])
    np.save(root / "words_images.npy", images[..., None])
    return vocabulary


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_run) -> tuple[Path, dict[str, Any]]:
    """A run's folder with its page, and what its words.json holds."""
    record = write_run(tmp_path_factory.mktemp("runs") / "bow", model="bow_sift", network=False)
    record.write_json(
        "model.json",
        {
            **record.read_json("model.json"),
            "made_of": MADE_OF,
            "solver": "Linear machines by LIBLINEAR.",
            "note": "fitted on 700 of 800 images, as the budget allows no more",
        },
    )
    vocabulary = write_words(record.root)
    report(record.root)
    return record.root, vocabulary


@pytest.fixture
def bow(written, open_page):
    """The page at 1,280 px, and what its words.json holds."""
    root, vocabulary = written
    return open_page(root / "report.html").page, vocabulary


def marks(page, word: int, where: str = "") -> Any:
    return page.locator(f'.placed svg circle[data-word="{word}"]{where}')


def count(vocabulary, word: int) -> int:
    return sum(patch[3] == word for picture in vocabulary["placed"] for patch in picture["patches"])


def test_every_shown_word_has_its_patches_and_how_common_it_is(bow) -> None:
    page, vocabulary = bow
    rows = page.locator("#words li")
    assert rows.count() == SHOWN
    for row, entry in zip(rows.all(), vocabulary["words"], strict=True):
        text = row.inner_text()
        assert f"Word {entry['word']}\n" in text
        assert f"{100 * entry['share']:.1f} % of patches, in {100 * entry['images']:.1f} % of images" in text
        assert row.locator("img").count() == NEAREST
    assert "16 of them" in page.locator("#words").inner_text()
    images = page.locator("#words img")
    assert images.evaluate_all("all => all.every(e => e.complete && e.naturalWidth === 24)")
    assert images.first.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"


def test_every_patch_has_a_dot_at_its_place(bow) -> None:
    page, vocabulary = bow
    drawings = page.locator(".placed svg")
    assert drawings.count() == PLACED
    for drawing, picture in zip(drawings.all(), vocabulary["placed"], strict=True):
        shown = drawing.locator("circle").evaluate_all(
            "all => all.map(e => [e.cx.baseVal.value, e.cy.baseVal.value, +e.dataset.side, +e.dataset.word])"
        )
        expected = [[*(round(1000 * part) for part in where), word] for *where, word in picture["patches"]]
        assert sorted(shown) == sorted(expected)
        label = f"{picture['label']}: {len(expected)} patches of {len({patch[3] for patch in expected})} words"
        assert drawing.get_attribute("aria-label") == label
    assert drawings.first.locator("image").evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    captions = page.locator(".placed li").all_inner_texts()
    assert captions[0].split() == ["Ankle", "boot", "→", "Sneaker", "test/00000"]
    assert captions[1].split() == ["Pullover", "test/00001"]


def test_a_colour_is_one_word_in_all_pictures_and_each_picture_has_some(bow) -> None:
    page, vocabulary = bow
    coloured = page.locator(".placed .coloured").evaluate_all(
        "all => all.map(e => [+e.dataset.word, getComputedStyle(e).fill])"
    )
    looks = {tuple(pair) for pair in coloured}
    words = {word for word, _ in looks}
    assert len(looks) == len(words) == len({fill for _, fill in looks}) == 7
    assert words <= {entry["word"] for entry in vocabulary["words"]}
    for drawing in page.locator(".placed svg").all():
        assert drawing.locator(".coloured").count() >= 1
    for word in words:
        assert page.locator(f'.words button[data-word="{word}"] .dot').count() == 1


def test_the_key_counts_the_dots(bow) -> None:
    page, vocabulary = bow
    entries = page.locator(".key button")
    words = [int(word) for word in entries.evaluate_all("all => all.map(e => e.dataset.word)")]
    counts = [count(vocabulary, word) for word in words]
    assert counts == sorted(counts, reverse=True)
    for entry, word, dots in zip(entries.all(), words, counts, strict=True):
        assert entry.inner_text().split("\n") == [f"Word {word}", f"{dots} dots"]
        first = page.locator(f'.words > [data-word="{word}"] img').first
        assert entry.locator("img").get_attribute("src") == first.get_attribute("src")
    rest = sum(len(picture["patches"]) for picture in vocabulary["placed"]) - sum(counts)
    assert f"{rest:,} rings" in page.locator(".key .others").inner_text()


def test_dots_of_one_size_do_not_overlap_and_the_small_lie_on_the_large(bow) -> None:
    page, _ = bow
    circles = page.locator(".placed svg").nth(1).locator("circle")
    dots = circles.evaluate_all("all => all.map(e => [e.cx, e.cy, e.r].map(v => v.baseVal.value))")
    radii = [radius for *_, radius in dots]
    assert radii == sorted(radii, reverse=True)
    assert len(set(radii)) == len(SIDES)
    for large in set(radii):
        centres = np.array([(x, y) for x, y, radius in dots if radius == large])
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        assert apart[apart > 0].min() > 2 * large


def test_pointing_at_the_key_lights_a_word_everywhere(bow) -> None:
    page, vocabulary = bow
    entry = page.locator(".key button").nth(1)
    word = int(entry.get_attribute("data-word"))
    other = int(page.locator(".key button").nth(2).get_attribute("data-word"))
    opacity = "e => getComputedStyle(e).opacity"
    entry.hover()
    assert marks(page, word, ".lit").count() == count(vocabulary, word) > 0
    assert page.locator(".placed circle.lit").count() == count(vocabulary, word)
    assert page.locator(".placed mask g rect").count() == count(vocabulary, word)
    assert page.locator(f'.words > .lit[data-word="{word}"]').count() == 1
    assert marks(page, word).first.evaluate(opacity) == "1"
    assert marks(page, other).first.evaluate(opacity) == "0"
    page.mouse.move(2, 2)
    assert page.locator(".lit").count() == 0
    assert page.locator(".placed mask g rect").count() == 0
    assert marks(page, other).first.evaluate(opacity) == "1"


def test_a_lit_words_patches_are_seen_as_they_are_and_the_rest_is_veiled(bow) -> None:
    page, vocabulary = bow
    page.locator("#places").scroll_into_view_if_needed()
    picture = vocabulary["placed"][1]  # a pullover
    words = Counter(patch[3] for patch in picture["patches"])
    drawing = page.locator(".placed svg").nth(1)
    word = int(drawing.locator("circle.coloured").first.get_attribute("data-word"))
    covered = np.zeros((28, 28), dtype=bool)
    for x, y, side, of in picture["patches"]:
        if of == word:
            left, top, right, bottom = (round(28 * v) for v in (x - side / 2, y - side / 2, x + side / 2, y + side / 2))
            covered[top:bottom, left:right] = True
    page.locator(f'.key button[data-word="{word}"]').focus()
    page.add_style_tag(content=".marks { visibility: hidden } .placed svg { outline: none !important }")
    shot = Image.open(io.BytesIO(drawing.screenshot())).convert("L").resize((28, 28), Image.Resampling.BOX)
    image = fashion("t10k", 2)[0][1].astype(float)
    seen = np.asarray(shot, float)
    inner = np.s_[1:-1, 1:-1]  # the corners are round, and the resizing is not exact
    assert words[word] > 0
    assert np.abs(seen - image)[inner][covered[inner]].mean() < 10
    dark = ~covered & (image < 60)
    assert (seen - image)[inner][dark[inner]].min() > 60  # veiled in white


def test_pointing_at_a_dot_frames_its_patch_and_tells_its_word(bow) -> None:
    page, vocabulary = bow
    shares = {entry["word"]: entry for entry in vocabulary["words"]}
    picture = vocabulary["placed"][4]
    drawing = page.locator(".placed svg").nth(4)
    dot = drawing.locator("circle.coloured").last
    word = int(dot.get_attribute("data-word"))
    dot.hover()
    frame = drawing.locator(".patch")
    assert frame.is_visible()
    dot_box, frame_box, whole = (part.bounding_box() for part in (dot, frame, drawing))
    middle = lambda box: (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # noqa: E731
    assert middle(frame_box) == pytest.approx(middle(dot_box), abs=1.5)
    side = int(dot.get_attribute("data-side")) / 1000
    assert frame_box["width"] == pytest.approx(side * whole["width"], abs=3)
    here = sum(patch[3] == word for patch in picture["patches"])
    share, images = (f"{100 * shares[word][key]:.1f} %" for key in ("share", "images"))
    told = f"Word{word}In this picture{here} of {len(picture['patches'])} patchesOf all patches{share}In images{images}"
    assert page.locator("#tip").text_content() == told
    assert page.locator(".placed .patch:visible").count() == 1
    assert page.locator(".placed circle.lit").count() == count(vocabulary, word)
    page.mouse.move(2, 2)
    assert page.locator(".placed .patch:visible").count() == 0
    assert page.locator("#tip").is_hidden()


def test_a_word_reached_by_keyboard_stays_lit_while_the_pointer_is_elsewhere(bow) -> None:
    page, vocabulary = bow
    page.locator(".key button").first.focus()
    page.keyboard.press("Tab")
    word = int(page.locator(".key button").nth(1).get_attribute("data-word"))
    lit = page.locator(".placed circle.lit")
    page.locator("#places h2").hover()
    assert lit.count() == count(vocabulary, word)
    page.keyboard.press("Escape")
    assert lit.count() == 0


def test_charts_still_tell_their_figures(bow) -> None:
    page, _ = bow
    page.locator(".matrix .mark-rect path").first.hover(force=True)
    page.wait_for_function("!document.getElementById('tip').hidden")
    assert page.locator("#tip").text_content().startswith("True")


def test_words_without_a_colour_light_up_too(bow) -> None:
    page, vocabulary = bow
    ring = page.locator(".placed svg").nth(1).locator("circle:not(.coloured)").last
    fill = "e => getComputedStyle(e).fill"
    assert ring.evaluate(fill).startswith("rgba")  # transparent
    ring.hover()
    assert page.locator(".placed circle.lit").count() == count(vocabulary, int(ring.get_attribute("data-word")))
    assert ring.evaluate(fill) == "rgb(28, 30, 33)"  # the page's ink


def test_a_click_keeps_a_word_lit(bow) -> None:
    page, vocabulary = bow
    first, second = page.locator(".key button").nth(0), page.locator(".key button").nth(1)
    words = [int(entry.get_attribute("data-word")) for entry in (first, second)]
    lit = page.locator(".placed circle.lit")
    first.click()
    page.mouse.move(2, 2)
    assert lit.count() == count(vocabulary, words[0])
    assert page.locator('[aria-pressed="true"]').evaluate_all("all => all.map(e => +e.dataset.word)") == [words[0]] * 2
    second.hover()
    assert lit.count() == count(vocabulary, words[1]) != count(vocabulary, words[0])
    page.mouse.move(2, 2)
    assert lit.count() == count(vocabulary, words[0])
    first.click()
    page.mouse.move(2, 2)
    page.locator("#words button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator('[aria-pressed="true"]').count() == 2
    page.keyboard.press("Escape")
    assert lit.count() == 0
    assert page.locator('[aria-pressed="true"]').count() == 0


def test_the_keyboard_reaches_the_key_and_every_patch(bow) -> None:
    page, vocabulary = bow
    focused = "document.activeElement"
    key = page.locator(".key button")
    key.last.focus()
    assert page.locator(".placed circle.lit").count() == count(vocabulary, int(key.last.get_attribute("data-word")))
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.closest('.placed li') === document.querySelector('.placed li')")
    word = int(page.evaluate(f"{focused}.dataset.word"))
    assert page.locator(".placed circle.lit").count() == count(vocabulary, word)
    assert page.evaluate(f"{focused}.getAttribute('aria-label')").startswith(f"Word {word} In this picture")
    assert page.locator(".placed .patch:visible").count() == 1
    # to the right and around through all of them, one by one
    patches = len(vocabulary["placed"][0]["patches"])
    page.evaluate("window.reached = new Set(); addEventListener('focusin', (event) => reached.add(event.target))")
    page.evaluate(
        """(times) => { while (times--) document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true })) }""",
        patches - 1,
    )
    assert page.evaluate("reached.size") == patches - 1
    page.keyboard.press("ArrowRight")  # the last stays
    y = page.evaluate(f"+{focused}.getAttribute('cy')")
    x = page.evaluate(f"+{focused}.getAttribute('cx')")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(f"+{focused}.getAttribute('cy')") == pytest.approx(y - 1000 * STEP / 28, abs=1)
    assert page.evaluate(f"+{focused}.getAttribute('cx')") == x
    page.keyboard.press("Tab")  # one stop per picture
    assert page.evaluate(f"{focused}.closest('li') === document.querySelectorAll('.placed li')[1]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_it_all(written, open_page, scheme) -> None:
    page = open_page(written[0] / "report.html", 320, scheme).page
    assert page.evaluate(OVERFLOW) == 0
    widths = page.locator(".placed svg").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    assert min(widths) > 250
    page.locator(".placed svg").nth(2).scroll_into_view_if_needed()
    assert page.locator(".key").is_visible()  # it stays in sight
    page.locator(".placed circle.coloured").first.dispatch_event("pointerover")
    assert page.locator("#tip").is_visible()
    assert page.evaluate(OVERFLOW) == 0


def test_the_page_makes_sense_on_paper_and_without_javascript(written, browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((written[0] / "report.html").as_uri())
    assert page.locator(".placed circle.coloured").first.is_visible()
    assert "Point at a word" in page.locator("#places").inner_text()
    page.emulate_media(media="print")
    assert "Point at a word" not in page.locator("#places").inner_text()
    assert page.locator(".key button").count() == 7
    context.close()


def test_a_run_says_how_it_sees(bow) -> None:
    page, _ = bow
    rows = [row.inner_text().split("\t") for row in page.locator("#steps tbody tr").all()]
    assert rows == [
        ["dense SIFT", MADE_OF[0]["what"], "–", "1.6 M", "22 s"],
        ["vocabulary", MADE_OF[1]["what"], "8,192", "–", "9.1 s"],
        ["linear SVM", MADE_OF[2]["what"], "13.4 k", "13.4 k", "14 s"],
    ]
    summary = page.locator("#summary").inner_text()
    assert "Linear machines by LIBLINEAR.\n" in summary
    assert "Fitted on 700 of 800 images, as the budget allows no more.\n" in summary
    assert [link for link in page.locator("nav a").all_inner_texts() if "see" in link or "ord" in link] == [
        "How it sees",
        "Visual words",
        "Where the words lie",
    ]


@pytest.mark.parametrize("missing", ["words.json", "words.npy", "words_images.npy"])
def test_without_one_of_the_records_there_are_no_words(written, tmp_path, missing) -> None:
    root = copy_of(written[0], tmp_path)
    (root / missing).unlink()
    html = report(root).read_text(encoding="utf-8")
    assert 'id="words"' not in html
    assert 'id="places"' not in html


@pytest.mark.parametrize("damaged", ["words.json", "words.npy", "words_images.npy"])
def test_a_damaged_record_of_words_is_named(written, tmp_path, damaged) -> None:
    root = copy_of(written[0], tmp_path)
    (root / damaged).write_bytes((root / damaged).read_bytes()[:200])
    with pytest.raises(UsageError, match="damaged"):
        report(root)


def test_records_of_words_that_do_not_belong_together_are_refused(written, tmp_path) -> None:
    root = copy_of(written[0], tmp_path)
    np.save(root / "words_images.npy", np.load(root / "words_images.npy")[:-1])
    with pytest.raises(
        UsageError, match=r"words.json has 16 words and 8 pictures, words.npy has 16, words_images.npy 7"
    ):
        report(root)


def test_words_without_pictures_have_no_places(written, tmp_path, open_page) -> None:
    root = copy_of(written[0], tmp_path)
    record = Record(root)
    record.write_json("words.json", {**record.read_json("words.json"), "placed": []})
    np.save(root / "words_images.npy", np.load(root / "words_images.npy")[:0])
    page = open_page(report(root)).page
    assert page.locator("#words li").count() == SHOWN
    assert page.locator("#places").count() == 0


def copy_of(root: Path, folder: Path) -> Path:
    return Path(shutil.copytree(root, folder / "copy"))
