"""The tables of the paper: a list, and for one its results next to the printed numbers and what it would start."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.backbones import backbone
from mlae_lab.core.config import RunConfig
from mlae_lab.core.paper_arms import PAPER_BACKBONE, REFUSED, STAND_INS, table_arms
from mlae_lab.core.paper_tables import KEYS, MEAN, label_of, printed_table
from mlae_lab.core.seed_statistics import mean_text, points
from mlae_lab.core.study import MAX_SEEDS
from mlae_lab.data.listing import counted
from mlae_lab.data.tasks import located
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paper_results, paper_studies, studies, throughput
from mlae_lab.runs.paper_results import TableResults
from mlae_lab.runs.paper_studies import TableStudy
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.runs.throughput import Throughput
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.estimating import estimated_arm
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.study_queries import load, stored_studies
from mlae_lab.ui.study_view import STYLE, progress_html
from mlae_lab.ui.tables import table

REFRESH_SECONDS = 5.0
_PLAN_SECONDS = 5.0


def draw_tables() -> None:
    """Draw the list of tables with what is ready and what was trained."""
    stored = paper_studies.stored_tables(stored_studies())
    before: set = set()
    means = {printed_table(key).means_of: label_of(key) for key in KEYS if printed_table(key).means_of}
    for key in KEYS:
        if printed_table(key).means_of:
            continue
        with st.container(key=f"listed_table_{key}", gap="small"):
            link("paper", f"{label_of(key)}: {printed_table(key).title}", table=key)
            if key in REFUSED:
                text = "Not trained: images per second are measured, parameters at inference are counted"
            else:
                definition = table_arms(key)
                tasks, missing = paper_studies.table_tasks(key)
                own = paper_studies.trainings(key, tasks, backbone(paper_studies.table_backbone(tasks)))
                text = f"{counted(len(definition.rows), 'row')} · {_ready_text(key, tasks, missing)}"
                shared = len(own & before)
                before |= own
                text += f" · {counted(len(own), 'arm')}"
                text += f", {shared} of them also in a table above" if shared else ""
                if key in means:
                    text += f" · its means are {means[key]}"
            newest = stored.get(key, [])
            if newest:
                state = load(newest[0].id, REFRESH_SECONDS).state
                text += f" · trained: {state.done} of {len(state.cells)} runs"
            st.html(f'<div class="lab-choice"><span>{escape(text)}</span></div>')


def _ready_text(key: str, tasks: tuple[str, ...], missing: tuple[str, ...]) -> str:
    of_paper = len(table_arms(key).tasks)
    ready = f"{of_paper - len(missing)} of {counted(of_paper, 'task')} ready"
    return f"{ready}, stand-in on {counted(len(tasks), 'bundled task')}" if catalog.task(tasks[0]).bundled else ready


def draw_table(text: str) -> None:
    """Draw one table. Raises ConfigError for one that the paper does not have."""
    if text == "table3":
        _draw_efficiency()
        return
    key = paper_studies.resolved(text)
    definition = table_arms(key)
    page.heading(f"{definition.table.label}: {escape(definition.table.title)}", escape(definition.question))
    stored = paper_studies.stored_tables(stored_studies()).get(key, [])
    if stored:
        _draw_stored(stored)
    page.section("Train")
    _draw_form(key)
    page.section("The paper's numbers")
    page.note(escape(definition.table.note))
    for row, reason in definition.left_out:
        page.note(f"Not trained: {escape(row)}, {escape(reason)}.")


# ---------------------------------------------------------------- results


def _draw_stored(stored: list[StoredStudy]) -> None:
    names = {entry.id: entry for entry in stored}
    chosen = stored[0].id
    if len(stored) > 1:
        chosen = st.selectbox(
            "Study", list(names), format_func=lambda name: _name(names[name]), key=f"paper_study_{stored[0].id}"
        )
    st.html(STYLE)
    live = not load(chosen).state.is_over

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def results() -> None:
        loaded = load(chosen)
        state = loaded.state
        if state.done < len(state.cells):
            st.html(progress_html(loaded))
            page.note(f"{state.done} of {len(state.cells)} runs are done.")
        _draw_results(
            queries.shared(
                ("paper_results", chosen, state.done),
                lambda: paper_results.table_results(queries.store(), state),
                REFRESH_SECONDS,
            )
        )
        if live and state.is_over:
            st.rerun()

    results()
    link("studies", "Open the study: intervals, figures, curves, report", study=chosen)


def _name(entry: StoredStudy) -> str:
    study = entry.study
    return f"{entry.id}: {counted(study.arms[0].config.epochs, 'epoch')}, {counted(len(study.seeds), 'seed')}"


def _draw_results(results: TableResults) -> None:
    study = results.state.stored.study
    page.section(escape(study.title))
    badges = list(dict.fromkeys(arm.config.badge for arm in study.arms))
    page.facts(
        ("Evaluated", escape(" and ".join(dict.fromkeys(badge.protocol for badge in badges)))),
        ("Images", escape(" and ".join(dict.fromkeys(badge.data for badge in badges)))),
        ("Weights", escape(" and ".join(dict.fromkeys(badge.weights for badge in badges)))),
        ("Seeds", str(len(study.seeds))),
    )
    if results.choices:
        _draw_choices(results)
    else:
        _draw_cells(results)
    if results.differs:
        page.note(f"No claim about the paper's numbers: {escape(', '.join(results.differs[:6]))}.")


def _draw_choices(results: TableResults) -> None:
    rows = []
    for choice in results.choices:
        own, paper = choice.result, choice.paper
        rows.append(
            (
                escape(catalog.task(choice.task).title),
                f"{own.drop_rate:g}" if own else "–", f"{paper.drop_rate:g}" if paper else "–",
                f"{own.coefficient_init:g}" if own else "–", f"{paper.coefficient_init:g}" if paper else "–",
            )
        )  # fmt: skip
    table(("Task", "p, ours", "p, paper", "λ, ours", "λ, paper"), rows)
    page.note("Ours: the highest mean on val. On 200 images the standard error of one accuracy is about 3 points.")


def _draw_cells(results: TableResults) -> None:
    titles = {name: catalog.task(name).title for name in results.tasks}
    column = st.selectbox(
        "Column", [MEAN, *(name for name in results.columns if name != MEAN)],
        format_func=lambda name: "Mean" if name == MEAN else titles.get(name) or str(name).capitalize(),
        key=f"paper_column_{results.state.stored.id}", width=320,
    )  # fmt: skip
    digits = 3 if results.arms.measure == "similarity" else 1
    rows = []
    for row in results.rows:
        cell = results.cells[row, column]
        own, printed = results.to_reference(row, column)
        is_reference = row == results.reference
        rows.append(
            (
                escape(row) + (" (reference)" if is_reference else ""),
                mean_text(cell.result, digits).replace(" ", "\u00a0") if cell.result else "–",
                cell.paper.text if cell.paper else "–",
                "–" if cell.difference is None else points(cell.difference, signed=True),
                "" if is_reference else "–" if own is None else f"{own:+.{digits}f}".replace("-", "−"),
                "" if is_reference else "–" if printed is None else points(printed, signed=True),
                escape(cell.claim),
            )
        )
    head = ("Row", "Ours", "Paper", "Difference", "To the reference, ours", "To the reference, paper", "")
    table(head, rows)
    what = "Mean |cosine| of the experts" if results.arms.measure == "similarity" else "Top-1 accuracy in percent"
    cited = next((cell.paper for row in results.rows if (cell := results.cells[row, column]).paper), None)
    over = f", {cited.note}" if cited and cited.note.startswith("over") else ""
    source = f" The paper's numbers: {cited.table}{over}." if cited else ""
    page.note(f"{what}, mean over seeds and half its 95 % interval.{escape(source)}")


def _draw_efficiency() -> None:
    page.heading("Table 3: Efficiency at inference", "What does a method cost at inference?")
    page.section("Images per second")
    measured = throughput.measured(queries.store().folder)
    for entry in measured:
        _draw_rates(entry)
    if not measured:
        page.note("Not measured in this store yet. This command measures on its machine, which should be idle:")
    page.command(f"{PROGRAM} paper table3 --measure")
    page.section("Added parameters")
    table(
        ("Row", "Ours, M", "Paper, M", "Difference"),
        [
            (
                escape(row.row), f"{row.added:.3f}", "–" if row.paper is None else f"{row.paper:g}",
                "–" if row.paper is None else points(row.added - row.paper, signed=True),
            )
            for row in paper_results.added_parameters()
        ],
    )  # fmt: skip
    page.note(f"Counted on ViT-B/16. Not trained: {escape(REFUSED['table3'])}.")
    page.note(escape(printed_table("table3").note))


def _draw_rates(entry: Throughput) -> None:
    """A measurement next to the paper's numbers; only ViT-B/16 is compared."""
    header = ["Row", "Update"]
    for batch in throughput.BATCHES:
        header += [f"Batch {batch}"] + ["Paper"] * entry.is_papers
    rows = []
    for row in throughput.rate_rows(entry):
        cells = [escape(row.row), "merged" if row.merged else "in the network"]
        for batch in throughput.BATCHES:
            paper = [f"{row.paper[batch]:g}" if batch in row.paper else "–"]
            cells += [f"{row.rates[batch]:.1f}"] + paper * entry.is_papers
        rows.append(tuple(cells))
    backbone = escape(entry.backbone.removesuffix(throughput.RANDOM))
    paper = "The paper: an RTX 3090." if entry.is_papers else "The paper's numbers are of ViT-B/16."
    page.note(f"Measured: {escape(entry.where)}, {backbone}. {paper}")
    table(tuple(header), rows)


