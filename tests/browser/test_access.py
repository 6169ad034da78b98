"""axe-core on every page, light and dark: no serious and no critical fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAVIGATION = "[data-testid='stSidebarNavItems']"
# Rule and place of what is Streamlit's own and no style sheet or script of ours can mend.
NOT_OURS = {
    ("list", NAVIGATION),  # st.navigation puts a <div> for each section between the <ul> and its <li>
    ("listitem", NAVIGATION),  # and so the entries of a section have no list around them
}


def faults(page: Page, rules: tuple[str, ...] = ()) -> list[str]:
    """Serious and critical faults, each as "rule: element (why)". rules: only these."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'][:240]})"
        for rule in Axe().run(page, options=options).response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(rule["id"] == known and _within(page, node["target"], place) for known, place in NOT_OURS)
    ]


def _within(page: Page, target: list, place: str) -> bool:
    """Whether an element that axe names lies in a place, or is it."""
    return page.locator(target[-1]).first.evaluate("(element, place) => Boolean(element.closest(place))", place)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/task", "/task?task=svhn", "/masks", "/train", "/train?run={0}", "/race?runs={0},{1}", "/runs", "/doctor",
        "/compare?a={0}&b={1}", "/experts?run={0}",
    ],
)  # fmt: skip
def test_page_has_no_serious_fault(path: str, visit: Callable[..., Page], pair: tuple[str, str]) -> None:
    page = visit(path.format(*pair))
    page.wait_for_timeout(1500)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(400)
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert background == {"light": "rgb(250, 250, 247)", "dark": "rgb(16, 20, 24)"}[scheme]
        found = faults(page, () if scheme == "light" else ("color-contrast",))  # nothing else is another in the dark
        assert not found, f"{scheme}: " + "\n".join(found)
