"""The live bench: one run, watched. Everything redraws in place, once a second while the run lives."""

from __future__ import annotations

import secrets
from html import escape

import streamlit as st

from mlae_lab.core import catalog, paper
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import SimilarityStats
from mlae_lab.runs import commands
from mlae_lab.runs.liveness import stalled_for
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, reads, run_actions, visitor
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link

_IDLE_SECONDS = 5.0
_SHORT_RUN = (
    "A short run shows how a mask learns, not what it reaches in 500 epochs; 200 pictures measure to about ±3 points."
)


def bench(run_id: str) -> None:
    """Draw the bench of a run. An unknown run is one sentence with a way out."""
    try:
        run = reads.run(run_id)
    except StoreError as error:
        st.warning(f"{error}.".capitalize() if not str(error)[0].isupper() else f"{error}.")
        link("runs", "See all runs")
        return
    with st.container(key="bench_controls"):  # always there, so that nothing below it moves when it empties
        _controls(run)
    live = not run.status.is_over

    session = st.session_state.setdefault("bench_session", secrets.token_hex(8))

    # somebody else may resume a run that stopped: such a bench looks now and then
    idle = _IDLE_SECONDS if run.status in RESUMABLE else None

    @st.fragment(run_every=reads.refresh_seconds(session) if live else idle)
    def panel() -> None:
        reads.refresh_seconds(session)
        now = reads.run(run_id)
        _draw(now)
        if now.status is not run.status:
            st.rerun()  # the buttons above change with the status, and a run that is over needs no timer

    panel()


def _controls(run: Run) -> None:
    """Buttons belong outside the fragment: a click must redraw the whole page."""
    run_actions.complaint()
    with st.container(horizontal=True, gap="small"):
        run_actions.controls(run, "bench")


def _draw(run: Run) -> None:
    tail = reads.tail(run.id)
    config = run.config
    _run_bar(run, tail)
    with st.container(key="bench_words"):
        _words(run, tail)
    if not tail.steps:
        return
    epochs, split, pictures = config.epochs, config.protocol, tail.started.evaluation_pictures
    with st.container(key="pair_bench_top"):
        left, right = st.columns([5, 6], gap="medium")
    with right:
        revision = len(tail.steps) + 1_000_000 * len(tail.evaluations)
        live_plot(
            tail.figure(
                "accuracy",
                revision,
                lambda: figures.accuracy_figure(tail.steps, tail.evaluations, epochs, split, pictures),
            ),
            key="bench_accuracy",
        )
        live_plot(
            tail.figure("loss", revision, lambda: figures.loss_figure(tail.steps, tail.evaluations, epochs, split)),
            key="bench_loss",
        )
    with left:
        if config.method == "linear":
            page.note("A linear probe trains only the head: there are no experts to watch.")
        elif tail.experts:
            _experts(run, tail)
        else:
            page.note("The experts' picture comes with the first measurement.")
    if tail.similarity:
        with st.container(key="pair_bench_alike"):
            left, right = st.columns([5, 6], gap="medium")
        last: SimilarityStats = tail.similarity[-1]
        revision = len(tail.similarity)
        with left:
            live_plot(tail.figure("similarity", revision, lambda: figures.similarity_tiles(last)), key="bench_tiles")
        with right:
            live_plot(
                tail.figure("similarity_curve", revision, lambda: figures.similarity_curve(tail.similarity)),
                key="bench_similarity",
            )
            page.note(
                "Cosine between the rank-1 matrices λ b aᵀ of one layer (paper, A.4), diagonal left out. Experts start "
                "with b = 0 and a first common push from the loss; how far they part is what the curve shows."
            )


def _words(run: Run, tail: reads.Tail) -> None:
    """What went wrong, or what is being waited for."""
    silent = stalled_for(reads.store().paths(run.id)) if run.status.is_active else None
    if silent is not None:
        st.warning(
            f"This run lives but has made no progress for {page.seconds_text(silent)}: wait, or press Stop now and resume it "
            "from its last checkpoint."
        )
    if run.status is Status.STOPPED and run.reason:
        page.note(escape(f"{run.reason[:1].upper()}{run.reason[1:]}."))
    if run.status in (Status.FAILED, Status.LOST):
        st.error(f"{run.reason[:1].upper()}{run.reason[1:]}.")
        lines = commands.log_tail(reads.store(), run.id)
        if lines:
            with st.expander("The last lines of its log"):
                st.code("\n".join(lines), language=None)
    elif tail.started is None and tail.preparing and not run.status.is_over:
        done, total = tail.preparing.done, tail.preparing.total
        page.note(
            f"{done:,} of {total:,} pictures are decoded. This happens once for each task and picture size; the next run "
            "finds them ready."
        )
    elif run.status is Status.QUEUED:
        before = [waiting.id for waiting in reads.store().queue()]
        place = f"It is {before.index(run.id) + 1}. of {len(before)} in the queue. " if run.id in before else ""
        page.note(f"{place}Runs on one device go one at a time, and people are served in turn.")
    elif tail.started is None and not run.status.is_over:
        page.note(
            "The run's own process loads torch, the backbone and the pictures. The curves begin in a few seconds."
        )


