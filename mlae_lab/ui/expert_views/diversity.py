"""The central experiment: does masking make experts less similar? Reads its finished runs from the store."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.core.seed_statistics import mean_text
from mlae_lab.data.listing import counted
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
from mlae_lab.ui.tables import large, table

_SHOWN = ("absolute", "effective_rank", "accuracy", "stable_rank")
_CACHE_SECONDS = 5.0


def draw(run: Run) -> None:
    """Draw the newest experiment on the run's task, or propose one; experiments on other tasks can be chosen."""
    _introduction()
    task = run.config.task
    experiments = sorted(diversity.experiments(queries.runs()), key=lambda experiment: experiment.config.task != task)
    options: list[Experiment | None] = [*experiments]
    if not experiments or experiments[0].config.task != task:
        options.insert(0, None)
    selected = options[0]
    if len(options) > 1:
        names = [
            _title(experiment) if experiment else f"{catalog.task(task).title}: not run yet" for experiment in options
        ]
        number = st.selectbox(
            "Experiment", range(len(options)), format_func=names.__getitem__, key=f"diversity_experiment_{task}"
        )
        selected = options[number]
    if selected is None:
        _propose(run)
        return
    state = queries.shared(("diversity", selected), lambda: diversity.result(queries.store(), selected), _CACHE_SECONDS)
    _draw(state)


def _introduction() -> None:
    page.note(
        "The paper states that masking makes experts less similar (section 4.3, A.4). In theory, dropout on factors "
        "does the opposite for squared loss: its penalty p/(1−p) · Σ ‖λᵢ bᵢ aᵢᵀx‖² is smallest when all experts "
        "contribute equally (Cavazza et al. 2017; Mianjy et al. 2018). The experiment trains the same network in four "
        "ways with equal settings: all experts always active; experts dropped for a whole step (the paper's mask); "
        "experts dropped per token, the same noise without the structure; and LoRA with dropout of its inputs."
    )


def _title(experiment: Experiment) -> str:
    config = experiment.config
    task, backbone = catalog.task(config.task).title, catalog.backbone(config.backbone).title
    return f"{task}, {counted(config.epochs, 'epoch')}, {counted(len(experiment.seeds), 'seed')}, {backbone}"


def _propose(run: Run) -> None:
    page.section("Not run yet")
    try:
        experiment = diversity.experiment(_base_config(run), RATES, SEEDS)
    except LabError as error:
        page.note(escape(sentence(error)))
        return
    runs = len(experiment.cells())
    page.note(
        f"{runs} short runs, {len(experiment.seeds)} seeds at {len(experiment.rates)} drop rates, give accuracy, "
        "|cosine| and effective rank against p, each with its interval over seeds, and a verdict by a stated rule. "
        "They are queued like all other runs, and results appear as runs finish."
    )
    _start(experiment, runs, f"Start {counted(runs, 'run')}")
    _command(experiment)


def _base_config(run: Run) -> RunConfig:
    """Return this run's task and settings without dropout.

    The number of epochs is the command line's default: the run may have been a short trial.
    """
    config = run.config
    return replace(
        config, plan=dense(), method="mlae", epochs=EPOCHS, evaluations=1, seed=0, max_seconds=None,
        mask_per="step", input_dropout=0.0, consistency=0.0, learned_drop_rates="off",
    )  # fmt: skip


def _start(experiment: Experiment, runs: int, label: str) -> None:
    """Show how long the missing runs take, and start them after confirmation."""
    page.note(escape(_duration_text(experiment, runs)))
    with st.popover(label, key="diversity_ask"):
        page.note(f"{counted(runs, 'run')} will be queued, alternating with other users' runs.")
        if not st.button("Start", key="diversity_start", type="primary"):
            return
        try:
            diversity.launch(queries.store(), experiment, visitor.current())
        except EXPECTED_ERRORS as error:
            _warn(error, "Queued runs stay in the queue; the same button starts the rest.")
            return
        queries.refresh()
        st.rerun()


