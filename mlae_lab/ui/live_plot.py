"""A Plotly figure that is updated in place.

`st.plotly_chart` rebuilds its chart whenever the figure changes: it blinks and forgets the zoom.
This small component hands the figure to `Plotly.react` instead. Colours are written as meanings
("@accent"), so one figure serves light and dark and every viewer.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path

import plotly
import streamlit as st

from mlae_lab.places import PACKAGE
from mlae_lab.ui.figures import Figure

_HERE = Path(__file__).parent
_COMPONENT = st.components.v2.component(
    "mlae_lab_live_plot",
    html='<div class="plot" role="img" style="width:100%"></div>',
    js=(_HERE / "palette.js").read_text() + (_HERE / "live_plot.js").read_text(),
    isolate_styles=False,  # Plotly writes its style sheet into the document
)


@lru_cache(maxsize=1)
def plotly_url() -> str:
    """Address of plotly.js on the lab's own server; copies it out of the plotly package once.

    Raises OSError if mlae_lab/static cannot be written and holds no copy of this version.
    """
    name = f"plotly-{plotly.__version__}.min.js"
    target = PACKAGE / "static" / name
    if not target.exists():
        source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        partial = target.with_suffix(f".{os.getpid()}.part")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    return f"app/static/{name}"


def live_plot(figure: Figure, key: str) -> None:
    """Draw a figure, or update the one that stands under this key. key: unique on the page."""
    _COMPONENT(
        key=key,
        data={"spec": figure.spec, "alt": figure.alt, "name": figure.name, "plotly": plotly_url()},
        height="content",
    )
