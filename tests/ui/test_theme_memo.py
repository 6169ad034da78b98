"""The remembered theme is the theme."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from streamlit import config
from streamlit.proto.NewSession_pb2 import CustomThemeConfig
from streamlit.runtime import app_session

from mlae_lab.ui.theme_memo import remember_theme

SECTIONS = {"theme": None, "theme.light": "light", "theme.dark": "dark", "theme.sidebar": "sidebar"}


@pytest.fixture
def themed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    write = app_session._populate_theme_msg
    monkeypatch.setattr(app_session, "_populate_theme_msg", getattr(write, "__wrapped__", write))
    before = {name: config.get_option(name) for name in ("theme.primaryColor", "theme.dark.primaryColor", "theme.font")}
    config.set_option("theme.primaryColor", "#0F766E")
    config.set_option("theme.dark.primaryColor", "#2DD4BF")
    config.set_option("theme.font", "Inter, sans-serif")
    yield
    for name, value in before.items():
        config.set_option(name, value)


def written() -> CustomThemeConfig:
    theme = CustomThemeConfig()
    for section, part in SECTIONS.items():
        app_session._populate_theme_msg(getattr(theme, part) if part else theme, section)
    return theme


def test_cached_theme_equals_streamlits_and_is_computed_once(themed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = written()
    assert plain.primary_color == "#0F766E"
    assert plain.dark.primary_color == "#2DD4BF"
    assert not plain.HasField("sidebar")
    assert remember_theme()
    assert remember_theme()
    assert written() == plain
    looked: list[str] = []
    monkeypatch.setattr(config, "get_options_for_section", lambda section: looked.append(section) or {})
    assert written() == plain
    assert not looked


def test_other_signature_is_left_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(msg, section, more) -> None: ...

    monkeypatch.setattr(app_session, "_populate_theme_msg", other)
    assert not remember_theme()
    assert app_session._populate_theme_msg is other
    monkeypatch.delattr(app_session, "_populate_theme_msg")
    assert not remember_theme()
