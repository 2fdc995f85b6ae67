"""The server's page for people, in a real browser: by keyboard, drop and paste, on a phone, in the dark."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import Waiting, on_loopback, png
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from lenext.data import Dataset
from lenext.report.text import percent
from lenext.run import Result
from lenext.ship.bundle import Bundle, load
from lenext.ship.serve import Limits
from seen import check_readable

Open = Callable[..., Page]

# Files as they arrive from a drop or from the clipboard: of names and bytes in base64
CARRY = """files => {
  const carried = new DataTransfer();
  for (const [name, content] of Object.entries(files)) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name, { type: "image/png" }));
  }
  return carried;
}"""


@pytest.fixture(scope="module")
def bundle(run: Result) -> Bundle:
    return load(run.bundle)


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    with on_loopback(bundle) as url:
        yield url


@pytest.fixture
def pictures(digits: Dataset, tmp_path: Path) -> list[Path]:
    """Two digits, and a gray square that is none."""
    for place in (0, 1):
        (tmp_path / f"digit {place}.png").write_bytes(digits.source.read(place))
    (tmp_path / "gray.png").write_bytes(png(Image.new("L", (40, 40), 128)))
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """``open_page(url, width=1280, scheme="light")``; it may ask its own server only, and may not complain."""
    complaints: list[str] = []
    contexts = []

    def open_page(url: str, width: int = 1280, scheme: str = "light") -> Page:
        def allow_own(route: Route) -> None:
            if route.request.url.startswith((url.removesuffix("docs"), "blob:", "data:")):
                route.continue_()
            else:
                complaints.append(f"asked {route.request.url}")
                route.abort()

        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: "status of" in said.text or complaints.append(said.text))
        page.route("**/*", allow_own)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def carry(page: Page, files: list[Path], kind: str) -> None:
    """Drops files on the page or pastes them."""
    carried = page.evaluate_handle(CARRY, {file.name: base64.b64encode(file.read_bytes()).decode() for file in files})
    event = 'new DragEvent("drop", { dataTransfer: carried, bubbles: true })'
    if kind == "paste":
        event = 'new ClipboardEvent("paste", { clipboardData: carried, bubbles: true })'
    page.evaluate(f"carried => document.body.dispatchEvent({event})", carried)


def test_by_keyboard_from_choosing_a_picture_to_where_the_model_looked(
    url: str, bundle: Bundle, pictures: list[Path], open_page: Open
) -> None:
    page = open_page(url)
    page.on("filechooser", lambda _: None)  # from here on the browser asks us, and not the desktop
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose pictures")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures[0])
    expected = next(bundle.predict(pictures[0]))
    answer = page.get_by_role("list", name="Answers, the latest first").get_by_role("listitem").first
    expect(answer.get_by_role("heading")).to_have_text(expected.label)
    expect(page.get_by_role("status")).to_have_text(f"{expected.label}, {percent(expected.probability)}")
    bars = answer.get_by_role("list", name="Probabilities").get_by_role("listitem")
    likeliest = sorted(expected.probabilities, reverse=True)[:5]
    assert bars.locator("span:last-child").all_inner_texts() == [percent(share) for share in likeliest]
    widths = bars.evaluate_all("bars => bars.map(bar => Number(bar.style.getPropertyValue('--share')))")
    assert widths == pytest.approx(likeliest, abs=1e-4)
    picture = answer.get_by_role("img")
    expect(picture).to_have_attribute("alt", "digit 0.png")
    before = picture.get_attribute("src")
    page.keyboard.press("Tab")
    button = answer.get_by_role("button", name="Where did it look?")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert picture.get_attribute("src") != before
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth >= 224)")
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "false")
    assert picture.get_attribute("src") == before


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_pictures_that_are_dropped_or_pasted_are_answered(
    kind: str, url: str, bundle: Bundle, pictures: list[Path], open_page: Open
) -> None:
    page = open_page(url)
    carry(page, pictures, kind)
    expect(page.get_by_role("status")).to_have_text("Looked at 3 pictures.")
    assert page.locator("#answers h2").all_inner_texts() == [p.label for p in bundle.predict(pictures)]
    carry(page, pictures[1:2], kind)
    expect(page.locator("#answers > li")).to_have_count(4)
    expect(page.locator("#answers > li").first.get_by_role("img")).to_have_attribute("alt", "digit 1.png")


def test_a_file_that_is_no_picture_says_why(url: str, tmp_path: Path, pictures: list[Path], open_page: Open) -> None:
    (tmp_path / "page.png").write_text("<html>")
    page = open_page(url)
    page.get_by_label("Choose pictures").set_input_files([tmp_path / "page.png", pictures[0]])
    expect(page.get_by_role("status")).to_have_text("Looked at 2 pictures.")
    first = page.locator("#answers > li").first
    expect(first.get_by_role("heading")).to_have_text("No answer")
    expect(first.locator(".note")).to_contain_text("page.png: not an image")
    expect(first.get_by_role("img")).to_be_hidden()
    expect(page.locator("#answers h2").last).not_to_have_text("No answer")


def test_it_says_that_it_does_not_know(bundle: Bundle, pictures: list[Path], open_page: Open) -> None:
    with on_loopback(bundle, abstain=0.9) as url:
        page = open_page(url)
        page.get_by_label("Choose pictures").set_input_files(pictures[2])
        expect(page.locator("#answers h2")).to_have_text("I don’t know")
        expect(page.get_by_role("status")).to_have_text("I don’t know")
        expect(page.locator(".bars li")).to_have_count(5)


def test_the_key_is_asked_for(bundle: Bundle, pictures: list[Path], open_page: Open) -> None:
    with on_loopback(bundle, api_key="key") as url:
        page = open_page(url)
        page.get_by_label("Choose pictures").set_input_files(pictures[0])
        expect(page.locator("#answers .note").first).to_contain_text("API key: missing")
        page.get_by_label("API key").fill("key")
        page.get_by_label("Choose pictures").set_input_files(pictures[0])
        expect(page.locator("#answers h2").first).to_have_text(next(bundle.predict(pictures[0])).label)


def test_when_the_server_is_full_it_comes_again(bundle: Bundle, pictures: list[Path], open_page: Open) -> None:
    model = Waiting(bundle)
    with on_loopback(model.inside(bundle), limits=Limits(queue=1)) as url:
        model.leave.clear()
        page = open_page(url)
        with page.expect_response(lambda reply: reply.status == 503):
            page.get_by_label("Choose pictures").set_input_files(pictures)
        model.leave.set()
        expect(page.get_by_role("status")).to_have_text("Looked at 3 pictures.", timeout=20_000)
        assert page.locator("#answers h2").all_inner_texts() == [p.label for p in bundle.predict(pictures)]


@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_readable_on_a_phone_and_in_the_dark(
    width: int, url: str, pictures: list[Path], open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "a name without an end, and without a place to break it.png".replace(" ", "_")).write_text("none")
    for address, least in ((url, 30), (f"{url}/docs", 60)):
        page = open_page(address, width)
        if address == url:
            page.get_by_label("Choose pictures").set_input_files([*pictures, *tmp_path.glob("a_*")])
            expect(page.get_by_role("status")).to_have_text("Looked at 4 pictures.")
            button = page.get_by_role("button", name="Where did it look?").first
            assert button.bounding_box()["height"] >= 44  # a finger
            button.click()
            expect(button).to_have_attribute("aria-pressed", "true")
            page.get_by_text("The 10 classes").click()
        check_readable(page, least)
