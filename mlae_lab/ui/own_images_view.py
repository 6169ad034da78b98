"""The card of own images on the Task page: from an upload or a folder, over a preview, to a dataset.

The page never takes a path from the browser: it takes uploaded files, the choice of a folder below the roots of
`data.dataset_input`, or the choice of a dataset that exists.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core.catalog import Task
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.units import format_bytes
from mlae_lab.data import dataset_input, own_dataset
from mlae_lab.data.bundled import DataError
from mlae_lab.data.dataset_input import DatasetInput
from mlae_lab.data.duplicates import ImageFacts, examine, thumbnails
from mlae_lab.data.folder_files import SUFFIXES
from mlae_lab.data.listing import SPLITS, counted, natural, shown, some
from mlae_lab.data.own_dataset import RATIO, Changes, DatasetPlan, Origin
from mlae_lab.data.own_source import MAX_CSV_BYTES, SourceImage, read_source
from mlae_lab.data.tasks import own_tasks
from mlae_lab.locations import PROGRAM
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.ui import draft, figures, page, queries, run_actions, visitor
from mlae_lab.ui.folder_fields import folder_fields
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.thumbnails import image_address

_OPEN, _PREVIEW, _STAGED, _FORM = "own_open", "own_preview", "own_staged", "own_form"
_UPLOAD, _FOLDER, _VERSION = "Upload", "Folder on this machine", "New version of a dataset"
_SHOWN_CLASSES, _SHOWN_EACH = 12, 3
_SHOWN_PAIRS = 12
_DUPLICATES = {
    "exact": "Leave copies out of val and test",
    "near": "Leave copies and near copies out of val and test",
    "keep": "Keep all",
}


@dataclass
class _Staged:
    """Uploaded image files that wait for more. folder: class folders; files: number by class."""

    folder: Path
    files: dict[str, int] = field(default_factory=dict)


@dataclass
class _Preview:
    """Images that were read but are no dataset yet.

    Attributes:
        given: What was read.
        facts: By path.
        staging: Folder to delete when the preview ends, None for images that stay where they are.
        planned: The last plan.
        images: Data address of each thumbnail that was shown.
    """

    given: DatasetInput
    facts: dict[str, ImageFacts]
    staging: Path | None
    planned: DatasetPlan | None = None
    images: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        return sorted({image.label for image in self.given.source.images}, key=natural)


def open_version(name: str) -> None:
    """Open the card with a new version of a dataset, for a callback. name: of its task."""
    _end()
    st.session_state[_OPEN] = True
    st.session_state["own_where"] = _VERSION
    st.session_state["own_version"] = name


def dataset_actions(task: Task, folder: Path) -> None:
    """Draw where an own task's images came from and what can be done with it: a new version, delete."""
    dataset = own_dataset.stored(folder)
    if dataset is not None:
        origin = dataset.origin
        source = f"a version of {origin.parent}" if origin.parent else f"from {origin.name}"
        left_out = sum(entry["files"] for entry in dataset.record["left_out"].values())
        page.note(
            escape(
                f"Made on {time.strftime('%Y-%m-%d', time.localtime(dataset.created))}, {shown(source)}; "
                f"{counted(left_out, 'file')} left out."
            )
        )
    with st.container(horizontal=True, gap="small"):
        st.button(
            "New version", key="own_version_start", on_click=open_version, args=(task.name,),
            help="Rename, merge or leave out classes, or split again. The dataset stays as it is, and so do its runs.",
        )  # fmt: skip
        if dataset is None:
            return
        runs = sum(run.config.task == task.name for run in queries.runs())
        ask = f"Delete {plain(task.title)} with its images? This cannot be undone."
        if any(run.config.task == task.name and not run.status.is_over for run in queries.runs()):
            page.note("It can be deleted when its queued and running runs are over.")
            return
        if runs:
            ask += f" {counted(runs, 'run')} keep their results, but not the images for Experts."
        if not run_actions.needs_no_confirmation(dataset):
            ask = f"This dataset belongs to {plain(visitor.name_of(dataset.owner))}. {ask}"
        if run_actions.confirmed_button("Delete", "own_delete", ask):
            try:
                own_dataset.delete(dataset)
            except OSError as error:
                st.warning(visitor.sentence(error))
                return
            draft.change(task=FIRST_RUN.task)
            draft.write_address("task")
            st.rerun()


