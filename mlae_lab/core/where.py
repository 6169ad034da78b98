"""A small language of conditions on rows, as in `runs --where "task=digits and drop_rate>0.3"`.

    condition  = and-part { "or" and-part }
    and-part   = not-part { "and" not-part }
    not-part   = "not" not-part | "(" condition ")" | comparison
    comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~" ) value
               | field "in" "(" value { "," value } ")"
    value      = word | 'text' | "text"

`~` means "contains". Texts are compared without case. `none` means that a row has no value; such a row meets no other
comparison except `!=` and `!~`. Nothing is executed: a condition is parsed into comparisons of the fields that it may
name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from mlae_lab.errors import LabError

Kind = Literal["number", "text", "list", "time", "switch"]
Row = Mapping[str, Any]
_Test = Callable[[Row], bool]

MAX_LENGTH, MAX_DEPTH = 2_000, 40  # characters; nested parentheses and "not"
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<sign>!=|!~|<=|>=|==|[=<>~(),])|(?P<word>[^\s"'=<>~(),!]+))""", re.UNICODE
)
_TIMES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
_ORDERED = ("<", "<=", ">", ">=")
_WORDS = ("and", "or", "not", "in")


class WhereError(LabError):
    """A condition that cannot be used; its text names the place or the field, and what would work."""


@dataclass(frozen=True)
class Field:
    """A field that a condition may name.

    Attributes:
        name: As it is written.
        kind: "number", "text", "list" (of texts: = means that one of them is equal), "time" (seconds since 1970,
            written as 2026-11-28 or 2026-11-28T13:45 in local time) or "switch" (on, off).
        help: What it is, with its unit.
    """

    name: str
    kind: Kind
    help: str


def parse(condition: str, fields: Sequence[Field]) -> _Test:
    """A condition as a function of a row, which maps names of fields to values or None.

    Args:
        condition: The text; an empty one is met by every row.
        fields: Those that it may name.

    Raises:
        WhereError: The text breaks the grammar, or names an unknown field.
    """
    if len(condition) > MAX_LENGTH:
        raise WhereError(f"the condition has {len(condition):,} characters: it may have at most {MAX_LENGTH:,}")
    if not condition.strip():
        return lambda row: True
    return _Parser(condition, {field.name: field for field in fields}).parsed()


@dataclass(frozen=True)
class _Token:
    kind: Literal["text", "sign", "word", "end"]
    value: str

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value[:40])

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.value.lower() == word


class _Parser:
    def __init__(self, condition: str, fields: Mapping[str, Field]) -> None:
        self.fields = fields
        self.tokens = _tokens(condition)
        self.at = self.depth = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, sign: str, after: str) -> None:
        token = self.take()
        if token.kind != "sign" or token.value != sign:
            raise WhereError(f"there is {token} where {sign!r} must follow {after}")

    def parsed(self) -> _Test:
        test = self.alternatives()
        if self.next.kind != "end":
            raise WhereError(f"there is {self.next} where and, or, or the end must follow a comparison")
        return test

    def alternatives(self) -> _Test:
        tests = [self.conjunction()]
        while self.next.is_word("or"):
            self.take()
            tests.append(self.conjunction())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def conjunction(self) -> _Test:
        tests = [self.negation()]
        while self.next.is_word("and"):
            self.take()
            tests.append(self.negation())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def negation(self) -> _Test:
        negated, opened = self.next.is_word("not"), self.next.kind == "sign" and self.next.value == "("
        if not negated and not opened:
            return self.comparison()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise WhereError(f"the condition is nested more than {MAX_DEPTH} deep: write it with fewer parentheses")
        self.take()
        if negated:
            inner = self.negation()
            self.depth -= 1
            return lambda row: not inner(row)
        test = self.alternatives()
        self.expect(")", "a condition in parentheses")
        self.depth -= 1
        return test

    def comparison(self) -> _Test:
        token = self.take()
        if token.kind != "word" or token.value.lower() in _WORDS:
            raise WhereError(f"there is {token} where a field must be named, as in epochs>4")
        field = self.fields.get(token.value.lower())
        if field is None:
            raise WhereError(_unknown(token.value, self.fields))
        sign = self.take()
        if sign.is_word("in"):
            self.expect("(", f"{field.name} in")
            values = [self.value(field, "=")]
            while self.next.kind == "sign" and self.next.value == ",":
                self.take()
                values.append(self.value(field, "="))
            self.expect(")", f"the values of {field.name}")
            return lambda row: any(_meets(row.get(field.name), "=", value) for value in values)
        operator = "=" if sign.value == "==" else sign.value
        if sign.kind != "sign" or operator not in ("=", "!=", "~", "!~", *_ORDERED):
            raise WhereError(f"there is {sign} after {field.name} where =, !=, <, <=, >, >=, ~, !~ or in must follow")
        if operator in _ORDERED and field.kind not in ("number", "time"):
            raise WhereError(f"{field.name} is {_article(field.kind)} and has no order: compare it with =, != or ~")
        value = self.value(field, operator)
        return lambda row: _meets(row.get(field.name), operator, value)

    def value(self, field: Field, operator: str) -> Any:
        token = self.take()
        if token.kind not in ("text", "word"):
            raise WhereError(f"there is {token} where a value of {field.name} must follow")
        if token.kind == "word" and token.value.lower() == "none":
            if operator not in ("=", "!="):
                raise WhereError(f"{field.name}{operator}none has no meaning: compare none with = or !=")
            return None
        text = token.value
        if operator in ("~", "!~") or field.kind in ("text", "list"):
            return text.lower()
        return _READ[field.kind](field.name, text)


