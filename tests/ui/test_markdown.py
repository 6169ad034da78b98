"""Text sanitising: markdown in text from outside is escaped, the lab's commands stay code."""

from __future__ import annotations

import pytest

from mlae_lab.core.plan import PlanError
from mlae_lab.ui.markdown import plain, sentence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[log in](https://e.co)", r"\[log in\](`https://e.co`)"),
        ("![](https://e.co/p.png)", r"!\[\](`https://e.co/p.png`)"),
        ("<https://e.co> $x$ ~~y~~ *z*", r"\<`https://e.co`> \$x\$ \~\~y\~\~ \*z\*"),
        ("_who_ asks m1_12x8_ff*12", r"\_who\_ asks m1_12x8_ff\*12"),
        (":red[x] and :smile:, so: this", r"\:red\[x\] and \:smile:, so: this"),
        ("# no heading # here", r"\# no heading # here"),
        ("see www.e.co/a_b, or ask ada@e.co.", "see `www.e.co/a_b`, or ask `ada@e.co`."),
        (
            "type `pip install a[b] https://e.co`, *then* a ` b",
            r"type `pip install a[b] https://e.co`, \*then\* a \` b",
        ),
        ("type `mlae_lab doctor`", "type `mlae_lab doctor`"),
        ("a \\ b", r"a \\ b"),
    ],
)
def test_markdown_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_sentence() -> None:
    assert sentence(PlanError("the mask of /tmp/AdaStore is one.")) == "The mask of /tmp/AdaStore is one."
    assert sentence("") == ""
    assert sentence("x") == "X."
    assert sentence(ValueError()) == "ValueError."
