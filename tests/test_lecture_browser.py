"""The page of the lecture as Chromium shows it: pytest -m browser.

Nothing may be in the console, no picture missing, nothing wider than the screen; and the decoder is moved by a real mouse.
"""

import base64
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

import aelab
from aelab.lecture import Number, Shown, Topic, Training, Widget, make_lecture

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
WIDTHS = {400: 800, 1280: 800, 1920: 1080}  # of a phone, a laptop and a projector, with their heights

TRAINING = Training("vae", {"net": "mlp", "hidden": (16,), "latent_dim": 2, "max_steps": 60}, data="digits")
TOPIC = Topic(
    slug="one",
    title="A topic with a rather long title, which a phone must break",
    says="It says so.",
    equation=r"\log p(x) \ge \mathbb{E}_{q(z \mid x)} [\log p(x \mid z)] - \mathrm{KL}(q \,\Vert\, p), \qquad z = \mu + \sigma",
    figures=(Shown("reconstructions", ("tiny",)), Shown("samples", ("tiny",)), Shown("no-such-figure", ("tiny",))),
    notice="Notice this.",
    question="Why?",
    numbers=(Number("tiny", "test/sse", "test/pca_sse"),),
    widgets=(Widget("plane", "tiny"), Widget("walk", "tiny"), Widget("epochs", "tiny")),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lecture")
    topics = [TOPIC, replace(TOPIC, slug="two", widgets=()), replace(TOPIC, slug="three", needs="cifar10")]
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    pages = make_lecture(
        folder / "out",
        quick=True,
        slides=True,
        topics=topics,
        trainings={"tiny": TRAINING},
        device="cpu",
        tracking_uri=uri,
    )
    return pages, aelab.load("vae", tracking_uri=uri, device="cpu")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser):
    """Opens a file at a width and in a scheme; a line in the console or a request to a network fails the test."""
    contexts, troubles = [], []

    def open_(path, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.extend([request.url] * request.url.startswith("http")))
        page.goto(path.as_uri())
        return page

    yield open_
    assert troubles == []
    for context in contexts:
        context.close()


def pixels(page, canvas):
    """The values of a grey canvas from 0 to 255, (H W,)."""
    png = base64.b64decode(page.locator(canvas).first.evaluate("c => c.toDataURL()").partition(",")[2])
    return torch.tensor(np.array(PIL.Image.open(io.BytesIO(png)))[:, :, 0].flatten().tolist())


def lightness(page, what, selector="body"):
    """How light a colour of an element is, from 0 to 1."""
    colour = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{what}")
    return sum(float(each) for each in colour.partition("(")[2].rstrip(")").split(",")[:3]) / 765


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_missing_and_nothing_is_wider_than_the_screen(made, opened, width, scheme):
    pages, _ = made
    for path in (pages.page, pages.slides):
        page = opened(path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].filter(i => i.src && !(i.complete && i.naturalWidth)).length") == 0
        assert page.locator("math").count() >= 2
        ground, text = lightness(page, "backgroundColor"), lightness(page, "color")
        assert (ground > 0.9 and text < 0.2) if scheme == "light" else (ground < 0.2 and text > 0.8)


def test_the_theme_can_be_chosen(made, opened):
    page = opened(made[0].page)
    page.locator(".theme").click()
    assert lightness(page, "backgroundColor") < 0.2
    page.locator(".theme").click()
    assert lightness(page, "backgroundColor") > 0.9


def test_the_mouse_moves_the_code_and_the_image_is_what_pytorch_decodes(made, opened):
    page = opened(made[0].page)
    plane = page.locator(".map")
    plane.scroll_into_view_if_needed()
    before = pixels(page, ".plane .image")
    box = plane.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.25)
    page.mouse.up()
    z = json.loads(plane.get_attribute("data-z"))
    assert z[0] > 1 and z[1] > 1, "to the right and up"
    image = pixels(page, ".plane .image")
    assert not torch.equal(image, before)
    expected = 255 * made[1].decode(torch.tensor([z])).flatten()
    assert (image - expected).abs().max() <= 0.5 + 255e-4, "rounded to whole values"
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert json.loads(plane.get_attribute("data-z")) == z, "a button has to be down"


def test_arrow_keys_move_the_code(made, opened):
    page = opened(made[0].page)
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert json.loads(page.locator(".map").get_attribute("data-z")) == pytest.approx([0.1, -0.5])
    assert page.locator(".plane output").inner_text() == "z = (0.10, −0.50)"


def test_the_ends_of_the_walk_are_the_reconstructions(made, opened):
    pages, run = made
    page = opened(pages.page)
    images = run.data().test.batch(slice(0, 10))[0]
    reconstructed = 255 * run.reconstruct(images).flatten(1)
    slider = page.locator(".walk input")
    page.locator(".walk .first").select_option("3")
    page.locator(".walk .second").select_option("7")
    for key, number in (("Home", 3), ("End", 7)):
        slider.press(key)
        assert (pixels(page, ".walk .image") - reconstructed[number]).abs().max() <= 0.5 + 255e-4
    assert torch.equal(pixels(page, ".walk .from"), (255 * images[3]).round().long().flatten())
    assert torch.equal(pixels(page, ".walk .to"), (255 * images[7]).round().long().flatten())


def test_epochs_are_stepped_through(made, opened):
    page = opened(made[0].page)
    slider, shown = page.locator(".epochs input"), page.locator(".epochs img")
    slider.press("Home")
    first = shown.get_attribute("src")
    assert page.locator(".epochs output").inner_text() == "after epoch 0"
    slider.press("End")
    assert shown.get_attribute("src") != first
    assert shown.evaluate("i => i.naturalWidth") > 0


def test_a_figure_is_enlarged_and_closed_by_the_keyboard(made, opened):
    page = opened(made[0].page, 400)
    page.locator(".enlarge").first.press("Enter")
    assert page.locator("dialog img").bounding_box()["width"] > 900
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_arrow_keys_turn_the_slides(made, opened):
    page = opened(made[0].slides)

    def shown():
        return page.locator(".slide.shown").get_attribute("id")

    assert shown() == "start"
    page.keyboard.press("ArrowRight")
    assert shown() == "one" and page.locator(".item.shown").is_visible()
    first = page.locator("#one .item.shown").inner_html()
    page.keyboard.press("ArrowDown")
    assert page.locator("#one .item.shown").inner_html() != first
    assert page.locator(".place").inner_text() == "2 / 4 · 2 of 7"
    page.keyboard.press("End")
    assert shown() == "three" and "aelab data --fetch cifar10" in page.locator("#three").inner_text()
    page.keyboard.press("ArrowLeft")
    assert shown() == "two" and page.url.endswith("#two")


def test_keys_inside_a_widget_stay_there(made, opened):
    page = opened(made[0].slides)
    page.goto(made[0].slides.as_uri() + "#one")
    assert page.locator(".slide.shown").get_attribute("id") == "one"
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.locator("#one .map").press("ArrowRight")
    assert page.locator(".slide.shown").get_attribute("id") == "one"
    assert json.loads(page.locator("#one .map").get_attribute("data-z")) == pytest.approx([0.1, 0])
