"""How a task looks: its card, and its open view with examples, balance and what it needs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import streamlit as st

from mlae_lab.core import paper
from mlae_lab.core.catalog import Group, Task
from mlae_lab.data.tasks import load
from mlae_lab.ui import figures, page
from mlae_lab.ui.cards import Card
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.thumbnails import gain_image, png_address

_GROUPS = {
    Group.BUNDLED: "Bundled with the lab",
    Group.NATURAL: "VTAB-1k, Natural",
    Group.SPECIALIZED: "VTAB-1k, Specialized",
    Group.STRUCTURED: "VTAB-1k, Structured",
    Group.FGVC: "FGVC",
}


@lru_cache(maxsize=8)
def _examples(name: str, per_class: int, classes: int) -> tuple[tuple[str, str], ...]:
    """(class name, data address) of training pictures, the first of each class in turn."""
    splits = load(name)
    found = []
    for label in range(min(classes, len(splits.class_names))):
        for index in np.flatnonzero(splits.train.labels == label)[:per_class]:
            found.append((splits.class_names[label], png_address(splits.train.images[index])))
    return tuple(found)


def task_card(task: Task, chosen: bool) -> Card:
    """The task in the gallery."""
    images: tuple[str, ...] = ()
    if task.bundled:
        examples = _examples(task.name, 1, 16)
        images = tuple(address for _, address in examples[:: max(1, len(examples) // 4)][:4])
    reported, probe = paper.MLAE_ACCURACY.get(task.name), paper.LINEAR_PROBE_ACCURACY.get(task.name)
    line = f"{task.classes} classes · {task.train:,} / {task.val:,} / {task.test:,}"
    if reported and probe:
        line = f"{task.classes} classes · {probe.value} → {reported.value} %"
        images = (gain_image(probe.value, reported.value),)
    return Card(
        id=task.name,
        title=task.title,
        line=line,
        images=images,
        word="ready" if task.bundled else "no data here yet",
        tone="good" if task.bundled else "",
        group=_GROUPS[task.group],
        chosen=chosen,
    )


def task_detail(task: Task) -> None:
    """The open card."""
    page.section(f"{task.title}: {task.question}")
    page.facts(
        ("Classes", str(task.classes)),
        ("Training", f"{task.train:,}"),
        ("Validation", f"{task.val:,}"),
        ("Test", f"{task.test:,}"),
        ("Licence", task.licence),
    )
    page.note(f"Source: {task.source}.")
    if task.bundled:
        left, right = st.columns([6, 5], gap="large")
        with left:
            shown = _examples(task.name, 2 if task.classes <= 10 else 1, task.classes)
            tiles = "".join(f'<figure><img src="{a}" alt="{n}"><figcaption>{n}</figcaption></figure>' for n, a in shown)
            st.html(f'<div class="lab-examples">{tiles}</div>')
        with right:
            splits = load(task.name)
            counts = {
                "train": np.bincount(splits.train.labels, minlength=task.classes).tolist(),
                "val": np.bincount(splits.val.labels, minlength=task.classes).tolist(),
            }
            live_plot(
                figures.balance_figure([n.replace(" of 16", "") for n in splits.class_names], counts),
                key="task_balance",
            )
        if task.name.endswith("_rendered"):
            page.note(
                "A stand-in for the VTAB task of that name: the same distribution, rendered here from its formula, "
                "with 2,000 test pictures in place of 73,728. Its numbers are not VTAB numbers."
            )
        link("masks", "Go on to the mask", task=task.name)
        return
    _reported(task)
    folder = (
        "one folder per task with its list files"
        if task.group is not Group.FGVC
        else "its pictures and VPT's json lists"
    )
    st.info(
        f"No pictures of {task.title} are on this machine, and this version of the lab cannot read or fetch them yet. "
        f"What the task needs: {folder}; {task.train + task.val:,} pictures to learn from and {task.test:,} to test on."
    )


def _reported(task: Task) -> None:
    reported, tuned, probe = (
        table.get(task.name) for table in (paper.MLAE_ACCURACY, paper.TUNED, paper.LINEAR_PROBE_ACCURACY)
    )
    pairs = []
    if reported:
        pairs.append((f"MLAE in the paper, {reported.table}", f"{reported.value} %"))
    if probe:
        pairs.append((f"Linear probe, {probe.table}", f"{probe.value} %"))
    if tuned:
        pairs.append(("Its p and start of λ, Table 10", f"{tuned.drop_rate:g} and {tuned.coefficient_init:g}"))
    page.facts(*pairs)
    if tuned:
        page.note(
            "Masking did not help here: p = 0 was best in the paper."
            if tuned.drop_rate == 0
            else f"The paper found p = {tuned.drop_rate:g} best here, chosen for this task on the reported accuracy."
        )
    else:
        page.note("The paper gives neither p nor the start of λ for the FGVC tasks.")
