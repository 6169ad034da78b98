"""Commands and options of version 0.5 that have another name today."""

from __future__ import annotations

from collections.abc import Sequence

from mlae_lab.cli.output import UsageError

OLD_COMMANDS = {"again": "rerun", "matters": "importance", "robust": "robustness"}
OLD_OPTIONS = {"--picture": "--image", "--pictures": "--images", "--draws": "--samples", "--tell": "--report"}


def refuse_old_names(words: Sequence[str]) -> None:
    """Raise UsageError, in a sentence with the new names, for a command line that uses old ones."""
    renamed = [(word, OLD_COMMANDS[word]) for word in words[:1] if word in OLD_COMMANDS]
    options = dict.fromkeys(word.partition("=")[0] for word in words)
    renamed += [(option, OLD_OPTIONS[option]) for option in options if option in OLD_OPTIONS]
    if renamed:
        raise UsageError("renamed since version 0.5: " + ", ".join(f"`{old}` is now `{new}`" for old, new in renamed))
