"""The doctor: what is here, what is wrong with it, and what to do about it, in six sections of findings.

It looks and changes nothing: no folder is made, no run is moved, and torch is loaded in another process only when it
is asked for. `examine` never raises: a part that cannot be examined is a finding like any other.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mlae_lab import locks
from mlae_lab.core import catalog
from mlae_lab.core.catalog import Group
from mlae_lab.core.hosts import HostError
from mlae_lab.data import bundled, fetching
from mlae_lab.data.progress import gigabytes
from mlae_lab.data.tasks import own_tasks, ready
from mlae_lab.places import ASSETS, ROOT, data_folder, default_store, weights_file
from mlae_lab.runs import devices, liveness, paths, supervisor
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import SCHEMA, Run, RunStore, StoreError

State = Literal["good", "note", "trouble"]

TORCH_SECONDS = 60.0  # patience with torch
LITTLE_MEMORY = 1_000_000_000  # bytes; torch alone takes half of it
LITTLE_ROOM = 2_000_000_000  # bytes free on a disk: worth a note
NO_ROOM = 200_000_000  # bytes free on a disk: trouble
LARGE_WAL = 100_000_000  # bytes
LARGE_DATABASE = 300_000_000  # bytes; reading all of a larger one takes longer than a quick look may
OLD_PART = 3600.0  # seconds after which nobody writes a *.part file any more
NEW_FOLDER = 600.0  # seconds in which a run's folder may be there before its row
DAY = 86_400.0
PAPER_WEIGHTS = "vit_base_patch16_224.orig_in21k"
REQUIREMENTS = ROOT / "requirements.txt"
PROJECT = ROOT / "pyproject.toml"


# ---------------------------------------------------------------- what is handed back


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, on one line. value: what it is; cure: what to type or do, "" where nothing is
    asked; a trouble always has one. Commands in it stand between backticks."""

    name: str
    value: str
    state: State = "good"
    cure: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Report:
    """All findings, section by section."""

    sections: tuple[Section, ...]

    @property
    def troubles(self) -> tuple[Finding, ...]:
        """What needs attention, in the order of the sections."""
        return tuple(f for section in self.sections for f in section.findings if f.state == "trouble")

    @property
    def verdict(self) -> str:
        """One sentence."""
        count = len(self.troubles)
        if not count:
            return "Everything is in order."
        return "1 thing needs attention." if count == 1 else f"{count} things need attention."

    def to_dict(self) -> dict:
        """The report as JSON can hold it: verdict, troubles (how many) and the sections with their findings."""
        sections = [{"title": s.title, "findings": [asdict(f) for f in s.findings]} for s in self.sections]
        return {"verdict": self.verdict, "troubles": len(self.troubles), "sections": sections}

    def lines(self) -> list[str]:
        """Plain text: a line per finding, aligned, marked `!` for a trouble and `-` for a note, its cure below it."""
        width = max((len(f.name) for section in self.sections for f in section.findings), default=0)
        marks = {"good": " ", "note": "-", "trouble": "!"}
        told = [self.verdict]
        for section in self.sections:
            told += ["", section.title]
            for finding in section.findings:
                told.append(f"{marks[finding.state]} {finding.name:<{width}}  {finding.value}".rstrip())
                if finding.cure:
                    told.append(f"  {'':<{width}}  > {finding.cure}")
        return told