def is_open() -> bool:
    """Whether the card is open, with a primary button of its form."""
    return bool(st.session_state.get(_OPEN))


def own_images_card() -> None:
    """Draw the card; it opens in place."""
    with st.container(border=True, key="own_images"):
        text, button = st.columns([5, 2], vertical_alignment="center")
        text.html(
            '<div class="lab-choice"><b>Own images</b><span>Train on your own photographs: upload a zip, or name a '
            "folder on the machine. You see counts, splits and duplicates before anything is stored.</span></div>"
        )
        opened = is_open()
        with button.container(horizontal_alignment="right"):
            if st.button("Close" if opened else "Add own images", key="own_toggle"):
                _end()
                st.session_state[_OPEN] = not opened
                st.rerun()
        if not opened:
            return
        preview = st.session_state.get(_PREVIEW)
        if preview is None:
            _choose()
        else:
            _draw_preview(preview)


def _end() -> None:
    """Forget what was uploaded and read; the widgets of the card start again."""
    preview, staged = st.session_state.pop(_PREVIEW, None), st.session_state.pop(_STAGED, None)
    for folder in (preview and preview.staging, staged and staged.folder.parent):
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    st.session_state[_FORM] = st.session_state.get(_FORM, 0) + 1


def _key(name: str) -> str:
    return f"own_{name}_{st.session_state.get(_FORM, 0)}"


# ---------------------------------------------------------------- where the images come from


def _choose() -> None:
    kinds = [_UPLOAD, _FOLDER, *([_VERSION] if own_tasks() else [])]
    if st.session_state.get("own_where") not in kinds:
        st.session_state["own_where"] = _UPLOAD
    where = st.segmented_control("Where are the images?", kinds, key="own_where")
    try:
        if where == _FOLDER:
            _choose_folder()
        elif where == _VERSION:
            _choose_version()
        else:
            _choose_files()
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))


def _choose_folder() -> None:
    chosen = folder_fields(_key, f"make the dataset in a terminal: <code>{PROGRAM} dataset new NAME DIR</code>")
    if chosen is None:
        return
    page.note("A folder of class folders, or train, val and test above class folders. Links out of it are left out.")
    if st.button("Preview", type="primary", key=_key("read_folder")):
        _read(dataset_input.folder_in_root(*chosen), None)


def _choose_version() -> None:
    own = {task.name: task.title for task in own_tasks()}
    name = st.selectbox("Dataset", list(own), format_func=own.__getitem__, key="own_version")
    page.note("The dataset stays as it is, and so do its runs. The new version gets another name.")
    if st.button("Preview", type="primary", key=_key("read_version")):
        _read(dataset_input.of_dataset(name), None)


