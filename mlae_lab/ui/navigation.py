"""The pages of the lab and the links between them. The only module that names page files."""

from __future__ import annotations

import streamlit as st

from mlae_lab.locations import PAGES
from mlae_lab.ui.markdown import plain

_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "": {"home": ("Home", ":material/home:")},
    "Learn": {
        "tour": ("Tour", ":material/route:"),
        "learn": ("Lessons", ":material/school:"),
        "glossary": ("Glossary", ":material/dictionary:"),
    },
    "Design": {"task": ("Task", ":material/photo_library:"), "masks": ("Masks", ":material/grid_on:")},
    "Run": {
        "train": ("Train", ":material/play_circle:"),
        "race": ("Race", ":material/flag:"),
        "runs": ("Runs", ":material/list:"),
        "doctor": ("Doctor", ":material/stethoscope:"),
    },
    "Look inside": {
        "experts": ("Experts", ":material/blur_on:"),
        "compare": ("Compare", ":material/compare_arrows:"),
        "studies": ("Studies", ":material/lab_research:"),
        "paper": ("Paper", ":material/article:"),
        "methods": ("Methods", ":material/scatter_plot:"),
    },
}


def page(name: str) -> st.Page:
    """The page of that name, for `st.navigation`, `st.page_link` and `st.switch_page`."""
    title, icon = next(entries[name] for entries in _SECTIONS.values() if name in entries)
    address = None if name == "home" else name
    return st.Page(PAGES / f"{name}.py", title=title, icon=icon, url_path=address, default=name == "home")


def title_of(name: str) -> str:
    """The title of the page of that name."""
    return next(entries[name][0] for entries in _SECTIONS.values() if name in entries)


def names() -> list[str]:
    """The names of all pages."""
    return [name for entries in _SECTIONS.values() for name in entries]


def sections() -> dict[str, list]:
    """All pages by section, as `st.navigation` takes them."""
    return {section: [page(name) for name in entries] for section, entries in _SECTIONS.items()}


def link(name: str, label: str, **query: str) -> None:
    """Draw a link to a page; the query parameters say which view it opens."""
    st.page_link(page(name), label=plain(label), query_params=query or None)


def go(name: str, **query: str) -> None:
    """Switch to another page at once."""
    st.switch_page(page(name), query_params=query or None)


def show_address() -> None:
    """Send the address of this view to the browser, which keeps the one before after a link within one page."""
    st.query_params.from_dict(st.query_params.to_dict())
