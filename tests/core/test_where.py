"""Conditions: what they mean, and the error for each way to write one wrongly."""

from __future__ import annotations

import time

import pytest

from mlae_lab.core.where import MAX_DEPTH, Field, WhereError, parse

FIELDS = (
    Field("task", "text", ""), Field("drop_rate", "number", ""), Field("tags", "list", ""),
    Field("created", "time", ""), Field("frozen", "switch", ""), Field("accuracy", "number", ""),
)  # fmt: skip
ROW = {
    "task": "Digits", "drop_rate": 0.5, "tags": ("good", "Paper run"), "frozen": True, "accuracy": None,
    "created": time.mktime((2026, 11, 28, 13, 45, 0, 0, 0, -1)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("", True),
        ("  ", True),
        ("task=digits and drop_rate>0.3", True),
        ("task = 'digits' AND drop_rate <= 0.3", False),
        ("task==digits", True),
        ("task != digits", False),
        ("task~git", True),
        ("task!~git", False),
        ("task in (fashion, digits)", True),
        ("task in (fashion)", False),
        ("drop_rate=0.5", True),
        ("drop_rate>=0.5 and drop_rate<=.5 and not drop_rate<0.5 and not drop_rate>5e-1", True),
        ("tags=good", True),
        ("tags='paper run'", True),
        ("tags=paper", False),
        ("tags~paper", True),
        ("tags!=bad", True),
        ("created>2026-11-27", True),
        ("created>=2026-11-28T13:45 and created<=2026-11-28T13:45:00", True),
        ("created<'2026-11-28 13:45'", False),
        ("frozen=on", True),
        ("frozen=off", False),
        ("accuracy>0", False),
        ("accuracy<=0", False),
        ("accuracy=none", True),
        ("accuracy!=none", False),
        ("accuracy!=5", True),
        ("drop_rate!=none", True),
        # "and" binds tighter than "or", "not" tightest
        ("task=digits or task=x and task=y", True),
        ("(task=digits or task=x) and task=y", False),
        ("not task=x and task=y", False),
        ("not (task=x and task=y)", True),
        ("not not task=digits", True),
    ],
)
def test_a_condition_means_what_it_says(condition: str, expected: bool) -> None:
    assert parse(condition, FIELDS)(ROW) is expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("dorp_rate>0.3", "there is no field 'dorp_rate': the nearest is drop_rate"),
        ("zzz=1", "there is no field 'zzz': choose from task, drop_rate, tags, created, frozen, accuracy"),
        ("drop_rate>high", "drop_rate is a number, which 'high' is not"),
        ("drop_rate=nan", "drop_rate is a number, which 'nan' is not"),
        ("created>yesterday", "created is a time, which 'yesterday' is not: write 2026-11-28"),
        ("frozen=maybe", "frozen is on or off, not 'maybe'"),
        ("task>digits", "task is a text and has no order"),
        ("accuracy>none", "accuracy>none has no meaning"),
        ("task", "there is the end after task where =, !="),
        ("task=", "there is the end where a value of task must follow"),
        ("task=digits drop_rate>1", "there is 'drop_rate' where and, or, or the end"),
        ("(task=digits", r"there is the end where '\)' must follow a condition"),
        ("task=digits)", r"there is '\)' where and"),
        ("and task=digits", "there is 'and' where a field must be named"),
        ("task in digits", r"there is 'digits' where '\(' must follow task in"),
        ("task='digits", "cannot be read: write values with quotes"),
        ("task=digits; import os", "there is 'import' where and"),
        ("(" * (MAX_DEPTH + 1) + "task=x" + ")" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} deep"),
        ("not " * 400 + "task=x", f"nested more than {MAX_DEPTH} deep"),
        ("task=x or " * 300 + "task=y", "characters: it may have at most 2,000"),
    ],
)
def test_an_error_names_what_is_wrong(condition: str, message: str) -> None:
    with pytest.raises(WhereError, match=message):
        parse(condition, FIELDS)
