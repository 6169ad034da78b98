"""Reading age of a text: the Flesch-Kincaid grade, 0.39 words/sentence + 11.8 syllables/word - 15.59."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")


def sentences(text: str) -> list[str]:
    """The sentences of a text; a point within a number ends none."""
    return [part for part in re.split(r"(?<=[.!?])[”\"]?\s+(?=[A-Z0-9“|])", text.strip()) if _WORD.search(part)]


def syllables(word: str) -> int:
    """Groups of vowels, without a silent e at the end."""
    count = 0
    for part in re.split(r"['’-]", word.lower()):
        groups = len(re.findall(r"[aeiouy]+", part))
        is_silent = part.endswith("e") and not part.endswith(("le", "ee")) and groups > 1
        count += max(1, groups - is_silent - (part.endswith("ed") and not part.endswith(("ted", "ded")) and groups > 1))
    return count


def grade(text: str) -> float:
    """The Flesch-Kincaid grade of a plain text; markup must be removed before."""
    words = _WORD.findall(text)
    return 0.39 * len(words) / len(sentences(text)) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59
