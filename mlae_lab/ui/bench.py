"""The live bench of one run. Everything is updated in place, every second while the run is active."""

from __future__ import annotations

import secrets
from html import escape

import streamlit as st

from mlae_lab.core import catalog, recipes
from mlae_lab.core.proportions import wilson
from mlae_lab.runs import commands
from mlae_lab.runs.class_recall import class_recall
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, live_bench, page, queries, run_actions, visitor
from mlae_lab.ui.live_bench import BenchText, reported_accuracy
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.run_texts import position_text, stalled_text

_IDLE_SECONDS = 5.0
_SHORT_RUN = " A short run shows how a mask learns, not what it reaches in 500 epochs."


def bench(run_id: str) -> None:
    """Draw the bench of a run; for an unknown run one sentence and a link."""
    try:
        run = queries.run(run_id)
    except StoreError as error:
        st.warning(plain(sentence(error)))
        link("runs", "See all runs")
        return
    with st.container(key="run_header"):  # one line in presentation mode
        _about(run)
    with st.container(key="bench_controls"):  # always present, so that nothing below moves when it becomes empty
        _controls(run)
    sample_images = queries.tail(run_id).sample_images
    with st.container(key="bench_text"):
        _end(run)
        live_bench.images(run, sample_images)
    session = st.session_state.setdefault("bench_session", secrets.token_hex(8))

    # somebody else may resume a stopped run, so its bench is refreshed now and then
    idle = _IDLE_SECONDS if run.status in RESUMABLE else None

    on_cores = not (run.slot or "").startswith("cuda")
    seconds = queries.refresh_seconds(session, on_cores) if not run.status.is_over else idle

    @st.fragment(run_every=seconds)
    def panel() -> None:
        """Draws a single element: each element of a refresh costs the server as much as everything in this one."""
        is_crowded = queries.refresh_seconds(session, on_cores) > (seconds or 0.0) and not run.status.is_over
        try:
            message, status, has_images = bench_state(run_id)
        except StoreError:  # deleted or archived meanwhile: the page says so
            queries.refresh()
            st.rerun()
        live_bench.live_bench(message, key="bench")
        if status is not run.status or (has_images and sample_images is None) or is_crowded:
            st.rerun()  # new status: other buttons and timer; many viewers: a slower timer

    panel()
    if run.status.is_over:
        _class_recall(run)


def _class_recall(run: Run) -> None:
    """Draw the recall of each class where the classes are unequal."""
    last = queries.tail(run.id).outcome(run.config).last
    recall = class_recall(queries.store().paths(run.id).images, last)
    if recall is None or not recall.is_unequal or last is None:
        return
    page.section(f"Recall of each class: the largest class has {recall.imbalance:.1f} times the images of the smallest")
    classes = []
    for name, images, correct in zip(recall.names, recall.images, recall.correct, strict=True):
        low, high = wilson(correct, images)
        classes.append({"name": name, "images": images, "correct": correct, "low": low, "high": high})
    live_plot(figures.class_accuracy_figure(classes, last.accuracy), key="bench_recall")
    page.computed(
        "Accuracy counts every image alike, so it mostly tells how well the large classes are recognised. Balanced "
        "accuracy counts every class alike.",
        "Recall of a class: its correctly classified images / its images. Balanced accuracy: the mean recall of the "
        f"classes. {figures.CLASSES_NOTE}",
    )


def bench_state(run_id: str) -> tuple[bytes, Status, bool]:
    """The message of the bench, the status, and whether the sample images are known; shared by simultaneous viewers."""

    def query() -> tuple[bytes, Status, bool]:
        run, tail = queries.run(run_id), queries.tail(run_id, 0.0)
        return live_bench.message(run, tail, _text(run, tail)), run.status, tail.sample_images is not None

    return queries.shared(("bench", run_id), query)


def _controls(run: Run) -> None:
    """Draw the buttons, outside the fragment because a click must redraw the whole page."""
    run_actions.show_error()
    with st.container(horizontal=True, gap="small"):
        run_actions.controls(run, "bench")
        if run.status.is_over:
            run_actions.more(run, "bench")


def _end(run: Run) -> None:
    """Show why a run ended early, and what it needs before it can be resumed."""
    if run.config.unavailable:
        st.warning(plain(sentence(f"this run cannot be resumed, {run.config.unavailable}")))
    if run.status in (Status.STOPPED, Status.FINISHED) and run.reason:
        page.note(escape(sentence(run.reason)))
    if run.status in (Status.FAILED, Status.LOST):
        st.error(plain(sentence(run.reason)))
        lines = commands.log_tail(queries.store(), run.id)
        if lines:
            with st.expander("Last lines of the log"):
                st.code("\n".join(lines), language=None)


