"""The Task page of a folder of own images, whatever its name and with files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.trees import make_own
from tests.lab import html, open_page


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_check_leaves_out_what_cannot_be_read_and_says_so(data: Path) -> None:
    make_own(data / "own" / "Cats & Dogs, 2024", {"cat": 12, "dog": 12}, broken="cat/image 3.jpg")
    at = open_page("task", task="own:Cats & Dogs, 2024")
    assert not at.exception
    assert "Cats &amp; Dogs, 2024" in html(at)
    assert "readable)" not in html(at)
    at.button(key="task_check").click().run()
    assert not at.exception
    assert "(23 of 24 readable)" in html(at)
    assert "Left out, as they cannot be read: 1 of 24 images, cat/image 3.jpg" in html(at)


def test_a_folder_that_is_gone_is_one_sentence(data: Path) -> None:
    at = open_page("task", task="own:gone")
    assert not at.exception
    (info,) = at.info
    assert "has no folder gone: put its class folders with images there" in info.value
