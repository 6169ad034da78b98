"""Paths of the lab's own files and of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab import locations
from mlae_lab.cli import main


def test_pages_and_assets_of_a_checkout(root: Path) -> None:
    assert root == locations.ROOT
    assert root / "mlae_lab" == locations.PACKAGE
    assert root / "assets" == locations.ASSETS
    assert (locations.ASSETS / "digits.npz").exists()
    assert root / "pages" == locations.PAGES


def test_the_store_is_set_by_the_environment_or_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_STORE", "/data/lab")
    assert locations.default_store() == Path("/data/lab")
    monkeypatch.setenv("MLAE_LAB_STORE", "~/lab")
    assert locations.default_store() == Path.home() / "lab"
    monkeypatch.setenv("MLAE_LAB_STORE", "")
    assert locations.default_store() == Path.home() / ".mlae_lab"
    monkeypatch.delenv("MLAE_LAB_STORE")
    assert locations.default_store() == Path.home() / ".mlae_lab"


@pytest.mark.parametrize(("variable", "command"), [("MLAE_LAB_STORE", "runs"), ("MLAE_LAB_DATA", "tasks")])
def test_the_folder_of_an_unknown_user_is_one_sentence(
    variable: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "~nosuch/lab")
    assert main([command]) == 2
    assert capsys.readouterr().err == (
        f"mlae_lab: {variable} is ~nosuch/lab, in an unknown home folder: name a folder in full\n"
    )
