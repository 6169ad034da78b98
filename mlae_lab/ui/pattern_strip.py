"""A choice of patterns as small cards under the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from streamlit.components.v2 import component

from mlae_lab.ui.cards import Card

_HERE = Path(__file__).parent
_COMPONENT = component(
    "mlae_lab_pattern_strip",
    html='<div class="strip"></div>',
    css=(_HERE / "pattern_strip.css").read_text(),
    js=(_HERE / "pattern_strip.js").read_text(),
)


def pattern_strip(items: Sequence[Card], key: str) -> str | None:
    """Draw small cards by group; returns the id of the card that was just clicked, else None.

    Cards whose lines are sentences share the remaining width.
    """
    result = _COMPONENT(
        key=key, data={"items": [asdict(item) for item in items]}, on_picked_change=lambda: None, height="content"
    )
    return result.picked if result.picked in {item.id for item in items} else None
