"""The process that exports a run: `python -m mlae_lab.exports.worker STORE RUN FORMAT FOLDER LOCK_FD`.

`runs.exporting` starts it. What it writes appears whole or not at all: first in a temporary folder, then as one zip.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.export_formats import FORMATS, ExportError, has_public_base, missing_packages, refusal
from mlae_lab.data.image_record import read_record
from mlae_lab.data.tasks import load_protocol
from mlae_lab.errors import LabError
from mlae_lab.exports import card
from mlae_lab.exports.export import Export
from mlae_lab.files import replacing
from mlae_lab.locations import use_store
from mlae_lab.runs import commands, exporting
from mlae_lab.runs.error_messages import failure_reason
from mlae_lab.runs.outcomes import outcome
from mlae_lab.runs.report import notes_of
from mlae_lab.runs.run_location import RunLocation, read_location
from mlae_lab.runs.store import RunStore
from mlae_lab.training.loaded_network import LoadedNetwork, load_network

IMAGES = 8  # that an export is compared on


def export(
    store: RunStore, run_id: str, name: str, folder: Path, report: Callable[[str], None] = lambda text: None
) -> exporting.Exported:
    """Write a run in a format as `FOLDER/<name>.zip`.

    Args:
        store: Of the run.
        run_id: A run with an adapter.
        name: One of `FORMATS`.
        folder: Where the zip goes.
        report: Called with what is being done, a few words.

    Raises:
        ExportError: The run cannot have this format, or what was written does not give the same logits.
        LabError: The run cannot be loaded.
    """
    run, files = store.run(run_id), store.paths(run_id)
    if why := refusal(name, run.config) or missing_packages(name):
        raise ExportError(why)
    if not files.adapter.is_file():
        raise ExportError(f"run {run_id} has no adapter: train it until its first evaluation")
    signature = exporting.signature(files)
    report("loading the network")
    location = read_location(files)
    network = load_network(run.config, files.adapter, run_id, location.weights_file, keep_frozen=True)
    images, images_are = _images(run.config, network, files.images, location)
    prepared = Export(network, images, images_are, has_public_base(run.config, location.weights), report)
    facts = card.CardFacts(
        run, outcome(store, run), commands.command_of(run), tuple(notes_of(store, run))
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:  # /tmp may be memory, and networks are large
        written = Path(temporary) / f"{run_id}-{name}"
        written.mkdir()
        report(f"writing {FORMATS[name].title}")
        check = import_module(f"mlae_lab.exports.{FORMATS[name].module}").write(prepared, written)
        text = card.write(prepared, facts, name, check, written)
        for part in (path for path in sorted(written.iterdir()) if path.is_dir()):
            card.write(prepared, facts, part.name, check, part)
        report("packing")
        contents = [(str(path.relative_to(written.parent)), path) for path in sorted(written.rglob("*"))]
        with (
            replacing(exporting.zip_file(folder, name)) as partial,
            zipfile.ZipFile(partial, "x", zipfile.ZIP_STORED) as packed,  # weights do not compress
        ):
            for inside, path in contents:
                packed.write(path, inside)
        sizes = tuple((inside, path.stat().st_size) for inside, path in contents if path.is_file())
    return exporting.Exported(signature, card.check_sentence(check, images_are), sizes, text)


def _images(config: RunConfig, network: LoadedNetwork, record: Path, location: RunLocation) -> tuple[torch.Tensor, str]:
    """Evaluation images of the run as inputs; noise, which is said, where they are not here."""
    try:
        images = load_protocol(location.applied(config), record=read_record(record)).evaluation.images
        chosen = [images[i * len(images) // IMAGES] for i in range(IMAGES)]
        return network.inputs(chosen), f"{IMAGES} evaluation images"
    except (LabError, OSError, IndexError):
        size = network.steps.image_size
        noise = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
        return noise, f"{IMAGES} images of noise (the run's images are not here)"


def main(arguments: list[str]) -> int:
    store, run_id, name, folder = RunStore(Path(arguments[0])), arguments[1], arguments[2], Path(arguments[3])
    use_store(store.folder)
    os.set_inheritable(int(arguments[4]), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        exported = export(store, run_id, name, folder, lambda text: exporting.report(folder, name, text))
        exporting.keep(folder, name, exported)
    except BaseException as error:
        with suppress(OSError):
            traceback.print_exc()
        exporting.fail(folder, name, failure_reason(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
