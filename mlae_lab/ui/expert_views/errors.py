"""Errors of a run: what it takes for what, its best and worst images, how sure it may be; against another run
class by class and image by image (`?other=`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from mlae_lab.core.paired_tests import PairedTestError, PairedTests, p_text, paired_tests
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views.other_run import other_run
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.run_cards import accuracy_text
from mlae_lab.ui.tables import large, table

MANY_IMAGES = 2_000  # of more, so many are asked about unless all are wanted
APART_SHOWN = 24  # images of each side that one run alone gets right
ROWS = {
    "wrong": ("Wrong and most sure", "The network was surest of these, and wrong."),
    "right": ("Right and most sure", "The network was surest of these, and right."),
    "unsure": ("Least sure", "The smallest confidence of all, right or wrong."),
}


def draw(run: Run) -> None:
    """Ask the run about its evaluation images and draw what it said."""
    wanted = _how_many(run)
    told = answer(run, "errors", {"images": wanted}, "errors_answer", "what it gets wrong")
    if told is None:
        return
    _facts(told)
    with st.container(key="pair_errors"):
        left, right = st.columns([6, 5], gap="large")
    with left:
        live_plot(figures.confusion_figure(told["names"], told["confusion"], told["shares"]), key="errors_confusion")
        page.note(figures.CONFUSION_NOTE)
    with right:
        live_plot(
            figures.reliability_figure(told["bins"], told["ece"], told["confidence_mean"], told["accuracy"] / 100),
            key="errors_reliability",
        )
        page.note(figures.RELIABILITY_NOTE)
    live_plot(figures.class_accuracy_figure(told["classes"], told["accuracy"]), key="errors_classes")
    page.note(figures.CLASSES_NOTE)
    for name, (title, line) in ROWS.items():
        _row(title, line, told, told["extremes"][name])
    _beside(run, told, wanted)


def _how_many(run: Run) -> str | int:
    """All evaluation images, or a part of them where they are many."""
    started = queries.tail(run.id).started
    if started is None or started.evaluation_images <= MANY_IMAGES:
        return "all"
    every = f"all {started.evaluation_images:,}"
    chosen = st.segmented_control(
        "Images", [f"{MANY_IMAGES:,} of them, evenly spread", every], key=f"errors_images_{run.id}"
    )
    return "all" if chosen == every else MANY_IMAGES


def _facts(told: Mapping) -> None:
    asked = (
        f"{told['images']:,} images" if told["images"] == told["of"] else f"{told['images']:,} of {told['of']:,} images"
    )
    page.facts(
        (f"Right, {asked}", f"{told['accuracy']:.1f} % ({told['low']:.1f} to {told['high']:.1f})"),
        ("Mean confidence", f"{100 * told['confidence_mean']:.1f} %"),
        ("ECE, 10 bins", f"{told['ece']:.3f}"),
        ("Brier score", f"{told['brier']:.3f}"),
        ("Loss, nats", f"{told['loss']:.3f}"),
    )


# ---------------------------------------------------------------- images


def _row(title: str, line: str, told: Mapping, indices: Sequence[int]) -> None:
    page.section(title)
    if not indices:
        page.note("There is no such image.")
        return
    page.note(line)
    at = {index: number for number, index in enumerate(told["indices"])}
    names, tiles = told["names"], []
    for index in indices:
        number = at[index]
        truth, predicted = names[told["truth"][number]], names[told["predicted"][number]]
        said = truth if truth == predicted else f"{truth}, taken for {predicted}"
        tiles.append((told["thumbnails"][str(index)], said, f"{100 * told['confidence'][number]:.0f} % sure", index))
    _strip(tiles)


def _strip(tiles: Sequence[tuple[str, str, str, int]]) -> None:
    """Images in a row that wraps: (base64, words, quiet words, place)."""
    shown = "".join(
        f'<figure title="image {index}"><img '
        f'src="data:image/{"png" if image.startswith("iVBOR") else "jpeg"};base64,{escape(image)}" '
        f'alt="{escape(words)}" style="image-rendering:{"pixelated" if image.startswith("iVBOR") else "auto"}">'
        "<figcaption "
        f'style="white-space:normal;overflow-wrap:anywhere">{escape(words)}<br>{escape(quiet)}</figcaption></figure>'
        for image, words, quiet, index in tiles
    )
    st.html(
        '<div class="lab-examples" '
        f'style="max-width:none;grid-template-columns:repeat(auto-fill,minmax(70px,1fr))">{shown}</div>'
    )


# ---------------------------------------------------------------- beside another run


def _beside(run: Run, told: Mapping, wanted: str | int) -> None:
    page.section("Against another run, on the same images")
    candidates = [
        other
        for other in queries.runs()
        if other.id != run.id
        and other.status.is_over
        and (other.config.task, other.config.protocol) == (run.config.task, run.config.protocol)
        and queries.store().paths(other.id).adapter.is_file()
    ]
    if not candidates:
        page.note(
            "No other run of this task and protocol has ended yet; with one, what each of the two alone gets right is "
            "here."
        )
        return
    other = other_run(candidates, "B, the other run", _called, "no other run")
    if other is None:
        page.note(
            "Choose B, and the differences in every class and the images that only one of the two gets right are here."
        )
        return
    theirs = answer(other, "errors", {"images": wanted}, "errors_other", f"what run {other.id} gets wrong")
    if theirs is None:
        return
    try:
        found = paired_tests(told, theirs)
    except PairedTestError as error:
        st.warning(plain(sentence(error)))
        return
    large(found.verdict)
    page.note(f"{escape(found.of_classes)} A is run {run.id}, B is run {other.id}.")
    live_plot(figures.paired_tests_figure(found), key="errors_slices")
    page.note(figures.PAIRED_TESTS_NOTE)
    _apart(run, found)
    with st.expander("Every class in numbers"):
        table(
            ("Class", "Images", "A", "B", "B − A, points", "Only A", "Only B", "mid-p", "Holm"),
            [_numbers(entry) for entry in (found.whole, *found.classes) if entry.images],
        )


def _called(run: Run) -> str:
    return f"{run.id} · {run.config.what} · seed {run.config.seed} · {accuracy_text(run)}"


def _numbers(entry) -> tuple[str, ...]:
    a, b = (100 * right / entry.images for right in (entry.correct_a, entry.correct_b))
    moved = f"{entry.difference:+.1f}".replace("-", "−")
    counts = (str(entry.only_a), str(entry.only_b))
    return (
        escape(entry.name), str(entry.images), f"{a:.1f} %", f"{b:.1f} %", moved, *counts, escape(p_text(entry.mid)),
        escape(p_text(entry.adjusted)),
    )  # fmt: skip


def _apart(run: Run, found: PairedTests) -> None:
    """The images that one run alone gets right."""
    sides = {"A": found.only_a[:APART_SHOWN], "B": found.only_b[:APART_SHOWN]}
    indices = sorted({index for side in sides.values() for index in side})
    if not indices:
        return
    told = answer(run, "images_at", {"indices": indices}, "errors_apart", "the images that differ")
    if told is None:
        return
    for name, wrong in (("A", "B"), ("B", "A")):
        every = found.only_a if name == "A" else found.only_b
        page.section(f"Only {name} is right: {len(every)} images")
        if len(every) > APART_SHOWN:
            page.note(f"Those {APART_SHOWN} of which {name} is most sure.")
        tiles = []
        for index in sides[name]:
            a, b = found.predictions[index]
            right, mistake = (a, b) if name == "A" else (b, a)
            tiles.append((told["thumbnails"][str(index)], right, f"{wrong}: {mistake}", index))
        if tiles:
            _strip(tiles)
