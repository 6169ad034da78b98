"""Owners of runs and masks: a browser's visitor id, "cli:NAME" for a user of the terminal, or "" if unknown."""

from __future__ import annotations

from collections.abc import Mapping

_TERMINAL = "cli:"


def terminal_owner(user: str) -> str:
    """The owner for a user of the terminal."""
    return _TERMINAL + user


def terminal_user(owner: str) -> str | None:
    """The user of the terminal that an owner is, None for a visitor."""
    return owner.removeprefix(_TERMINAL) if owner.startswith(_TERMINAL) else None


def owner_name(owner: str, nicknames: Mapping[str, str]) -> str:
    """The display name of an owner, "" for a browser without a nickname.

    Args:
        owner: As it is stored.
        nicknames: By visitor id (`RunStore.nicknames`).
    """
    return nicknames.get(owner) or terminal_user(owner) or ""