def _text(run: Run, tail: queries.Tail) -> BenchText:
    """The facts, the waiting message and the warning around the figures."""
    warning = waiting = ""
    if stalled := stalled_text(run):
        warning = f"This run is {stalled}. Wait, or press Stop now and resume it from its last checkpoint."
    if tail.started is None and tail.preparing and not run.status.is_over:
        done, total = tail.preparing.done, tail.preparing.total
        waiting = (
            f"{done:,} of {total:,} images are decoded. This happens once for each task and image size; later runs "
            "reuse the result."
        )
    elif run.status is Status.QUEUED:
        position = position_text(run, queries.store().queue_positions())
        waiting = (
            f"{position + '. ' if position else ''}Each device trains one run at a time and alternates between people."
        )
    elif tail.started is None and not run.status.is_over:
        waiting = "The process of the run loads torch, the backbone and the images. The curves start in a few seconds."
    return BenchText(tuple(_facts(run, tail)), waiting, warning)


def _about(run: Run) -> None:
    """Show what does not change during a run."""
    task, backbone = catalog.task(run.config.task), catalog.backbone(run.config.backbone)
    badge, started = run.config.badge, queries.tail(run.id).started
    page.note(
        f"Run {run.id} {page.status_word(run.status)} · "
        f"{escape(task.title)} · {escape(badge.data)} · {run.config.what} · {backbone.title} · {badge.protocol} · "
        f"{badge.preprocessing} · {_recipe(run)} · seed {run.config.seed} · "
        f"started by {escape(visitor.name_of(run.owner))}."
        + (" The network is a small stand-in for ViT-B/16." if backbone.bundled else "")
        + (_SHORT_RUN if run.config.has_mask and run.config.epochs < 100 else "")
        + (precision(started.evaluation_images) if started else "")
    )


def _recipe(run: Run) -> str:
    title = recipes.followed(run.config)
    return f"recipe: {escape(title)}" if title else "settings of no recipe"


def precision(images: int) -> str:
    """How far an accuracy on so many evaluation images can be from that on all images, at most."""
    low, high = wilson(images // 2, images)  # widest for an accuracy of 50 %
    return f" {images:,} images give the accuracy to ±{50 * (high - low):.1f} points or better (95 % interval)."


def _interval(accuracy: float, images: int) -> str:
    """The 95 % interval of an accuracy in percent on so many images, as text."""
    low, high = wilson(round(accuracy * images / 100), images)
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _time_left(run: Run, tail: queries.Tail, outcome: Outcome) -> tuple[str, str]:
    """Name and value of the estimated time left; a search counts when a generation of it has been timed."""
    if run.config.tuning.search is None or outcome.seconds_left is None:
        return "Time left", page.seconds_text(outcome.seconds_left)
    if not tail.search:
        return "Time left, without the search", page.seconds_text(outcome.seconds_left)
    last = tail.search[-1]
    before = max(step.seconds for step in tail.steps if step.step <= last.step)
    of_search = (last.seconds - before) / last.generation * (last.generations - last.generation)
    return "Time left", page.seconds_text(of_search + outcome.seconds_left)


def _facts(run: Run, tail: queries.Tail) -> list[tuple[str, str]]:
    """The numbers above the bench: (name, value); the first one is the number that counts."""
    outcome = tail.outcome(run.config)
    last, best = outcome.last, outcome.best
    split = "validation" if run.config.protocol == "val" else "test"
    if tail.search and run.config.protocol == "val":
        split += " (optimistic: searched on it)"
    when = "last epoch" if last is None or outcome.is_whole(last) else outcome.when(last)
    images = tail.started.evaluation_images if tail.started else 0
    value = f"{last.accuracy:.1f} %\n{_interval(last.accuracy, images)}" if last else "–"
    facts = [(f"Accuracy on {split}, {when}, 95 % interval", value), ("Status", run.status.value)]
    recall = class_recall(queries.store().paths(run.id).images, last)
    if recall is not None and recall.is_unequal:
        facts.append(("Balanced accuracy", f"{recall.balanced:.1f} %"))
    if reported := reported_accuracy(run.config):
        epochs = 300 if run.config.badge.data == "FGVC" else 500
        facts.append((f"The paper, {reported.table} ({epochs} epochs)", f"{reported.value:g} %"))
    if outcome.step is None:
        return facts
    facts.append(("Epoch", f"{outcome.step.epoch} of {run.config.epochs}"))
    if search := tail.search[-1] if tail.search else None:
        facts.append(("Search generation", f"{search.generation} of {search.generations}"))
    if run.status.is_over:
        facts.append(("Training time", page.seconds_text(outcome.seconds)))
        if last and best and best.accuracy > last.accuracy:
            facts.append((f"Best epoch ({best.epoch}), optimistic", f"{best.accuracy:.1f} %"))
    else:
        facts.append(_time_left(run, tail, outcome))
    if (speed := outcome.images_per_second) is not None:
        facts.append(("Images/s", f"{speed:.0f}"))
    if not run.status.is_over and (load := live_bench.load_text(run)):
        facts.append(("GPU utilization" if (run.slot or "").startswith("cuda") else "CPU utilization", load))
    return facts
