"""The network of this folder, a graph."""

from pathlib import Path

import torch


def load():
    """The network as a function of images (n, 3, size, size)."""
    return torch.export.load(Path(__file__).parent / "model.pt2").module()
