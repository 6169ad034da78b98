"""Settings as data: a field with a description reaches validation, hash, options, link and form without other edits."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.cli.settings import add_run_options
from mlae_lab.core.config import ConfigError, RunConfig, differences
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.settings import check_settings, form_groups, option_arguments, setting, setting_of, settings_of
from mlae_lab.ui.settings_code import read_settings, settings_code


@dataclass(frozen=True)
class Smoothed(RunConfig):
    """A run with one more setting."""

    smoothing: float = field(
        default=0.0,
        metadata=setting(
            "Smoothing", "Share of the target spread over all classes, 5 % for example.",
            option="smoothing", low=0, high=0.5, step=0.05, group="schedule", hashed="unless default",
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Rank:
    """A dataclass with a setting of every kind."""

    rank: int = field(
        default=4, metadata=setting("Rank", "Of the update.", option="rank", low=1, high=64, group="main")
    )
    scale: float | None = field(
        default=None, metadata=setting("Scale", option="scale", low=0, high=10, exclusive=True, group="more")
    )
    rescaled: bool = field(default=False, metadata=setting("Rescaled", option="rescaled", proposed=True, group="more"))
    init: str = field(
        default="zero",
        metadata=setting(
            "Initial values", option="init", choices=("zero", "normal"), titles={"zero": "Zero"}, group="more"
        ),
    )
    note: str = field(default="", metadata=setting("Note", option="note", in_link=False, group="more"))
    hidden: int = 3

    def __post_init__(self) -> None:
        check_settings(self)


def options(described: type, words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_options(parser, described=described)
    parser.format_help()  # a "%" in a help must not break it
    return parser.parse_args(shlex.split(words))


def drawn() -> None:
    import streamlit as st

    from mlae_lab.ui.settings_view import settings

    st.session_state["values"] = settings(st.session_state["config"])


def form(config: Any) -> AppTest:
    at = AppTest.from_function(drawn)
    at.session_state["config"] = config
    at.run()
    assert not at.exception
    return at


# ---------------------------------------------------------------- one more field


def test_a_new_field_is_validated_and_keeps_the_hashes() -> None:
    assert Smoothed("digits").hash == RunConfig("digits").hash
    assert Smoothed("digits", smoothing=0.1).hash != RunConfig("digits").hash
    with pytest.raises(ConfigError, match=r"smoothing is 0\.6: it must be a number from 0 and at most 0\.5"):
        Smoothed("digits", smoothing=0.6)
    assert Smoothed.from_dict(Smoothed("digits", smoothing=0.1).to_dict()) == Smoothed("digits", smoothing=0.1)


def test_a_new_field_reaches_options_command_link_and_differences() -> None:
    config = Smoothed("digits", smoothing=0.1)
    assert config.command().endswith("--smoothing 0.1")
    assert options(Smoothed, "--smoothing 0.1").smoothing == 0.1
    assert settings_code(replace(Smoothed.from_dict(FIRST_RUN.to_dict()), smoothing=0.1)) == "smoothing:0.1"
    assert read_settings("smoothing:0.1", Smoothed)["smoothing"] == 0.1
    assert differences(Smoothed("digits"), config) == {"smoothing": (0.0, 0.1)}
    assert setting_of(Smoothed, "smoothing").plural == "smoothings"


def test_a_new_field_reaches_the_form() -> None:
    assert form_groups(Smoothed)["schedule"][-1].name == "smoothing"
    at = form(Smoothed("digits", smoothing=0.1))
    smoothing = at.number_input(key="train_smoothing")
    assert (smoothing.label, smoothing.value, smoothing.max) == ("Smoothing", 0.1, 0.5)
    smoothing.set_value(0.2).run()
    assert at.session_state["values"]["smoothing"] == 0.2


# ---------------------------------------------------------------- another dataclass


def test_types_names_and_defaults_come_from_the_fields() -> None:
    described = {entry.name: (entry.kind, entry.optional, entry.default, entry.initial) for entry in settings_of(Rank)}
    assert described == {
        "rank": (int, False, 4, 4), "scale": (float, True, None, None), "rescaled": (bool, False, False, True),
        "init": (str, False, "zero", "zero"), "note": (str, False, "", ""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank is 0: it must be a whole number from 1 to 64"),
        ({"rank": True}, "rank is True: it must be a whole number"),
        ({"scale": 0}, "scale is 0: it must be a number above 0 and at most 10"),
        ({"rescaled": 1}, "rescaled is 1: it must be on or off"),
        ({"init": "one"}, "init is 'one': choose from zero, normal"),
        ({"note": 3}, "note is 3: it must be a name"),
    ],
)
def test_values_of_every_kind_are_checked(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rank(**change)


@pytest.mark.parametrize(
    "config", [Rank(), Rank(rescaled=True), Rank(rank=8, scale=0.5, init="normal", note="a b; c"), Rank(scale=1e-07)]
)
def test_options_and_links_give_the_values_back(config: Rank) -> None:
    values = vars(options(Rank, " ".join(option_arguments(config))))
    assert Rank(**values) == config
    assert Rank(**read_settings(settings_code(config), Rank)) == replace(config, note="")


def test_the_form_draws_every_kind() -> None:
    config = Rank(rank=8, scale=0.5, rescaled=True, init="normal", note="why")
    at = form(config)
    assert Rank(**at.session_state["values"]) == config
    at.number_input(key="train_scale").set_value(0)
    at.toggle(key="train_rescaled").set_value(False)
    at.selectbox(key="train_init").set_value("zero")
    at.text_input(key="train_note").set_value("")
    at.run()
    assert Rank(**at.session_state["values"]) == Rank(rank=8)


@pytest.mark.parametrize(
    "config", [FIRST_RUN, replace(FIRST_RUN, learning_rate=1e-9, max_seconds=0.5, method="linear")]
)
def test_the_form_returns_the_settings_of_a_run(config: RunConfig) -> None:
    values = form(config).session_state["values"]
    assert replace(config, **values) == config
    shown = [entry for entry in settings_of(RunConfig) if entry.group and entry.method in ("", config.method)]
    assert set(values) == {entry.name for entry in shown} | {"method_settings"}


def test_every_setting_of_a_run_is_described_in_full() -> None:
    for entry in settings_of(RunConfig):
        assert entry.label, entry.name
        assert entry.help.endswith("."), entry.name
        assert entry.kind not in (int, float) or entry.high > entry.low, entry.name
        assert set(entry.titles) <= set(entry.choices), entry.name
