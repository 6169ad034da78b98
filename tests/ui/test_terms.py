"""Technical words on pages open their definitions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core.glossary import TERMS, GlossaryError
from mlae_lab.locations import PACKAGE, PAGES
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import navigation, terms
from tests.lab import html

TARGET = re.compile(r'popovertarget="term-([^"]+)"')
ANN = "a" * 22


def targets(text: str) -> list[str]:
    return TARGET.findall(text)


def bodies(at: AppTest) -> str:
    return " ".join(element.proto.body for element in at.get("html"))


def test_the_first_place_of_each_word_is_marked_once() -> None:
    marked = terms.marked("The drop rate of ΔW, a drop rate.")
    assert targets(marked) == ["drop-rate", "delta-w"]
    assert marked.count(">drop rate</button>") == 1
    assert re.sub(r"<[^>]+>", "", marked) == "The drop rate of ΔW, a drop rate."
    assert ">ΔW</button>,</span>" in marked, "a comma stays on the line of its word"


@pytest.mark.parametrize(
    "text",
    [
        "droprate and undropped",  # parts of words
        "<code>drop rate</code> and <a href='x'>softmax</a>",
        "<button>drop rate</button>",
        "λᵢ bᵢ aᵢᵀ and λ=1",  # parts of formulas
        "experts of a mask",  # common words
        "VİT and sımilarity",  # a regular expression that ignores case takes both for an i
    ],
)
def test_what_is_not_marked(text: str) -> None:
    assert terms.marked(text) == text


def test_common_words_are_marked_where_asked() -> None:
    assert targets(terms.marked("experts of a mask", with_common=True)) == ["expert", "mask"]


def test_the_longest_spelling_counts() -> None:
    assert targets(terms.marked("the effective rank")) == ["effective-rank"]
    assert targets(terms.marked("a 95 % interval")) == ["interval"]
    assert ">Holm's correction</button>" in terms.marked("Holm's correction")
    assert ">Holm&#x27;s correction</button>" in terms.marked("Holm&#x27;s correction")


def test_marks_of_an_unknown_word_are_errors() -> None:
    with pytest.raises(GlossaryError):
        terms.button("zebra")
    with pytest.raises(GlossaryError):
        terms.help_text("zebra")


def test_help_has_its_own_sentence_the_definition_and_a_link() -> None:
    text = terms.help_text("similarity", first="Choose one.")
    assert text.startswith("Choose one.\n\n**Similarity")
    assert "\\|cos\\|" in text, "no markdown in a symbol"
    assert text.endswith("[Glossary](glossary?term=similarity)")
    assert terms.of_setting("learning_rate").startswith("**Learning rate**")
    assert terms.of_setting("data_folder") == ""


def test_every_page_of_an_entry_exists() -> None:
    assert {name for entry in TERMS for name in entry.pages} <= set(navigation.names())


def test_every_word_that_the_code_marks_is_defined() -> None:
    names = {entry.name for entry in TERMS}
    files = [*PACKAGE.glob("ui/**/*.py"), *PACKAGE.glob("ui/*.js"), *PACKAGE.glob("ui/*.html"), *PAGES.glob("*.py")]
    code = "\n".join(path.read_text() for path in files)
    assert len(targets(code)) >= 2
    assert {name for name in targets(code) if "{" not in name} <= names
    for call in re.findall(r"terms\.help_text\(([^)]*)", code):
        named = re.findall(r'"([a-z-]+)"', call.split("first=")[0])
        assert set(named) <= names


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("home", {"expert", "mask", "vit", "similarity"}),
        ("masks", {"expert", "layer", "mask", "active-experts", "vtab"}),
        ("experts", {"contribution", "coefficient", "similarity"}),
        ("train", {"mask", "backbone", "stochastic-mask"}),
    ],
)
def test_a_page_marks_its_words_and_holds_their_definitions(
    page: str, words: set[str], tab: Callable[..., AppTest]
) -> None:
    shown = bodies(tab(page, ANN))
    assert set(targets(shown)) >= words
    for name in targets(shown):
        assert shown.count(f'id="term-{name}"') == 1


def test_the_glossary_is_searched_and_linked(tab: Callable[..., AppTest], store: RunStore) -> None:
    at = tab("glossary", ANN, term="lora")
    assert 'class="lab-entry chosen alone"><b>LoRA</b>' in html(at)
    assert html(at).count('class="lab-entry') == len(TERMS) + 1
    assert "Learning rate: " in html(at), "what the setting does is not repeated but taken from its field"
    at.text_input(key="glossary_search").set_value("softmax").run()
    assert not at.exception
    assert "<b>Softmax</b>" in html(at)
    assert "1 of" in html(at)
    at.text_input(key="glossary_search").set_value("<b>zebra").run()
    assert "&lt;b&gt;zebra" in html(at)
    at = tab("glossary", ANN, term="zebra")
    assert "no 'zebra'" in at.warning[0].value
