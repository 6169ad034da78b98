"""The central experiment: does masking make experts less alike? Reads its finished runs from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.errors import LabError
from mlae_lab.runs import diversity
from mlae_lab.runs.diversity import ARMS, EPOCHS, MEASURES, RATES, SEEDS, Experiment, Result
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.estimating import estimated
from mlae_lab.ui.figures.diversity import diversity_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import sentence

_SHOWN = ("absolute", "effective_rank", "accuracy", "stable_rank")
_READ_SECONDS = 5.0


def draw(run: Run) -> None:
    """Draw the newest experiment on the run's task, or propose one; those on other tasks can be chosen."""
    _question()
    task = run.config.task
    experiments = sorted(diversity.experiments(queries.runs()), key=lambda asked: asked.config.task != task)
    found: list[Experiment | None] = [*experiments]
    if not experiments or experiments[0].config.task != task:
        found.insert(0, None)
    picked = found[0]
    if len(found) > 1:
        names = [
            _title(asked) if asked else f"{catalog.task(task).title}: nobody has tried it here yet" for asked in found
        ]
        number = st.selectbox(
            "Experiment", range(len(found)), format_func=names.__getitem__, key=f"diversity_experiment_{task}"
        )
        picked = found[number]
    if picked is None:
        _none_yet(run)
        return
    now = queries.shared(("diversity", picked), lambda: diversity.result(queries.store(), picked), _READ_SECONDS)
    _draw(now)


def _question() -> None:
    page.note(
        "The paper says that masking makes experts less alike (section 4.3, A.4). Dropout on factors should do the "
        "opposite for squared loss: its penalty p/(1−p) · Σ ‖λᵢ bᵢ aᵢᵀx‖² is least when all experts share the work "
        "equally (Cavazza et al. 2017; Mianjy et al. 2018). Four ways to train the same network on equal terms settle "
        "it, task by task: every expert always there; experts dropped for a whole step (the paper's mask); experts "
        "dropped for single tokens, the same noise without the structure; and LoRA with dropout of its inputs."
    )


def _title(asked: Experiment) -> str:
    config = asked.config
    seeds = len(asked.seeds)
    task, backbone = catalog.task(config.task).title, catalog.backbone(config.backbone).title
    return f"{task}, {config.epochs} epochs, {seeds} seed{'s' * (seeds != 1)}, {backbone}"


def _none_yet(run: Run) -> None:
    page.section("Nobody has tried it here yet")
    try:
        asked = diversity.experiment(_short(run), RATES, SEEDS)
    except LabError as error:
        page.note(escape(sentence(error)))
        return
    runs = len(asked.cells())
    page.note(
        f"{runs} short runs, {len(asked.seeds)} seeds at {len(asked.rates)} drop rates, fill this view: accuracy, "
        "|cosine| and effective rank against p, each with its interval over seeds, and a verdict by a stated rule. "
        "They wait in the queue like any others, and what is finished shows at once."
    )
    _start(asked, runs, f"Start the {runs} runs")
    _command(asked)


def _short(run: Run) -> RunConfig:
    """This run's task and settings without any dropout. Epochs are those that the command line proposes, whatever the
    run's own: a run of two was made to try something out, and the experiment is not."""
    config = run.config
    return replace(
        config, plan=dense(), method="mlae", epochs=EPOCHS, evaluations=1, seed=0, max_seconds=None,
        mask_per="step", input_dropout=0.0,
    )  # fmt: skip


def _start(asked: Experiment, runs: int, words: str) -> None:
    """Say how long the runs that are missing take, and start them once that is confirmed."""
    page.note(escape(_takes(asked, runs)))
    with st.popover(words, key="diversity_ask"):
        page.note(f"{_counted(runs)} will wait in the queue. Other people's runs take turns with them.")
        if not st.button("Yes, start", key="diversity_start", type="primary"):
            return
        try:
            diversity.launch(queries.store(), asked, visitor.current())
        except EXPECTED_ERRORS as error:
            _trouble(error, "What stands in the queue stays there; the same button starts the rest.")
            return
        queries.refresh()
        st.rerun()


def _takes(asked: Experiment, runs: int) -> str:
    """How long so many runs of an experiment take: their number times the estimate for its dense run."""
    key = ("diversity_estimate", asked.config)
    one = queries.shared(key, lambda: estimated(asked.config), _READ_SECONDS)
    if one.seconds is None:
        return f"How long that takes is not known yet. {one.reason}"
    each, all_of_them = page.seconds_text(one.seconds), page.seconds_text(runs * one.seconds)
    together = "" if runs == 1 else f", together about {all_of_them}, one after the other"
    return f"{_counted(runs)} of about {each}{together}. {one.reason}"


