"""The settings of a run as a short text for an address: `epochs:20,lr:0.001,seed:3`.

It names what differs from the run that the lab proposes, by the words of the command line. Task and mask have places
of their own in an address; where images and weights lie is never read from one.
"""

from __future__ import annotations

import re

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.defaults import FIRST_RUN

NOTHING = "default"  # every setting is as the lab proposes it
_WORDS = {
    "method": "method", "backbone": "backbone", "protocol": "protocol", "epochs": "epochs", "seconds": "max_seconds",
    "lr": "learning_rate", "weight-decay": "weight_decay", "batch-size": "batch_size", "warmup": "warmup",
    "evaluations": "evaluations", "seed": "seed", "device": "device", "precision": "precision",
    "preprocessing": "preprocessing", "normalisation": "normalisation", "mask-per": "mask_per",
    "input-dropout": "input_dropout",
}  # fmt: skip
SETTINGS = tuple(_WORDS.values())
_WHOLE, _NUMBER = re.compile(r"-?[0-9]{1,18}"), re.compile(r"-?[0-9]*\.?[0-9]+(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


def settings_code(config: RunConfig) -> str:
    """The settings of a run that differ from the proposed one's; "default" where none does."""
    differing = {word: getattr(config, name) for word, name in _WORDS.items() if _differs(config, name)}
    return ",".join(f"{word}:{value}" for word, value in differing.items()) or NOTHING


def _differs(config: RunConfig, name: str) -> bool:
    return getattr(config, name) != getattr(FIRST_RUN, name)


def settings_of(code: str) -> dict:
    """All settings that a text stands for, by the names of RunConfig's fields; those not named are the proposed run's.

    Raises ConfigError for a text that is no list of known settings. Values out of range are RunConfig's to refuse.
    """
    settings = {name: getattr(FIRST_RUN, name) for name in SETTINGS}
    if code in ("", NOTHING):
        return settings
    named = set()
    for entry in code.split(","):
        word, colon, value = entry.partition(":")
        if not colon or word not in _WORDS:
            raise ConfigError(
                f"the setting {entry[:40]!r} is unknown: write NAME:VALUE with one of {', '.join(_WORDS)}"
            )
        if word in named:
            raise ConfigError(f"the setting {word} is named twice: name it once")
        named.add(word)
        settings[_WORDS[word]] = _value(_WORDS[word], value[:80])
    return settings


def _value(name: str, text: str) -> object:
    """A value as its setting's type; what does not look like one stays a text, for RunConfig to refuse."""
    if isinstance(getattr(FIRST_RUN, name), int):
        return int(text) if _WHOLE.fullmatch(text) else text
    if name == "max_seconds" or isinstance(getattr(FIRST_RUN, name), float):
        return float(text) if _NUMBER.fullmatch(text) else text
    return text
