"""Which split of a dataset a folder stands for, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlae_lab.data.listing import plain

_SPLIT_NAMES_0_5 = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_STEMS = {
    "train": "train|training|trn",
    "val": "val|valid|validation|validate|dev|devel|development|eval|evaluation",
    "test": "test|testing|tst",
}
_SPLIT_PATTERNS = {
    split: re.compile(f"(?:seg)?(?:{stems})(?:set|split|data|dataset|images?|imgs?)?")
    for split, stems in _STEMS.items()
}


def split_named(name: str, as_0_5: bool) -> str | None:
    """The split that a folder's name stands for, None for any other name. as_0_5: by the names of version 0.5."""
    if as_0_5:
        return _SPLIT_NAMES_0_5.get(name.casefold())
    return next((split for split, pattern in _SPLIT_PATTERNS.items() if pattern.fullmatch(plain(name))), None)


def split_folders(names: Iterable[str], as_0_5: bool) -> dict[str, str]:
    """The folders that are named like a split, each with its split."""
    split_of = {name: split for name in names if (split := split_named(name, as_0_5))}
    validation = [name for name, split in split_of.items() if split == "val"]
    evaluation = [name for name in validation if plain(name).startswith("eval")]
    if "test" not in split_of.values() and 0 < len(evaluation) < len(validation):  # as in Food-11
        split_of |= dict.fromkeys(evaluation, "test")
    return split_of
