"""Queries of a trained run through its probe, as a page sends them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlae_lab.cli.output import UsageError
from mlae_lab.runs import probe
from mlae_lab.runs.store import RunStore


def query_run(store: RunStore, run_id: str, query: str, arguments: Mapping[str, Any] = {}) -> dict:
    """The answer of a run; progress is printed to standard error if that is a terminal.

    Args:
        store: Holds the run.
        run_id: The run.
        query: Name of the query.
        arguments: Of the query.

    Raises:
        UsageError: The run cannot answer; the message gives the reason.
    """
    interactive = sys.stderr.isatty()

    def on_progress(answer: probe.Answer) -> None:
        if interactive:
            progress = f" {answer.done} of {answer.total}" if answer.total else ""
            print(f"\r{answer.state}{progress} ", end="", file=sys.stderr, flush=True)

    answer = probe.wait(store, run_id, query, arguments, on_progress)
    if interactive:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if answer.value is None:
        raise UsageError(answer.reason)
    return answer.value