def _tokens(condition: str) -> list[_Token]:
    tokens, at, text = [], 0, condition.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise WhereError(f"{text[at:].strip()[:40]!r} cannot be read: write values with quotes as 'a text'")
        kind: Any = match.lastgroup
        value = match[kind]
        tokens.append(_Token(kind, value[1:-1] if kind == "text" else value))
        at = match.end()
    return [*tokens, _Token("end", "")]


def _unknown(name: str, fields: Mapping[str, Field]) -> str:
    near = get_close_matches(name[:60].lower(), fields, 3, 0.6)
    *others, last = near or [""]
    nearest = f"the nearest are {', '.join(others)} and {last}" if others else f"the nearest is {last}"
    known = nearest if near else f"choose from {', '.join(fields)}"
    return f"there is no field {name[:60]!r}: {known}"


def _article(kind: Kind) -> str:
    return {"text": "a text", "list": "a list", "switch": "on or off"}.get(kind, kind)


def _number(name: str, text: str) -> float:
    try:
        value = float(text.removesuffix("%").replace("_", ""))
    except ValueError:
        value = float("nan")
    if value != value:
        raise WhereError(f"{name} is a number, which {text[:40]!r} is not: write one, such as {name}>0.5")
    return value


def _time(name: str, text: str) -> float:
    for form in _TIMES:
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    raise WhereError(f"{name} is a time, which {text[:40]!r} is not: write 2026-11-28 or 2026-11-28T13:45")


def _switch(name: str, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise WhereError(f"{name} is on or off, not {text[:40]!r}")
    return _SWITCH[text.lower()]


_READ: dict[str, Callable[[str, str], Any]] = {"number": _number, "time": _time, "switch": _switch}


def _meets(actual: Any, operator: str, value: Any) -> bool:
    if operator in ("!=", "!~"):
        return not _meets(actual, operator[1:], value)
    missing = actual is None or actual == "" or actual == ()
    if missing or value is None:
        return operator == "=" and missing and value is None
    if operator == "~":
        parts = actual if isinstance(actual, tuple) else (actual,)
        return any(value in str(part).lower() for part in parts)
    if isinstance(actual, tuple):
        return any(str(part).lower() == value for part in actual)
    if isinstance(value, str):
        return str(actual).lower() == value
    if operator == "=":
        return actual == value
    if operator in ("<", "<="):
        return actual < value or (operator == "<=" and actual == value)
    return actual > value or (operator == ">=" and actual == value)
