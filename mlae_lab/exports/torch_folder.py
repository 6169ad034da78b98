"""The network as a graph of torch.export (`.pt2`), which PyTorch runs without the code of the network."""

from __future__ import annotations

from pathlib import Path

import torch

from mlae_lab.exports.export import Check, Export, versions
from mlae_lab.exports.graph import traced

GRAPH = "model.pt2"


def write(export: Export, folder: Path) -> Check:
    """Fill a folder and load it with torch.export."""
    torch.export.save(traced(export), folder / GRAPH)
    export.write_scripts(folder, "network_torch.py")
    return export.check(torch.export.load(folder / GRAPH).module(), f"torch.export of {versions('torch')}")
