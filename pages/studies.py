"""Studies: all of them; the form of a new one (`?new=1`, with the parameters of a draft) or of a choice (`?choose=1`);
or one of them (`?study=`)."""

from __future__ import annotations

import time
from html import escape

import streamlit as st

from mlae_lab.data.listing import counted
from mlae_lab.runs.store import StoreError
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui import page, visitor
from mlae_lab.ui.choice_view import draw_choice_form
from mlae_lab.ui.figures.study_parts import mean_of
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import go, link, show_address
from mlae_lab.ui.study_form import draw_form
from mlae_lab.ui.study_queries import choice_report, load, stored_studies, unread_studies
from mlae_lab.ui.study_view import STYLE, draw_study, progress_html

MAX_SHOWN = 30
REFRESH_SECONDS = 5.0
ROWS = """<style>
.study-row p { margin: .15rem 0 0; max-width: 84ch; } .study-row .study-bar { max-width: 320px; }
</style>"""


def row(stored: StoredStudy) -> None:
    loaded = load(stored.id, REFRESH_SECONDS)
    study, results, state = stored.study, loaded.results, loaded.state
    report = choice_report(loaded)
    verdict = report.sentences[0] if report else results.verdict
    best = results.ranked[0] if results.ranked else None
    bar = "" if state.done == len(state.cells) else progress_html(loaded)
    what = [
        f"{counted(len(study.arms), 'arm')} × {counted(len(study.seeds), 'seed')}",
        f"{state.done} of {len(state.cells)} runs",
    ]
    if best is not None:
        what.append(f"best {mean_of(best)}: {best.arm.name}")
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(stored.created))
    by = f", {escape(visitor.name_of(stored.owner))}" if stored.owner else ""
    with st.container(key=f"listed_study_{stored.id}", gap="small"):
        link("studies", study.title, study=stored.id)
        st.html(
            '<div class="lab-choice study-row">'
            + (f"<span>{escape(study.question)}</span>" if study.question else "")
            + f"<p>{escape(verdict)}</p>{bar}<span>{escape(' · '.join(what))}</span>"
            f"<small>{date}{by}</small></div>"
        )


def overview() -> None:
    page.heading("Studies", "A question, the settings that answer it, and seeds: paired, with intervals and a verdict.")
    st.html(STYLE + ROWS)
    with st.container(horizontal=True, gap="small"):
        if st.button("New study", type="primary", key="study_new"):
            go("studies", new="1")
        if st.button(
            "Choose p and λ",
            key="study_choose",
            help="Find p, initial λ and learning rate for a task, within a budget.",
        ):
            go("studies", choose="1")
    everything = stored_studies()
    for name in unread_studies():
        st.warning(f"Study {name} cannot be read: its page says why.")
        link("studies", f"Open {name}", study=name)
    if not everything:
        page.section("No study yet")
        page.note(
            "A study trains every arm (a mask, a drop rate, a method, any setting) with the same seeds. Its page "
            "shows each arm's accuracy with its interval, its difference to a reference, and a verdict that says no "
            "more than the data do."
        )
        return
    words = []
    if len(everything) > 5:
        words = st.text_input("Filter by title or question", key="study_filter", width=420).lower().split()
    matching = [
        stored
        for stored in everything
        if all(word in f"{stored.study.title} {stored.study.question}".lower() for word in words)
    ]

    shown = matching[:MAX_SHOWN]
    live = any(not load(stored.id, REFRESH_SECONDS).state.is_over for stored in shown)

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def rows() -> None:
        for stored in shown:
            try:
                row(stored)
            except StoreError:  # deleted meanwhile
                st.rerun()

    rows()
    if not matching:
        page.note("No study matches.")
    elif len(matching) > MAX_SHOWN:
        page.note(f"The {MAX_SHOWN} newest of {len(matching)} studies: filter to find others.")


show_address()
if name := st.query_params.get("study"):
    try:
        draw_study(name)
    except StoreError as error:
        page.heading("Study")
        st.warning(plain(sentence(error)))
    link("studies", "All studies")
elif st.query_params.get("choose"):
    page.heading("Choose p and λ", "From the train and val images alone, within a budget.")
    draw_choice_form()
    link("studies", "All studies")
elif st.query_params.get("new"):
    page.heading("New study", "Choose what varies; everything else stays equal.")
    draw_form()
    link("studies", "All studies")
else:
    overview()
