"""The live bench: one run, watched. Everything redraws in place, every second while the run lives."""

from __future__ import annotations

import secrets
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.runs import commands
from mlae_lab.runs.liveness import stalled_for
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import live_bench, page, queries, run_actions, visitor
from mlae_lab.ui.live_bench import Words, beside
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link

_IDLE_SECONDS = 5.0
_SHORT_RUN = (
    "A short run shows how a mask learns, not what it reaches in 500 epochs; 200 images measure to about ±3 points."
)


def bench(run_id: str) -> None:
    """Draw the bench of a run. An unknown run is one sentence with a way out."""
    try:
        run = queries.run(run_id)
    except StoreError as error:
        st.warning(plain(sentence(error)))
        link("runs", "See all runs")
        return
    _about(run)
    with st.container(key="bench_controls"):  # always there, so that nothing below it moves when it empties
        _controls(run)
    sample_images = queries.tail(run_id).sample_images
    with st.container(key="bench_words"):
        _end(run)
        live_bench.images(run, sample_images)
    session = st.session_state.setdefault("bench_session", secrets.token_hex(8))

    # somebody else may resume a run that stopped: such a bench looks now and then
    idle = _IDLE_SECONDS if run.status in RESUMABLE else None

    on_cores = not (run.slot or "").startswith("cuda")
    every = queries.refresh_seconds(session, on_cores) if not run.status.is_over else idle

    @st.fragment(run_every=every)
    def panel() -> None:
        """One element, since each that comes with a refresh costs the server as much as all that is in this one."""
        crowded = queries.refresh_seconds(session, on_cores) > (every or 0.0) and not run.status.is_over
        told, status, has_images = look(run_id)
        live_bench.live_bench(told, key="bench")
        if status is not run.status or (has_images and sample_images is None) or crowded:
            st.rerun()  # the buttons above change with the status, a run that is over needs no timer, a crowd a slower one

    panel()


def look(run_id: str) -> tuple[bytes, Status, bool]:
    """What the bench of a run shows now, its status, and whether its watched images are known: looked at once for all
    who ask within a fraction of a second."""

    def now() -> tuple[bytes, Status, bool]:
        run, tail = queries.run(run_id), queries.tail(run_id, 0.0)
        return live_bench.message(run, tail, _words(run, tail)), run.status, tail.sample_images is not None

    return queries.shared(("bench", run_id), now)


def _controls(run: Run) -> None:
    """Buttons belong outside the fragment: a click must redraw the whole page."""
    run_actions.complaint()
    with st.container(horizontal=True, gap="small"):
        run_actions.controls(run, "bench")
        if run.status.is_over:
            run_actions.more(run, "bench")


def _end(run: Run) -> None:
    """Why a run that is over ended before its end."""
    if run.status is Status.STOPPED and run.reason:
        page.note(escape(sentence(run.reason)))
    if run.status in (Status.FAILED, Status.LOST):
        st.error(plain(sentence(run.reason)))
        lines = commands.log_tail(queries.store(), run.id)
        if lines:
            with st.expander("The last lines of its log"):
                st.code("\n".join(lines), language=None)


def _words(run: Run, tail: queries.Tail) -> Words:
    """The numbers, what is being waited for, and what is wrong with a run that lives."""
    warning = waiting = ""
    silent = stalled_for(queries.store().paths(run.id)) if run.status.is_active else None
    if silent is not None:
        warning = (
            f"This run lives but has made no progress for {page.seconds_text(silent)}: wait, or press Stop now and resume it "
            "from its last checkpoint."
        )
    if tail.started is None and tail.preparing and not run.status.is_over:
        done, total = tail.preparing.done, tail.preparing.total
        waiting = (
            f"{done:,} of {total:,} images are decoded. This happens once for each task and image size; the next run "
            "finds them ready."
        )
    elif run.status is Status.QUEUED:
        at, all_ = queries.store().queue_positions().get(run.id, (0, 0))
        position = f"It is {at}. of {all_} in the queue. " if at else ""
        waiting = f"{position}Runs on one device go one at a time, and people are served in turn."
    elif tail.started is None and not run.status.is_over:
        waiting = "The run's own process loads torch, the backbone and the images. The curves begin in a few seconds."
    return Words(tuple(_facts(run, tail)), waiting, warning)


def _about(run: Run) -> None:
    """What does not change while a run goes on."""
    task, backbone = catalog.task(run.config.task), catalog.backbone(run.config.backbone)
    badge = run.config.badge
    page.note(
        f"Run {run.id} {page.status_word(run.status)} · "
        f"{escape(task.title)} · {escape(badge.data)} · {run.config.what} · {backbone.title} · {badge.protocol} · "
        f"{badge.preprocessing} · seed {run.config.seed} · started by {escape(visitor.name_of(run.owner))}. "
        + ("The network is a small stand-in for ViT-B/16. " if backbone.bundled else "")
        + (_SHORT_RUN if run.config.epochs < 100 else "")
    )


def _facts(run: Run, tail: queries.Tail) -> list[tuple[str, str]]:
    """The numbers above the bench."""
    pairs = [("Status", run.status.value)]
    outcome = tail.outcome(run.config)
    last, best = outcome.last, outcome.best
    split = "validation" if run.config.protocol == "val" else "test"
    when = "last epoch" if last is None or outcome.is_whole(last) else outcome.when(last)
    pairs.append((f"Accuracy on {split}, {when}", f"{last.accuracy:.1f} %" if last else "–"))
    if reported := beside(run.config):
        epochs = 300 if run.config.badge.data == "FGVC" else 500
        pairs.append((f"The paper, {reported.table} ({epochs} epochs)", f"{reported.value:g} %"))
    if outcome.step is None:
        return pairs
    pairs.append(("Epoch", f"{outcome.step.epoch} of {run.config.epochs}"))
    if run.status.is_over:
        pairs.append(("Training took", page.seconds_text(outcome.seconds)))
        if last and best and best.accuracy > last.accuracy:
            pairs.append((f"Best epoch ({best.epoch}), optimistic", f"{best.accuracy:.1f} %"))
    else:
        pairs.append(("Time left", page.seconds_text(tail.seconds_left())))
    if (speed := outcome.images_per_second) is not None:
        pairs.append(("Images per second", f"{speed:.0f}"))
    if not run.status.is_over and (busy := live_bench.load_text(run)):
        pairs.append(("GPU at work" if (run.slot or "").startswith("cuda") else "Processor at work", busy))
    return pairs