# ---------------------------------------------------------------- start


def _draw_form(key: str) -> None:
    definition = table_arms(key)
    proposed, missing = paper_studies.table_tasks(key)
    ready = [name for name in definition.tasks if name not in missing]
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        tasks = st.multiselect(
            "Tasks", [*ready, *STAND_INS], list(proposed), format_func=lambda name: catalog.task(name).title,
            key=f"paper_tasks_{key}",
        )  # fmt: skip
        seeds = int(st.number_input("Seeds", 1, MAX_SEEDS, len(paper_studies.SEEDS), key="paper_seeds", width=140))
        epochs = st.number_input(
            "Epochs", 1, 10_000, None, placeholder="default", key="paper_epochs", width=160,
            help="Empty: those of the methods' recipes; of a stand-in, the lab's proposal for a short run.",
        )  # fmt: skip
    if not tasks:
        page.note("Choose a task.")
        return
    try:
        planned = queries.shared(
            ("paper_study", key, *tasks, seeds, epochs),
            lambda: _planned(key, tasks, seeds, epochs, lambda config: config),
            _PLAN_SECONDS,
        )
    except LabError as error:
        st.warning(visitor.sentence(error))
        return
    _draw_plan(planned, lambda: _planned(key, tasks, seeds, epochs, located))
    command = f"{PROGRAM} paper {key} --tasks {','.join(tasks)} --seeds {seeds}"
    with st.expander("Equivalent command"):
        page.command(f"{command}{f' --epochs {int(epochs)}' if epochs else ''} --start")


