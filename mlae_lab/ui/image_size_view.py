"""What other image sizes of the chosen backbone cost: tokens, estimated time and memory of the draft's run."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.backbones import Backbone
from mlae_lab.core.config import RunConfig
from mlae_lab.core.units import format_bytes
from mlae_lab.runs.estimate import estimated_memory
from mlae_lab.ui import page
from mlae_lab.ui.estimating import estimated_or_rough
from mlae_lab.ui.tables import table

_SHARES = (0.125, 0.25, 0.5, 1, 1.5, 2)  # of the backbone's own size


def sizes_of(backbone: Backbone, chosen: int) -> list[int]:
    """Image sizes to show for a backbone, ascending: shares of the usual size that it takes, and the chosen one.

    Args:
        backbone: At its own size.
        chosen: Of the run, in pixels.
    """
    near = (backbone.nearest_sizes(round(share * backbone.image_size))[0] for share in _SHARES)
    return sorted({*near, chosen})


def draw_sizes(config: RunConfig) -> None:
    """Draw the table of sizes, folded. config: of the draft, with the label of its images if they were counted."""
    own, chosen = catalog.backbone(config.backbone), config.network.image_size
    with st.expander(f"Time and memory by image size · now {chosen} pixels"):
        if not own.step:
            page.note(
                f"{own.title} takes images of {own.image_size} pixels only: its layers mix a fixed number of tokens."
            )
            return
        rows = []
        for size in sizes_of(own, chosen):
            sized = replace(config, image_size=size)
            estimate, tokens = estimated_or_rough(sized), sized.network.tokens
            name = f"{size} px" + (" (its own)" if size == own.image_size else "")
            row = (
                name, f"{tokens:,}" if tokens else "–", page.seconds_text(estimate.seconds),
                format_bytes(estimated_memory(sized).total),
            )  # fmt: skip
            rows.append([f"<b>{cell}</b>" for cell in row] if size == chosen else row)
        table(("Image size", "Tokens per image", "Estimated time", "Estimated memory"), rows)
        page.note(
            f"For the run above. {own.title} takes multiples of {own.step} pixels; choose one as image size under More "
            "settings. At another size than its own, position embeddings and windows of its weights are resampled; a "
            "larger one shows more detail only of images that have it."
        )
