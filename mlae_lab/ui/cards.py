"""Cards to choose from: patterns, tasks, runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from streamlit.components.v2 import component

_HERE = Path(__file__).parent
_COMPONENT = component(
    "mlae_lab_cards",
    html='<div class="cards"></div>',
    css=(_HERE / "cards.css").read_text(),
    js=(_HERE / "cards.js").read_text(),
)


@dataclass(frozen=True)
class Card:
    """One card. images: data addresses, one wide image or four small ones. word: one word with a
    dot, filled where tone is "good". group: headline above a new row of cards."""

    id: str
    title: str
    line: str = ""
    images: tuple[str, ...] = ()
    word: str = ""
    tone: str = ""
    group: str = ""
    chosen: bool = False


def cards(items: Sequence[Card], key: str, label: str, size: str = "large") -> str | None:
    """Draw cards; returns the id of the one clicked just now, else None. size: "small" or "large"."""
    result = _COMPONENT(
        key=key,
        data={"items": [asdict(item) for item in items], "label": label, "size": size},
        on_picked_change=lambda: None,
        height="content",
    )
    picked = result.picked
    return picked if picked in {item.id for item in items} else None
