"""Correct labels of evaluation images of an own dataset: the corrections become a further version of it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Group
from mlae_lab.core.data_url import data_url
from mlae_lab.data import own_dataset, relabel
from mlae_lab.data.image_record import read_record
from mlae_lab.data.listing import counted, shown
from mlae_lab.data.tasks import folder_of
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run
from mlae_lab.ui import draft, page, queries, visitor
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import go

PAGE_SIZE = 24  # images
_WIDTH = 160  # of an image and its choice, in pixels of the page
_PIXELS = 192  # of the image that is sent
_LEAST_CERTAIN, _INCORRECT = "Least certain", "Incorrect"
_KEEP, _LEAVE_OUT = "", "/"  # no class has a slash in its name


def draw(run: Run, result: Mapping) -> None:
    """Draw the images with a choice for each, and the buttons that make a version and open it on Train.

    Args:
        run: The run; nothing is drawn unless the lab made its dataset.
        result: Its answer to the query `errors`.
    """
    task = catalog.task(run.config.task)
    folder = folder_of(task) if task.group is Group.OWN else None
    if folder is None or own_dataset.stored(folder) is None:
        return
    page.section("Check the labels")
    if new := st.session_state.get(_key(run, "new")):
        _offer_run(run, new)
    page.note(
        "Labels that you correct here make a further version of the dataset; this one stays as it is, and so do its "
        "runs."
    )
    if not st.toggle("Show images to check", key=_key(run, "open")):
        return
    try:
        paths = _paths(run, result)
        if paths is None:
            page.note(
                "The list of this run's images does not fit its evaluation: labels can be corrected in a new run."
            )
            return
        _gallery(run, result, paths)
        _create(run, folder)
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))


def _key(run: Run, name: str) -> str:
    return f"relabel_{name}_{run.id}"


def _corrections(run: Run) -> dict[str, str]:
    """What was chosen so far: path to a class or _LEAVE_OUT."""
    return st.session_state.setdefault(_key(run, "chosen"), {})


def _paths(run: Run, result: Mapping) -> tuple[str, ...] | None:
    """The paths of the evaluation images by their index; None if they are unknown."""
    record = read_record(queries.store().paths(run.id).images)
    if record is None or len(record.evaluation.paths) != result["of"]:
        return None
    labels = [record.evaluation.labels[index] for index in result["indices"]]
    return record.evaluation.paths if labels == list(result["truth"]) else None


# ---------------------------------------------------------------- images


def _gallery(run: Run, result: Mapping, paths: tuple[str, ...]) -> None:
    order = st.segmented_control(
        "Order", [_LEAST_CERTAIN, _INCORRECT], default=_LEAST_CERTAIN, key=_key(run, "order"),
        label_visibility="collapsed",
    )  # fmt: skip
    rows = _ordered(result, order == _INCORRECT)
    if not rows:
        page.note("Every evaluation image is classified correctly.")
        return
    page.note(
        "The incorrect predictions with the highest confidence come first: of these a wrong label is most likely. "
        "Correcting only where the run disagrees raises its accuracy even where the run is wrong, so check the least "
        "certain images too."
        if order == _INCORRECT
        else "The predictions with the lowest confidence come first, correct or not."
    )
    first = min(int(st.session_state.get(_key(run, "first"), 0)), (len(rows) - 1) // PAGE_SIZE * PAGE_SIZE)
    visible = rows[first : first + PAGE_SIZE]
    indices = [result["indices"][row] for row in visible]
    arguments = {"indices": indices, "size": _PIXELS}
    images = answer(run, "images_at", arguments, "relabel_images", "Loading the images")
    if images is None:
        return
    with st.container(horizontal=True, gap="medium", key="relabel_images_grid"):
        for row, index in zip(visible, indices, strict=True):
            with st.container(width=_WIDTH, gap="xsmall"):
                _image(run, result, row, paths[index], images["thumbnails"][str(index)])
    with st.container(horizontal=True, vertical_alignment="center"):
        back = st.button("Previous", key=_key(run, "back"), disabled=first == 0)
        more = st.button("More", key=_key(run, "more"), disabled=first + PAGE_SIZE >= len(rows))
        page.note(f"{first + 1:,} to {first + len(visible):,} of {len(rows):,}")
    if back or more:
        st.session_state[_key(run, "first")] = max(0, first + (PAGE_SIZE if more else -PAGE_SIZE))
        st.rerun()


def _ordered(result: Mapping, only_incorrect: bool) -> list[int]:
    """Rows of the result: the least certain first, or the incorrect ones, the most certain first."""
    confidence, rows = result["confidence"], range(len(result["indices"]))
    if not only_incorrect:
        return sorted(rows, key=lambda row: confidence[row])
    wrong = [row for row in rows if result["truth"][row] != result["predicted"][row]]
    return sorted(wrong, key=lambda row: -confidence[row])


def _image(run: Run, result: Mapping, row: int, path: str, thumbnail: str) -> None:
    """Draw an image with its label and prediction, and the choice."""
    names, corrections = result["names"], _corrections(run)
    label, predicted = names[result["truth"][row]], names[result["predicted"][row]]
    confidence = 100 * result["confidence"][row]
    others = [name for name in names if name not in (label, predicted)]
    options = [_KEEP, *([predicted] if predicted != label else []), *others, _LEAVE_OUT]
    guess = "correct" if predicted == label else f"predicted {shown(predicted)}"
    st.html(
        f'<div class="lab-examples" style="grid-template-columns:1fr"><figure title="{escape(shown(path))}">'
        f'<img src="{escape(data_url(thumbnail))}" alt="{escape(shown(path))}">'
        '<figcaption style="white-space:normal;overflow-wrap:anywhere;min-height:3.6em">'
        f"<b>{escape(shown(label))}</b><br>{escape(guess)}, {confidence:.0f} %</figcaption></figure></div>"
    )

    def text(option: str) -> str:
        return "Keep the label" if option == _KEEP else "Leave out" if option == _LEAVE_OUT else shown(option)

    before = corrections.get(path, _KEEP)
    chosen = st.selectbox(
        f"Label of {shown(path)}", options, index=options.index(before) if before in options else 0, format_func=text,
        key=_key(run, f"image_{result['indices'][row]}"), label_visibility="collapsed",
    )  # fmt: skip
    if not chosen:
        corrections.pop(path, None)
    else:
        corrections[path] = chosen


# ---------------------------------------------------------------- the version


def _create(run: Run, folder: Path) -> None:
    corrections = _corrections(run)
    labels = {path: name for path, name in corrections.items() if name != _LEAVE_OUT}
    name = own_dataset.next_version(folder.name)
    page.note(
        f"{counted(len(labels), 'label')} corrected, {counted(len(corrections) - len(labels))} left out. These are "
        f"{'test' if run.config.protocol == 'test' else 'val'} images; labels of any image are corrected with "
        "<code>dataset relabel</code> in a terminal."
    )
    label = f"Create {plain(shown(name))}"
    if not st.button(label, type="primary", key=_key(run, "create"), disabled=not corrections):
        return
    bar = st.progress(0.0, "Reading the images")
    record = read_record(queries.store().paths(run.id).images)
    assert record is not None  # `_paths` has read it
    contents = dict(zip(record.evaluation.paths, map(int, record.evaluation.content), strict=True))
    given, plan = relabel.corrected(
        run.config.task, labels, set(corrections) - set(labels), contents=contents,
        progress=lambda done, total: bar.progress(min(1.0, done / total), "Reading the images") and None,
    )  # fmt: skip
    task = own_dataset.write(plan, name, given.origin, visitor.current(), given.linkable)
    corrections.clear()
    for key in [str(key) for key in st.session_state]:
        if key.startswith("relabel_image_") and key.endswith(f"_{run.id}"):
            del st.session_state[key]
    st.session_state[_key(run, "new")] = task.name
    st.rerun()


def _offer_run(run: Run, task: str) -> None:
    title = plain(catalog.task(task).title)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.success(f"{title} is a dataset now.")
        if st.button(f"Run on {title}", type="primary", key=_key(run, "run")):
            draft.take_over(run.config, task)
            go("train")
    page.note(
        "The new run has the settings of this one. Its accuracy is measured with other labels than that of this run: "
        "compare runs of one version."
    )
