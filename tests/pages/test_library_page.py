"""The library on the page Masks, opened through app.py."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.runs.store import RunStore
from mlae_lab.ui.library_view import read_file, read_mask
from tests.lab import html, open_page

ADA, BOB = "ada-" + "a" * 20, "bob-" + "b" * 20


@pytest.fixture
def masks(store: RunStore) -> Callable[..., AppTest]:
    """Opens Masks as a visitor, perhaps with a mask in the address and a saved one open."""

    def opened(visitor: str = ADA, plan: MaskPlan | None = None, saved: str = "") -> AppTest:
        state = {"visitor_id": visitor} | ({"library_open": saved} if saved else {})
        return open_page("masks", state, **({} if plan is None else {"mask": plan.code}))

    return opened


def card_titles(at: AppTest) -> list[str]:
    for element in at.main.get("bidi_component"):
        data = json.loads(element.proto.json) if element.proto.json else {}
        if data.get("label") == "Saved masks":
            return [item["title"] for item in data["items"]]
    return []


def test_empty_library_explains_itself(masks: Callable[..., AppTest]) -> None:
    at = masks()
    assert "Saved masks are listed here" in html(at)
    assert not card_titles(at)


def test_a_mask_is_saved_and_another_browser_finds_it(masks: Callable[..., AppTest], store: RunStore) -> None:
    plan = pattern("hourglass")
    at = masks(ADA, plan)
    at.text_input(key="library_name_0").set_value("Sand & <b>glass</b>")
    at.button(key="library_save").click().run()
    assert not at.exception
    assert card_titles(at) == ["Sand & <b>glass</b>"]
    assert [(entry.plan, entry.owner) for entry in store.plans()] == [(plan, ADA)]
    assert "Sand &amp; &lt;b&gt;glass" in html(at)
    assert "<b>glass" not in html(at)
    assert card_titles(masks(BOB)) == ["Sand & <b>glass</b>"]


def test_duplicate_name_shows_one_sentence(masks: Callable[..., AppTest], store: RunStore) -> None:
    store.save_plan("One", dense())
    at = masks()
    at.text_input(key="library_name_0").set_value("one")
    at.button(key="library_save").click().run()
    assert [w.value for w in at.warning] == ["The library has a mask named 'one' already: choose another name."]
    assert at.text_input(key="library_name_0").value == "one"
    assert len(store.plans()) == 1


def test_a_saved_mask_goes_to_the_canvas_with_its_difference(masks: Callable[..., AppTest], store: RunStore) -> None:
    saved = store.save_plan("One", uniform(0.5), ADA)
    at = masks(ADA, dense(), saved.id)
    messages = [json.loads(element.proto.json or "{}") for element in at.main.get("bidi_component")]
    figure = next(message for message in messages if message.get("name") == "mask-difference")
    assert "96 with another drop rate" in figure["alt"]
    at.button(key=f"library_use_{saved.id}").click().run()
    assert not at.exception
    assert at.session_state["draft"].plan == uniform(0.5)


def test_a_saved_mask_of_a_deeper_network_is_stretched_and_it_says_so(
    masks: Callable[..., AppTest], store: RunStore
) -> None:
    saved = store.save_plan("Deep", dense(24), ADA)
    at = masks(ADA, dense(), saved.id)
    at.button(key=f"library_use_{saved.id}").click().run()
    assert at.session_state["draft"].plan == dense(12)
    assert any("stretched over 12 layers" in element.value for element in at.info)


def test_a_pasted_line_and_a_pasted_link(masks: Callable[..., AppTest]) -> None:
    for text, plan in (
        (pattern("hourglass").code, pattern("hourglass")),
        (f"http://lab/masks?task=digits&mask={uniform(0.3).code}", uniform(0.3)),
    ):
        at = masks(ADA, dense())
        at.text_input(key="library_line").set_value(text)
        at.button(key="library_line_go").click().run()
        assert not at.exception
        assert at.session_state["draft"].plan == plan


@pytest.mark.parametrize("text", ["nonsense", "m1_12x8_zz*12_0*12", "http://x/?mask=", "", "{", "m1_13x8_ff*12_0*12"])
def test_a_malformed_line_is_one_sentence_and_loses_nothing(masks: Callable[..., AppTest], text: str) -> None:
    at = masks(ADA, pattern("hourglass"))
    at.text_input(key="library_line").set_value(text)
    at.button(key="library_line_go").click().run()
    assert not at.exception
    assert len(at.warning) == 1
    assert at.warning[0].value.endswith(".")
    assert at.session_state["draft"].plan == pattern("hourglass")
    assert at.text_input(key="library_line").value == text


def test_formats_of_an_imported_mask() -> None:
    plan = pattern("random", "mixed", 0.25)
    assert read_mask(f"  {plan.code}\n") == plan == read_mask(plan.to_json()) == read_file(plan.to_json().encode())
    assert read_mask(f"?mask={plan.code}") == plan
    assert read_file(b"\xef\xbb\xbf" + plan.to_json().encode()) == plan  # as some editors write it
    for content, why in (
        (b"\xff\xfe", "not text"),
        (b" " * 400_001, "at most 400,000"),
        (b"[1]", "a plan is a JSON object"),
    ):
        with pytest.raises(PlanError, match=why):
            read_file(content)


def test_deletion_asks_first(masks: Callable[..., AppTest], store: RunStore) -> None:
    saved = store.save_plan("One", dense(), ADA)
    at = masks(ADA, None, saved.id)
    at.button(key=f"library_delete_{saved.id}").click().run()
    assert len(at.warning) == 1
    assert "Delete this mask for everyone?" in at.warning[0].value
    at.button(key=f"library_delete_{saved.id}").click().run()  # as in a double click
    assert store.plans()
    at.button(key=f"library_delete_{saved.id}_yes").click().run()
    assert not at.exception
    assert store.plans() == []
    assert not card_titles(at)


def test_renaming_another_persons_mask_asks_first(masks: Callable[..., AppTest], store: RunStore) -> None:
    saved = store.save_plan("One", dense(), ADA)
    at = masks(BOB, None, saved.id)
    at.text_input(key=f"library_rename_{saved.id}").set_value("Two")
    at.button(key=f"library_rename_go_{saved.id}").click().run()
    assert "belongs to somebody" in at.warning[0].value
    assert store.plans()[0].name == "One"
    at.button(key=f"library_rename_go_{saved.id}_yes").click().run()
    assert store.plans()[0].name == "Two"
    assert card_titles(at) == ["Two"]


def test_many_masks_can_be_searched(masks: Callable[..., AppTest], store: RunStore) -> None:
    for number in range(30):
        store.save_plan(f"mask {number}", dense())
    at = masks()
    assert len(card_titles(at)) == 24
    assert "newest of 30" in html(at)
    at.text_input(key="library_find").set_value("MASK 7").run()
    assert card_titles(at) == ["mask 7"]