def _run_bar(run: Run, tail: reads.Tail) -> None:
    total = tail.started.steps if tail.started else 0
    done = tail.steps[-1].step if tail.steps else 0
    if not tail.started and tail.preparing:
        done, total = tail.preparing.done, tail.preparing.total
    pairs = [("Run", f"{run.id} {page.status_word(run.status)}")]
    if tail.evaluations:
        pairs.append((f"Accuracy on {run.config.protocol}, last epoch", f"{tail.evaluations[-1].accuracy:.1f} %"))
    if reported := beside(run.config):
        pairs.append(
            (
                f"The paper, {reported.table} ({300 if run.config.badge.data == 'FGVC' else 500} epochs)",
                f"{reported.value:g} %",
            )
        )
    if tail.steps:
        last = tail.steps[-1]
        pairs.append(("Epoch", f"{last.epoch} of {run.config.epochs}"))
        if run.status.is_over:
            spent = max(last.seconds, tail.evaluations[-1].seconds if tail.evaluations else 0)
            pairs.append(("Training took", page.seconds_text(spent)))
            best = max(tail.evaluations, key=lambda e: e.accuracy, default=None)
            if best is not None and best.accuracy > tail.evaluations[-1].accuracy:
                pairs.append((f"Best epoch ({best.epoch}), optimistic", f"{best.accuracy:.1f} %"))
        else:
            pairs.append(("Time left", page.seconds_text(tail.seconds_left())))
        pictures = tail.started.train_pictures / -(-tail.started.train_pictures // run.config.batch_size)
        pairs.append(("Pictures per second", f"{last.step * pictures / max(last.seconds, 1e-9):.0f}"))
        if run.config.method == "mlae":
            pairs.append(("Experts in this step", f"{last.drawn} of {run.config.plan.experts}"))
    page.facts(*pairs)
    st.progress(done / total if total else 0.0)
    task, backbone = catalog.task(run.config.task), catalog.backbone(run.config.backbone)
    badge = run.config.badge
    page.note(
        f"{escape(task.title)} · {escape(badge.data)} · {run.config.what} · {backbone.title} · {badge.protocol} · "
        f"{badge.preprocessing} · seed {run.config.seed} · started by {escape(visitor.name_of(run.owner))}. "
        + ("The network is a small stand-in for ViT-B/16. " if backbone.bundled else "")
        + (_SHORT_RUN if run.config.epochs < 100 else "")
    )
    for text in tail.started.notes if tail.started else ():
        page.note(text)


def beside(config: RunConfig) -> paper.Cell | None:
    """The paper's number that a run's last epoch may stand beside: same data, weights, protocol and preprocessing."""
    badge = config.badge
    same = (
        config.protocol == "test"
        and config.method == "mlae"
        and badge.data in ("VTAB-1k", "FGVC")
        and badge.weights == "vit_base_patch16_224.orig_in21k"
        and badge.preprocessing.endswith("mean = std = 0.5")
    )
    return paper.MLAE_ACCURACY.get(config.task) if same else None


def _experts(run: Run, tail: reads.Tail) -> None:
    names = {"contribution": "Contribution", "coefficient": "λ", "share_drawn": "Drawn", "gradient": "Gradient"}
    chosen = st.segmented_control(
        "What the colour says",
        list(names),
        format_func=names.get,
        default="contribution",
        required=True,
        key="bench_quantity",
        label_visibility="collapsed",
    )
    last = tail.experts[-1]
    plan = run.config.plan
    figure = tail.figure(
        f"experts-{chosen}",
        len(tail.experts),
        lambda: figures.expert_figure(getattr(last, chosen), chosen, plan, last.epoch),
    )
    live_plot(figure, key="bench_experts")
    page.note(f"{figures.QUANTITIES[chosen][1]}, epoch {last.epoch}. A struck cell holds no expert.")
