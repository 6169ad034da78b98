"""The order of the queue: owners alternate, and each owner's runs keep their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def fair_order(queued: Sequence[tuple[str, T]], served: Mapping[str, int]) -> list[T]:
    """The order in which queued items will start.

    Args:
        queued: (owner, item) in the order of their positions.
        served: By owner, the number of the owner's last start; numbers rise with every start. Owners without a start
            come first. With one owner the order is that of `queued`.
    """
    by_owner: dict[str, list[T]] = {}
    for owner, item in queued:
        by_owner.setdefault(owner, []).append(item)
    last = {owner: served.get(owner, 0) for owner in by_owner}
    starts, order = max(served.values(), default=0), []
    while by_owner:
        owner = min(by_owner, key=last.__getitem__)  # of equals the one that is queued first
        order.append(by_owner[owner].pop(0))
        starts += 1
        last[owner] = starts
        if not by_owner[owner]:
            del by_owner[owner]
    return order
