"""The draft: kept in the store for a browser, named by links, never lost and never a traceback."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import pattern, uniform
from mlae_lab.locations import PACKAGE, PAGES
from mlae_lab.runs import paths
from mlae_lab.runs.store import RunStore

ADA, BEN = "ada-" * 5, "ben-" * 5
Tab = Callable[..., AppTest]
OTHER = replace(FIRST_RUN, task="fashion", plan=pattern("hourglass"), epochs=33, seed=5, learning_rate=0.002)


def keep(store: RunStore, visitor: str, config: RunConfig) -> None:
    store.keep_visitor(visitor, draft=json.dumps(config.to_dict()))


def kept(store: RunStore, visitor: str) -> RunConfig:
    return RunConfig.from_dict(json.loads(store.visitor(visitor).draft))


def draft(at: AppTest) -> RunConfig:
    return at.session_state["draft"]


def epochs(at: AppTest) -> int:
    return next(field for field in at.number_input if field.label == "Epochs").value


def set_epochs(at: AppTest, value: int) -> AppTest:
    return next(field for field in at.number_input if field.label == "Epochs").set_value(value).run()


# ---------------------------------------------------------------- in the store


def test_task_mask_and_settings_survive_the_session(tab: Tab, store: RunStore) -> None:
    at = tab("masks", ADA, mask=pattern("hourglass").code, task="fashion")
    at.switch_page(str(PAGES / "train.py")).run()
    set_epochs(at, 33)
    again = tab("train", ADA)
    assert draft(again) == draft(at) == kept(store, ADA)
    assert (draft(again).task, draft(again).plan, epochs(again)) == ("fashion", pattern("hourglass"), 33)


def test_another_browser_has_a_draft_of_its_own(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    assert draft(tab("train", BEN)) == FIRST_RUN
    assert store.visitor(BEN).draft == ""


@pytest.mark.parametrize("page", [path.stem for path in PAGES.glob("*.py")])
def test_opening_a_page_writes_nothing(page: str, tab: Tab, store: RunStore) -> None:
    tab(page, ADA).run()
    assert store.visitor(ADA).draft == ""


def test_a_link_wins_for_what_it_names_and_for_nothing_else(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    at = tab("train", ADA, task="digits")
    assert draft(at) == replace(OTHER, task="digits") == kept(store, ADA)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"task": "digits"}',
        '{"task": 1, "plan": 2}',
        '{"task": "digits", "plan": {}}',
        '{"task": "digits", "plan": null}',
        "[" * 100_000,
        json.dumps(OTHER.to_dict() | {"sparkle": 1}),
        json.dumps(OTHER.to_dict() | {"epochs": 0}),
        json.dumps(OTHER.to_dict() | {"task": "imagenet"}),
        json.dumps(OTHER.to_dict() | {"task": "[x](http://a.b)"}),
        json.dumps(OTHER.to_dict() | {"warmup": [1]}),
        json.dumps(OTHER.to_dict() | {"plan": [1]}),
        json.dumps(OTHER.to_dict() | {"method": ["mlae"]}),
        "\x00",
        "é" * 5000,
    ],
)
@pytest.mark.parametrize("page", ["train", "masks"])
def test_unreadable_draft_is_replaced_with_one_sentence(page: str, text: str, tab: Tab, store: RunStore) -> None:
    store.keep_visitor(ADA, draft=text)
    at = tab(page, ADA)
    assert len(at.warning) == 1
    message = at.warning[0].value
    assert message.startswith("The stored draft could not be read (")
    assert message.endswith("): this is a new one.")
    assert len(message) < 450
    assert "[x](" not in message
    assert draft(at) == FIRST_RUN
    assert store.visitor(ADA).draft == text, "a newer lab may still read it"
    assert not at.run().warning


def test_reloaded_tab_does_not_replace_the_draft_of_another_tab(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    old = {"task": "digits", "mask": pattern("dense").code}
    at = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=30)
    at.session_state["visitor_id"] = ADA
    at.switch_page(str(PAGES / "train.py"))
    for name, value in old.items():
        at.query_params[name] = value
    at.run()  # as after a reload, or when the server was started again
    assert (draft(at).task, draft(at).plan.code) == tuple(old.values())
    assert kept(store, ADA) == OTHER
    set_epochs(at, 21)  # what is done by hand here is what this browser changed last
    assert kept(store, ADA) == draft(at) != OTHER


def test_a_link_wins_also_where_the_session_learns_late_whose_it_is(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    at = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=30)
    at.switch_page(str(PAGES / "train.py"))
    at.query_params["task"] = "digits"
    at.run()
    at.session_state["visitor_id"] = ADA
    at.run()
    assert draft(at) == replace(OTHER, task="digits")
    assert at.query_params["task"] in ("digits", ["digits"])


def test_one_invalid_value_does_not_discard_the_others(tab: Tab, store: RunStore) -> None:
    at = tab("train", ADA)
    before = draft(at)
    next(box for box in at.selectbox if box.label == "Preprocessing").select("fgvc-crop")
    next(field for field in at.number_input if field.label == "Seed").set_value(7)
    set_epochs(at, 77)
    assert len(at.error) == 1
    assert "too small to crop" in at.error[0].value
    assert kept(store, ADA) == draft(at) == replace(before, seed=7, epochs=77)


def test_a_fresh_start_is_kept_as_soon_as_something_changes(tab: Tab, store: RunStore) -> None:
    store.keep_visitor(ADA, draft="{")
    set_epochs(tab("train", ADA), 9)
    assert kept(store, ADA) == replace(FIRST_RUN, epochs=9)


def test_a_locked_store_breaks_no_page_and_gets_the_draft_later(tab: Tab, store: RunStore) -> None:
    at = tab("train", ADA)
    other = sqlite3.connect(paths.database(store.folder), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        set_epochs(at, 12)
        assert time.monotonic() - began < 8
        assert not at.exception
        assert not at.error
        assert draft(at).epochs == 12
    finally:
        other.close()
    assert store.visitor(ADA).draft == ""
    at.run()
    assert kept(store, ADA).epochs == 12


# ---------------------------------------------------------------- a session that learns late whose it is


def learns(at: AppTest, visitor: str) -> AppTest:
    """As when the browser reports the cookie that another of its tabs has set."""
    at.session_state["visitor_id"] = visitor
    return at.run()


def test_late_id_loads_the_stored_draft_if_nothing_was_changed(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    at = learns(tab("train", BEN), ADA)
    assert draft(at) == OTHER
    assert epochs(at) == 33, "the form on the page must not put its own values back"
    assert at.run()
    assert draft(at) == OTHER == kept(store, ADA)


def test_late_id_keeps_the_changes_of_the_session(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    at = learns(set_epochs(tab("train", BEN), 7), ADA)
    assert draft(at) == replace(FIRST_RUN, epochs=7) == kept(store, ADA)


def test_late_id_without_a_stored_draft_changes_nothing(tab: Tab, store: RunStore) -> None:
    at = learns(set_epochs(tab("train", BEN), 7), ADA)
    assert kept(store, ADA).epochs == 7
    at = learns(tab("train", "new-" * 5), "nobody-" * 4)
    assert draft(at) == FIRST_RUN


# ---------------------------------------------------------------- settings in the address


def address(at: AppTest) -> dict[str, str]:
    return {name: value[0] if isinstance(value, list) else value for name, value in at.query_params.items()}


def test_the_address_of_train_opens_the_same_run_elsewhere(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, OTHER)
    query = address(tab("train", ADA))
    assert query["set"] == "epochs:33,lr:0.002,seed:5"
    keep(store, BEN, replace(FIRST_RUN, epochs=400, batch_size=8))
    assert draft(tab("train", BEN, **query)) == OTHER


def test_a_link_without_a_difference_means_the_proposed_settings(tab: Tab, store: RunStore) -> None:
    query = address(tab("train", ADA))
    assert query["set"] == "default"
    keep(store, BEN, OTHER)
    assert draft(tab("train", BEN, **query)) == FIRST_RUN


def test_a_link_opened_on_the_page_reaches_its_form(tab: Tab) -> None:
    at = tab("train", ADA)
    at.query_params["set"] = "epochs:21"
    at.run()
    assert epochs(at) == 21
    assert draft(at).epochs == 21
    assert epochs(set_epochs(at, 22)) == 22
    assert draft(at).epochs == 22


def test_the_address_from_before_a_change_undoes_nothing(tab: Tab) -> None:
    at = tab("train", ADA, set="epochs:21")
    old = address(at)
    set_epochs(at, 22)
    assert address(at)["set"] == "epochs:22"
    for name, value in old.items():
        at.query_params[name] = value
    at.run()
    assert epochs(at) == 22
    assert address(at)["set"] == "epochs:22"


def test_an_address_that_comes_back_counts_from_its_last_return(tab: Tab, store: RunStore) -> None:
    """A mask changed back and forth: its address is young again, however long ago it was the first of the session."""
    at = tab("train", ADA)
    first, start = address(at), epochs(at)
    for value in range(100, 135):
        set_epochs(at, value)
        if value == 100:
            early = address(at)
        if value in (110, 128):
            set_epochs(at, start)  # the first address again, then another one
    for name, value in first.items():
        at.query_params[name] = value  # a browser that has not yet heard of the new one sends it with a click
    at.run()
    assert epochs(at) == kept(store, ADA).epochs == 134
    for name, value in early.items():
        at.query_params[name] = value  # left more than thirty edits ago, and still within the half minute of an echo
    at.run()
    assert epochs(at) == kept(store, ADA).epochs == 134


def test_an_edit_of_a_plan_that_was_replaced_meanwhile_is_refused(store: RunStore) -> None:
    """The run of the page that replaced it was cut short, so the canvas and its callback still know the old one."""

    def script() -> None:
        from dataclasses import replace

        import streamlit as st

        from mlae_lab.core.patterns import dense, pattern, uniform
        from mlae_lab.ui import draft

        st.session_state["visitor_id"] = "ada-" * 5
        old = draft.revision()
        draft.change(plan=replace(pattern("hourglass"), expert_rank=2))
        draft.painted(dense(), old)
        st.text(draft.current().plan.code)
        draft.painted(uniform(0.25), draft.revision())
        st.text(draft.current().plan.code)

    at = AppTest.from_function(script).run()
    assert not at.exception
    assert [line.value for line in at.text] == [replace(pattern("hourglass"), expert_rank=2).code, uniform(0.25).code]


def test_a_painted_mask_that_samples_nothing_has_no_consistency() -> None:
    def script() -> None:
        import streamlit as st

        from mlae_lab.core.patterns import dense, uniform
        from mlae_lab.ui import draft

        st.session_state["visitor_id"] = "ada-" * 5
        draft.change(plan=uniform(0.5), consistency=0.5)
        draft.painted(uniform(0.25), draft.revision())
        st.text(draft.current().consistency)
        draft.painted(dense(), draft.revision())
        st.text(draft.current().consistency)

    at = AppTest.from_function(script).run()
    assert not at.exception
    assert [line.value for line in at.text] == ["0.5", "0.0"]


@pytest.mark.parametrize("page", ["train", "masks"])
def test_a_stroke_outlives_a_link_in_another_spelling(page: str, tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long after: the address is brought to one spelling, so that it is not read as another link."""
    at = tab(page, ADA, set="lr:1e-3,epochs:21", task="fashion_mnist_1k", mask=pattern("dense").code)
    monkeypatch.setattr("mlae_lab.ui.draft._ECHO_SECONDS", 0.0)
    at.session_state["draft"] = replace(draft(at), plan=pattern("hourglass"))
    at.run().run()
    assert draft(at).plan == pattern("hourglass")
    assert address(at)["set"] == "epochs:21,lr:0.001"
    assert address(at)["task"] == "fashion"


