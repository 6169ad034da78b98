"""Many images: classify a zip, uploaded files or a folder of the server's machine, and download the table."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core.abstention import AbstentionError
from mlae_lab.core.units import format_bytes
from mlae_lab.data import dataset_input, own_dataset
from mlae_lab.data.bundled import DataError
from mlae_lab.data.folder_files import SUFFIXES
from mlae_lab.data.image_batch import ImageBatch, read_batch
from mlae_lab.data.listing import counted, shown, some
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import batch_prediction, probe
from mlae_lab.runs.batch_prediction import MAX_TOP, TOP, Classified
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries, visitor
from mlae_lab.ui.expert_views.query_result import answer, status_text
from mlae_lab.ui.folder_fields import folder_fields
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.tables import table

_UPLOAD, _FOLDER = "Upload", "Folder on this machine"
_NEVER, _BELOW, _FOR_ACCURACY = "Never", "Below a probability", "For an accuracy on val"
_SHOWN_FILES = 20
_SHOWN_CLASSES = 40


@dataclass
class _Work:
    """Images that are being classified, or were.

    Attributes:
        name: What was chosen.
        batch: The images.
        staging: Folder of the uploaded files, deleted when they are classified; None for a folder that stays.
        rows: The predictions so far.
    """

    name: str
    batch: ImageBatch
    staging: Path | None
    rows: list[Classified] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return len(self.rows) == len(self.batch.paths)

    def end(self) -> None:
        """Delete the uploaded files."""
        if self.staging:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging = None


def draw(run: Run) -> None:
    """Draw the choice of images, then the progress, then the result, which stays until other images are chosen."""
    key = f"batch_{run.id}"
    work: _Work | None = st.session_state.get(key)
    try:
        if work is None:
            work = _choose(run)
            if work is None:
                return
            st.session_state[key] = work
            st.rerun()
        head, other = st.columns([5, 2], vertical_alignment="center")
        with head:
            page.section(escape(shown(work.name)))
        with other.container(horizontal_alignment="right"):
            if st.button("Choose other images", key=f"{key}_other"):
                work.end()
                del st.session_state[key]
                st.rerun()
        if not work.is_done:
            _continue(run, work)
        _result(run, work)
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))
        if work is not None:
            st.button("Retry", key=f"{key}_retry")


# ---------------------------------------------------------------- the images


def _choose(run: Run) -> _Work | None:
    where = st.segmented_control("Where are the images?", [_UPLOAD, _FOLDER], default=_UPLOAD, key="batch_where")
    if where == _FOLDER:
        otherwise = f"classify it in a terminal: <code>{PROGRAM} predict {run.id} DIR --csv FILE</code>"
        chosen = folder_fields(lambda name: f"batch_{name}", otherwise)
        if chosen is None or not st.button("Classify", type="primary", key="batch_start_folder"):
            return None
        root, below = chosen
        name = Path(below).name or root.name
        return _Work(name, _checked(read_batch(dataset_input.checked_folder(root, below), root)), None)
    files = st.file_uploader(
        "A zip with images, or image files", ["zip", *(suffix[1:] for suffix in SUFFIXES)],
        accept_multiple_files=True, key="batch_files",
    )  # fmt: skip
    page.note(
        f"A file has at most {int(st.get_option('server.maxUploadSize'))} MB; a zip has at most "
        f"{dataset_input.MAX_FILES:,} files, {format_bytes(dataset_input.MAX_UNPACKED)} unpacked. The files are "
        "deleted when they are classified."
    )
    if not st.button("Classify", type="primary", key="batch_start_files", disabled=not files):
        return None
    zips = [file for file in files if file.name.lower().endswith(".zip")]
    if zips and len(files) > 1:
        raise DataError("several kinds of files were given: upload one zip, or image files")
    with suppress(OSError):
        own_dataset.remove_old_staging()
    staging = own_dataset.new_staging()
    try:
        if zips:
            (staging / "upload.zip").write_bytes(zips[0].getbuffer())
            with st.spinner("Unpacking"):
                dataset_input.unpack_images(staging / "upload.zip", staging / "images", shown(zips[0].name))
            (staging / "upload.zip").unlink()
            name = zips[0].name
        else:
            dataset_input.add_files([(file.name, file.getvalue()) for file in files], staging / "images")
            name = counted(len(files), "uploaded file")
        return _Work(name, _checked(read_batch(staging / "images")), staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _checked(batch: ImageBatch) -> ImageBatch:
    if len(batch.paths) > dataset_input.MAX_FILES:
        raise DataError(
            f"{shown(batch.folder.name)} has {counted(len(batch.paths))}: a page classifies at most "
            f"{dataset_input.MAX_FILES:,}; choose a smaller folder, or use `{PROGRAM} predict RUN DIR --csv FILE`"
        )
    return batch


def _continue(run: Run, work: _Work) -> None:
    """Classify the images that are left, with a progress bar; a page that is left continues when it is opened again."""
    total = len(work.batch.paths)
    hiding, slot = st.empty(), st.empty()
    # the fields of the choice, which Streamlit keeps until this run of the page is over
    hiding.html('<style>.st-key-experts_shown [data-stale="true"] { display: none; }</style><span></span>')

    def show(reply: probe.Answer | None = None) -> None:
        text = status_text(reply, "Classifying") if reply and reply.state != "working" else "Classifying"
        slot.progress(len(work.rows) / total, f"{text}: {len(work.rows):,} of {total:,}")

    show()
    for piece in batch_prediction.classified(queries.store(), run.id, work.batch, len(work.rows), show):
        work.rows += piece
        show()
    slot.empty()
    hiding.empty()
    work.end()


# ---------------------------------------------------------------- the result


def _result(run: Run, work: _Work) -> None:
    settings, shown_part = st.columns([4, 7], gap="large")
    with settings:
        threshold, is_known = _threshold(run)
        top = int(st.number_input("Classes of each image", 1, MAX_TOP, TOP, key="batch_top"))
        st.download_button(
            "Download the table (CSV)", batch_prediction.as_csv(work.rows, top, threshold).encode(),
            file_name=f"{run.id}-predictions.csv", mime="text/csv", type="primary", key="batch_download",
            on_click="ignore", disabled=not is_known,
        )  # fmt: skip
    unreadable = [row for row in work.rows if row.problem]
    abstained = sum(row.abstains(threshold) for row in work.rows)
    with shown_part:
        page.facts(
            ("Images", f"{len(work.rows):,}"),
            ("Classified", f"{len(work.rows) - len(unreadable):,}"),
            ("Abstained", f"{abstained:,}"),
            ("Cannot be read", f"{len(unreadable):,}"),
        )
        _classes(work.rows, threshold)
        if unreadable:
            names = [f"{row.path} ({row.problem})" for row in unreadable]
            page.note(f"Cannot be read: {escape(some(names, _SHOWN_FILES))}.")
        for reason, paths in work.batch.ignored.items():
            page.note(f"Not classified, {escape(reason)}: {counted(len(paths), 'file')} ({escape(some(paths, 3))}).")
    page.section("Lowest probability first")
    rows = sorted((row for row in work.rows if row.top), key=lambda row: row.top[0][1])[:_SHOWN_FILES]
    table(
        ("File", "Class", "Probability", "Second class", "Abstain"),
        [
            (
                escape(shown(row.path)), escape(shown(row.top[0][0])), f"{100 * row.top[0][1]:.1f} %",
                f"{escape(shown(row.top[1][0]))}, {100 * row.top[1][1]:.1f} %" if len(row.top) > 1 else "",
                "yes" if row.abstains(threshold) else "no",
            )
            for row in rows
        ],
    )  # fmt: skip
    page.note(
        f"{counted(len(rows), 'file')} of {len(work.rows):,}; the table to download has all. An image unlike those of "
        "the task is also assigned to one of its classes, often with a high probability."
    )


def _classes(rows: list[Classified], threshold: float | None) -> None:
    every = batch_prediction.counts(rows, None)
    if not every:
        return
    names = list(every)[:_SHOWN_CLASSES]
    kept = batch_prediction.counts(rows, threshold)
    counts = {"kept": [kept.get(name, 0) for name in names]}
    if threshold is not None:
        counts["abstained"] = [every[name] - kept.get(name, 0) for name in names]
    live_plot(figures.balance_figure([shown(name) for name in names], counts), key="batch_classes")
    if len(every) > _SHOWN_CLASSES:
        page.note(f"The {_SHOWN_CLASSES} most frequent of {len(every):,} predicted classes.")


def _threshold(run: Run) -> tuple[float | None, bool]:
    """Draw the choice of the threshold; it (None: never abstain), and whether it is known."""
    choice = st.selectbox("Abstain", [_NEVER, _BELOW, _FOR_ACCURACY], key="batch_abstain")
    if choice == _BELOW:
        return st.number_input("Probability", 0.0, 1.0, 0.9, 0.01, key="batch_below"), True
    if choice == _NEVER:
        return None, True
    if why := batch_prediction.no_threshold(run.config):
        st.info(plain(sentence(why)))
        return None, False
    wanted = st.number_input(
        "Accuracy of the kept predictions, in %", 1.0, 100.0, 95.0, 1.0, "%.1f", key="batch_accuracy"
    )
    result = answer(run, "errors", {"images": "all"}, "batch_val", "Classifying the evaluation images")
    if result is None:
        return None, False
    try:
        chosen = batch_prediction.threshold_of(run, result, wanted)
    except AbstentionError as error:
        st.warning(plain(sentence(error)))
        return None, False
    page.note(escape(chosen.sentence))
    return chosen.threshold, True
