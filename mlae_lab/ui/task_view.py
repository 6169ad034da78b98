"""The views of a task: its card, and its details with examples, class balance and requirements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mlae_lab.core import catalog, paper
from mlae_lab.core.catalog import Group, Task
from mlae_lab.core.patterns import dense, fitted, uniform
from mlae_lab.data import census as check
from mlae_lab.data import tasks
from mlae_lab.data.bundled import DataError, load_bundled
from mlae_lab.data.decode import ResizeRule, decoded
from mlae_lab.data.listing import SPLITS
from mlae_lab.locations import data_folder
from mlae_lab.ui import draft, figures, page
from mlae_lab.ui.cards import Card
from mlae_lab.ui.fetch_view import fetch_panel
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import go
from mlae_lab.ui.own_images_view import dataset_actions, is_open
from mlae_lab.ui.thumbnails import gain_image, image_address

_GROUPS = {
    Group.BUNDLED: "Bundled with the lab",
    Group.NATURAL: "VTAB-1k, Natural",
    Group.SPECIALIZED: "VTAB-1k, Specialized",
    Group.STRUCTURED: "VTAB-1k, Structured",
    Group.FGVC: "FGVC",
    Group.OWN: "Your own images",
}


@lru_cache(maxsize=32)
def _examples(name: str, per_class: int, classes: int) -> tuple[tuple[str, str], ...]:
    """(class name, data address) of training images of a bundled task, the first of each class, class by class."""
    splits = load_bundled(name)
    examples = []
    for label in range(min(classes, len(splits.class_names))):
        for index in np.flatnonzero(splits.train.labels == label)[:per_class]:
            examples.append((splits.class_names[label], image_address(splits.train.images[index])))
    return tuple(examples)


@st.cache_data(max_entries=16, show_spinner=False)
def _examples_on_disk(folder: str, name: str, fingerprint: str, limit: int = 24) -> list[tuple[str, str]]:
    """(class name, data address) of training images in a folder, one for each of the first classes."""
    del fingerprint  # only tells the cache that the folder changed
    listing = tasks.listed(catalog.task(name), Path(folder))
    examples: dict[int, tuple[str, str]] = {}
    for path, label in listing.splits["train"]:
        if label not in examples and 0 <= label < listing.classes and len(examples) < limit:
            with suppress(DataError):
                image = decoded(listing.folder / path, ResizeRule("square", 96, listing.depth))
                examples[label] = (listing.class_names[label], image_address(image))
    return [examples[label] for label in sorted(examples)]


@st.cache_data(ttl=30, max_entries=64, show_spinner=False)
def _checked(name: str, folder: str) -> tuple[str, check.Census]:
    """Label and census of a task's images in a folder; repeated after half a minute."""
    task = catalog.task(name)
    result = tasks.census(task, tasks.listed(task, Path(folder)))
    return tasks.label(task, result), result


def _state(name: str, folder: str) -> str:
    """The state of the census, ready or partial."""
    try:
        return _checked(name, folder)[1].state
    except DataError:
        return "partial"


def census_notes(name: str, folder: str = "") -> str:
    """Draw label, problems, warnings and notes of a task's images before a run on them starts; nothing if bundled.

    Args:
        name: Of the task.
        folder: That holds its images, "" for the usual one.

    Returns:
        The label, "" for bundled images and for those that cannot be used.
    """
    task = catalog.task(name)
    if task.bundled:
        return ""
    try:
        with st.spinner("Counting images"):
            label, result = _checked(name, str(tasks.images_folder(task, folder)))
    except DataError as error:
        st.error(plain(sentence(error)))
        return ""
    page.note(escape(f"Images: {label}."))
    _census_texts(result)
    return label


def _census_texts(census: check.Census) -> None:
    for text in census.problems:
        st.error(plain(text))
    if census.warnings:
        st.warning(plain(" ".join(census.warnings)))
    for text in census.notes:
        page.note(escape(text))


