"""A trained network that answers queries: `load_run` builds it from a run's config and its adapter.

    query(loaded, arguments, on_progress) -> answer

Arguments and answer are plain JSON data. `on_progress(done, total)` is called between pieces of work. It may raise,
which ends the query, and *other queries may be answered inside it*: a query changes the network only while it computes,
and restores it before it calls `on_progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlae_lab.core.config import RunConfig
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.image_record import ImageRecord
from mlae_lab.errors import LabError
from mlae_lab.model.adapter_file import AdapterError, load_adapter, read_adapter, require_method
from mlae_lab.model.inject import Experts
from mlae_lab.training.setup import Setup, prepare


class QueryError(LabError):
    """A query that cannot be answered; its text gives the value, the rule and what would work."""


@dataclass
class LoadedRun:
    """A trained network.

    Attributes:
        setup: With the run's a, b, λ and head, experts in eval mode.
        adapter: The file that they were loaded from.
        run_id: Name of the run.
        kept: What queries keep from one call to the next, such as cached activations, by name.
    """

    setup: Setup
    adapter: Path
    run_id: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


def require_images(loaded: LoadedRun) -> None:
    """Raise QueryError if some images of the run are missing, as its evaluation would be of others."""
    if loaded.setup.missing:
        raise QueryError(
            f"{loaded.setup.missing}: restore them or name the folder that holds them with --data; only a prediction "
            "for an uploaded image needs none of them"
        )


def experts_of(loaded: LoadedRun) -> Experts:
    """The experts of a run. Raises QueryError for a run without experts, such as a linear probe."""
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
    record: ImageRecord | None = None,
    data: Path | None = None,
    weights: Path | None = None,
) -> LoadedRun:
    """Build a run's network and load its adapter.

    Args:
        config: Of the run.
        adapter: Its adapter file.
        run_id: Name of the run, for error messages.
        device: "auto" takes a GPU where there is one, whatever the run was trained on.
        on_chunk: Called between pieces of the loading; it may raise.
        record: Which images are the run's; None for a bundled task and for a run of version 0.5.
        data: A folder with the run's images, if they are not where the config says.
        weights: A file with its frozen weights, if they are not where the config says.

    Raises:
        AdapterError: For a file that does not fit, such as one of another method, or that was trained on other weights.
        QueryError: The file of its frozen weights is missing; and what `prepare` raises.
    """
    learned = read_adapter(adapter)
    require_method(learned, config.method, config.method_settings)
    if config.weights and not weights and not Path(config.weights).exists():
        raise QueryError(
            f"the frozen weights of run {run_id} were read from {config.weights}, which does not exist here: name the "
            "file with --weights"
        )
    # It is not trained, so nothing is random: all frozen blocks are computed once, as `analysis.whatif` expects.
    here = replace(
        config, device=device, data=str(data) if data else config.data, drop_path=0.0, mixup=0.0, augmentation="off"
    )
    setup = prepare(here, weights, on_chunk=on_chunk, record=record, trained_by_0_5=record is None, starts_new=False)
    if learned.input.weights and learned.input.weights != setup.weights:
        source = str(weights) if weights else config.badge.weights
        raise AdapterError(
            f"the adapter was trained on frozen weights with fingerprint {learned.input.weights} and {source} has "
            f"{setup.weights}: name the original file with --weights"
        )
    if learned.input.class_names:
        setup.classes = learned.input.class_names  # a class folder may have another name today
    load_adapter(learned, setup.adapter, setup.head)
    try:
        setup.adapter.require_valid()
    except ValueError as error:
        raise AdapterError(f"the adapter is damaged: {error}") from None
    setup.model.requires_grad_(False)
    setup.adapter.train(False)
    return LoadedRun(setup, adapter, run_id)
