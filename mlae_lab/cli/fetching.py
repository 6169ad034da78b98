"""`fetch`: a task's images or a backbone's weights."""

from __future__ import annotations

import argparse
import shutil
import sys
import time

from mlae_lab.cli.output import UsageError, print_json
from mlae_lab.core import hosts
from mlae_lab.core.units import format_bytes
from mlae_lab.data import fetching
from mlae_lab.data.fetch import ready_folder
from mlae_lab.data.progress import Cancelled, FetchError, Progress
from mlae_lab.environment import expanded
from mlae_lab.locations import data_folder


def fetch(args: argparse.Namespace) -> int:
    """Ask for confirmation, download with a progress line, print the folder."""
    wanted, into = hosts.remote(args.name), expanded(args.into or data_folder(), "--into").absolute()
    existing = ready_folder(wanted, into)
    if existing is not None:
        print(f"{wanted.name} is already in {existing}")
        return print_json({"name": wanted.name, "folder": str(existing), "fetched": False}) if args.json else 0
    size = wanted.size_bytes
    size_text = "an unknown number of bytes" if size is None else format_bytes(size)
    ask = (size is None or size > ASK_ABOVE) and not args.yes
    if ask and not sys.stdin.isatty():
        raise UsageError(f"{wanted.name} has {size_text} to download: add --yes, since there is no terminal to ask")
    print(f"{wanted.name}: {wanted.citation}\nlicence: {wanted.licence}\nfrom: {wanted.page}, {size_text}")
    print(f"to: {into / wanted.subfolder}", *([f"note: {wanted.note}"] if wanted.note else []), sep="\n", flush=True)
    if ask and not confirmed(f"Download {size_text}? [y/N] "):
        print("nothing was fetched")
        return 1
    line = ProgressLine()
    try:
        folder = fetching.run(wanted.name, into, line.show)
    except FetchError as error:
        line.end()
        print(f"mlae_lab: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Cancelled):
        line.end()
        print("mlae_lab: cancelled; the downloaded part is kept, and the same command continues it", file=sys.stderr)
        return 1
    line.end()
    print(f"{wanted.name} is in {folder}")
    return print_json({"name": wanted.name, "folder": str(folder), "fetched": True}) if args.json else 0


def confirmed(question: str) -> bool:
    """Whether the user of the terminal answers yes."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


ASK_ABOVE = 100_000_000  # bytes


class ProgressLine:
    """One line that is overwritten on a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self._overwrite, self._width, self._next = sys.stdout.isatty(), 0, 0.0

    def show(self, progress: Progress) -> None:
        if not self._overwrite and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 10
        parts = [f"{progress.phase} {progress.file}".strip()]
        if progress.total:
            share = progress.done / progress.total
            parts.append(f"{format_bytes(progress.done)} of {format_bytes(progress.total)} ({share:.0%})")
        if progress.speed:
            parts.append(f"{format_bytes(progress.speed)}/s")
        if progress.seconds_left is not None:
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        text = "   ".join(parts)
        width = max(20, shutil.get_terminal_size().columns - 1)  # a line that wraps cannot be overwritten
        if self._overwrite:
            print("\r" + text[:width].ljust(min(self._width, width)), end="", flush=True)
        else:
            print(text, flush=True)
        self._width = len(text)

    def end(self) -> None:
        if self._overwrite and self._width:
            print(flush=True)
