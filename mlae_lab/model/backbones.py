"""Build the networks of the catalog and load their weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from mlae_lab.core import catalog
from mlae_lab.model.stem import ConvStem
from mlae_lab.places import ASSETS

BUNDLED_WEIGHTS = ASSETS / "lab_vit_12x128.safetensors"


class BackboneError(ValueError):
    """A backbone that cannot be built here; its text says what is missing and what would work."""


def bundled_network(num_classes: int) -> VisionTransformer:
    """The bundled architecture with fresh weights: 12 blocks, width 128, 48 pixels, 36 patches and a class token."""
    entry = catalog.backbone(catalog.DEFAULT_BACKBONE)
    return VisionTransformer(
        img_size=entry.picture,
        patch_size=8,
        embed_dim=entry.width,
        depth=entry.layers,
        num_heads=entry.heads,
        num_classes=num_classes,
        embed_layer=ConvStem,
    )


def build(name: str, num_classes: int, seed: int, weights: Path | None = None) -> VisionTransformer:
    """A frozen backbone of the catalog with a fresh head.

    num_classes: outputs of the head, which starts at zero, so that the first prediction is even.
    seed: of the random weights of the control. weights: another safetensors file of this shape.
    Returns the network in eval mode on the CPU, float32.
    Raises CatalogError for an unknown name, BackboneError where weights are missing or do not fit.
    """
    entry = catalog.backbone(name)
    if not entry.bundled:
        raise BackboneError(
            f"the weights of {name} are not in this repository and the lab cannot fetch them yet: "
            f"use {catalog.DEFAULT_BACKBONE}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = bundled_network(num_classes)
    if weights and not entry.trained:
        raise BackboneError(
            f"{name} is the control with random weights and takes no file: use {catalog.DEFAULT_BACKBONE} for {weights}"
        )
    if entry.trained:
        _load(model, weights or BUNDLED_WEIGHTS)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    return model.eval().requires_grad_(False)


def _load(model: VisionTransformer, path: Path) -> None:
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise BackboneError(f"{path} does not exist: the bundled weights belong in {ASSETS}") from None
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path} is not a readable safetensors file ({error})") from None
    state = {name: value.float() for name, value in state.items()}
    own = model.state_dict()
    for name in set(state) & set(own):
        if state[name].shape != own[name].shape:
            raise BackboneError(
                f"{path} does not fit this backbone: {name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            )
    found = model.load_state_dict(state, strict=False)
    missing = [name for name in found.missing_keys if not name.startswith("head.")]
    if missing or found.unexpected_keys:
        odd = (missing or found.unexpected_keys)[0]
        raise BackboneError(f"{path} does not fit this backbone: {odd} is {'missing' if missing else 'not part of it'}")