def _line(text: object) -> str:
    """Text from files and people as one printable line: no control characters, no half characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).splitlines()))


def _good(name: str, value: object) -> Finding:
    return Finding(_line(name), _line(value))


def _note(name: str, value: object, cure: object = "") -> Finding:
    return Finding(_line(name), _line(value), "note", _line(cure))


def _trouble(name: str, value: object, cure: object) -> Finding:
    return Finding(_line(name), _line(value), "trouble", _line(cure))


# ---------------------------------------------------------------- the examination


@dataclass
class _Look:
    """What the sections share. store: open, once the section Store has opened it; damaged: it cannot be relied on."""

    asked: Path | None
    deep: bool
    torch: TorchAnswer | None
    store: RunStore | None = None
    damaged: bool = False

    @cached_property
    def folder(self) -> Path:
        return (self.asked or default_store()).expanduser().absolute()

    @cached_property
    def data(self) -> Path:
        return data_folder().absolute()


def examine(folder: Path | None = None, deep: bool = False, torch: TorchAnswer | None = None) -> Report:
    """Look at everything. Never raises and makes no folder; without `deep` it takes less than a second as a rule.

    folder: the store, by default the one that runs go to. deep: load torch in another process and read a database of
    any size. torch: what it answered a moment ago, so that it is not asked again.
    """
    look = _Look(folder, deep, torch)
    parts: dict[str, Callable[[_Look], Iterator[Finding]]] = {
        "Devices": _devices,
        "Versions": _versions,
        "Weights and data": _weights_and_data,
        "Disk": _disk,
        "Store": _store,  # opens the store, so it comes before the runs
        "Runs": _runs,
    }
    return Report(tuple(Section(title, _kept(title, part, look)) for title, part in parts.items()))


def _kept(title: str, part: Callable[[_Look], Iterator[Finding]], look: _Look) -> tuple[Finding, ...]:
    found: list[Finding] = []
    try:
        found.extend(part(look))
    except Exception as error:  # noqa: BLE001 - the other sections are worth having whatever this one met
        found.append(
            _trouble(
                title.lower(),
                f"this section could not be examined to its end: {type(error).__name__}, {error}",
                "put right what the error names; if it names nothing of yours, report it with `mlae_lab doctor --json`",
            )
        )
    return tuple(found)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _tree(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder, links not followed; what cannot be read is passed over."""
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(here, name), os.stat(os.path.join(here, name), follow_symlinks=False)
            except OSError:
                continue


