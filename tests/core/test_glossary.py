"""The glossary: complete, without duplicates, readable."""

from __future__ import annotations

import pytest

from mlae_lab.core import glossary
from mlae_lab.core.config import RunConfig
from mlae_lab.core.settings import settings_of
from tests.reading import grade, sentences


def test_no_word_is_defined_twice() -> None:
    names = [entry.name for entry in glossary.TERMS]
    assert len(set(names)) == len(names) > 60
    spellings = [word.casefold() for entry in glossary.TERMS for word in (entry.title, *entry.words)]
    assert len(set(spellings)) == len(spellings)
    definitions = [entry.definition for entry in glossary.TERMS]
    assert len(set(definitions)) == len(definitions)


@pytest.mark.parametrize("entry", glossary.TERMS, ids=lambda entry: entry.name)
def test_a_definition_has_one_or_two_plain_sentences(entry: glossary.Term) -> None:
    assert 1 <= len(sentences(entry.definition)) <= 2
    assert entry.definition[-1] in ".”"
    assert grade(entry.definition) < 12, "the Flesch-Kincaid grade of a definition"
    assert entry.pages, "where the word appears"
    assert entry.name.replace("-", "").isalnum()
    if entry.setting:
        assert entry.setting in {setting.name for setting in settings_of(RunConfig)}


def test_the_glossary_is_easy_to_read() -> None:
    assert grade(" ".join(entry.definition for entry in glossary.TERMS)) < 7


@pytest.mark.parametrize(
    ("words", "first"),
    [("lora", "lora"), ("λ", "coefficient"), ("RANK effective", "effective-rank"), ("equation 5", "drop-rate")],
)
def test_a_search_finds_titles_first(words: str, first: str) -> None:
    assert glossary.matching(words)[0].name == first


def test_a_search_may_find_nothing_and_an_empty_one_finds_all() -> None:
    assert glossary.matching("zebra") == []
    titles = [entry.title.casefold() for entry in glossary.matching("  ")]
    assert titles == sorted(titles)
    assert len(titles) == len(glossary.TERMS)


def test_an_unknown_word_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(glossary.GlossaryError, match=r"no 'zebra': choose one of .*lora"):
        glossary.term("zebra")
