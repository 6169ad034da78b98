"""Sanitized text: control characters are removed, readable text stays."""

from mlae_lab.core.sanitize import one_line, printable


def test_control_and_invisible_characters_are_removed() -> None:
    assert printable("a\x1b[2J\x07\tb\u202eé×\x9b") == "a[2J\tbé×"
    assert printable("") == ""
    assert printable("\u202eni\u200dm\u200cm\u200b") == "ni\u200dm\u200cm"


def test_one_line() -> None:
    assert one_line(" two\r\nlines\tand \x1b one\u2028more ") == "two lines and one more"
    assert one_line("\n\x00") == ""