def _bytes(*files: Path) -> int:
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def _duration(seconds: float) -> str:
    minutes = max(0, int(seconds // 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# ---------------------------------------------------------------- devices


@dataclass(frozen=True)
class TorchAnswer:
    """What torch said in a process of its own. at: when, seconds since 1970; seconds: to load; cuda: the version it
    was built for, "" without; gpus: names, in its order; broken: one sentence for each GPU that cannot multiply;
    warning: what it warned about; failure: one sentence where there was no answer."""

    at: float
    version: str = ""
    seconds: float = 0.0
    threads: int = 0
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    warning: str = ""
    failure: str = ""


_QUESTION = """
import json, time
began = time.monotonic()
import torch
seconds, gpus, broken = time.monotonic() - began, [], []
def multiplies(device):
    ones = torch.ones(64, 64, device=device)
    if (ones @ ones).sum().item() != 64.0 ** 3:
        raise RuntimeError("a product of ones comes out wrong")
multiplies("cpu")
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    gpus.append(torch.cuda.get_device_name(i))
    try:
        multiplies(f"cuda:{i}")
    except Exception as error:
        broken.append(f"{gpus[-1]}: {error}".splitlines()[0])
print(json.dumps({"version": torch.__version__, "seconds": seconds, "threads": torch.get_num_threads(),
                  "cuda": torch.version.cuda or "", "gpus": gpus, "broken": broken}))
"""


def ask_torch(seconds: float = TORCH_SECONDS) -> TorchAnswer:
    """Load torch in another process and multiply on every device. Never raises. seconds: patience."""
    now = time.time()
    chosen = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # the order of nvidia-smi
    try:
        done = subprocess.run(
            [sys.executable, "-c", _QUESTION], env=chosen, cwd=sys.prefix, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return TorchAnswer(now, failure=f"no answer within {seconds:g} s")
    except OSError as error:
        return TorchAnswer(now, failure=f"no process could be started ({error})")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        return TorchAnswer(now, failure=f"torch cannot be used, {ended}: {said[-1].strip() if said else 'not a word'}")
    warning = next((line.partition("Warning:")[2].strip() for line in said if "Warning:" in line), "")
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        told["gpus"], told["broken"] = tuple(told["gpus"]), tuple(told["broken"])
        return TorchAnswer(now, warning=warning, **told)
    except (ValueError, IndexError, KeyError, TypeError):
        return TorchAnswer(now, failure="torch gave no answer that can be read")


def _devices(look: _Look) -> Iterator[Finding]:
    model, flags = _processor()
    yield _good("processor", model)
    everything = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everything
    yield _good("cores", f"{cores}" + (f" of {everything} for this process" if cores != everything else ""))
    yield _memory_finding()
    products = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    slow = "not in hardware: runs on the CPU take float32" if flags else "unknown: runs on the CPU take float32"
    yield (
        _good("bfloat16 on the CPU", f"in hardware ({', '.join(products)})")
        if products
        else _note("bfloat16 on the CPU", slow)
    )
    found = devices.gpus()
    for gpu in found:
        size = gigabytes(gpu.memory) if gpu.memory else "memory unknown"
        yield _good(f"GPU {gpu.id}", f"{gpu.name}, {size}")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        yield _note("CUDA_VISIBLE_DEVICES", f"{chosen or 'empty'}: runs see these GPUs only")
    if not found:
        if chosen is None and shutil.which("nvidia-smi"):
            yield _note("GPU", "nvidia-smi is installed and lists none", "type `nvidia-smi` to see why")
        else:
            yield _good("GPU", "none: runs take the CPU")
    answer = look.torch or (ask_torch() if look.deep else None)
    if answer is None:
        yield _note(
            "torch", "not tried", "`mlae_lab doctor --deep` or the button on the Doctor page loads and tests it"
        )
    else:
        yield from _torch_findings(answer, len(found))


def _torch_findings(answer: TorchAnswer, listed: int) -> Iterator[Finding]:
    """listed: how many GPUs the driver has for this process."""
    if answer.failure:
        yield _trouble(
            "torch",
            answer.failure,
            f'type `{shlex.quote(sys.executable)} -c "import torch"` to see it all, then install the tested versions: '
            f"`{_pip('-r', str(REQUIREMENTS)) if REQUIREMENTS.is_file() else _pip('--force-reinstall', 'torch', 'torchvision')}`",
        )
        return
    built = f"for CUDA {answer.cuda}" if answer.cuda else "without CUDA"
    when = time.strftime("%H:%M", time.localtime(answer.at))
    yield _good(
        "torch",
        f"{answer.version} {built} loads in {answer.seconds:.1f} s and multiplies on {answer.threads} "
        f"thread{'s' if answer.threads != 1 else ''}, tested at {when}",
    )
    seen, said = len(answer.gpus), f" ({answer.warning})" if answer.warning else ""
    if seen:
        yield _good("torch on the GPU", f"sees {_some(list(answer.gpus))}")
    for sentence in answer.broken:
        yield _trouble("torch on the GPU", sentence, "install a torch that was built for this GPU: https://pytorch.org/get-started says which")  # fmt: skip
    if seen < listed:
        if not answer.cuda:
            cure = (
                f"replace it by a CUDA build: `{_pip('--force-reinstall', 'torch', 'torchvision')}`, or choose one for "
                "your driver on https://pytorch.org/get-started"
            )
        else:
            cure = (
                f"update the NVIDIA driver until it knows CUDA {answer.cuda}, or install a torch built for an older CUDA "
                "(https://pytorch.org/get-started)"
            )
        yield _trouble("torch on the GPU", f"torch sees {seen} of {listed} GPUs of the driver{said}", cure)
    elif seen > listed:
        yield _note(
            "torch on the GPU",
            "the driver's list has fewer GPUs than torch, so `auto` may take the CPU",
            "choose `--device cuda` for runs on the GPU",
        )


def _processor() -> tuple[str, set[str]]:
    """The model's name and the CPU's flags, none where nobody says."""
    try:
        told = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine(), set()
    fields = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", told, re.MULTILINE))
    name = fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return name, set((fields.get("flags") or fields.get("Features") or "").split())


def _memory_finding() -> Finding:
    total, available = memory()
    if not total:
        return _note("memory", "unknown")
    value = f"{gigabytes(total)}, {'free unknown' if available is None else f'{gigabytes(available)} available'}"
    if available is not None and available < LITTLE_MEMORY:
        return _note("memory", value, "close other programs before a run: torch alone takes half a gigabyte")
    return _good("memory", value)


def memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int | None]:
    """Bytes that this process may have, and bytes that are available now (None where nobody says).

    A container's or a job's limit counts where it is lower. (0, None) where nothing is known.
    """
    try:
        told = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE))
        total, available = int(told["MemTotal"]) * 1024, int(told["MemAvailable"]) * 1024
    except (OSError, KeyError, ValueError):
        said = _said("sysctl", "-n", "hw.memsize")
        return (int(said), None) if said.isdigit() else (0, None)
    for limit, used in _limits(proc, groups):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return total, available


