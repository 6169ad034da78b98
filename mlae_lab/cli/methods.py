"""`methods`: every fine-tuning method with its settings and its parameters for a backbone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mlae_lab.cli.output import print_json
from mlae_lab.core import catalog, recipes
from mlae_lab.core import method as registry
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import Method
from mlae_lab.core.settings import ConfigError, Setting, settings_of

DEFAULT = "vit_base_patch16_224.orig_in21k"


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command."""
    methods = command("methods", _methods, "list the fine-tuning methods with settings and trained parameters")
    methods.add_argument(
        "--backbone", default=DEFAULT, metavar="B", help="count parameters for this backbone (default: %(default)s)"
    )


def settings_of_method(described: type[Method]) -> tuple[Setting, ...]:
    """The settings of a method; those of MLAE are settings of a run."""
    own = settings_of(described)
    return own or tuple(entry for entry in settings_of(RunConfig) if entry.method == described.name)


def rows(backbone: catalog.Backbone) -> list[dict]:
    """One row per method, in the order of the registry; parameters are None where the backbone does not fit."""
    listed = []
    for name, described in registry.available()[0].items():
        try:
            parameters, note = described().parameters(backbone), ""
        except (ConfigError, catalog.CatalogError) as error:
            parameters, note = None, str(error)
        listed.append(
            {
                "name": name, "title": described.title, "parameters": parameters, "note": note,
                "traits": sorted(trait.value for trait in described.traits),
                "settings": [
                    {
                        "name": entry.name, "label": entry.label, "help": entry.help, "default": entry.default,
                        "choices": list(entry.choices),
                        "low": entry.low if entry.kind in (int, float) else None,
                        "high": entry.high if entry.kind in (int, float) else None,
                    }
                    for entry in settings_of_method(described)
                ],
                "formula": described.formula, "summary": described.summary, "reference": described.reference,
                "recipes": {
                    key: {"title": title, "source": recipe.source, "note": recipe.note, **recipe.values}
                    for key, (title, recipe) in recipes.available(name).items()
                },
            }
        )  # fmt: skip
    return listed


def _methods(args: argparse.Namespace) -> int:
    backbone = catalog.backbone(args.backbone)
    listed = rows(backbone)
    for problem in registry.available()[1]:
        print(f"note: {problem}", file=sys.stderr)
    if args.json:
        return print_json({"backbone": backbone.name, "methods": listed})
    print(
        f"{'method':<13}{'title':<26}{'parameters':>12}   {'recipes':<22}settings    "
        f"({backbone.name}, without the head)"
    )
    for row in listed:
        count = "–" if row["parameters"] is None else f"{row['parameters']:,}"
        settings = " ".join(f"{entry['name']}={entry['default']}" for entry in row["settings"])
        known = " ".join(row["recipes"])
        print(f"{row['name']:<13}{row['title']:<26}{count:>12}   {known:<22}{settings}".rstrip())
    return 0
