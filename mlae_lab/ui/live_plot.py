"""A Plotly figure that is updated in place.

`st.plotly_chart` rebuilds its chart whenever the figure changes: it flickers and loses the zoom.
This component passes the figure to `Plotly.react` instead. Colours are named by meaning ("@accent"), so one figure
serves the light and the dark theme and every viewer.
"""

from __future__ import annotations

from pathlib import Path

import plotly

from mlae_lab.ui import served
from mlae_lab.ui.bundle import bundled
from mlae_lab.ui.figures import Figure

_COMPONENT = bundled("live_plot", ("palette.js", "plotting.js", "live_plot.js"), "live_plot.html")
PLOTLY = served.address(  # plotly.js, of the plotly package
    f"plotly-{plotly.__version__}.min.js", Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
)


def live_plot(figure: Figure, key: str) -> None:
    """Draw a figure, or update the one with this key, which is unique on the page."""
    _COMPONENT(
        key=key,
        data={"spec": figure.spec, "alt": figure.alt, "name": figure.name, "plotly": PLOTLY},
        height="content",
    )
