"""The section Weights and data: bundled files, weights and tasks on this machine, and fetches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mlae_lab.core import catalog
from mlae_lab.core.bounded_json import safetensors_header
from mlae_lab.core.catalog import Group
from mlae_lab.core.hosts import HostError
from mlae_lab.core.units import format_bytes
from mlae_lab.core.weight_header import what_it_is_instead
from mlae_lab.data import bundled, fetching
from mlae_lab.data.tasks import own_tasks, ready
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, shortened, trouble
from mlae_lab.doctor.folders import bytes_of, write_problem
from mlae_lab.files import open_regular
from mlae_lab.locations import ASSETS, PROGRAM, weights_file

PAPER_WEIGHTS = "vit_base_patch16_224.orig_in21k"


def section(context: Context) -> Iterator[Finding]:
    """Weights and images on this machine, whether they are intact, and the state of fetches."""
    yield from _bundled()
    data = context.data
    named = " (MLAE_LAB_DATA)" if os.environ.get("MLAE_LAB_DATA") else ""
    problem = write_problem(data)
    if problem and not named and write_problem(context.folder):
        yield note("data folder", f"{data} {problem}", "it is in the store: fix the store first")
    elif problem:
        yield trouble("data folder", f"{data}{named} {problem}", "name a folder of yours with `MLAE_LAB_DATA`")
    else:
        yield good("data folder", f"{data}{named}" + ("" if data.exists() else ", created by the first fetch"))
    yield from _backbones(data)
    for group in (Group.NATURAL, Group.SPECIALIZED, Group.STRUCTURED, Group.FGVC):
        tasks = [task for task in catalog.TASKS if task.group is group]
        present = [task.name for task in tasks if ready(task)]
        yield good(
            f"{group.value} tasks",
            f"{len(present)} of {len(tasks)} have a folder" + (f": {', '.join(present)}" if present else ""),
        )
    own = [task.name for task in own_tasks()]
    yield good("own images", shortened(own, 12) if own else "none")
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE"):
        if value := os.environ.get(name):
            yield note(name, _without_password(value))
    yield from _fetches(data)


def _bundled() -> Iterator[Finding]:
    cure = f"restore {ASSETS} from the repository, or install the lab again"
    problems = []
    for name in ("digits", "fashion"):  # the other two are rendered by a formula
        try:  # without its cache, to check the file as it is now
            if bundled.checksum(bundled.load_bundled.__wrapped__(name)) != bundled.CHECKSUMS[name]:
                problems.append(f"the images of {name} have a wrong checksum")
        except bundled.DataError as error:
            problems.append(str(error))
    if problem := weights_problem(ASSETS / "lab_vit_12x128.safetensors"):
        problems.append(problem)
    needed = ("first_run.json", "tour.json", "icon.png", "logo.svg")
    problems += [f"{name} is missing" for name in needed if not (ASSETS / name).is_file()]
    for sentence in problems:
        yield trouble("bundled", sentence, cure)
    if not problems:
        yield good("bundled", "lab_vit_12x128, digits and fashion are intact")


def _backbones(data: Path) -> Iterator[Finding]:
    try:
        names = sorted(entry.name for entry in os.scandir(data / "weights") if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        names = []
    for name in names:
        file = data / "weights" / name / "model.safetensors"
        if not file.exists():
            yield note(f"weights {name}", f"{file.parent} has no {file.name}", f"`{PROGRAM} fetch {name}` downloads it")
        elif problem := weights_problem(file):
            yield trouble(f"weights {name}", problem, f"delete {file.parent} and type `{PROGRAM} fetch {name}`")
        else:
            yield good(f"weights {name}", format_bytes(bytes_of(file)))
    if not weights_file(PAPER_WEIGHTS).exists() and PAPER_WEIGHTS not in names:
        yield note("the paper's weights", "not on this machine", f"`{PROGRAM} fetch {PAPER_WEIGHTS}` downloads them")


def weights_problem(file: Path) -> str:
    """What is wrong with a safetensors file, judged by its header and size; "" if nothing is."""
    try:
        with open_regular(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            if foreign := what_it_is_instead(opened.read(1024)):
                return f"{file} is {foreign}"
            opened.seek(0)
            header, start = safetensors_header(opened)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        return f"{file} is truncated or not a safetensors file ({error})"
    expected = start + max(ends, default=0)
    return "" if size == expected else f"{file} has {size:,} bytes and should have {expected:,}"


def _without_password(address: str) -> str:
    """An address without the user name and password that it may contain."""
    parts = urlsplit(address)
    return address.replace(f"{parts.netloc.rpartition('@')[0]}@", "…@") if "@" in parts.netloc else address


def _fetches(data: Path) -> Iterator[Finding]:
    try:
        names = sorted(entry.name for entry in os.scandir(data / ".fetch") if entry.is_dir() and entry.name != "_parts")
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        try:
            state = fetching.watch(name, data)
        except HostError:
            continue  # not made by a fetch
        cure = f"fetch again with `{PROGRAM} fetch {name}`, or delete {data / '.fetch' / name} to forget it"
        if state.status in ("failed", "lost"):
            yield trouble(f"fetch {name}", f"{state.status}: {state.reason or 'reason unknown'}", cure)
        elif state.status == "cancelled":
            yield note(f"fetch {name}", "cancelled; the downloaded part is kept", cure)
        elif state.status == "running":
            progress = state.progress
            share = f", {progress.phase} {progress.done / progress.total:.0%}" if progress and progress.total else ""
            yield good(f"fetch {name}", f"running{share}")
