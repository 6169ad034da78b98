"""A recorded run, replayed on the home page."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from streamlit.components.v2 import component

from mlae_lab.locations import ASSETS

_HERE = Path(__file__).parent
RECORDING = ASSETS / "first_run.json"
_COMPONENT = component(
    "mlae_lab_replay",
    html="""<div class="replay">
      <div class="grid" role="img" aria-label="Twelve layers by eight experts; rings mark the active experts"></div>
      <div><div class="now" aria-live="off"></div><svg viewBox="0 0 320 150" aria-hidden="true"></svg>
      <p class="caption"></p><button type="button">Pause</button></div>
    </div>""",
    css=(_HERE / "replay.css").read_text(),
    js=(_HERE / "palette.js").read_text() + (_HERE / "replay.js").read_text(),
)


@lru_cache(maxsize=1)
def _recording() -> dict:
    return json.loads(RECORDING.read_text())


def replay(key: str) -> None:
    """Play the recorded first run (recorded by `assets/record_first_run.py`)."""
    _COMPONENT(key=key, data=_recording(), height="content")
