"""Everything in one folder: the adapter, the merged network and the graph, each in its own folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from mlae_lab.core.export_formats import FORMATS, parts_of_bundle
from mlae_lab.exports.export import Check, Export


def write(export: Export, folder: Path) -> Check:
    """Fill a folder; the check is that of the part with the largest difference, and names all."""
    checks = {}
    for name in parts_of_bundle(export.network.config):
        (folder / name).mkdir()
        export.report(f"writing {FORMATS[name].title}")
        checks[name] = import_module(f"mlae_lab.exports.{FORMATS[name].module}").write(export, folder / name)
    worst = max(checks.values(), key=lambda check: check.difference)
    each = ", ".join(f"{name} {check.difference:.1e} ({check.by})" for name, check in checks.items())
    return Check(worst.by, worst.difference, f"By part: {each}.")