def task_card(task: Task, chosen: bool) -> Card:
    """The card of a task."""
    images: tuple[str, ...] = ()
    if task.bundled:
        examples = _examples(task.name, 1, 16)
        images = tuple(address for _, address in examples[:: max(1, len(examples) // 4)][:4])
    folder = None if task.bundled else tasks.folder_of(task)
    state = "ready" if task.bundled else _state(task.name, str(folder)) if folder else "missing"
    reported, probe = paper.MLAE_ACCURACY.get(task.name), paper.LINEAR_PROBE_ACCURACY.get(task.name)
    line = f"{task.classes} classes · {task.train:,} / {task.val:,} / {task.test:,}"
    if task.group is Group.OWN:
        line, images = _own_card(task, folder) if folder and state == "ready" else ("your own images", ())
    if reported and probe:
        line = f"{task.classes} classes · {probe.value} → {reported.value} %"
        images = (gain_image(probe.value, reported.value),)
    return Card(
        id=task.name,
        title=task.title,
        line=line,
        images=images,
        word="no data" if state == "missing" else state,
        tone="good" if state == "ready" else "",
        group=_GROUPS[task.group],
        chosen=chosen,
    )


def _own_card(task: Task, folder: Path) -> tuple[str, tuple[str, ...]]:
    """The line and the images of the card of own images that are ready."""
    census = _checked(task.name, str(folder))[1]
    examples = _examples_on_disk(str(folder), task.name, json.dumps(census.counts), 4)
    counts = " / ".join(f"{count:,}" for count in census.counts.values())
    return f"{census.classes} classes · {counts}", tuple(address for _, address in examples)


def task_detail(task: Task) -> None:
    """Draw the details of a task."""
    page.section(f"{escape(task.title)}: {task.question}")
    following = st.container()  # the button is above the details, where it is seen without scrolling
    if task.bundled:
        _next(task, following)
        _sizes(task)
        _bundled(task)
        return
    folder = tasks.folder_of(task)
    if task.group is not Group.OWN:
        _sizes(task)
        _reported(task)
    if folder is None and task.group is Group.OWN:
        st.info(plain(f"{data_folder() / 'own'} has no folder {task.title}: choose another task, or add images above."))
        return
    if folder is None:
        expected = (
            "its folder with VPT's train.json, val.json and test.json"
            if task.group is Group.FGVC
            else "its folder with images/ and the lists train800.txt, val200.txt and test.txt"
        )
        st.info(
            f"No images of {task.title} are on this machine. Fetch them here, or put {expected} into "
            f"{data_folder() / ('fgvc' if task.group is Group.FGVC else 'vtab-1k')}."
        )
        fetch_panel(task.name)
        return
    _on_disk(task, folder, following)


def _next(task: Task, place: DeltaGenerator) -> None:
    if place.button("Next: Masks", type="secondary" if is_open() else "primary", key="task_next"):
        go("masks", task=task.name)


def _sizes(task: Task) -> None:
    page.facts(
        ("Classes", str(task.classes)),
        ("Training", f"{task.train:,}"),
        ("Validation", f"{task.val:,}"),
        ("Test", f"{task.test:,}"),
        ("Licence", task.licence),
    )
    page.note(f"Source: {task.source}.")


def _bundled(task: Task) -> None:
    shown = _examples(task.name, 2 if task.classes <= 10 else 1, task.classes)
    splits = load_bundled(task.name)
    counts = {
        "train": np.bincount(splits.train.labels, minlength=task.classes).tolist(),
        "val": np.bincount(splits.val.labels, minlength=task.classes).tolist(),
    }
    _images(shown, [n.replace(" of 16", "") for n in splits.class_names], counts)
    if task.name.endswith("_rendered"):
        page.note(
            "A stand-in for the VTAB task of that name: the same distribution, rendered here from its formula, "
            "with 2,000 test images in place of 73,728. Its results are not VTAB results."
        )


def _on_disk(task: Task, folder: Path, following: DeltaGenerator) -> None:
    """Draw a task with images in a folder: census, examples, class balance."""
    try:
        with st.spinner("Counting images"):
            listing = tasks.listed(task, folder)
            census = tasks.census(task, listing)
    except DataError as error:
        st.error(plain(sentence(error)))
        return
    if census.state == "ready":
        _next(task, following)
    page.section(f"On this machine: {tasks.label(task, census)}")
    if task.group is Group.OWN:
        page.facts(("Classes", f"{census.classes:,}"), *((s.capitalize(), f"{n:,}") for s, n in census.counts.items()))
    page.note(escape(f"{census.state.capitalize()}, in {folder}."))
    if task.group is Group.OWN:
        dataset_actions(task, folder)
    _census_texts(census)
    names = listing.class_names[:40]
    counts = {
        split: np.bincount(
            [label for _, label in listing.splits[split] if 0 <= label < listing.classes], minlength=listing.classes
        )[:40].tolist()
        for split in (SPLITS if task.group is Group.OWN else ("train", "val"))
    }
    _images(_examples_on_disk(str(folder), task.name, listing.fingerprint), names, counts)
    if st.button("Check every image", key="task_check", help="Decodes all images, some thousand per minute."):
        bar = st.progress(0.0, "Decoding")

        def show(done: int, total: int) -> None:
            bar.progress(done / total, f"{done:,} of {total:,}")

        try:
            if task.group is Group.OWN:  # unreadable images are left out from now on
                checked = tasks.census(task, tasks.checked(task, folder, show))
            else:
                checked = tasks.census(task, listing, decode=True, progress=show)
        except DataError as error:
            st.error(plain(sentence(error)))
            return
        finally:
            bar.empty()
        if checked.left_out != census.left_out:
            st.toast("Images that cannot be read are left out from now on.")
            st.rerun()
        if checked.unreadable:
            st.error(plain(checked.problems[0]))
        else:
            st.success(f"All {sum(checked.counts.values()):,} images can be read.")


def _images(shown: Sequence[tuple[str, str]], names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> None:
    tiles = "".join(
        f'<figure><img src="{a}" alt="{escape(n)}"><figcaption>{escape(n)}</figcaption></figure>' for n, a in shown
    )
    st.html(f'<div class="lab-examples">{tiles}</div>')
    live_plot(figures.balance_figure(names, counts), key="task_balance")


def _reported(task: Task) -> None:
    """Draw what the paper reports of the task, each number with its table."""
    reported, probe = paper.MLAE_ACCURACY.get(task.name), paper.LINEAR_PROBE_ACCURACY.get(task.name)
    tuned = paper.TUNED.get(task.name)
    facts = []
    if reported:
        facts.append((f"MLAE in the paper, {reported.table}", f"{reported.value} %"))
    if probe:
        facts.append((f"Linear probe, {probe.table}", f"{probe.value} %"))
    if tuned:
        facts.append(("p and initial λ, Table 10", f"{tuned.drop_rate:g} and {tuned.coefficient_init:g}"))
    page.facts(*facts)
    gain = paper.masking_gain(task.name)
    if not (reported and probe and tuned) or gain is None:
        page.note(
            "The paper gives neither p nor the initial λ of the FGVC tasks. Trained on train, tested once on test."
        )
        return
    rates = paper.BY_DROP_RATE[task.name]
    live_plot(figures.paper_figure(rates, probe.value, reported.value), key="task_paper")
    page.note(
        f"Masking did not help here: no p above 0 beats p = 0 ({rates[0]:.1f} %, Table 15)."
        if gain <= 0
        else f"Masking gained {gain:.1f} points here over p = 0 (Table 15)."
    )
    if values := paper.disagreeing_values(task.name):
        page.note(
            "The tables of the paper report different best values: "
            + ", ".join(f"{c.value} ({c.table})" for c in values)
            + ". All with ViT-B/16 on ImageNet-21k, trained on all 1,000, tested on test."
        )
    use_tuned(task)


def use_tuned(task: Task) -> None:
    """Draw a button that puts the paper's p and initial λ of a task into the draft; nothing if it gives none."""
    tuned = paper.TUNED.get(task.name)
    if tuned and st.button(f"Use p = {tuned.drop_rate:g} and initial λ = {tuned.coefficient_init:g}", key="task_tuned"):
        plan = uniform(tuned.drop_rate) if tuned.drop_rate else dense()
        targets = catalog.backbone(draft.current().backbone).default_targets
        draft.change(plan=replace(fitted(plan, targets), coefficient_init=float(tuned.coefficient_init)))
        st.toast("The draft now has the paper's mask for this task.")
