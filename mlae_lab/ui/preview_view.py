"""What can be tried before a run starts: the learning-rate finder, and what the augmentation does to images."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import AUGMENTATIONS, RunConfig
from mlae_lab.core.data_url import data_url, is_png
from mlae_lab.core.rate_curve import STEPS, suggested
from mlae_lab.runs import previews
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.ui import draft, page, visitor
from mlae_lab.ui.figures.learning_rate import rate_figure
from mlae_lab.ui.live_plot import live_plot

_CURVE, _IMAGES = "preview_rates", "preview_images"
_OF_NO_MATTER = (
    "learning_rate",
    "epochs",
    "max_seconds",
    "warmup",
    "evaluations",
    "protocol",
    "early_stopping",
    "keep_best",
)


def draw_previews(config: RunConfig) -> None:
    """Draw both for a run that could start."""
    with st.container(horizontal=True, gap="small"):
        finds = st.button(
            "Find a learning rate", key="preview_find",
            help=f"Trains up to {STEPS} steps with a rising rate in a separate process and shows the loss; some ten "
            "seconds with the bundled backbone. Validation and test images are not used.",
        )  # fmt: skip
        shows = config.augmentation != "off" and st.button(
            "Show the augmentation", key="preview_show", help="Some training images and what the setting makes of them."
        )
    if finds:
        _compute(_CURVE, _key(config), lambda report: previews.rate_points(config, report))
    if shows:
        _compute(_IMAGES, _augmentation(config), lambda report: previews.augmented_images(config))
    _draw_rates(config)
    _draw_images(config)


def _key(config: RunConfig) -> str:
    return config.canonical(*_OF_NO_MATTER) + config.data


def _augmentation(config: RunConfig) -> str:
    return repr((config.task, config.data, config.augmentation, config.seed, config.backbone, config.image_size))


def _compute(place: str, key: str, function: Callable[[Callable[[int, int], None]], object]) -> None:
    bar = st.progress(0.0, "Loading images and network …")

    def report(done: int, total: int) -> None:
        bar.progress(done / total, f"Step {done} of {total}")

    try:
        result = function(report)
        st.session_state[place] = key, result
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
    finally:
        bar.empty()


def _draw_rates(config: RunConfig) -> None:
    key, points = st.session_state.get(_CURVE, ("", []))
    if key != _key(config) or not points:
        return
    rate = suggested(points)
    live_plot(rate_figure(points, rate, config.learning_rate), key="preview_rates_plot")
    page.note(
        "A dot is the loss of one batch, the line their moving average. Too small rates change nothing, too large ones "
        "make the loss rise. The suggestion is a tenth of the rate where the average is lowest; a rate found in "
        f"{STEPS} steps is a start; <i>Choose p and λ</i> on the Studies page compares rates by validation accuracy."
    )
    if rate is not None and rate != config.learning_rate and st.button(f"Use {rate:g}", key="preview_use"):
        draft.change(learning_rate=rate)
        st.rerun()


def _draw_images(config: RunConfig) -> None:
    key, rows = st.session_state.get(_IMAGES, ("", []))
    if key != _augmentation(config) or not rows:
        return
    title = escape(AUGMENTATIONS[config.augmentation])
    title = title[:1].upper() + title[1:]
    columns = [list(versions) for versions in zip(*rows, strict=True)]
    lines = []
    for number, versions in enumerate(columns):
        label = "as stored" if number == 0 else f"epoch {number}"
        images = "".join(
            f'<img src="{data_url(image)}" alt=""{" class=pixels" if is_png(image) else ""}>' for image in versions
        )
        lines.append(f"<tr><th>{label}</th><td>{images}</td></tr>")
    st.html(
        f'<figure class="lab-augmentation"><figcaption>{title}: six training images of '
        f"{escape(catalog.task(config.task).title)}</figcaption><table>{''.join(lines)}</table></figure>"
    )
