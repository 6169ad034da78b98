"""Errors of a run: confusion matrix, calibration, extreme images, and a comparison with another run (`?other=`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from mlae_lab.core.data_url import data_url
from mlae_lab.core.paired_tests import PairedTestError, PairedTests, p_text, paired_tests
from mlae_lab.data.listing import counted
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views import relabel
from mlae_lab.ui.expert_views.other_run import other_run
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.run_cards import accuracy_text
from mlae_lab.ui.tables import large, table

MANY_IMAGES = 2_000  # of larger splits, a sample of this size unless all are requested
MAX_DIFFERING = 24  # images per run that only this run classifies correctly
ROWS = {
    "wrong": ("Incorrect, highest confidence", "The incorrect predictions with the highest confidence."),
    "correct": ("Correct, highest confidence", "The correct predictions with the highest confidence."),
    "lowest_confidence": ("Lowest confidence", "The predictions with the lowest confidence, correct or not."),
}


def draw(run: Run) -> None:
    """Query the run's predictions on its evaluation images and draw them."""
    wanted = _image_count(run)
    result = answer(run, "errors", {"images": wanted}, "errors_answer", "Classifying the evaluation images")
    if result is None:
        return
    _facts(result)
    with st.container(key="pair_errors"):
        left, right = st.columns([6, 5], gap="large")
    with left:
        live_plot(
            figures.confusion_figure(result["names"], result["confusion"], result["shares"]), key="errors_confusion"
        )
        page.computed(
            "Which classes the run takes for which. A dark cell off the diagonal is a frequent error.",
            figures.CONFUSION_NOTE,
        )
    with right:
        live_plot(
            figures.reliability_figure(
                result["bins"], result["ece"], result["confidence_mean"], result["accuracy"] / 100
            ),
            key="errors_reliability",
        )
        page.computed(
            "Whether the run is as often correct as its confidence says. On the diagonal it is well calibrated.",
            figures.RELIABILITY_NOTE,
        )
    live_plot(figures.class_accuracy_figure(result["classes"], result["accuracy"]), key="errors_classes")
    page.computed("The accuracy of each class with its 95 % interval, the lowest first.", figures.CLASSES_NOTE)
    for name, (title, about) in ROWS.items():
        _row(title, about, result, result["extremes"][name])
    relabel.draw(run, result)
    _compare(run, result, wanted)


def _image_count(run: Run) -> str | int:
    """Return "all", or the size of a sample where the evaluation split is large."""
    started = queries.tail(run.id).started
    if started is None or started.evaluation_images <= MANY_IMAGES:
        return "all"
    sample, every = f"{MANY_IMAGES:,}, evenly spread", f"all {started.evaluation_images:,}"
    chosen = st.segmented_control("Images", [sample, every], default=sample, key=f"errors_images_{run.id}")
    return "all" if chosen == every else MANY_IMAGES


def _facts(result: Mapping) -> None:
    images = (
        counted(result["images"])
        if result["images"] == result["of"]
        else f"{result['images']:,} of {result['of']:,} images"
    )
    page.facts(
        (f"Accuracy, {images}", f"{result['accuracy']:.1f} % ({result['low']:.1f} to {result['high']:.1f})"),
        ("Balanced accuracy", f"{result['balanced_accuracy']:.1f} %"),
        ("Mean confidence", f"{100 * result['confidence_mean']:.1f} %"),
        (f"ECE, {len(result['bins'])} bins", f"{result['ece']:.3f}"),
        ("Brier score", f"{result['brier']:.3f}"),
        ("Loss, nats", f"{result['loss']:.3f}"),
    )


# ---------------------------------------------------------------- images


def _row(title: str, about: str, result: Mapping, indices: Sequence[int]) -> None:
    page.section(title)
    if not indices:
        page.note("There are no such images.")
        return
    page.note(about)
    positions = {index: number for number, index in enumerate(result["indices"])}
    names, tiles = result["names"], []
    for index in indices:
        number = positions[index]
        truth, predicted = names[result["truth"][number]], names[result["predicted"][number]]
        caption = truth if truth == predicted else f"{truth} misclassified as {predicted}"
        tiles.append(
            (result["thumbnails"][str(index)], caption, f"{100 * result['confidence'][number]:.0f} % confidence", index)
        )
    _strip(tiles)


