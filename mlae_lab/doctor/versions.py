"""The section Versions: the lab, Python and the packages it needs, compared with the tested versions."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata

from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, trouble
from mlae_lab.locations import ROOT, lab_version

REQUIREMENTS = ROOT / "requirements.txt"


def section(context: Context) -> Iterator[Finding]:
    """The installed versions, and whether they are in the tested ranges."""
    from packaging.requirements import Requirement

    yield good("lab", f"{lab_version()}, {ROOT}")
    yield good("Python", f"{platform.python_version()}, {sys.executable}")
    for line in _requirements():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        install = f"type `{pip(f'{wanted.name}{wanted.specifier}')}`"
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield trouble(wanted.name, f"not installed; the lab is tested with {wanted.specifier}", install)
            continue
        if wanted.specifier.contains(installed, prereleases=True):
            yield good(wanted.name, installed)
        else:
            yield trouble(wanted.name, f"{installed} is outside the tested range {wanted.specifier}", install)


def _requirements() -> list[str]:
    """The requirements of the lab, from the checkout or else from the installed package."""
    if not REQUIREMENTS.is_file():
        return metadata.requires("mlae-lab") or []
    lines = [line.partition(" #")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def pip(*words: str) -> str:
    """The command that installs packages for this Python. words: arguments of `pip install`."""
    return shlex.join([sys.executable, "-m", "pip", "install", *words])
