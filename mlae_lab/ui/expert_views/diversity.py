"""The central experiment: does masking make experts less similar? Shows the studies of it, or proposes one."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog, study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.core.study import Study
from mlae_lab.data.listing import counted
from mlae_lab.errors import LabError
from mlae_lab.runs import presets
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.estimating import estimated
from mlae_lab.ui.markdown import sentence
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.recorded_experiment import recorded_experiment
from mlae_lab.ui.similarity_view import draw_similarity
from mlae_lab.ui.study_queries import load, stored_studies

_CACHE_SECONDS = 5.0


def draw(run: Run) -> None:
    """Draw the newest study on the run's task, or propose one; studies on other tasks can be chosen.

    Before there is one, the recorded experiment is the answer.
    """
    task = run.config.task
    known = [stored for stored in stored_studies() if study_presets.dropout_arms(stored.study)]
    known.sort(key=lambda stored: _task(stored.study) != task)
    options: list[StoredStudy | None] = [*known]
    if not known or _task(known[0].study) != task:
        options.insert(0, None)
    selected = options[0]
    if len(options) > 1:
        names = [_title(stored.study) if stored else f"{catalog.task(task).title}: not run yet" for stored in options]
        number = st.selectbox(
            "Study", range(len(options)), format_func=names.__getitem__, key=f"diversity_study_{task}"
        )  # fmt: skip
        selected = options[number]
    if selected is None:
        recorded_experiment()
        _introduction()
        _propose(run)
        return
    _introduction()
    loaded = load(selected.id)
    draw_similarity(loaded)
    missing = len(loaded.state.cells) - loaded.state.done
    if missing:
        page.note(f"Without a result: {counted(missing, 'run')}.")
    link("studies", "Open the study: progress, stop, resume, more seeds", study=selected.id)


def _introduction() -> None:
    page.computed(
        "The paper states that masking makes experts less similar (section 4.3, A.4). Theory for squared loss says the "
        "opposite. The study trains the same network in four ways with equal settings: all experts always active; "
        "experts dropped for a whole step (the paper's mask); experts dropped per token, the same noise without the "
        "structure; and LoRA with dropout of its inputs.",
        "In theory, dropout on factors has the penalty p/(1−p) · Σ ‖λᵢ bᵢ aᵢᵀx‖², which is smallest when all experts "
        "contribute equally (Cavazza et al. 2017; Mianjy et al. 2018).",
    )


def _task(study: Study) -> str:
    return study.arms[0].config.task


def _title(study: Study) -> str:
    config = study.arms[0].config
    task, backbone = catalog.task(config.task).title, catalog.backbone(config.backbone).title
    return f"{task}, {counted(config.epochs, 'epoch')}, {counted(len(study.seeds), 'seed')}, {backbone}"


def _propose(run: Run) -> None:
    page.section("Repeat it on this task")
    try:
        study = study_presets.diversity(_base_config(run))
    except LabError as error:
        page.note(escape(sentence(error)))
        return
    arms = study_presets.dropout_arms(study) or {}
    page.note(
        f"{study.runs} short runs, {len(study.seeds)} seeds at {len({rate for _, rate in arms})} drop rates, give "
        "accuracy, |cosine| and effective rank against p, each with its interval over seeds, and a verdict by a stated "
        "rule. They are queued like all other runs, and results appear as runs finish."
    )
    _start(study)
    page.command(study_presets.diversity_command(study))


def _base_config(run: Run) -> RunConfig:
    """This run's task and settings without dropout.

    The number of epochs is the command line's default: the run may have been a short trial.
    """
    config = run.config
    return replace(
        config, plan=dense(), method="mlae", epochs=study_presets.EPOCHS, evaluations=1, seed=0, max_seconds=None,
        mask_per="step", input_dropout=0.0, consistency=0.0, learned_drop_rates="off",
    )  # fmt: skip


def _start(study: Study) -> None:
    """Show how long the runs take, start them after confirmation and open the study."""
    page.note(escape(_duration_text(study)))
    with st.popover(f"Start {counted(study.runs, 'run')}", key="diversity_ask"):
        page.note(f"{counted(study.runs, 'run')} will be queued, alternating with other users' runs.")
        if not st.button("Start", key="diversity_start", type="primary"):
            return
        try:
            name = presets.launch(queries.store(), study, visitor.current()).id
        except EXPECTED_ERRORS as error:
            queries.refresh()
            st.warning(f"{visitor.sentence(error)} Queued runs stay in the queue; the same button starts the rest.")
            return
        queries.refresh()
        go("studies", study=name)


def _duration_text(study: Study) -> str:
    """How long the runs of a study take: their number times the estimate for its dense run."""
    config = study.arms[0].config
    estimate = queries.shared(("diversity_estimate", config), lambda: estimated(config), _CACHE_SECONDS)
    if estimate.seconds is None:
        return f"No time estimate yet. {estimate.reason}"
    per_run, total = page.seconds_text(estimate.seconds), page.seconds_text(study.runs * estimate.seconds)
    return (
        f"{counted(study.runs, 'run')} of about {per_run}, about {total} in total, one after another. {estimate.reason}"
    )
