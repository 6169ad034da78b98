"""Where the lab's own files lie and where it keeps runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab import locations


def test_in_a_checkout_pages_and_assets_lie_beside_the_package(root: Path) -> None:
    assert locations.ROOT == root and locations.PACKAGE == root / "mlae_lab"
    assert locations.ASSETS == root / "assets" and (locations.ASSETS / "digits.npz").exists()
    assert locations.PAGES == root / "pages"


def test_the_store_is_named_by_the_environment_or_lies_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_STORE", "/data/lab")
    assert locations.default_store() == Path("/data/lab")
    monkeypatch.setenv("MLAE_LAB_STORE", "~/lab")
    assert locations.default_store() == Path.home() / "lab"
    monkeypatch.setenv("MLAE_LAB_STORE", "")
    assert locations.default_store() == Path.home() / ".mlae_lab"
    monkeypatch.delenv("MLAE_LAB_STORE")
    assert locations.default_store() == Path.home() / ".mlae_lab"
