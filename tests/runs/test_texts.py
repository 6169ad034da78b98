"""Texts of strangers: what a terminal would obey is gone, what can be read stays."""

from __future__ import annotations

from mlae_lab.runs.texts import one_line, printable


def test_what_a_terminal_obeys_is_gone() -> None:
    assert printable("a\x1b[2J\x07\tb\u202eé×\x9b") == "a[2J\tbé×"
    assert printable("") == ""


def test_one_line() -> None:
    assert one_line(" two\r\nlines\tand \x1b one\u2028more ") == "two lines and one more"
    assert one_line("\n\x00") == ""
