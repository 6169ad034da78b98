"""Maps and predictions in a real browser: choose and upload images, save maps; nothing is cut off."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from mlae_lab.data.bundled import load_bundled
from tests.lab import end_probe, finished_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Lab

CUT = """() => { const main = document.querySelector('[data-testid="stMain"]');
    const edge = main.getBoundingClientRect().right;
    const out = [...main.querySelectorAll('text, img, button, p, svg.main-svg')]
        .filter((e) => e.getBoundingClientRect().right > edge + 1);
    return [main.scrollWidth - main.clientWidth, out.map((e) => e.textContent.slice(0, 40))]; }"""
WAIT = 120_000  # the probe process loads torch first


@pytest.fixture(scope="module")
def run(lab: Lab) -> Iterator[str]:
    store, name = finished_run(lab.store.folder)
    yield name
    end_probe(store, name)


@pytest.mark.parametrize(("view", "figures"), [("activation", 3), ("attention", 2), ("predict", 4)])
def test_nothing_is_cut(view: str, figures: int, run: str, visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={run}&view={view}")
    page.wait_for_function(f"document.querySelectorAll('.gtitle').length >= {figures}", timeout=WAIT)
    for scheme, width in (("light", 1280), ("dark", 800)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        page.wait_for_function(f"JSON.stringify(({CUT})()) === '[0,[]]'", timeout=WAIT)  # figures are drawn again
        assert page.locator("[data-testid='stException'], :text('Component Error')").count() == 0


def test_a_click_adds_an_image_and_maps_keep_their_shape(run: str, visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={run}&view=attention&images=4&layer=11")
    page.get_by_text("Layer 11: what each expert adds, patch by patch").wait_for(timeout=WAIT)
    images = page.locator(".imagelayer image")
    page.wait_for_function(
        "document.querySelectorAll('.imagelayer image').length === 4 + 7"
    )  # image, 3 experts; image, 6 maps
    size = images.first.evaluate("i => [i.getAttribute('width'), i.getAttribute('height')].map(Number)")
    assert size[0] == pytest.approx(size[1], rel=0.03)
    assert size[0] > 60
    page.locator(".card[data-id='7']").click()
    page.wait_for_function("document.querySelectorAll('.imagelayer image').length === 2 * (4 + 7)", timeout=WAIT)
    page.wait_for_url("**images=4%2C7**")
    page.get_by_text("Change of attention", exact=True).click()
    page.get_by_text("Layer 11: how each expert alone changes the attention of its block").wait_for(timeout=WAIT)
    with page.expect_download() as saved:
        page.get_by_text("Save all maps as JSON").click()
    maps = json.loads(saved.value.path().read_text())
    assert [image["index"] for image in maps["images"]] == [4, 7]
    assert maps["layer"] == 11


def test_an_uploaded_image_is_predicted_like_the_tasks(run: str, visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={run}&view=predict&images=5")
    page.get_by_role("heading", name="The nearest training images").wait_for(timeout=WAIT)
    page.wait_for_function("document.querySelectorAll('.gtitle').length >= 4", timeout=WAIT)
    nearest = page.locator(".lab-examples figcaption").all_text_contents()[1:]
    buffer = io.BytesIO()
    Image.fromarray(load_bundled("digits").val.images[5]).save(buffer, "PNG")
    page.locator("input[type=file]").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    page.locator(".lab-one figcaption", has_text="mine.png").wait_for(timeout=WAIT)
    assert page.locator(".lab-examples figcaption").all_text_contents()[1:] == nearest
    assert len(nearest) == 6
    page.locator("input[type=file]").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no image"})
    page.get_by_text("The file cannot be read as an image (no known image format)").wait_for(timeout=WAIT)