def _strip(tiles: Sequence[tuple[str, str, str, int]]) -> None:
    """Draw images in a row that wraps. tiles: (base64, caption, detail, index) of each."""
    figures_html = "".join(
        f'<figure title="image {index}"><img '
        f'src="{escape(data_url(image))}" '
        f'alt="{escape(caption)}">'
        "<figcaption "
        f'style="white-space:normal;overflow-wrap:anywhere">{escape(caption)}<br>{escape(detail)}</figcaption></figure>'
        for image, caption, detail, index in tiles
    )
    st.html(
        '<div class="lab-examples" '
        f'style="max-width:none;grid-template-columns:repeat(auto-fill,minmax(70px,1fr))">{figures_html}</div>'
    )


# ---------------------------------------------------------------- comparison


def _compare(run: Run, result: Mapping, wanted: str | int) -> None:
    page.section("Compare with another run on the same images")
    candidates = [
        other
        for other in queries.runs()
        if other.id != run.id
        and other.status.is_over
        and (other.config.task, other.config.protocol) == (run.config.task, run.config.protocol)
        and other.config.folds == run.config.folds
        and (not run.config.folds or other.config.seed == run.config.seed)  # else other parts of the images
        and queries.store().paths(other.id).adapter.is_file()
    ]
    if not candidates:
        page.note(
            "No other run of this task and protocol is over yet. With one, this section shows which images only "
            "one of the two classifies correctly."
        )
        return
    other = other_run(candidates, "Run B", _label, "none")
    if other is None:
        page.note(
            "Choose run B to see the difference in each class and the images that only one of the two classifies "
            "correctly."
        )
        return
    other_result = answer(
        other, "errors", {"images": wanted}, "errors_other", f"Classifying the evaluation images with run {other.id}"
    )
    if other_result is None:
        return
    try:
        comparison = paired_tests(result, other_result)
    except PairedTestError as error:
        st.warning(plain(sentence(error)))
        return
    large(comparison.verdict)
    page.note(f"{escape(comparison.of_classes)} A is run {run.id}, B is run {other.id}.")
    if comparison.only_a or comparison.only_b:
        live_plot(figures.paired_tests_figure(comparison), key="errors_paired_tests")
        page.computed(
            "Whether one run is better than chance can explain, for all images and for each class (McNemar's test with "
            "Holm's correction).",
            figures.PAIRED_TESTS_NOTE,
        )
        _images_that_differ(run, comparison)
    with st.expander("Table of classes"):
        table(
            ("Class", "Images", "A", "B", "B − A, points", "Only A", "Only B", "mid-p", "Holm"),
            [_table_row(entry) for entry in (comparison.whole, *comparison.classes) if entry.images],
        )


def _label(run: Run) -> str:
    return f"{run.id} · {run.config.what} · seed {run.config.seed} · {accuracy_text(run)}"


def _table_row(entry) -> tuple[str, ...]:
    a, b = (100 * correct / entry.images for correct in (entry.correct_a, entry.correct_b))
    difference = f"{entry.difference:+.1f}".replace("-", "−")
    counts = (str(entry.only_a), str(entry.only_b))
    return (
        escape(entry.name), str(entry.images), f"{a:.1f} %", f"{b:.1f} %", difference, *counts,
        escape(p_text(entry.mid)), escape(p_text(entry.adjusted)),
    )  # fmt: skip


def _images_that_differ(run: Run, comparison: PairedTests) -> None:
    """Draw the images that only one of the two runs classifies correctly."""
    shown = {"A": comparison.only_a[:MAX_DIFFERING], "B": comparison.only_b[:MAX_DIFFERING]}
    indices = sorted({index for indices_shown in shown.values() for index in indices_shown})
    if not indices:
        return
    result = answer(run, "images_at", {"indices": indices}, "errors_apart", "Loading the images that differ")
    if result is None:
        return
    for name, other_name in (("A", "B"), ("B", "A")):
        indices_alone = comparison.only_a if name == "A" else comparison.only_b
        page.section(f"Only {name} is correct: {counted(len(indices_alone))}")
        if len(indices_alone) > MAX_DIFFERING:
            page.note(f"The {MAX_DIFFERING} with the highest confidence of {name}.")
        tiles = []
        for index in shown[name]:
            a, b = comparison.predictions[index]
            right_name, wrong_name = (a, b) if name == "A" else (b, a)
            tiles.append((result["thumbnails"][str(index)], right_name, f"{other_name}: {wrong_name}", index))
        if tiles:
            _strip(tiles)