def _counted(runs: int) -> str:
    return f"{runs} run{'s' * (runs != 1)}"


def _cancel(now: Result) -> None:
    """A button that cancels this visitor's queued runs of the experiment; nothing if there are none."""
    own = diversity.waiting(now.runs.values(), visitor.current())
    if not own:
        return
    what = f"{_counted(len(own))} of yours. What trains already goes on, and so do other people's."
    if not st.button("Cancel the ones that wait", key="diversity_cancel", help=what):
        return
    try:
        diversity.cancel(queries.store(), own)
    except EXPECTED_ERRORS as error:
        _trouble(error, "Some may wait still: press the button once more.")
        return
    queries.refresh()
    st.rerun()


def _trouble(error: Exception, then: str) -> None:
    """Say what went wrong, and what to do. The page shows what the store holds when it is drawn the next time."""
    queries.refresh()
    st.warning(f"{visitor.sentence(error)} {then}")


def _command(asked: Experiment) -> None:
    page.command(asked.command())


def _draw(now: Result) -> None:
    asked = now.experiment
    first, *rest = now.verdict
    st.html(
        '<p role="status" style="font-size:1.35rem;font-weight:620;line-height:1.35;margin:.6rem 0 '
        ".2rem;max-width:66ch;"
        f'letter-spacing:-0.01em">{escape(first)}</p>'
    )
    page.note("<br>".join(map(escape, rest)))
    page.note(
        "The rule: supported if the 95 % interval (Student's t over seeds) of the paired difference in mean |cosine|, "
        "expert dropout minus dense, lies below 0; contradicted if above; else not settled. Each p is judged alone. "
        f"Rises and falls are told by the same rule. True of this task, this backbone and {asked.config.epochs} "
        "epochs: |cosine| also grows while a network learns, and masks slow it down, so read it beside the accuracy."
    )
    if now.points:
        with st.container(key="pair_diversity"):
            left, right = st.columns(2, gap="large")
        for number, measure in enumerate(_SHOWN):
            with (left, right)[number % 2]:
                live_plot(diversity_figure(now, measure), key=f"diversity_{measure}")
        page.note(
            "Mean over seeds of each run's last epoch and over layers, all experts on; bands: 95 % interval of the "
            "mean. |cosine|: paper, A.4, without the diagonal. Effective rank of ΔW: exp(−Σ p ln p) with p = σ / Σσ; "
            "stable rank: ‖ΔW‖²<sub>F</sub> / σ₁². Expert and token begin at the dense run, LoRA at LoRA without "
            "dropout (λ stays 1)."
        )
        with st.expander("The numbers"):
            _numbers(now)
    if now.missing:
        on_the_way = [cell for cell in now.missing if cell in now.runs]
        page.note(f"{len(on_the_way)} of the {len(now.missing)} runs without a measurement wait or are under way.")
        if lacking := len(now.missing) - len(on_the_way):
            _start(asked, lacking, f"Start the {lacking} that are missing")
        _cancel(now)
    page.note("The command that runs what is missing and tells the result:")
    _command(asked)


def _numbers(now: Result) -> None:
    head = ("", "p", "seeds", *MEASURES.values(), "|cosine| against p = 0")
    rows = []
    for point in now.points:
        cells = [ARMS[point.arm], f"{point.rate:g}", str(len(point.seeds))]
        for name in MEASURES:
            found = point.values.get(name)
            digits = {"accuracy": 1, "effective_rank": 2, "stable_rank": 2}.get(name, 4)
            reach = (
                ""
                if found is None or found.low is None or found.high is None
                else f" ± {(found.high - found.low) / 2:.{digits}f}"
            )
            cells.append("–" if found is None else f"{found.mean:.{digits}f}{reach}")
        gap = point.differences.get("absolute")
        cells.append(
            "–"
            if gap is None
            else f"{gap.mean:+.4f}" + ("" if gap.low is None else f" ({gap.low:+.4f} to {gap.high:+.4f})")
        )
        rows.append(cells)
    _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    line = "border:0;border-bottom:1px solid color-mix(in srgb, currentColor 14%, transparent)"
    cell = f"padding:.3rem 1.2rem .3rem 0;text-align:left;vertical-align:top;font-size:.86rem;white-space:nowrap;{line}"
    top = "".join(f'<th scope="col" style="{cell};font-weight:500;opacity:.7">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{cell}">{escape(value)}</td>' for value in row) + "</tr>" for row in rows
    )
    st.html(
        '<div style="overflow-x:auto"><table '
        'style="border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.3rem 0">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
