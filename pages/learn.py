"""Learn: the lessons (`?lesson=`, with `task` and `hide` of a teacher's link), and notes for teachers (`?view=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.lessons import LESSONS, LessonError, lesson
from mlae_lab.lessons.lesson import Lesson
from mlae_lab.ui import lesson_view, page, visitor
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import link, show_address

_WITHOUT_SIDEBAR = """<style>section[data-testid="stSidebar"], [data-testid="stExpandSidebarButton"],
[data-testid="stSidebarCollapsedControl"] { display: none !important; }</style>"""


def listing() -> None:
    """Draw the lessons as cards."""
    page.heading(
        "Lessons",
        "Guess first, then a real network trains and answers. Each lesson takes three clicks and some five minutes.",
    )
    with st.container(key="lesson_cards"):
        for entry in LESSONS:
            with st.container(key=f"lesson_card_{entry.name}"):
                link("learn", entry.title, lesson=entry.name)
                word = lesson_view.progress(entry).word
                st.html(
                    f'<p class="lab-text">{escape(entry.summary)}</p>'
                    f'<p class="lab-note">{entry.minutes} minutes · {word}</p>'
                )
    link("learn", "For teachers", view="teachers")


def teachers() -> None:
    """Draw the notes for teachers, and the form of a teacher's link."""
    page.heading(
        "For teachers", "What each lesson teaches, what to ask, what people get wrong, and a link for the class."
    )
    _all_lessons()
    _link_form()
    for entry in LESSONS:
        page.section(entry.title)
        wrong = "".join(
            f"<tr><th>{escape(answer)}</th><td>{escape(reply)}</td></tr>" for answer, reply in entry.teacher.wrong
        )
        st.html(
            f'<p class="lab-text"><b>Teaches</b> ({entry.minutes} minutes): {escape(entry.teacher.teaches)}</p>'
            f'<p class="lab-text"><b>Ask before the answer:</b> {escape(entry.teacher.ask)}</p>'
            f'<table class="lab-findings lab-wrong"><caption>Typical wrong answers, and what to say</caption>{wrong}'
            "</table>"
        )


def _all_lessons() -> None:
    with st.container(key="lesson_all"):
        link("learn", "All lessons")


def _link_form() -> None:
    page.section("A link for the class")
    page.note(
        "All who open it get the same lesson. They need no account; their guesses are counted without names, and equal "
        "runs are trained once for all."
    )
    titles = {entry.name: entry.title for entry in LESSONS}
    with st.container(horizontal=True, gap="small", key="lesson_link"):
        name = st.selectbox("Lesson", list(titles), format_func=titles.__getitem__, key="lesson_link_name", width=270)
        entry = lesson(name)
        task = st.selectbox(
            "Task", entry.tasks, format_func=lambda t: catalog.task(t).title, key=f"lesson_link_task_{name}", width=220
        )
        hidden = st.multiselect(
            "Hide", list(lesson_view.HIDEABLE), ["navigation"], key="lesson_link_hide", width=270,
            help="; ".join(f"{key}: {text}" for key, text in lesson_view.HIDEABLE.items()),
        )  # fmt: skip
    query = f"lesson={name}" + (f"&task={task}" if task != entry.tasks[0] else "")
    here = (st.context.url or "/learn").partition("?")[0]
    st.code(f"{here}?{query}" + (f"&hide={','.join(hidden)}" if hidden else ""), language=None, wrap_lines=True)
    page.note("What is hidden is out of the way, not locked: anybody can edit the address.")


def draw_lesson(entry: Lesson) -> None:
    """Draw one lesson, on the task and without the parts that the link names."""
    hidden = {name.strip() for name in st.query_params.get("hide", "").split(",")} & set(lesson_view.HIDEABLE)
    if "navigation" in hidden:
        st.html(_WITHOUT_SIDEBAR)
    else:
        _all_lessons()
    task = st.query_params.get("task", entry.tasks[0])
    if task not in entry.tasks:
        known = ", ".join(entry.tasks)
        st.warning(plain(f"This lesson has no recording on the task {task[:40]!r}: choose {known}."))
        task = entry.tasks[0]
    lesson_view.draw(entry, task, hidden)


show_address()
if name := st.query_params.get("lesson"):
    try:
        chosen = lesson(name)
    except LessonError as error:
        page.heading("Lessons")
        st.warning(visitor.sentence(error))
        _all_lessons()
    else:
        draw_lesson(chosen)
elif st.query_params.get("view") == "teachers":
    teachers()
else:
    listing()