def _choose_files() -> None:
    staged: _Staged | None = st.session_state.get(_STAGED)
    limit = int(st.get_option("server.maxUploadSize"))
    files = st.file_uploader(
        "A zip with a folder of images for each class; or image files of one class; or image files and a CSV of "
        "file,label",
        type=["zip", "csv", *(suffix[1:] for suffix in SUFFIXES)],
        accept_multiple_files=True,
        key=_key("upload"),
    )
    page.note(
        f"A file has at most {limit} MB. A zip has at most {dataset_input.MAX_FILES:,} files, "
        f"{format_bytes(dataset_input.MAX_UNPACKED)} unpacked; folders train, val and test in it are used as splits. "
        "More images: a folder on the machine."
    )
    zips = [file for file in files if file.name.lower().endswith(".zip")]
    tables = [file for file in files if file.name.lower().endswith(".csv")]
    images = [file for file in files if file not in zips and file not in tables]
    name = ""
    if images and not tables and not zips:
        name = st.text_input("Class of these images", key=_key("class"), max_chars=100).strip()
        if st.button("Add this class", key=_key("add"), disabled=not name):
            _stage([(file.name, file.getvalue()) for file in images], name)
    if staged:
        page.note("Added: " + escape(some([f"{shown(n)} ({counted(k)})" for n, k in staged.files.items()], 20)) + ".")
    ready = bool(zips) or bool(images and tables) or bool(staged and not files and len(staged.files) > 1)
    if not st.button("Preview", type="primary", key=_key("read_files"), disabled=not ready):
        return
    if len(zips) > 1 or len(tables) > 1 or (zips and images):
        raise DataError("several kinds of files were given: upload one zip, or image files with one CSV")
    labels = tables[0].getvalue() if tables else None
    if labels is not None and len(labels) > MAX_CSV_BYTES:
        raise DataError(f"{shown(tables[0].name)} is larger than {format_bytes(MAX_CSV_BYTES)}: it must be a CSV")
    csv_name = shown(tables[0].name) if tables else ""
    if staged and not files:
        origin = Origin("files", some(list(staged.files), 3))
        del st.session_state[_STAGED]
        _read_staging(staged.folder.parent, staged.folder, origin, None)
        return
    with suppress(OSError):
        own_dataset.remove_old_staging()
    staging = own_dataset.new_staging()
    try:
        if zips:
            archive = staging / "upload.zip"
            archive.write_bytes(zips[0].getbuffer())
            with st.spinner("Unpacking"):
                dataset_input.unpack_images(archive, staging / "images", shown(zips[0].name))
            archive.unlink()
            origin = Origin("zip", shown(zips[0].name), csv_name)
        else:
            dataset_input.add_files([(file.name, file.getvalue()) for file in images], staging / "images")
            origin = Origin("files", csv_name, csv_name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _read_staging(staging, staging / "images", origin, labels)


def _stage(files: Sequence[tuple[str, bytes]], name: str) -> None:
    """Keep uploaded images of one class until those of the others are here."""
    if problem := own_dataset.name_problem(name):
        raise DataError(f"the class {shown(name)[:100]!r} {problem.rstrip('.')}")
    staged: _Staged | None = st.session_state.get(_STAGED)
    if staged is None:
        staged = _Staged(own_dataset.new_staging() / "images")
        st.session_state[_STAGED] = staged
    dataset_input.add_files(files, staged.folder / name)
    staged.files[name] = len(list((staged.folder / name).iterdir()))
    st.session_state[_FORM] = st.session_state.get(_FORM, 0) + 1
    st.rerun()


def _read_staging(staging: Path, folder: Path, origin: Origin, labels: bytes | None) -> None:
    try:
        _read(DatasetInput(read_source(folder, labels), origin, True), staging)
    except BaseException:  # also of a click or a closed page while images are read
        if st.session_state.get(_PREVIEW) is None:
            shutil.rmtree(staging, ignore_errors=True)
        raise


def _read(given: DatasetInput, staging: Path | None) -> None:
    """Decode every image with a progress bar, then show the preview."""
    facts = examine(given.source.folder, [image.path for image in given.source.images], _progress("Reading the images"))
    st.session_state[_PREVIEW] = _Preview(given, facts, staging)
    st.rerun()


def _progress(label: str) -> ProgressCallback:
    """Draw a progress bar; the callback that moves it."""
    bar = st.progress(0.0, label)

    def show(done: int, total: int) -> None:
        bar.progress(done / total, f"{label}: {done:,} of {total:,}")

    return show


# ---------------------------------------------------------------- preview


def _draw_preview(preview: _Preview) -> None:
    given = preview.given
    head, other = st.columns([5, 2], vertical_alignment="center")
    with head:
        page.section(escape(shown(given.origin.name)))
        page.note(
            f"{counted(len(given.source.images))} in {len(preview.classes):,} "
            f"class{'' if len(preview.classes) == 1 else 'es'}. Nothing is stored yet."
        )
    with other.container(horizontal_alignment="right"):
        if st.button("Choose other images", key=_key("discard")):
            _end()
            st.rerun()
    with st.container(key="pair_own"):
        left, right = st.columns([5, 6], gap="large")
    with left:
        try:
            plan = _planned(preview, _changes(preview))
        except EXPECTED_ERRORS as error:
            st.warning(visitor.sentence(error))
            return
        _create(preview, plan)
    with right:
        if plan.images:
            live_plot(figures.balance_figure([shown(name) for name in plan.classes], plan.counts), key="own_balance")
        page.facts(
            ("Classes", f"{len(plan.classes):,}"),
            *((split.capitalize(), f"{sum(plan.counts[split]):,}") for split in SPLITS),
            ("Largest to smallest class", f"{plan.imbalance:.1f} : 1"),
        )
        _examples(preview, plan)
        page.note(escape(" ".join([*own_dataset.findings(plan), *plan.notes])))
    _duplicates(preview, plan)
    _left_out(plan)


def _changes(preview: _Preview) -> Changes:
    """Draw what can be changed. Raises DataError for what cannot be read."""
    classes = preview.classes
    left_out = st.multiselect(
        "Leave out classes", classes, format_func=shown, key=_key("leave_out"), placeholder="None is left out"
    )
    text = st.text_area(
        "Rename classes", key=_key("rename"), height=70, placeholder="crow = raven",
        help="One per line. Two classes with the same new name become one.",
    )  # fmt: skip
    rename = {}
    for line in filter(str.strip, text.splitlines()):
        old, equals, new = line.partition("=")
        if not equals:
            raise DataError(f"the line {line[:60]!r} renames no class: write the class, =, and its new name")
        rename[old.strip()] = new.strip()
    ratio: tuple[float, float, float] | None = None
    seed = 0
    by_ratio = True
    if preview.given.source.has_splits:
        choice = st.radio("Split", ["As given", "By ratio"], horizontal=True, key=_key("split"))
        by_ratio = choice == "By ratio"
    if by_ratio:
        val_field, test_field, seed_field = st.columns(3)
        val = val_field.number_input("Val in %", 1, 90, int(RATIO[1]), key=_key("val"))
        test = test_field.number_input("Test in %", 1, 90, int(RATIO[2]), key=_key("test"))
        seed = int(seed_field.number_input("Seed", 0, 99_999, 0, key=_key("seed")))
        ratio = (float(100 - val - test), float(val), float(test))
    duplicates = st.selectbox(
        "Duplicates", list(_DUPLICATES), format_func=_DUPLICATES.__getitem__, key=_key("duplicates")
    )
    return Changes(rename, tuple(left_out), ratio, seed, duplicates)


def _planned(preview: _Preview, changes: Changes) -> DatasetPlan:
    if preview.planned is None or preview.planned.changes != changes:
        preview.planned = own_dataset.plan(preview.given.source, preview.facts, changes)
    return preview.planned


def _create(preview: _Preview, plan: DatasetPlan) -> None:
    origin = preview.given.origin
    wanted = own_dataset.next_version(origin.parent) if origin.parent else own_dataset.free_name(Path(origin.name).stem)
    name = st.text_input("Name of the dataset", wanted, key=_key("name"), max_chars=own_dataset.MAX_NAME)
    for problem in plan.problems:
        st.error(plain(problem))
    if not st.button("Create dataset", type="primary", key=_key("create"), disabled=bool(plan.problems)):
        return
    try:
        task = own_dataset.write(
            plan, name, origin, visitor.current(), preview.given.linkable, _progress("Writing the dataset")
        )  # fmt: skip
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))
        return
    _end()
    st.session_state[_OPEN] = False
    draft.change(task=task.name)
    draft.write_address("task")
    st.toast(f"{plain(task.title)} is a dataset now.")
    st.rerun()


