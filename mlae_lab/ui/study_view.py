"""The page of one study: verdict, progress and buttons, figures, and the arms as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.inference import ALPHA, saturation
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.study import MAX_SEEDS
from mlae_lab.core.study_file import as_yaml
from mlae_lab.data.listing import counted
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import choosing, studies, study_results
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import StoreError
from mlae_lab.runs.study_results import Results
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.arms_table import arms_table, hidden_arms
from mlae_lab.ui.choice_view import draw_choice
from mlae_lab.ui.figures.study_report import study_report
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import go
from mlae_lab.ui.run_actions import confirmed_button, needs_no_confirmation
from mlae_lab.ui.similarity_view import draw_similarity
from mlae_lab.ui.study_masks import draw_masks
from mlae_lab.ui.study_queries import LoadedStudy, choice_report, load, time_left

REFRESH_SECONDS = 2.0
_MOST_SEEDS = 10  # proposed limit of "add seeds until it is settled"
_ERROR, _NOTE = "study_error", "study_note"
STYLE = """<style>
.study-verdict { font-size: 1.5rem; font-weight: 620; line-height: 1.3; margin: .7rem 0 .2rem; max-width: 66ch;
  letter-spacing: -0.01em; text-wrap: pretty; }
.study-bar { display: flex; height: 8px; border-radius: 4px; overflow: hidden; max-width: 620px; margin: .5rem 0 .3rem;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.study-bar i { display: block; background: var(--lab-accent); }
.study-bar i.running { background: repeating-linear-gradient(45deg, var(--lab-accent) 0 4px, transparent 4px 8px); }
.study-bar i.failed { background: var(--lab-failure); }
.st-key-study_figures { display: grid !important; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.6rem 2rem;
  align-items: start; }
.st-key-study_figures > [class*="st-key-study_wide_"], .st-key-study_figures > :has(> [class*="st-key-study_wide_"]) {
  grid-column: 1 / -1; }
@media (max-width: 1000px) { .st-key-study_figures { grid-template-columns: minmax(0, 1fr); } }
</style>"""


def draw_study(name: str) -> None:
    """Draw the page of a study. Raises StoreError if it is unknown or damaged."""
    loaded = load(name)
    _draw_heading(loaded)
    st.html(STYLE)
    live = not loaded.state.is_over or loaded.state.awaits_stage
    mark = _mark(loaded)

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def panel() -> None:
        try:
            current = load(name)
        except StoreError:  # deleted meanwhile
            st.rerun()
        _draw_verdict(current)
        _draw_actions(current)
        draw_similarity(current)
        hidden = _hidden_arms(current)
        _draw_figures(current, hidden)
        _draw_arms(current, hidden)
        if _mark(current) != mark:
            st.rerun()  # a study that is over needs no timer

    panel()
    _draw_files(name)


def _mark(loaded: LoadedStudy) -> tuple:
    return loaded.stored.version, loaded.stored.halted, loaded.state.is_over, loaded.state.awaits_stage


# ---------------------------------------------------------------- head


def _draw_heading(loaded: LoadedStudy) -> None:
    study, stored = loaded.results.study, loaded.stored
    page.heading(escape(study.title), escape(study.question))
    tasks = list(dict.fromkeys(arm.config.task for arm in study.arms))
    protocols = sorted({arm.config.protocol for arm in study.arms})
    facts = [
        ("Arms × seeds", f"{len(study.arms)} × {len(study.seeds)}"),
        ("Task", escape(", ".join(catalog.task(task).title for task in tasks[:3]))),
        ("Evaluated on", " and ".join(protocols)),
        ("Reference", escape(study.reference_title)),
    ]
    if study.margin is not None:
        facts.append(("Margin", f"± {points(study.margin)} points"))
    by = f" by {escape(visitor.name_of(stored.owner))}" if stored.owner else ""
    facts.append(("Started", _date(stored.created) + by))
    page.facts(*facts)
    if study.notes:
        page.note(escape(study.notes))
    badges = [vars(arm.config.badge) for arm in study.arms]
    own = {"task", "data"} if len(set(study.references.values())) > 1 else set()  # compared within each task
    apart = [name for name in badges[0] if name not in own and len({badge[name] for badge in badges}) > 1]
    if apart:
        st.warning(f"The arms differ in {', '.join(apart)}: their accuracies are not comparable as they are.")


def _draw_verdict(loaded: LoadedStudy) -> None:
    results = loaded.results
    if report := choice_report(loaded):
        draw_choice(loaded, report)
    else:
        st.html(f'<p class="study-verdict" role="status">{escape(results.verdict)}</p>')
        _draw_tests(results)
        if text := saturation(arm.statistics.mean for arm in results.arms if arm.statistics is not None):
            page.note(text)
        if len(results.arms) == 1 and (noise := study_results.noise(results.arms[0].statistics)):
            page.note(noise)
    if loaded.state.done < len(loaded.state.cells) or not loaded.state.is_over:
        st.html(progress_html(loaded) + f'<p class="lab-note">{escape(_progress_text(loaded))}</p>')


def _draw_tests(results: Results) -> None:
    """How many comparisons the verdict rests on, if several."""
    tests = sum(bool(result.comparison and result.comparison.p is not None) for result in results.arms)
    if tests > 1:
        page.note(
            f"{tests} comparisons with {escape(results.study.reference_title)}, paired by seed, corrected by Holm's "
            f"procedure: the probability of one or more false differences is at most {100 * ALPHA:g} %."
        )


def progress_html(loaded: LoadedStudy) -> str:
    """The progress of a study as a bar: done, running and failed runs."""
    counts, total = loaded.state.counts, len(loaded.state.cells)
    parts = "".join(
        f'<i class="{kind}" style="width:{100 * counts[kind] / total:.2f}%"></i>'
        for kind in ("done", "running", "failed")
        if counts.get(kind)
    )
    done = counts.get("done", 0)
    return (
        f'<div class="study-bar" role="progressbar" aria-label="Runs that are done" aria-valuemin="0" '
        f'aria-valuemax="{total}" aria-valuenow="{done}">{parts}</div>'
    )


def _progress_text(loaded: LoadedStudy) -> str:
    state = loaded.state
    counts = [f"{count} {kind}" for kind, count in sorted(state.counts.items()) if kind != "done"]
    text = f"{state.done} of {len(state.cells)} runs are done, {', '.join(counts)}."
    if state.is_over:
        return text + (
            " The study is stopped: resume it to run the rest."
            if loaded.stored.halted
            else " Resume starts what is missing."
        )
    left = time_left(loaded)
    if left is None:
        return f"{text} The time left is unknown: for some arms, no similar run was timed on this machine."
    span = "" if round(left.low) == round(left.high) else f" ({_span(left.low, left.high)})"
    return f"{text} About {page.seconds_text(left.seconds)} left, one run after the other{span}."


def _span(low: float, high: float) -> str:
    return f"{page.seconds_text(low)} to {page.seconds_text(high)}"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


# ---------------------------------------------------------------- buttons


def _draw_actions(loaded: LoadedStudy) -> None:
    state, stored = loaded.state, loaded.stored
    name, store = stored.id, queries.store()
    whose = "" if needs_no_confirmation(stored) else f"This study belongs to {plain(visitor.name_of(stored.owner))}."
    if note := st.session_state.pop(_NOTE, ""):
        st.info(note)
    if error := st.session_state.pop(_ERROR, ""):
        st.warning(error)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if not state.is_over:
            question = f"{whose} Stop it?" if whose else ""
            help_text = "Cancels queued runs; active ones save a checkpoint. Runs of another study continue."
            if confirmed_button("Stop the study", "study_stop", question, help_text):
                _act(lambda: _stopped(studies.stop(store, name)))
        elif state.done < len(state.cells) or state.awaits_stage:
            question = f"{whose} Resume it?" if whose else ""
            if confirmed_button(
                "Resume the study", "study_resume", question, "Resumes or starts every run that is missing."
            ):
                _act(lambda: _begun(len(studies.start(store, name))))
        if len(stored.study.seeds) < MAX_SEEDS:
            with st.popover("Add seeds"):
                _draw_seeds(loaded, whose)
        if state.is_over:
            with st.popover("Delete"):
                _draw_delete(loaded, whose)


def _draw_seeds(loaded: LoadedStudy, whose: str) -> None:
    study = loaded.results.study
    free = MAX_SEEDS - len(study.seeds)
    count = int(st.number_input("Number of seeds", 1, free, min(2, free), key="study_seeds"))
    page.note(_added_text(loaded, count))
    question = f"{whose} Extend it?" if whose else ""
    if confirmed_button(f"Add {counted(count, 'seed')}", "study_extend", question):
        _act(lambda: _extended(loaded, count))
    if len(study.arms) < 2 or not loaded.results.ranked:
        return
    st.divider()
    st.markdown("**Until it is settled**")
    least = len(study.seeds)
    most = int(
        st.number_input(
            "At most so many seeds in all", least, MAX_SEEDS, min(MAX_SEEDS, max(_MOST_SEEDS, least)), key="study_most",
            help="Small differences need many seeds: the limit keeps the study from running for days.",
        )
    )  # fmt: skip
    needed = study_results.seeds_to_add(loaded.results, most)
    if len(study.seeds) < 2:
        page.note("With one seed, the number that would settle the study cannot be estimated: add two seeds first.")
        return
    if not needed:
        page.note("Every difference is settled, or the limit is reached.")
        return
    is_cut = study_results.seeds_to_add(loaded.results, MAX_SEEDS) > needed
    reason = (
        "The differences seen so far need more seeds than the limit, or how many is not known."
        if is_cut
        else "So many detect the differences seen so far with a power of 80 %."
    )
    page.note(
        f"{_added_text(loaded, needed)} {reason} A number from {counted(len(study.seeds), 'seed')} is rough, and "
        "adding seeds again and again until a difference shows finds too many."
    )
    if confirmed_button(f"Add {counted(needed, 'seed')} to settle it", "study_settle", question):
        _act(lambda: _extended(loaded, needed))


def _extended(loaded: LoadedStudy, count: int) -> str:
    stored = studies.extend(queries.store(), loaded.stored.id, count)
    return f"{counted(count, 'seed')} added: this is version {stored.version} of the study."


def _added_text(loaded: LoadedStudy, count: int) -> str:
    study, results = loaded.results.study, loaded.results
    first = max(study.seeds) + 1
    which = f"seed {first}" if count == 1 else f"seeds {first} to {first + count - 1}"
    runs = count * len(study.arms)
    known = [result.seconds for result in results.arms]
    took = ""
    if all(seconds is not None for seconds in known):
        took = f", about {page.seconds_text(count * sum(filter(None, known)))} one after the other"
    return f"Starts {which} for all {counted(len(study.arms), 'arm')}: {counted(runs, 'run')}{took}."


def _draw_delete(loaded: LoadedStudy, whose: str) -> None:
    with_runs = st.checkbox(
        "Delete the runs that it started, too", key="study_delete_runs", help="Runs of another study are kept."
    )
    question = f"{whose} Delete it{' with its runs' if with_runs else '; its runs are kept'}? This cannot be undone."
    if not confirmed_button("Delete the study", "study_delete", question.strip()):
        return
    try:
        studies.delete(queries.store(), loaded.stored.id, with_runs)
    except EXPECTED_ERRORS as error:
        st.session_state[_ERROR] = visitor.sentence(error)
        st.rerun()
    queries.refresh()
    go("studies")


def _act(do: Callable[[], str]) -> None:
    """Do what a button says, and draw the page again with the message or the error."""
    try:
        if note := do():
            st.session_state[_NOTE] = note
    except EXPECTED_ERRORS as error:
        st.session_state[_ERROR] = visitor.sentence(error)
    queries.refresh()
    st.rerun()


def _stopped(counts: tuple[int, int]) -> str:
    stopped, kept = counts
    text = f"{counted(stopped, 'run')} stopped."
    if kept:
        text += f" {counted(kept, 'run')} {'continues' if kept == 1 else 'continue'} for another study."
    return text


def _begun(count: int) -> str:
    return f"{counted(count, 'run')} started or resumed."


# ---------------------------------------------------------------- figures and arms


def _hidden_arms(loaded: LoadedStudy) -> frozenset[str]:
    """The arms that this session hides; kept while it visits other pages."""
    key = f"study_hidden_{loaded.stored.id}"
    st.session_state[key] = hidden_arms(_table_key(loaded), loaded.results, st.session_state.get(key, frozenset()))
    return st.session_state[key]


def _table_key(loaded: LoadedStudy) -> str:
    return f"study_arms_{loaded.stored.id}"


def _draw_figures(loaded: LoadedStudy, hidden: frozenset[str]) -> None:
    results = loaded.results
    tasks = list(dict.fromkeys(arm.config.task for arm in results.study.arms))
    task = ""
    if len(tasks) > 1:
        task = st.selectbox(
            "Task of the figures", tasks, format_func=lambda name: catalog.task(name).title, key="study_task", width=360
        )
    drawn = loaded.figures(hidden, task)
    if not drawn:
        text = "All arms with a result are hidden." if results.ranked else "Figures appear with the first result."
        page.note(text)
    with st.container(key="study_figures"):
        for entry in drawn:
            kind = "wide" if entry.is_wide else "half"
            with st.container(key=f"study_{kind}_{entry.figure.name}"):
                live_plot(entry.figure, key=f"plot_{entry.figure.name}")
                page.note(escape(entry.caption))
    draw_masks(loaded, hidden, task)


def _draw_arms(loaded: LoadedStudy, hidden: frozenset[str]) -> None:
    page.section("Arms")
    opened = arms_table(loaded.results, hidden, _table_key(loaded))
    page.note(
        "A cleared box hides the arm from the figures. A click on the name of a column sorts. Accuracy: mean over "
        "seeds and half its 95 % interval. Time: median of a run. Runs: their seeds, as links."
    )
    if opened:
        go("train", run=opened)


def _draw_files(name: str) -> None:
    page.section("Files")
    with st.container(horizontal=True, gap="small"):
        for label, suffix, mime, write in (
            ("Table as CSV", "csv", "text/csv", lambda: study_results.as_csv(load(name).results)),
            ("Table as JSON", "json", "application/json", lambda: _json(load(name))),
            ("Study as YAML", "yaml", "application/yaml", lambda: as_yaml(load(name).results.study)),
            ("Report as HTML", "html", "text/html", lambda: _report(load(name))),
        ):
            st.download_button(
                label, write, file_name=f"study-{name}.{suffix}", mime=mime, key=f"study_file_{suffix}",
                on_click="ignore",
            )  # fmt: skip
    page.note("The report is one file with figures, all settings and commands, which opens without a network.")
    with st.expander("Equivalent commands"):
        page.command(f"{PROGRAM} study show {name}")
        page.command(f"{PROGRAM} study export {name} --out study.html")


def _json(loaded: LoadedStudy) -> str:
    report = choice_report(loaded)
    chosen = {"choice": choosing.as_data(report)} if report else {}
    return json.dumps(study_results.as_data(loaded.results, loaded.state) | chosen, indent=1)


def _report(loaded: LoadedStudy) -> str:
    curves = studies.curves(queries.store(), loaded.state, queries.curve)
    report = choice_report(loaded)
    return study_report(loaded.results, loaded.state, curves, report.sentences if report else ())
