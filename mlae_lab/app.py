"""The app: `streamlit run mlae_lab/app.py`, from any working directory, installed or not.

Streamlit uses this file twice: `streamlit run` imports it and serves `app`, which then runs it as the script of every
page.
"""

# ruff: noqa: E402 - the path must be right before anything else is imported

import sys
from pathlib import Path

# Streamlit puts this file's folder on the path, not the repository. Replace it rather than add to it: while
# mlae_lab/ is on the path, a module in it would shadow a library of the same name.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(_ROOT), *(p for p in sys.path if Path(p).resolve() != _ROOT / "mlae_lab")]

import streamlit as st

from mlae_lab.ui import failures

if __name__ == "__main__":
    with failures.shown():
        from mlae_lab.ui import frame  # not before the server runs: its components register with it

        frame.draw()
else:
    from mlae_lab.ui import served, server

    app = st.App(
        __file__,
        routes=[served.route(st.get_option("server.baseUrlPath"))],
        middleware=[server.MIDDLEWARE],
        lifespan=server.lifespan,
        on_script_error=failures.show,
    )