def _addresses(preview: _Preview, paths: Sequence[str]) -> dict[str, str]:
    missing = [path for path in dict.fromkeys(paths) if path not in preview.images]
    for path, pixels in thumbnails(preview.given.source.folder, missing):
        preview.images[path] = image_address(pixels, 72)
    return preview.images


def _examples(preview: _Preview, plan: DatasetPlan) -> None:
    """Draw a few images of each of the first classes."""
    examples: dict[str, list[SourceImage]] = {name: [] for name in plan.classes[:_SHOWN_CLASSES]}
    for image in plan.images:
        if image.label in examples and len(examples[image.label]) < _SHOWN_EACH:
            examples[image.label].append(image)
    images = [image for group in examples.values() for image in group]
    addresses = _addresses(preview, [image.path for image in images])
    _tiles([(addresses[image.path], image.label) for image in images if image.path in addresses])
    if len(plan.classes) > _SHOWN_CLASSES:
        page.note(f"Images of the first {_SHOWN_CLASSES} of {len(plan.classes):,} classes.")


def _tiles(images: Sequence[tuple[str, str]]) -> None:
    tiles = "".join(
        f'<figure><img src="{address}" alt="{escape(shown(text))}"><figcaption>{escape(shown(text))}</figcaption>'
        "</figure>"
        for address, text in images
    )
    st.html(f'<div class="lab-examples">{tiles}</div>')


