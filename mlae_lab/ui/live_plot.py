"""A Plotly figure that is updated in place.

`st.plotly_chart` rebuilds its chart whenever the figure changes: it flickers and loses the zoom.
This component passes the figure to `Plotly.react` instead. Colours are named by meaning ("@accent"), so one figure
serves the light and the dark theme and every viewer.
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

import plotly

from mlae_lab.files import replacing
from mlae_lab.locations import PACKAGE
from mlae_lab.ui.bundle import bundled
from mlae_lab.ui.figures import Figure

_COMPONENT = bundled("live_plot", ("palette.js", "plotting.js", "live_plot.js"), "live_plot.html")


@lru_cache(maxsize=1)
def plotly_url() -> str:
    """The address of plotly.js on the lab's server; copies it once from the plotly package.

    Raises:
        OSError: If mlae_lab/static cannot be written and has no copy of this version.
    """
    name = f"plotly-{plotly.__version__}.min.js"
    target = PACKAGE / "static" / name
    if not target.exists():
        source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
    return f"app/static/{name}"


def live_plot(figure: Figure, key: str) -> None:
    """Draw a figure, or update the one with this key, which is unique on the page."""
    _COMPONENT(
        key=key,
        data={"spec": figure.spec, "alt": figure.alt, "name": figure.name, "plotly": plotly_url()},
        height="content",
    )
