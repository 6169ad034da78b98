"""Doctor: what is installed, problems and their fixes; the same as the command `doctor`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

import streamlit as st

from mlae_lab import doctor
from mlae_lab.doctor import Finding, TorchReport
from mlae_lab.locations import PROGRAM
from mlae_lab.ui import page

_TORCH = "doctor_torch"  # the torch report of this tab
_WORDS = {
    "good": "",
    "note": '<span class="lab-status quiet">note</span>',
    "trouble": '<span class="lab-status failure">problem</span>',
}


@st.cache_data(ttl=60, show_spinner=False)
def tested_torch() -> TorchReport:
    """The report of a process that loads torch, shared by all visitors for a minute."""
    return doctor.check_torch()


def table(findings: Iterable[Finding]) -> None:
    """Draw name, value and fix; all may come from files and people, so all is escaped."""
    rows = ""
    for finding in findings:
        cure = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(finding.cure))
        rows += f'<tr><th scope="row">{escape(finding.name)}</th><td>{_WORDS[finding.state]}{escape(finding.value)}'
        rows += (f"<p>{cure}</p>" if cure else "") + "</td></tr>"
    st.html(f'<table class="lab-findings">{rows}</table>')


top = st.container()
with st.container(horizontal=True, gap="small"):
    deep = st.button("Test the devices with torch", key="doctor_test")
    st.button("Refresh", key="doctor_again")
if deep:
    with st.spinner("A separate process loads torch and tests every device: a few seconds, at most a minute"):
        st.session_state[_TORCH] = tested_torch()
report = doctor.examine(deep=deep, torch=st.session_state.get(_TORCH))

with top:
    page.heading("Doctor", report.verdict)
    if report.troubles:
        table(report.troubles)
for section in report.sections:
    page.section(escape(section.title))
    table(section.findings)
with st.expander("As text, for a request for help"):
    st.code("\n".join(report.lines()), language=None, wrap_lines=True)
page.note(f"<code>{PROGRAM} doctor</code> prints this report in a terminal.")
