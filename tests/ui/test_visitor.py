"""The id of a browser, and its nickname."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab import locks
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.locations import PACKAGE, PAGES
from mlae_lab.runs import paths
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import visitor

ADA, BEN = "ada-" * 5, "ben-" * 5
Tab = Callable[..., AppTest]


def field(at: AppTest):
    return next(field for field in at.sidebar.text_input if field.label == "Your name in the queue")


def names_of(owners: list[str], me: str) -> list[str]:
    """What a session of this visitor calls those owners."""

    def script(owners: list[str], me: str) -> None:
        import streamlit as st

        from mlae_lab.ui import visitor

        st.session_state["visitor_id"] = me
        for owner in owners:
            st.text(visitor.name_of(owner))

    at = AppTest.from_function(script, kwargs={"owners": owners, "me": me}).run()
    assert not at.exception
    return [element.value for element in at.text]


@pytest.mark.parametrize("text", ["a" * 16, "A-_9" * 16, "Zm9vYmFyYmF6cXV4MTIzNA"])
def test_the_shape_of_an_id(text: str) -> None:
    assert visitor.is_id(text)


@pytest.mark.parametrize(
    "text", ["", "a" * 15, "a" * 65, "a" * 16 + "\n", "a b" * 8, "../../../../etc/passwd", "ä" * 20, None, 7, {}]
)
def test_anything_else_is_ignored(text: object) -> None:
    assert not visitor.is_id(text)


def test_without_a_cookie_a_session_has_an_id_of_its_own_and_keeps_it(tab: Tab) -> None:
    ids = []
    for _ in range(2):
        at = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=30).run()
        ids.append(at.session_state["visitor_id"])
        assert at.run().session_state["visitor_id"] == ids[-1]
    assert ids[0] != ids[1]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", visitor_id) for visitor_id in ids), "128 bits each"


def test_an_id_is_on_no_page_and_in_no_address(tab: Tab, store: RunStore) -> None:
    lock = locks.take(paths.supervisor_lock(store.folder))  # so that no page starts the run, which would train on
    assert lock is not None
    store.enqueue(FIRST_RUN, "cpu", owner=ADA)
    for page in sorted(path.stem for path in PAGES.glob("*.py")):
        at = tab(page, ADA)
        sent = [str(element.proto) for element in at if hasattr(element, "proto")]
        holding = [text for text in sent if ADA in text]
        assert len(sent) > 5, page
        assert len(holding) == 1, page
        assert "visitor_cookie" in holding[0], "what the cookie is set from, and nothing else"
        assert ADA not in str(dict(at.query_params))
    os.close(lock)


def test_a_name_is_kept_and_shown_in_the_next_session(tab: Tab, store: RunStore) -> None:
    at = tab("home", ADA)
    assert field(at).value == ""
    assert field(at).placeholder == "no name yet"
    field(at).set_value("  Ada\u202e \t Love\x07lace ").run()
    assert store.nicknames() == {ADA: "Ada Lovelace"}
    assert field(tab("masks", ADA)).value == "Ada Lovelace"
    assert field(tab("masks", BEN)).value == ""
    field(at).set_value("").run()
    assert store.nicknames() == {}


def test_a_name_is_on_every_page(tab: Tab) -> None:
    for page in sorted(path.stem for path in PAGES.glob("*.py")):
        assert field(tab(page, ADA)).max_chars == 24


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Ada", "Ada"),
        (" a\n\nb ", "a b"),
        ("x" * 50, "x" * 24),
        ("x" * 23 + " y", "x" * 23),
        ("\x00\u200b\u202e\ufeff", ""),
        ("<b>Zoë</b>", "<b>Zoë</b>"),
        ("日本", "日本"),
        ("\ud800a", "a"),
    ],
)
def test_a_name_is_one_line_of_what_can_be_seen(text: str, kept: str) -> None:
    assert visitor.cleaned(text) == kept


def test_a_locked_store_says_that_the_name_is_not_kept(tab: Tab, store: RunStore) -> None:
    at = tab("home", ADA)
    other = sqlite3.connect(paths.database(store.folder), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        field(at).set_value("Ada").run()
        assert not at.exception
        assert "could not be stored" in at.sidebar.error[0].value
    finally:
        other.close()
    field(at).set_value("Ada L.").run()
    assert not at.sidebar.error
    assert store.nicknames() == {ADA: "Ada L."}


def test_what_owners_are_called(store: RunStore) -> None:
    store.keep_visitor(BEN, nickname="Ben")
    store.keep_visitor("liar" * 5, nickname="You")
    named = {
        ADA: "you",
        BEN: "Ben",
        "": "nobody known",
        "unknown-" * 3: "somebody",
        "liar" * 5: "somebody",
        "cli:ada": "ada (terminal)",
        "cli:": "somebody (terminal)",
        "cli:\x1b[2J": "[2J (terminal)",
    }
    assert names_of(list(named), ADA) == list(named.values())


def test_a_run_is_mine_if_this_browser_started_it(store: RunStore) -> None:
    def script(owner: str) -> None:
        import streamlit as st

        from mlae_lab.locations import default_store
        from mlae_lab.runs.store import RunStore
        from mlae_lab.ui import visitor

        st.session_state["visitor_id"] = "ada-" * 5
        st.text(visitor.is_mine(next(run for run in RunStore(default_store()).runs() if run.owner == owner)))

    for owner, mine in ((ADA, "True"), (BEN, "False"), ("", "False"), ("cli:ada", "False")):
        store.enqueue(replace(FIRST_RUN, seed=len(owner)), "cpu", owner=owner)
        assert AppTest.from_function(script, kwargs={"owner": owner}).run().text[0].value == mine
