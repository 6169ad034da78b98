"""The Flesch-Kincaid grade: 0.39 words per sentence + 11.8 syllables per word − 15.59 (Kincaid et al. 1975)."""

from __future__ import annotations

import re

_VOWELS = re.compile(r"[aeiouy]+")


def syllables(word: str) -> int:
    """Syllables of an English word, estimated from its groups of vowels."""
    word = word.lower()
    count = len(_VOWELS.findall(word))
    if word.endswith("e") and not word.endswith(("le", "ee")) and count > 1:
        count -= 1  # silent
    if word.endswith("ed") and not word.endswith(("ted", "ded")) and count > 1:
        count -= 1
    return max(1, count)


def grade(text: str) -> float:
    """The grade of a text; a number counts as a word of one syllable."""
    sentences = max(1, len(re.findall(r"[.!?:]+(?:\s|$)", text)))
    words = re.findall(r"[A-Za-z]+(?:['’][a-z]+)?|\d[\d.,]*", text)
    total = sum(syllables(word) if word[0].isalpha() else 1 for word in words)
    return 0.39 * len(words) / sentences + 11.8 * total / len(words) - 15.59