def _planned(
    key: str, tasks: list[str], seeds: int, epochs: float | None, complete: Callable[[RunConfig], RunConfig]
) -> TableStudy:
    return paper_studies.table_study(
        key, tasks, seeds=range(seeds), epochs=None if epochs is None else int(epochs), complete=complete
    )


def _draw_plan(planned: TableStudy, with_images: Callable[[], TableStudy]) -> None:
    """What a table would start, and the button that starts it.

    Args:
        planned: The table without the labels of its images, which decide what can be reused.
        with_images: The same with them, for the start.
    """
    study = planned.study
    plan = queries.shared(
        ("study_plan", study.hash),
        lambda: studies.plan(queries.store(), study, lambda _, config: estimated_arm(config)),
        _PLAN_SECONDS,
    )
    epochs = sorted({arm.config.epochs for arm in study.arms})
    shared = len(paper_studies.shared(planned))
    page.facts(
        ("Arms × seeds", f"{len(study.arms)} × {len(study.seeds)}"),
        ("Runs that are there", f"{plan.reused} of {study.runs}" if planned.is_stand_in else "known at the start"),
        ("To run", f"{plan.to_run}" if planned.is_stand_in else f"at most {study.runs}"),
        ("Epochs", " and ".join(map(str, epochs))),
        ("Estimated time", page.seconds_text(plan.seconds) if plan.seconds else "not known" if plan.to_run else "none"),
        ("Backbone", escape(catalog.backbone(planned.backbone).title)),
    )
    known = paper_studies.stored_tables(stored_studies()).get(planned.arms.table.key, [])
    is_new = study.hash not in [entry.study.hash for entry in known]
    if (plan.to_run or is_new) and st.button("Start", type="primary", key="paper_start"):
        try:
            stored = paper_studies.start(queries.store(), with_images(), visitor.current())
        except LabError as error:
            st.error(visitor.sentence(error))
            return
        queries.refresh()
        go("studies", study=stored.id)
    for note in planned.notes:
        page.note(escape(note))
    if shared:
        page.note(f"{counted(shared, 'other table')} can reuse some of these runs.")
    if planned.wants_weights:
        page.note(f"The paper's weights are not here: `{PROGRAM} fetch {PAPER_BACKBONE}` downloads them.")
    _draw_missing([catalog.task(name) for name in planned.missing])


def _draw_missing(tasks: list[catalog.Task]) -> None:
    """Name the tasks without images, with a link to fetch the first."""
    if not tasks:
        return
    few = ", ".join(task.title for task in tasks[:6])
    more = f" and {len(tasks) - 6} more" if len(tasks) > 6 else ""
    page.note(f"No images here of {escape(few)}{more}.")
    link("task", f"Fetch {tasks[0].title}", task=tasks[0].name)
