"""Task: the 24 tasks of the paper and the bundled ones, with details of the chosen one."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.data.tasks import own_tasks, ready
from mlae_lab.ui import draft, page
from mlae_lab.ui.cards import cards
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.own_images_view import own_images_card
from mlae_lab.ui.task_view import task_card, task_detail

LOOK = "look"
problem = draft.read_address()
page.heading(
    "Choose a task",
    "Four tasks are included in the lab. For the 24 tasks of the paper (VTAB-1k and FGVC) the bar shows the reported "
    "accuracies: grey up to the linear probe, green from there to MLAE.",
)
if problem:
    st.warning(problem)
opened = draft.current().task
if LOOK in st.query_params:  # a card that was opened without choosing it, as the task has no images yet
    try:
        opened = catalog.task(st.query_params[LOOK]).name
    except catalog.CatalogError as error:
        st.warning(f"The link could not be opened: {plain(str(error))}.")
        del st.query_params[LOOK]

own_images_card()
with st.container(key="task_pair"):
    detail, shelf = st.container(key="task_detail"), st.container(key="task_shelf")
bundled = [task for task in catalog.TASKS if task.bundled]
shown = [*bundled, *own_tasks(), *(task for task in catalog.TASKS if not task.bundled)]
with shelf:
    picked = cards([task_card(task, task.name == opened) for task in shown], key="task_cards", label="Tasks")
if picked:
    st.query_params.pop(LOOK, None)
    if ready(catalog.task(picked)):
        draft.change(task=picked)
        draft.write_address("task")
    else:
        st.query_params[LOOK] = picked
    st.rerun()
with detail:
    task_detail(catalog.task(opened))
