"""axe-core on every page, light and dark: no serious or critical violations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAVIGATION = "[data-testid='stSidebarNavItems']"
# Rule and region of violations in Streamlit's own elements, which the lab cannot fix.
STREAMLIT_VIOLATIONS = {
    ("list", NAVIGATION),  # st.navigation puts a <div> for each section between the <ul> and its <li>
    ("listitem", NAVIGATION),  # so the entries of a section are not inside a list
}


def serious_violations(page: Page, rules: tuple[str, ...] = ()) -> list[str]:
    """Return serious and critical violations, each as "rule: element (reason)". rules: check only these."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'][:240]})"
        for rule in Axe().run(page, options=options).response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(
            rule["id"] == known and _within(page, node["target"], place) for known, place in STREAMLIT_VIOLATIONS
        )
    ]


def _within(page: Page, target: list, place: str) -> bool:
    """Return whether an element that axe reports is inside a region, or is it."""
    return page.locator(target[-1]).first.evaluate("(element, place) => Boolean(element.closest(place))", place)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/task", "/task?task=svhn", "/masks", "/train", "/train?run={0}", "/race?runs={0},{1}", "/runs", "/doctor",
        "/compare?a={0}&b={1}", "/experts?run={0}",
    ],
)  # fmt: skip
def test_page_has_no_serious_violation(path: str, visit: Callable[..., Page], pair: tuple[str, str]) -> None:
    page = visit(path.format(*pair))
    page.wait_for_timeout(1500)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(400)
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert background == {"light": "rgb(250, 250, 247)", "dark": "rgb(16, 20, 24)"}[scheme]
        violations = serious_violations(
            page, () if scheme == "light" else ("color-contrast",)
        )  # only contrast depends on the scheme
        assert not violations, f"{scheme}: " + "\n".join(violations)
