"""The page in a real browser, headless Chromium: drop a picture, read the answer."""

import base64
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Error, sync_playwright

from tests.conftest import PROJECT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--no-first-run", "--use-fake-device-for-media-stream",
           "--use-fake-ui-for-media-stream"]  # fmt: skip
DROP = """([data, type]) => {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "photo", { type }));
  dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
PASTE = DROP.replace('new DragEvent("drop", { dataTransfer', 'new ClipboardEvent("paste", { clipboardData')


@pytest.fixture(scope="module")
def address(evaluated, fine_tuned) -> Iterator[str]:
    """A server of two runs in a process of its own."""
    command = [sys.executable, "-m", "cifar10", "serve", f"runs=[{evaluated},{fine_tuned}]", "port=0"]
    environment = dict(os.environ) | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = []
        while not (lines and lines[-1].startswith("http://")):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        yield lines[-1].split()[0]
        process.terminate()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, permissions=["camera"])
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.goto(address)
    yield page
    assert not problems
    context.close()


def answers(page):
    page.wait_for_selector("article")
    return [card.inner_text() for card in page.query_selector_all("article")]


@pytest.mark.parametrize("way", [DROP, PASTE], ids=["dropped", "pasted"])
def test_a_picture_that_is_brought_to_the_page_has_answers(page, model, photo, way):
    page.evaluate(way, [base64.b64encode(photo).decode(), "image/png"])
    first, second = answers(page)
    name, probability = best(model, photo)
    assert f"{name}, {100 * probability:.1f} %" in first and "Calibrated: temperature" in first
    assert "Not calibrated; " in second
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    loaded = "[...document.querySelectorAll('article img')].map(image => image.naturalWidth)"
    assert page.evaluate(loaded) == [32, 224, 32, 224]


def best(model, photo):
    [probabilities] = model.probabilities(model.read(photo)[None])
    return model.class_names[probabilities.argmax()], probabilities.max().item()


def test_a_picture_can_be_chosen_with_the_keyboard_alone(page, photo):
    page.evaluate("document.getElementById('file').addEventListener('click', () => { window.asked = true; })")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Space")
    page.wait_for_function("() => window.asked")
    page.set_input_files("#file", [{"name": "photo.png", "mimeType": "image/png", "buffer": photo}])
    assert len(answers(page)) == 2
    assert page.get_attribute("#results", "aria-live") == "polite"


def test_the_camera_takes_a_picture(page):
    shown = "() => document.getElementById('video').videoWidth > 0"
    for _ in range(10):  # Chromium's imitation of a camera does not always start at once
        page.click("#camera")
        with contextlib.suppress(Error):
            page.wait_for_function(shown, timeout=3000)
            break
    page.click("#shoot")
    assert len(answers(page)) == 2
    assert page.is_hidden("#video")


@pytest.mark.parametrize(("content", "words"), [
    (b"nonsense", "This picture cannot be read: not a picture of a kind that can be read."),
    (bytes(20_000_001), "Larger than 20 MB: choose a smaller picture."),
], ids=["no picture", "large"])  # fmt: skip
def test_what_goes_wrong_is_said_on_the_page(page, photo, content, words):
    page.set_input_files("#file", [{"name": "x", "mimeType": "image/png", "buffer": photo}])
    answers(page)
    page.set_input_files("#file", [{"name": "x", "mimeType": "image/png", "buffer": content}])
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == words and not page.query_selector_all("article")


def test_every_control_and_picture_has_a_name(page, photo):
    page.set_input_files("#file", [{"name": "x", "mimeType": "image/png", "buffer": photo}])
    answers(page)
    assert page.evaluate("[...document.querySelectorAll('img')].every(image => image.alt)")
    assert page.evaluate("[...document.querySelectorAll('button')].every(button => button.textContent.trim())")
    assert page.evaluate("document.getElementById('file').labels.length") == 1