def _duplicates(preview: _Preview, plan: DatasetPlan) -> None:
    """Draw pairs of equal and of nearly equal images side by side, those across splits first."""
    groups = sorted(plan.same, key=lambda group: -len({image.split for image in group}))
    pairs = [(group[0], group[-1], "same content") for group in groups]
    pairs += [
        (plan.compared[a], plan.compared[b], f"{bits} of 64 bits differ") for a, b, bits in plan.near.pairs
    ]  # fmt: skip
    if not pairs:
        return
    number = len(plan.same) + plan.near.across + plan.near.within
    with st.expander(f"Duplicates and near duplicates ({number:,})"):
        pairs.sort(key=lambda pair: pair[0].split == pair[1].split)
        shown_pairs = pairs[:_SHOWN_PAIRS]
        addresses = _addresses(preview, [image.path for a, b, _ in shown_pairs for image in (a, b)])
        rows = "".join(
            f'<div class="lab-twins">{_twin(a, addresses)}{_twin(b, addresses)}<span>{escape(what)}</span></div>'
            for a, b, what in shown_pairs
        )
        st.html(f'<div class="lab-twin-list">{rows}</div>')
        if number > len(shown_pairs):
            page.note(f"{len(shown_pairs)} of {number:,}, those across splits first.")
        page.computed(
            "Near duplicates look alike at 9 x 8 pixels. They may be frames of one film, or different images that only "
            "look alike there: decide by looking.",
            "Difference hash (dHash): 9 x 8 grey means, one bit for each pair of horizontal neighbours; at most 4 of "
            "64 bits differ. It finds other sizes, qualities and brightness, not crops or mirror images.",
        )


def _twin(image: SourceImage, addresses: dict[str, str]) -> str:
    source = addresses.get(image.path, "")
    return (
        f'<figure><img src="{source}" alt=""><figcaption>{escape(image.split)}: {escape(shown(image.label))}<br>'
        f"{escape(shown(image.path.rpartition('/')[2]))}</figcaption></figure>"
    )


def _left_out(plan: DatasetPlan) -> None:
    number = Counter({reason: len(paths) for reason, paths in plan.left_out.items()})
    if not number:
        return
    with st.expander(f"Left out ({counted(number.total(), 'file')})"):
        for reason, paths in plan.left_out.items():
            names = "<br>".join(escape(shown(path)) for path in paths[:100])
            more = f"<br>and {len(paths) - 100:,} more" if len(paths) > 100 else ""
            st.html(f'<p class="lab-note"><b>{escape(shown(reason))}: {len(paths):,}</b><br>{names}{more}</p>')
