"""Cards for a choice of patterns, tasks or runs."""

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
    """One card.

    Attributes:
        images: Data addresses: one wide image or four small ones.
        word: One word with a dot, filled where tone is "good".
        group: Heading above a new row of cards.
    """

    id: str
    title: str
    line: str = ""
    images: tuple[str, ...] = ()
    word: str = ""
    tone: str = ""
    group: str = ""
    chosen: bool = False


def cards(items: Sequence[Card], key: str, label: str, size: str = "large") -> str | None:
    """Draw cards.

    Args:
        items: The cards.
        key: Unique on the page.
        label: For screen readers.
        size: "small" or "large".

    Returns:
        The id of the card that was just clicked, else None.
    """
    result = _COMPONENT(
        key=key,
        data={"items": [asdict(item) for item in items], "label": label, "size": size},
        on_picked_change=lambda: None,
        height="content",
    )
    picked = result.picked
    return picked if picked in {item.id for item in items} else None
