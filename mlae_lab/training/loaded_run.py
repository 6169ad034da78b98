"""A trained network that can be asked: `load_run` builds it from a run's config and its adapter.

    question(subject, arguments, tell) -> answer

Arguments and answer are plain JSON data. tell(done, total) is called between pieces of work; it may raise, which ends
the question, and *other questions may be answered inside it*: so a question never changes the network but for the
moment in which it computes, and has put everything back before it calls tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlae_lab.core.config import RunConfig
from mlae_lab.errors import LabError
from mlae_lab.model.adapter_file import load_adapter, read_adapter
from mlae_lab.model.inject import Experts
from mlae_lab.training.evaluation import train_mode
from mlae_lab.training.setup import Setup, prepare

ProgressCallback = Callable[[int, int], None]


class QueryError(LabError):
    """A question that cannot be answered; its text gives the value, the rule and what would work."""


@dataclass
class LoadedRun:
    """A trained network. setup: with the run's own a, b, λ and head, experts in eval mode; adapter: the file that they
    came from; kept: what questions keep from one call to the next, such as cached activations, each under its own name."""

    setup: Setup
    adapter: Path
    run_id: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


def experts_of(loaded: LoadedRun) -> Experts:
    """The experts of a run; QuestionError for one that has none, such as a linear probe."""
    experts = loaded.setup.experts
    if experts is None or not experts.layers:
        raise QueryError(f"run {loaded.run_id} has no experts: this needs a run with a mask (method mlae)")
    return experts


Query = Callable[[LoadedRun, Mapping[str, Any], ProgressCallback], dict]


def load_run(
    config: RunConfig,
    adapter: Path,
    run_id: str = "",
    device: str = "auto",
    on_chunk: Callable[[], None] = lambda: None,
) -> LoadedRun:
    """Build a run's network and put what it has learned into it.

    device: "auto" takes a GPU where there is one, whatever the run was trained on. on_chunk: called between pieces of
    the loading; it may raise. Raises AdapterError for a file that does not fit, and what `prepare` raises.
    """
    learned = read_adapter(adapter)
    setup = prepare(replace(config, device=device), on_chunk=on_chunk)
    load_adapter(learned, setup.experts, setup.head)
    setup.head.requires_grad_(False)
    for layer in setup.experts.layers.values() if setup.experts else ():
        layer.requires_grad_(False)
    train_mode(setup.experts, False)
    return LoadedRun(setup, adapter, run_id)
