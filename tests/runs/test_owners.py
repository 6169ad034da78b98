"""Names of owners."""

from __future__ import annotations

import pytest

from mlae_lab.runs.owners import owner_name, terminal_owner, terminal_user


@pytest.mark.parametrize(
    ("owner", "name"), [("cli:ada", "ada"), ("cli:", ""), ("visitor", "Bob"), ("another", ""), ("", "")]
)
def test_the_name_of_an_owner(owner: str, name: str) -> None:
    assert owner_name(owner, {"visitor": "Bob"}) == name


def test_a_user_of_the_terminal() -> None:
    assert terminal_user(terminal_owner("ada")) == "ada"
    assert terminal_user(terminal_owner("")) == ""
    assert terminal_user("visitor") is None
