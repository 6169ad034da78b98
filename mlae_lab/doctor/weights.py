"""The section Weights and data: what is bundled, what is here of weights and tasks, and what is being fetched."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Group
from mlae_lab.core.hosts import HostError
from mlae_lab.core.units import format_bytes
from mlae_lab.data import bundled, fetching
from mlae_lab.data.tasks import own_tasks, ready
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, some, trouble
from mlae_lab.doctor.folders import bytes_of, write_problem
from mlae_lab.locations import ASSETS, default_store, weights_file

PAPER_WEIGHTS = "vit_base_patch16_224.orig_in21k"


def section(context: Context) -> Iterator[Finding]:
    """Which weights and images are here and whole, and the fetches that brought them or did not."""
    yield from _bundled()
    data = context.data
    named = " (MLAE_LAB_DATA)" if os.environ.get("MLAE_LAB_DATA") else ""
    problem = write_problem(data)
    if problem and not named and write_problem(default_store().absolute()):
        yield note("data folder", f"{data} {problem}", "it lies in the store: what cures the store cures it")
    elif problem:
        yield trouble("data folder", f"{data}{named} {problem}", "name a folder of yours with `MLAE_LAB_DATA`")
    else:
        yield good("data folder", f"{data}{named}" + ("" if data.exists() else ", made with the first fetch"))
    yield from _backbones(data)
    for group in (Group.NATURAL, Group.SPECIALIZED, Group.STRUCTURED, Group.FGVC):
        tasks = [task for task in catalog.TASKS if task.group is group]
        here = [task.name for task in tasks if ready(task)]
        yield good(
            f"{group.value} tasks", f"{len(here)} of {len(tasks)} here" + (f": {', '.join(here)}" if here else "")
        )
    own = [task.name for task in own_tasks()]
    yield good("own images", some(own, 12) if own else "none")
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE"):
        if value := os.environ.get(name):
            yield note(name, _without_password(value))
    yield from _fetches(data)


def _bundled() -> Iterator[Finding]:
    cure = f"restore {ASSETS} from the repository, or install the lab again"
    wrong = []
    for name in ("digits", "fashion"):  # the other two are rendered from a formula
        try:  # past its memory: the file as it is now
            if bundled.checksum(bundled.load_bundled.__wrapped__(name)) != bundled.CHECKSUMS[name]:
                wrong.append(f"the images of {name} are not the lab's")
        except bundled.DataError as error:
            wrong.append(str(error))
    if problem := weights_problem(ASSETS / "lab_vit_12x128.safetensors"):
        wrong.append(problem)
    wrong += [
        f"{name} is missing" for name in ("first_run.json", "icon.png", "logo.svg") if not (ASSETS / name).is_file()
    ]
    for sentence in wrong:
        yield trouble("bundled", sentence, cure)
    if not wrong:
        yield good("bundled", "lab_vit_12x128, digits and fashion are whole")


def _backbones(data: Path) -> Iterator[Finding]:
    try:
        names = sorted(entry.name for entry in os.scandir(data / "weights") if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        names = []
    for name in names:
        file = data / "weights" / name / "model.safetensors"
        if not file.exists():
            yield note(f"weights {name}", f"{file.parent} holds no {file.name}", f"`mlae_lab fetch {name}` fills it")
        elif problem := weights_problem(file):
            yield trouble(f"weights {name}", problem, f"delete {file.parent} and type `mlae_lab fetch {name}`")
        else:
            yield good(f"weights {name}", format_bytes(bytes_of(file)))
    if not weights_file(PAPER_WEIGHTS).exists() and PAPER_WEIGHTS not in names:
        yield note("the paper's weights", "not here", f"`mlae_lab fetch {PAPER_WEIGHTS}` brings them")


def weights_problem(file: Path) -> str:
    """What is wrong with a safetensors file, by its header and its size alone; "" if nothing is."""
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size, 100_000_000):
                return f"{file} is cut short or no safetensors file"
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{file} is no safetensors file"
    whole = 8 + length + max(ends, default=0)
    return "" if size == whole else f"{file} has {size:,} bytes and should have {whole:,}"


def _without_password(address: str) -> str:
    """An address without the name and the password that may stand in it."""
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
            continue  # a folder that no fetch made
        again = f"fetch again with `mlae_lab fetch {name}`, or delete {data / '.fetch' / name} to forget it"
        if state.status in ("failed", "lost"):
            yield trouble(f"fetch {name}", f"{state.status}: {state.reason or 'nothing says why'}", again)
        elif state.status == "cancelled":
            yield note(f"fetch {name}", "cancelled; what had come is kept", again)
        elif state.status == "running":
            told = state.progress
            share = f", {told.phase} {told.done / told.total:.0%}" if told and told.total else ""
            yield good(f"fetch {name}", f"under way{share}")
