"""The settings of a run as a short text for a link: `epochs:20,lr:0.001,seed:3`.

It contains the settings that differ from the proposed run, by the names of the command-line options. Task and mask are
separate parameters of a link; the folders of images and weights are never read from one.
"""

from __future__ import annotations

from typing import Any

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.settings import Setting, settings_of

NOTHING = "default"  # every setting has its proposed value


def _linked(described: type) -> dict[str, Setting]:
    return {setting.option: setting for setting in settings_of(described) if setting.option and setting.in_link}


SETTINGS = tuple(setting.name for setting in _linked(RunConfig).values())


def settings_code(config: Any) -> str:
    """The settings of a config (usually a RunConfig) that differ from the proposed ones, or "default"."""
    values = {setting: getattr(config, setting.name) for setting in _linked(type(config)).values()}
    differing = (f"{s.option}:{s.to_text(value)}" for s, value in values.items() if value != s.initial)
    return ",".join(differing) or NOTHING


def read_settings(code: str, described: type = RunConfig) -> dict[str, Any]:
    """Read all settings of a link, by field name; settings that it does not name have their proposed values.

    Args:
        code: The text of the link.
        described: The dataclass with described fields; it checks the values itself.

    Raises:
        ConfigError: If the text is not a list of known settings.
    """
    linked = _linked(described)
    settings = {setting.name: setting.initial for setting in linked.values()}
    if code in ("", NOTHING):
        return settings
    named = set()
    for entry in code.split(","):
        option, colon, value = entry.partition(":")
        if not colon or option not in linked:
            raise ConfigError(
                f"the setting {entry[:40]!r} is unknown: write NAME:VALUE with one of {', '.join(linked)}"
            )
        if option in named:
            raise ConfigError(f"the setting {option} is named twice: name it once")
        named.add(option)
        settings[linked[option].name] = linked[option].from_text(value[: 400 if linked[option].kind is tuple else 80])
    return settings
