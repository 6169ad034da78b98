"""Settings as data: each is described once, on the dataclass field that holds it.

Validation, hash, command-line options, the text in a link, the form and the names of differences all read the
description, so a new setting is one new field. Any frozen dataclass can describe its fields this way:

    @dataclass(frozen=True)
    class Example:
        rank: int = field(default=4, metadata=setting("Rank", "Rank of the update.", option="rank", low=1, high=64))
"""

from __future__ import annotations

import re
import shlex
import types
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from mlae_lab.errors import LabError

_KEY = "setting"
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]*\.?[0-9]+(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_SWITCH = {"on": True, "off": False}


class ConfigError(LabError):
    """A setting that breaks a rule; its text gives the value, the rule and what would work."""


@dataclass(frozen=True)
class Setting:
    """The description of one setting.

    Args:
        label: Its name in the form and in tables.
        help: What it does, in one or two sentences.
        name: The field's name; `settings_of` fills it in, as it does `kind`, `optional` and `default`.
        kind: int, float, bool, str, tuple (of texts), or the class of a nested value.
        optional: Whether None is allowed; the form shows it as 0.
        default: The field's default, MISSING without one.
        proposed: What the lab proposes for a first run where it differs from the default.
        noun: Its name in a sentence, by default the field's name.
        plural: The noun in the plural.
        compared: Whether it counts as a difference between two runs; filled in from the field.
        option: Its name on the command line and in a link; "" keeps it off both.
        metavar: What stands for its value in the help of the command line.
        low: The lowest number that is allowed.
        high: The highest number that is allowed.
        exclusive: Whether `low` itself is not allowed.
        step: By how much the form's buttons change a number.
        choices: The values of a text; empty allows every text.
        titles: How the form shows choices; those without a title are shown as they are.
        open_ended: Whether other texts than the choices are allowed, which then are suggestions.
        group: The form's group of fields; "" keeps it out of the form, "main" is always unfolded.
        in_link: Whether a link may carry it.
        hashed: When it is part of a hash. A setting that is added later is so only where it differs from the
            default, so that the hashes of earlier runs stay.
        method: The only method that it affects, "" for all.
    """

    label: str
    help: str = ""
    name: str = ""
    kind: type = str
    optional: bool = False
    default: Any = None
    proposed: Any = None
    noun: str = ""
    plural: str = ""
    compared: bool = True
    option: str = ""
    metavar: str = ""
    low: float = 0
    high: float = 0
    exclusive: bool = False
    step: float = 1
    choices: tuple[str, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict, hash=False)
    open_ended: bool = False
    group: str = ""
    in_link: bool = True
    hashed: Literal["always", "never", "unless default"] = "always"
    method: str = ""

    @property
    def initial(self) -> Any:
        """The initial value of the form, the options and links: the proposed value, else the default."""
        return self.default if self.proposed is None else self.proposed

    def check(self, value: Any) -> Any:
        """The value as it is stored (a whole number for a float becomes one). Raises ConfigError if it is not legal."""
        if value is None and self.optional:
            return None
        if self.kind is int:
            if type(value) is not int or not self.low <= value <= self.high:
                self._refuse(value, f"a whole number from {self.low} to {self.high}")
        elif self.kind is float:
            if (
                not isinstance(value, (int, float))
                or isinstance(value, bool)
                or not self.low <= value <= self.high
                or (self.exclusive and value == self.low)
            ):
                bound = "above" if self.exclusive else "from"
                self._refuse(value, f"a number {bound} {self.low:,.10g} and at most {self.high:,.10g}")
            return float(value)  # 1 and 1.0 are one setting and have one hash
        elif self.kind is tuple:
            if not isinstance(value, tuple | list) or not all(isinstance(part, str) for part in value):
                self._refuse(value, "a list of texts")
            return tuple(value)  # JSON has lists only
        elif self.choices and not self.open_ended:
            if value not in self.choices:
                raise ConfigError(f"{self.noun} is {value!r}: choose from {', '.join(self.choices)}")
        elif not isinstance(value, self.kind):
            rule = {str: "a name", bool: "on or off"}.get(self.kind, f"a {self.kind.__name__}")
            self._refuse(value, rule)
        return value

    def _refuse(self, value: object, rule: str) -> NoReturn:
        raise ConfigError(f"{self.noun} is {value!r}: it must be {rule}")

    def from_text(self, text: str) -> Any:
        """The value that a link or an option names; a text that does not look like one stays, for `check` to refuse."""
        if self.kind is int:
            return int(text) if _WHOLE.fullmatch(text) else text
        if self.kind is float:
            return float(text) if _NUMBER.fullmatch(text) else text
        if self.kind is tuple:
            return tuple(part for part in text.split(" ") if part)
        return _SWITCH.get(text, text) if self.kind is bool else text

    def to_text(self, value: Any) -> str:
        """The inverse of `from_text`, exact."""
        if self.kind is tuple:
            return " ".join(value)
        return str(value) if self.kind is not bool else "on" if value else "off"

    def shown(self, value: Any) -> str:
        """The value as a sentence or a table shows it."""
        if value is None or value == "":
            return "none"
        return f"{value:g}" if isinstance(value, float) else self.to_text(value)


def setting(label: str, help: str = "", **description: Any) -> dict[str, Setting]:
    """The metadata of a field that is a setting. description: more of `Setting`'s attributes."""
    return {_KEY: Setting(label, help, **description)}


def rate(default: float, label: str, help: str, high: float = 0.9) -> float:
    """A field that is a setting from 0 to `high` in steps of 0.05, such as a dropout rate."""
    return field(default=default, metadata=setting(label, help, low=0, high=high, step=0.05))


@cache
def settings_of(described: type) -> tuple[Setting, ...]:
    """The settings of a dataclass, in the order of its fields; fields without a description are not settings."""
    hints = get_type_hints(described)
    return tuple(_completed(f, hints[f.name]) for f in fields(described) if _KEY in f.metadata)


def setting_of(described: type, name: str) -> Setting:
    """One setting of a dataclass, by its field's name."""
    return next(entry for entry in settings_of(described) if entry.name == name)


def _completed(held: Field, hint: Any) -> Setting:
    described: Setting = held.metadata[_KEY]
    kinds = (tuple,) if get_origin(hint) is tuple else get_args(hint) or (hint,)
    noun = described.noun or held.name.replace("_", " ")
    return replace(
        described, name=held.name, kind=kinds[0], optional=types.NoneType in kinds, default=held.default,
        compared=held.compare, noun=noun, plural=described.plural or f"{noun}s",
    )  # fmt: skip


def check_settings(instance: Any) -> None:
    """Check every setting of a frozen dataclass and store it as `check` gives it; call it in `__post_init__`."""
    for entry in settings_of(type(instance)):
        object.__setattr__(instance, entry.name, entry.check(getattr(instance, entry.name)))


def hashed_values(instance: Any, method: str) -> dict[str, Any]:
    """The settings that a hash is made of. method: what is trained; a later setting of another method is left out."""
    values = {entry: getattr(instance, entry.name) for entry in settings_of(type(instance)) if entry.hashed != "never"}
    return {
        entry.name: value
        for entry, value in values.items()
        if entry.hashed == "always" or (value != entry.default and entry.method in ("", method))
    }


def option_arguments(instance: Any, method: str = "") -> list[str]:
    """The command-line options that give these settings: those that differ from the default or for which the lab
    proposes another value. method: what is trained; settings of other methods are left out, as commands refuse them.
    """
    arguments = []
    for entry in settings_of(type(instance)):
        value = getattr(instance, entry.name)
        if entry.method not in ("", method):
            continue
        if entry.option and (value != entry.default or entry.proposed is not None):
            texts = value if entry.kind is tuple else (entry.to_text(value),)
            arguments.append(" ".join([f"--{entry.option}", *map(shlex.quote, texts)]))
    return arguments


def proposed_values(described: type) -> dict[str, Any]:
    """The values that the lab proposes where they differ from the defaults."""
    return {entry.name: entry.proposed for entry in settings_of(described) if entry.proposed is not None}


def form_groups(described: type) -> dict[str, list[Setting]]:
    """The settings of a form by group, groups in the order in which their first fields come."""
    groups: dict[str, list[Setting]] = {}
    for entry in settings_of(described):
        if entry.group:
            groups.setdefault(entry.group, []).append(entry)
    return groups
