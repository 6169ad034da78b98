"""Whose turn it is: people are served in turn, each in the order of their own queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def fair_order(waiting: Sequence[tuple[str, T]], served: Mapping[str, int]) -> list[T]:
    """The order in which what waits will start.

    waiting: (owner, thing) in the order in which they stand. served: per owner the number of the turn they had
    last, a number that rises with every start; who never had one goes first. With one owner the order is the
    one they stand in.
    """
    own: dict[str, list[T]] = {}
    for owner, thing in waiting:
        own.setdefault(owner, []).append(thing)
    last = {owner: served.get(owner, 0) for owner in own}
    turn, order = max(served.values(), default=0), []
    while own:
        owner = min(own, key=last.__getitem__)  # of equals the one that stands first
        order.append(own[owner].pop(0))
        turn += 1
        last[owner] = turn
        if not own[owner]:
            del own[owner]
    return order
