"""The network of this folder, built by timm."""

from pathlib import Path

import timm


def load():
    """The network in eval mode."""
    return timm.create_model(f"local-dir:{Path(__file__).parent.absolute()}", pretrained=True).eval()