def _duration_text(experiment: Experiment, runs: int) -> str:
    """Say how long so many runs of an experiment take: their number times the estimate for its dense run."""
    key = ("diversity_estimate", experiment.config)
    estimate = queries.shared(key, lambda: estimated(experiment.config), _CACHE_SECONDS)
    if estimate.seconds is None:
        return f"No time estimate yet. {estimate.reason}"
    per_run, total = page.seconds_text(estimate.seconds), page.seconds_text(runs * estimate.seconds)
    together = "" if runs == 1 else f", about {total} in total, one after another"
    return f"{counted(runs, 'run')} of about {per_run}{together}. {estimate.reason}"


def _cancel(state: Result) -> None:
    """Draw a button that cancels this visitor's queued runs of the experiment; nothing if there are none."""
    own = diversity.waiting(state.runs.values(), visitor.current())
    if not own:
        return
    help_text = f"{counted(len(own), 'run')} of yours. Runs that already train, and other users' runs, continue."
    if not st.button("Cancel queued runs", key="diversity_cancel", help=help_text):
        return
    try:
        diversity.cancel(queries.store(), own)
    except EXPECTED_ERRORS as error:
        _warn(error, "Some may still be queued: press the button again.")
        return
    queries.refresh()
    st.rerun()


def _warn(error: Exception, advice: str) -> None:
    """Show an error and what to do. The page shows the current state of the store when it is drawn next."""
    queries.refresh()
    st.warning(f"{visitor.sentence(error)} {advice}")


def _command(experiment: Experiment) -> None:
    page.command(experiment.command())


def _draw(state: Result) -> None:
    experiment = state.experiment
    first, *rest = state.verdict
    large(first)
    page.note("<br>".join(map(escape, rest)))
    page.note(
        "The rule: supported if the 95 % interval (Student's t over seeds) of the paired difference in mean |cosine|, "
        "expert dropout minus dense, lies below 0; contradicted if above; otherwise not settled. Each p is tested "
        f"separately; rises and falls follow the same rule. Valid for this task, this backbone and "
        f"{experiment.config.epochs} epochs. |cosine| also grows during training, and masks slow "
        "training down: compare it together with accuracy."
    )
    if state.points:
        with st.container(key="pair_diversity"):
            left, right = st.columns(2, gap="large")
        for number, measure in enumerate(_SHOWN):
            with (left, right)[number % 2]:
                live_plot(diversity_figure(state, measure), key=f"diversity_{measure}")
        page.note(
            "Mean over seeds of each run's last epoch and over layers, all experts on; bands: 95 % interval of the "
            "mean, cut at 100 % accuracy. |cosine|: paper, A.4, without the diagonal. "
            "Effective rank of ΔW: exp(−Σ p ln p) with p = σ / Σσ; "
            "stable rank: ‖ΔW‖²<sub>F</sub> / σ₁². At p = 0 the arms expert and token are the dense run, and the "
            "arm LoRA is LoRA without dropout, with λ fixed at 1."
        )
        with st.expander("Table of values"):
            _numbers(state)
    if state.missing:
        started = [cell for cell in state.missing if cell in state.runs]
        page.note(f"Without a result: {counted(len(state.missing), 'run')}; queued or running: {len(started)}.")
        if unstarted := len(state.missing) - len(started):
            _start(experiment, unstarted, f"Start {counted(unstarted, 'missing run')}")
        _cancel(state)
    page.note("Equivalent command, which runs the missing cells and prints the result:")
    _command(experiment)


def _numbers(state: Result) -> None:
    header = ("Arm", "p", "seeds", *MEASURES.values(), "|cosine| relative to p = 0")
    rows = []
    for point in state.points:
        cells = [ARMS[point.arm], f"{point.rate:g}", str(len(point.seeds))]
        for name in MEASURES:
            statistics = point.values.get(name)
            digits = {"accuracy": 1, "effective_rank": 2, "stable_rank": 2}.get(name, 4)
            cells.append("–" if statistics is None else mean_text(statistics, digits))
        gap = point.differences.get("absolute")
        cells.append(
            "–"
            if gap is None
            else f"{gap.mean:+.4f}" + ("" if gap.low is None else f" ({gap.low:+.4f} to {gap.high:+.4f})")
        )
        rows.append([*map(escape, cells)])
    table(header, rows)
