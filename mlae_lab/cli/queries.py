"""What the commands that look into a trained run share: the run is asked through its probe, as a page asks it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlae_lab.cli.output import UsageError, existing_store
from mlae_lab.runs import probe
from mlae_lab.runs.store import RunStore


def one(command: Callable[..., argparse.ArgumentParser], name: str, do: Callable, help: str) -> argparse.ArgumentParser:
    """Make a command that takes a RUN."""
    made = command(name, do, help, store=True)
    made.add_argument("run", metavar="RUN")
    return made


def store_with_runs(args: argparse.Namespace) -> RunStore:
    """The store that holds `chosen.run`. Wrong where there is no store."""
    store = existing_store(args)
    assert store is not None  # a run was named: without a store that is Wrong already
    return store


def asked(store: RunStore, run_id: str, query: str, arguments: Mapping[str, Any] = {}) -> dict:
    """The answer of a run; progress goes to standard error where that is a terminal. Wrong where there is none."""
    shown = sys.stderr.isatty()

    def on_progress(answer: probe.Answer) -> None:
        if shown:
            far = f" {answer.done} of {answer.total}" if answer.total else ""
            print(f"\r{answer.state}{far} ", end="", file=sys.stderr, flush=True)

    answer = probe.wait(store, run_id, query, arguments, on_progress)
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if answer.value is None:
        raise UsageError(answer.reason)
    return answer.value
