"""Labels and notes of a run's images that say what happened to the images after its launch."""

from __future__ import annotations

import re
from dataclasses import replace

from mlae_lab.core.config import RunConfig

# The word of version 0.5 in labels; `runs.schema` renames it in a store, `current` in an archive file.
OLD_WORD = " pictures"
WORD = " images"
_COUNTS = re.compile(r"\b([0-9,]+)/([0-9,]+)/([0-9,]+)\b")
_MIXED, _THEN = "mixed images: ", ", then "
_ADDED, _REPEATED = (
    "The folder has",
    "In training and evaluation images with equal content",
)
_CHANGED = ("The images changed after the launch", "The image files were written again after the launch")


def current(label: str) -> str:
    """A label as this version writes it; accepts those of version 0.5."""
    return label.replace(OLD_WORD, WORD)


def counts_of(label: str) -> tuple[int, int, int] | None:
    """Numbers of training, validation and test images that a label gives, as that of own images does; else None."""
    counts = _COUNTS.search(_parts(label)[-1]) if label else None
    if counts is None:
        return None
    train, val, test = (int(count.replace(",", "")) for count in counts.groups())
    return train, val, test


def mixed(old: str, new: str) -> str:
    """The label of a run that was trained on images labelled `old` and continues with images labelled `new`."""
    labels = _parts(old)
    if new != (labels[-1] if labels else ""):
        labels.append(new)
    return labels[0] if len(labels) == 1 else _MIXED + _THEN.join(labels)


def change_note(old: str, new: str) -> str:
    """The note for images that were labelled `old` at the launch and are other ones now, labelled `new`."""
    if new != old:
        return f"{_CHANGED[0]}: they were “{old}” and are “{new}” now."
    return f"{_CHANGED[1]} (sizes or times differ); their label is still “{new}”."


def added_note(number: str) -> str:
    """The note for a folder that has more images than when the run began. number: such as "3 images"."""
    return f"{_ADDED} {number} more than at the launch, which the run does not use."


def repeated_note(number: str, names: str) -> str:
    """The note for evaluation images that are training images under another name."""
    return f"{_REPEATED}: {number}, {names}."


def changed(config: RunConfig) -> bool:
    """Whether the images of a run changed after its launch."""
    return any(note.startswith(_CHANGED) for note in config.data_notes)


def for_new_run(config: RunConfig) -> RunConfig:
    """The config of a run as that of a new one: without what happened to the run's images after its launch."""
    labels = _parts(config.data_label)
    notes = tuple(note for note in config.data_notes if not note.startswith((*_CHANGED, _ADDED, _REPEATED)))
    return replace(config, data_label=labels[-1] if labels else "", data_notes=notes)


def _parts(label: str) -> list[str]:
    return label.removeprefix(_MIXED).split(_THEN) if label else []