def _limits(proc: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every control group that this process is in, version 2 or 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = (line.split(":", 2) + ["", ""])[:3]
        if number == "0" and not kinds:
            top, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            top, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        place = top / path.lstrip("/")
        for here in (place, *place.parents):
            try:
                limit, used = int((here / names[0]).read_text()), int((here / names[1]).read_text())
                cache = re.search(rf"^{names[2]} (\d+)$", (here / "memory.stat").read_text(), re.MULTILINE)
                yield limit, used - (int(cache[1]) if cache else 0)  # that much is given back when it is wanted
            except (OSError, ValueError):
                pass  # no limit there
            if here == top:
                break


def _said(*words: str) -> str:
    """What a small program prints, "" where it is missing or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


# ---------------------------------------------------------------- versions


def _versions(look: _Look) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    yield _good("lab", f"{_lab_version()}, {ROOT}")
    yield _good("Python", f"{platform.python_version()}, {sys.executable}")
    for line in _requirements():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        install = f"type `{_pip(f'{wanted.name}{wanted.specifier}')}`"
        try:
            have = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield _trouble(wanted.name, f"not installed; the lab is tested with {wanted.specifier}", install)
            continue
        if wanted.specifier.contains(have, prereleases=True):
            yield _good(wanted.name, have)
        else:
            yield _trouble(wanted.name, f"{have} is outside of the tested range {wanted.specifier}", install)


def _lab_version() -> str:
    try:
        found = re.search(r'^version = "(.+?)"', PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else "unknown"
    except OSError:
        try:
            return metadata.version("mlae-lab")
        except metadata.PackageNotFoundError:
            return "unknown"


def _requirements() -> list[str]:
    """What the lab needs, a requirement a line: from the checkout, else from what was installed."""
    if not REQUIREMENTS.is_file():
        return metadata.requires("mlae-lab") or []
    lines = [line.partition(" #")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _pip(*words: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *words])


# ---------------------------------------------------------------- weights and data


def _weights_and_data(look: _Look) -> Iterator[Finding]:
    yield from _bundled()
    data = look.data
    named = " (MLAE_LAB_DATA)" if os.environ.get("MLAE_LAB_DATA") else ""
    problem = _write_problem(data)
    if problem and not named and _write_problem(default_store().absolute()):
        yield _note("data folder", f"{data} {problem}", "it lies in the store: what cures the store cures it")
    elif problem:
        yield _trouble("data folder", f"{data}{named} {problem}", "name a folder of yours with `MLAE_LAB_DATA`")
    else:
        yield _good("data folder", f"{data}{named}" + ("" if data.exists() else ", made with the first fetch"))
    yield from _backbones(data)
    for group in (Group.NATURAL, Group.SPECIALIZED, Group.STRUCTURED, Group.FGVC):
        tasks = [task for task in catalog.TASKS if task.group is group]
        here = [task.name for task in tasks if ready(task)]
        yield _good(f"{group.value} tasks", f"{len(here)} of {len(tasks)} here" + (f": {', '.join(here)}" if here else ""))  # fmt: skip
    own = [task.name for task in own_tasks()]
    yield _good("own pictures", _some(own, 12) if own else "none")
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE"):
        if value := os.environ.get(name):
            yield _note(name, _without_password(value))
    yield from _fetches(data)


def _bundled() -> Iterator[Finding]:
    cure = f"restore {ASSETS} from the repository, or install the lab again"
    wrong = []
    for name in ("digits", "fashion"):  # the other two are rendered from a formula
        try:  # past its memory: the file as it is now
            if bundled.checksum(bundled.load_bundled.__wrapped__(name)) != bundled.CHECKSUMS[name]:
                wrong.append(f"the pictures of {name} are not the lab's")
        except bundled.DataError as error:
            wrong.append(str(error))
    if problem := weights_problem(ASSETS / "lab_vit_12x128.safetensors"):
        wrong.append(problem)
    wrong += [f"{name} is missing" for name in ("first_run.json", "icon.png", "logo.svg") if not (ASSETS / name).is_file()]  # fmt: skip
    for sentence in wrong:
        yield _trouble("bundled", sentence, cure)
    if not wrong:
        yield _good("bundled", "lab_vit_12x128, digits and fashion are whole")


def _backbones(data: Path) -> Iterator[Finding]:
    try:
        names = sorted(entry.name for entry in os.scandir(data / "weights") if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        names = []
    for name in names:
        file = data / "weights" / name / "model.safetensors"
        if not file.exists():
            yield _note(f"weights {name}", f"{file.parent} holds no {file.name}", f"`mlae_lab fetch {name}` fills it")
        elif problem := weights_problem(file):
            yield _trouble(f"weights {name}", problem, f"delete {file.parent} and type `mlae_lab fetch {name}`")
        else:
            yield _good(f"weights {name}", gigabytes(_bytes(file)))
    if not weights_file(PAPER_WEIGHTS).exists() and PAPER_WEIGHTS not in names:
        yield _note("the paper's weights", "not here", f"`mlae_lab fetch {PAPER_WEIGHTS}` brings them")


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
            yield _trouble(f"fetch {name}", f"{state.status}: {state.reason or 'nothing says why'}", again)
        elif state.status == "cancelled":
            yield _note(f"fetch {name}", "cancelled; what had come is kept", again)
        elif state.status == "running":
            told = state.progress
            share = f", {told.phase} {told.done / told.total:.0%}" if told and told.total else ""
            yield _good(f"fetch {name}", f"under way{share}")


# ---------------------------------------------------------------- disk


def _disk(look: _Look) -> Iterator[Finding]:
    folder, data = look.folder, look.data
    places = {"store": _existing(folder), "data folder": _existing(data)}
    if os.stat(places["store"]).st_dev == os.stat(places["data folder"]).st_dev:
        places = {"store and data folder": places["store"]}
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        value = f"{gigabytes(free)} on the disk of {place}"
        if free < NO_ROOM:
            yield _trouble(f"free for {name}", value, "delete runs or other files: a run that cannot write its checkpoints fails")  # fmt: skip
        elif free < LITTLE_ROOM:
            yield _note(f"free for {name}", value, "deleting runs that nobody needs makes room")
        else:
            yield _good(f"free for {name}", value)
    total, parts, now = 0, [], time.time()
    for file, found in _tree(folder / "runs"):
        total += found.st_size
        if file.name.endswith(".part") and now - found.st_mtime > OLD_PART:
            parts.append(found.st_size)
    yield _good("database", gigabytes(_bytes(*_database_files(folder))))
    yield _good("files of runs", gigabytes(total))
    for name, place in (("archive", folder / "archive"), ("decoded pictures", data / "cache")):
        yield _good(name, gigabytes(sum(found.st_size for _, found in _tree(place))))
    if parts:
        yield _note(
            "leftovers",
            f"{len(parts)} unfinished file{'s' if len(parts) != 1 else ''} of runs, {gigabytes(sum(parts))}",
            "they go when their run is resumed or deleted",
        )
    if unfinished := sum(found.st_size for _, found in _tree(data / ".fetch" / "_parts")):
        yield _note("unfinished downloads", gigabytes(unfinished), f"the next fetch goes on with them; delete {data / '.fetch' / '_parts'} to give them up")  # fmt: skip


def _database_files(folder: Path) -> list[Path]:
    file = paths.database(folder)
    return [file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")]


# ---------------------------------------------------------------- store


_OTHER_STORE = "name a folder of yours with `MLAE_LAB_STORE` or `--store`"
_NO_STORE = "no store yet: the first run makes it"


def _store(look: _Look) -> Iterator[Finding]:
    folder = look.folder
    if problem := _write_problem(folder):
        yield _trouble("folder", f"{folder} {problem}", _OTHER_STORE)
    else:
        chosen = " (MLAE_LAB_STORE)" if look.asked is None and os.environ.get("MLAE_LAB_STORE") else ""
        yield _good("folder", f"{folder}{chosen}")
    if not folder.is_dir():
        if not problem:
            yield _good("store", _NO_STORE)
        return
    if not problem:
        if knows_locks(folder):
            yield _good("locks", "the file system knows them")
        else:
            yield _trouble(
                "locks",
                "this file system knows no locks, so a run that lives cannot be told from one that is dead",
                "put the store on a local disk with `MLAE_LAB_STORE`",
            )
    file, wal, _ = _database_files(folder)
    if not file.exists():
        yield _good("store", _NO_STORE)
        return
    try:
        look.store = RunStore(folder)
    except StoreError as error:
        look.damaged = True
        said, _, cure = str(error).rpartition(": ")
        hurt = re.search("malformed|not a database|disk image", said)
        yield _trouble("store", said, _begin_anew(folder) if hurt else cure)
        return
    yield _good("schema", f"{SCHEMA}, the one that this lab writes")
    yield _health(look, _bytes(file, wal))
    if _bytes(wal) > LARGE_WAL:
        yield _note(
            "write-ahead log",
            f"{wal.name} has {gigabytes(_bytes(wal))}",
            "it empties itself when the last process of the lab has closed the store: let runs end and stop the server",
        )


def _health(look: _Look, size: int) -> Finding:
    assert look.store is not None
    if size > LARGE_DATABASE and not look.deep:
        return _note(
            "health",
            f"not read: the database has {gigabytes(size)}",
            "`mlae_lab doctor --deep` reads all of it",
        )
    wrong = look.store.trouble()
    if wrong is None:
        return _good("health", "the database is whole")
    look.damaged = True
    return _trouble("health", f"the database is damaged: {wrong[:300]}", _rescue(look.folder))


# .recover of sqlite3 3.40 gives up on our tables; .dump reads past damaged pages, ends in ROLLBACK and forgets the version
RESCUE = (
    "(sqlite3 lab.sqlite .dump | sed 's/^ROLLBACK.*/COMMIT;/'; "
    f"echo 'PRAGMA user_version={SCHEMA}; PRAGMA journal_mode=WAL;') | sqlite3 new.sqlite"
)


def _rescue(folder: Path) -> str:
    return (
        f"stop the server and all runs, copy lab.sqlite, lab.sqlite-wal and lab.sqlite-shm in {folder} away, type `{RESCUE}` "
        "there, and put new.sqlite in the place of the three"
    )


def _begin_anew(folder: Path) -> str:
    """For a file whose first page is gone: without it no table can be found."""
    return (
        f"put a copy back if you have one; else stop the server and all runs and move lab.sqlite, lab.sqlite-wal and "
        f"lab.sqlite-shm out of {folder}: the lab begins an empty list of runs, and what they saved stays in "
        f"{folder / 'runs'}"
    )


def _write_problem(folder: Path) -> str:
    """What keeps this process from writing into a folder, or from making it; "" if nothing does."""
    place = _existing(folder)
    if not place.is_dir():
        return "is a file, not a folder" if place == folder else f"cannot be made: {place} is a file, not a folder"
    try:
        if place == folder:
            with tempfile.TemporaryFile(dir=place):
                return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"cannot be made: {place} is not yours to write"


def knows_locks(folder: Path) -> bool:
    """Whether a lock that is held in this folder is seen by who opens the file anew."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".locks-") as file:
        try:
            lock = locks.take(Path(file.name))
            if lock is None:
                return False
            try:
                return locks.held(Path(file.name))
            finally:
                os.close(lock)
        except OSError:
            return False


# ---------------------------------------------------------------- runs


def _runs(look: _Look) -> Iterator[Finding]:
    if look.store is None:
        yield _note("runs", "not examined: the store cannot be opened") if look.damaged else _good("runs", "none yet")
        return
    try:
        yield from _runs_of(look.store)
    except Exception as error:
        if not look.damaged:
            raise  # else the damage is named already, with its cure
        yield _note("runs", f"not examined to the end: the database is damaged ({error})")


def _runs_of(store: RunStore) -> Iterator[Finding]:
    now, folders = time.time(), _run_folders(store.folder)  # before the rows: a folder is made before its row
    runs, names = store.runs(), store.nicknames()
    waiting = sum(run.status is Status.QUEUED for run in runs)
    active = [run for run in reversed(runs) if run.status.is_active]
    yield _good("runs", f"{len(runs)}, {len(active)} under way, {waiting} waiting")
    yield _supervisor(store, waiting, len(active))
    for run in active:
        yield _under_way(store, run, names, now)
    failed = [
        run for run in runs
        if run.status in (Status.FAILED, Status.LOST) and run.ended is not None and now - run.ended < DAY
    ]  # fmt: skip
    for run in failed[:10]:
        yield _note(f"run {run.id}", f"{run.status.value} {_duration(now - run.ended)} ago: {run.reason or 'no reason is known'}")  # fmt: skip
    if len(failed) > 10:
        yield _note("more failures", f"{len(failed) - 10} more of the last day: `mlae_lab runs` lists them")
    ahead = [run.id for run in runs if run.started is not None and run.started > now + 5]
    if ahead:
        yield _note(
            "clock",
            f"started later than now: {_some(ahead)}; the clock was set back",
            "times and durations of these runs are wrong, their results are not",
        )
    known = {run.id for run in runs}
    orphans = [folder for folder, changed in folders if folder.name not in known and now - changed > NEW_FOLDER]
    if orphans:
        size = sum(found.st_size for folder in orphans for _, found in _tree(folder))
        listed = _some([folder.name for folder in orphans])
        yield _note(
            "orphans",
            f"{len(orphans)} folder{'s' if len(orphans) != 1 else ''} of no known run, {gigabytes(size)}: {listed}",
            f"delete them in {store.folder / 'runs'} if nobody misses them",
        )


def _run_folders(store: Path) -> list[tuple[Path, float]]:
    """The folders below runs/, links left out, with the time of their last change."""
    try:
        found = [entry for entry in os.scandir(store / "runs") if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    kept = []
    for entry in found:
        try:
            kept.append((Path(entry.path), entry.stat(follow_symlinks=False).st_mtime))
        except FileNotFoundError:
            continue
    return sorted(kept)


def _supervisor(store: RunStore, waiting: int, active: int) -> Finding:
    if supervisor.is_supervised(store):
        return _good("supervisor", "alive")
    if waiting:
        return _trouble(
            "supervisor",
            f"not alive, and {waiting} run{'s wait' if waiting != 1 else ' waits'}",
            f"`mlae_lab runs` starts it again; if it does not stay, {paths.supervisor_log(store.folder)} says why",
        )
    if active:
        return _note("supervisor", "not alive; runs go on without it", "`mlae_lab runs` starts it again")
    return _good("supervisor", "not alive, and nothing for it to do")


def _under_way(store: RunStore, run: Run, names: dict[str, str], now: float) -> Finding:
    files, name = store.paths(run.id), f"run {run.id}"
    if not liveness.is_alive(files):
        true = liveness.derived(store, run)
        if true.status is not run.status:
            value = f"written down as {run.status.value} and really {true.status.value}" + (f": {true.reason}" if true.reason else "")  # fmt: skip
            return _note(name, value, "the supervisor corrects it with its next look: `mlae_lab runs` starts it")
        return _note(name, f"{run.status.value}; its process is not there yet")
    beat = liveness.pulse(files)
    person = names.get(run.owner) or (run.owner.removeprefix("cli:") if run.owner.startswith("cli:") else "")
    told = [
        _title(run),
        f"by {person}" if person else "",
        run.status.value,
        f"on {run.slot}" if run.slot else "",
        f"for {_duration(now - run.started)}" if run.started is not None else "",
        f"step {beat.step:.0f}" if beat else "no step yet",
    ]
    value = ", ".join(filter(None, told))
    silent = liveness.stalled_for(files)
    if silent is None:
        return _good(name, value)
    return _trouble(
        name,
        f"{value}; stalled: nothing for {_duration(silent)}",
        f"stop it at once, then resume it: `mlae_lab stop {run.id} --now` and `mlae_lab resume {run.id}`",
    )


def _title(run: Run) -> str:
    try:
        return f"{catalog.task(run.config.task).title}, {run.config.what}"
    except catalog.CatalogError:
        return f"{run.config.task}, {run.config.what}"
