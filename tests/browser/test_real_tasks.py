"""Real images on the pages: downloaded from a Hub, counted, trained on; own folders; missing data is reported."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from mlae_lab.core.events import Evaluation
from mlae_lab.runs.status import Status
from tests.data.trees import make_own, make_vtab

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Lab


def zipped(folder: Path) -> bytes:
    """Return a folder as the bytes of an archive, with its name as the top folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent).as_posix())
    return buffer.getvalue()


def test_a_task_is_downloaded_counted_and_trained_on(visit: Callable[..., Page], lab: Lab, tmp_path: Path) -> None:
    make_vtab(tmp_path / "vtab-1k", "svhn", train=30, val=20, test=12)
    lab.hub.files["datasets/XiN0919/VTAB-1k/vtab-1k.zip"] = zipped(tmp_path / "vtab-1k")
    page = visit("/task?task=svhn")
    page.get_by_text("No images of SVHN are on this machine").wait_for(timeout=30_000)
    page.get_by_role("button", name="Use p = 0.5 and initial λ = 4").wait_for()
    fetch = page.get_by_role("button", name="Fetch").first
    assert fetch.is_disabled(), "no download before the licence was accepted"
    page.get_by_text("I have read the licence").first.click()
    page.wait_for_function("!document.querySelector('[class*=st-key-fetch_start] button').disabled", timeout=20_000)
    fetch.click()
    page.get_by_text("On this machine: not VTAB-1k: its layout with 30/20/12 images").wait_for(timeout=90_000)
    assert page.get_by_text("train lists 30 images, the catalog has 800").count() == 1
    page.locator(".lab-examples img").nth(9).wait_for(timeout=30_000)

    page.get_by_role("button", name="Check every image").click()
    page.get_by_text("All 62 images can be read").wait_for(timeout=60_000)
    page.get_by_role("button", name="Next: Masks").click()
    page.get_by_role("button", name="Next: set up the run").click(timeout=30_000)
    page.get_by_role("spinbutton", name="Epochs").fill("2")
    page.get_by_role("spinbutton", name="Epochs").press("Enter")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/train?run=*", timeout=30_000)
    page.wait_for_selector(".lab-status.good", timeout=120_000)
    run = lab.store.run(page.url.rsplit("=", 1)[1])
    assert run.status is Status.FINISHED
    assert run.config.task == "svhn"
    assert isinstance(lab.store.last(run.id, Evaluation), Evaluation)
    assert page.get_by_text("not VTAB-1k: its layout with 30/20/12 images").count() == 1


def test_a_failed_download_shows_the_reason_and_leaves_nothing(visit: Callable[..., Page], lab: Lab) -> None:
    page = visit("/task?task=cub")
    page.get_by_text("I have read the licence").first.click()
    page.wait_for_function("!document.querySelector('[class*=st-key-fetch_start] button').disabled", timeout=20_000)
    page.get_by_role("button", name="Fetch").first.click()
    page.locator("[data-testid='stAlert']").filter(has_text="404").wait_for(timeout=60_000)
    assert not (lab.data / "fgvc").exists() or not any((lab.data / "fgvc").iterdir())


def test_a_folder_of_own_images_is_a_task(visit: Callable[..., Page], lab: Lab) -> None:
    make_own(lab.data / "own" / "Vögel (2)", {"amsel": 12, "star": 12})
    page = visit("/task?task=own:V%C3%B6gel%20(2)")
    page.get_by_text("On this machine: own images").wait_for(timeout=30_000)
    page.locator(".lab-examples img").nth(1).wait_for(timeout=30_000)
    assert page.locator(".lab-examples figcaption").all_inner_texts() == ["amsel", "star"]
    assert page.get_by_text("Your own images").count() >= 1


def shapes(count: int, colour: tuple[int, int, int], is_round: bool) -> Iterator[bytes]:
    """JPEG files of one coloured shape at different places."""
    for i in range(count):
        image = Image.new("RGB", (90, 70), (230, 230, 225))
        box = (5 + 6 * (i % 7), 5 + 5 * (i % 5), 40 + 6 * (i % 7), 38 + 5 * (i % 5))
        draw = ImageDraw.Draw(image)
        (draw.ellipse if is_round else draw.rectangle)(box, fill=colour)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        yield buffer.getvalue()


def test_a_zip_is_previewed_made_a_dataset_and_taken_to_the_masks(visit: Callable[..., Page], lab: Lab) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, count, colour, is_round in (
            ("ball", 24, (200, 40, 40), True), ("box", 12, (40, 60, 200), False), ("blur", 9, (60, 160, 60), True),
        ):  # fmt: skip
            for i, content in enumerate(shapes(count, colour, is_round)):
                archive.writestr(f"toys/{name}/{i}.jpg", content)
        archive.writestr("__MACOSX/toys/ball/._0.jpg", b"x")
        archive.writestr("toys/ball/broken.jpg", b"\xff\xd8\xff broken")
    page = visit("/task")
    page.get_by_role("button", name="Add own images").click()
    upload = page.locator("input[type=file]")
    upload.set_input_files({"name": "toys.zip", "mimeType": "application/zip", "buffer": buffer.getvalue()})
    preview = page.get_by_role("button", name="Preview")
    page.wait_for_function("!document.querySelector('[class*=st-key-own_read_files] button').disabled", timeout=30_000)
    preview.click()
    page.get_by_text("46 images in 3 classes. Nothing is stored yet.").wait_for(timeout=30_000)
    assert page.locator(".lab-examples figcaption", has_text="blur").count() == 3
    page.get_by_text("Left out (2 files)").wait_for()
    assert not (lab.data / "own" / "toys").exists()
    box = page.get_by_role("combobox", name="Leave out classes")
    box.fill("blur")
    box.press("Enter")
    box.press("Escape")  # closes the list of classes
    page.get_by_text("Left out (11 files)").wait_for(timeout=30_000)
    page.get_by_role("button", name="Create dataset").click()
    page.get_by_text("On this machine: own images").wait_for(timeout=30_000)
    classes = sorted(path.name for path in (lab.data / "own" / "toys" / "train").iterdir())
    assert classes == ["ball", "box"]
    page.get_by_role("button", name="Next: Masks").click()
    page.wait_for_url("**/masks?task=own*toys", timeout=30_000)


def test_missing_weights_are_named(visit: Callable[..., Page]) -> None:
    page = visit("/train")
    page.get_by_text("More settings", exact=True).click()
    box = page.get_by_role("combobox", name="Backbone")
    box.click()
    box.fill("deit_tiny_patch16_224.fb_in1k")
    box.press("Enter")
    page.get_by_text("are not on this machine").wait_for(timeout=30_000)
    assert page.get_by_role("button", name="Start the run").count() == 0