@pytest.mark.parametrize(
    "query",
    [
        {"set": "epochs:0"},
        {"set": "sparkle:1"},
        {"set": "data:/etc"},
        {"set": "weights:/etc/passwd"},
        {"set": "epochs"},
        {"set": "lr:[x](http://a.b)"},
        {"set": "backbone:resnet50"},
        {"set": "preprocessing:fgvc-crop"},
        {"set": "epochs:20", "mask": "nonsense"},
        {"set": "epochs:20", "task": "imagenet"},
    ],
)
def test_a_broken_link_is_one_sentence_and_nothing_of_it_is_taken(query: dict, tab: Tab, store: RunStore) -> None:
    at = tab("train", ADA, **{"task": "digits", **query})
    assert len(at.warning) == 1
    assert at.warning[0].value.startswith("The link could not be opened: ")
    assert "[x](" not in at.warning[0].value
    assert draft(at) == FIRST_RUN
    assert store.visitor(ADA).draft == ""


@pytest.mark.parametrize(
    "code", ["lr:1e-09", "seconds:0.5", "seconds:2000000", "warmup:0.9", "weight-decay:10", "batch-size:1"]
)
def test_whatever_a_run_may_have_the_form_can_show(code: str, tab: Tab) -> None:
    assert not tab("train", ADA, set=code).error


def test_a_task_too_small_to_crop_takes_the_usual_preprocessing(tab: Tab, store: RunStore) -> None:
    keep(store, ADA, replace(OTHER, task="cub", preprocessing="fgvc-crop"))
    at = tab("task", ADA, task="digits")
    assert not at.warning
    assert (draft(at).task, draft(at).preprocessing) == ("digits", "auto")
