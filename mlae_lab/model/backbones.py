"""Build the networks of the catalog and load their weights."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.backbones import RANDOM, Backbone, table
from mlae_lab.core.weight_header import ENDINGS
from mlae_lab.locations import ASSETS, PROGRAM
from mlae_lab.model.stem import ConvStem
from mlae_lab.model.weight_files import BackboneError, backbone_state, classifier, grid_note, load_weights

__all__ = [
    "BUNDLED_WEIGHTS",
    "BackboneError",
    "build",
    "build_with_notes",
    "bundled_network",
    "fingerprint",
    "set_fused_attention",
    "set_image_size",
]

BUNDLED_WEIGHTS = ASSETS / "lab_vit_12x128.safetensors"
WEIGHTS_FILE = "model.safetensors"


def bundled_network(num_classes: int, drop_path: float = 0.0) -> VisionTransformer:
    """The bundled architecture with fresh weights: 12 blocks, width 128, 48 pixels, 36 patches and a class token."""
    entry = catalog.backbone(catalog.DEFAULT_BACKBONE)
    return VisionTransformer(
        img_size=entry.image_size,
        patch_size=8,
        embed_dim=entry.width,
        depth=entry.layers,
        num_heads=entry.heads,
        num_classes=num_classes,
        embed_layer=ConvStem,
        drop_path_rate=drop_path,
    )


def build(
    name: str, num_classes: int, seed: int, weights: Path | None = None, weights_folder: Path | None = None
) -> nn.Module:
    """The network of `build_with_notes`, without its notes."""
    return build_with_notes(name, num_classes, seed, weights, weights_folder)[0]


def build_with_notes(
    name: str,
    num_classes: int,
    seed: int,
    weights: Path | None = None,
    weights_folder: Path | None = None,
    drop_path: float = 0.0,
) -> tuple[nn.Module, tuple[str, ...]]:
    """A frozen backbone of the catalog with a new head, and notes on what was changed to make its weights fit.

    Args:
        name: as `core.backbones.backbone` takes it; a name that ends in `.random` keeps its random weights.
        num_classes: outputs of the head, which starts at zero, so that the first prediction is uniform.
        seed: of random weights.
        weights: a file in place of the catalog's, see `weight_files.load_weights`.
        weights_folder: of fetched weights, `<name>/model.safetensors`; used if `weights` is None.
        drop_path: of the last block, for training; timm decides the rates of the others.

    Returns:
        The network in eval mode on the CPU, float32 and completely frozen (its head is `get_classifier()`), and the
        notes.

    Raises:
        CatalogError: the name is unknown.
        BackboneError: weights are missing or do not fit.
    """
    entry = catalog.backbone(name)
    path = _weights_of(entry, weights, weights_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if entry.bundled:
            model = bundled_network(num_classes, drop_path)
        else:
            model = _timm_network(entry, num_classes, drop_path)
    head = classifier(model)
    if not isinstance(head, nn.Linear):
        raise BackboneError(f"{entry.name} ends in a {type(head).__name__}: choose a backbone with a linear head")
    notes = load_weights(model, path) if path else ()
    nn.init.zeros_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return model.float().eval().requires_grad_(False), notes


def set_image_size(model: nn.Module, size: int) -> tuple[str, ...]:
    """Change a network with its weights to images of another size; call it before anything is attached to it.

    timm resamples position embeddings and the relative positions of windows, which keep their share of the grid. A
    convolutional network without either stays as it is.

    Args:
        model: A network that `build` made.
        size: Height and width in pixels, one that `Backbone.at` allows.

    Returns:
        Notes on what was resampled.
    """
    network: Any = model  # timm's networks share no declared type
    stem, before = getattr(network, "patch_embed", None), _windows(model)
    if not hasattr(network, "set_input_size") or stem is None or stem.img_size == (size, size):
        return ()
    grid = stem.grid_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch, about how timm's interpolation indexes tensors
        network.set_input_size(img_size=(size, size))
    notes = [grid_note(grid, stem.grid_size)] if getattr(network, "pos_embed", None) is not None else []
    changed = {(old, new) for old, new in zip(before, _windows(model), strict=True) if old != new}
    notes += [
        f"relative positions resampled from windows of {old[0]} x {old[1]} to {new[0]} x {new[1]} patches"
        for old, new in sorted(changed)
    ]
    return tuple(notes)


def _windows(model: nn.Module) -> list[tuple[int, int]]:
    """The window of each layer with a table of relative positions."""
    return [
        (int(module.window_size[0]), int(module.window_size[1]))
        for module in cast("list[Any]", list(model.modules()))
        if hasattr(module, "relative_position_bias_table")
    ]


def set_fused_attention(model: nn.Module, on: bool) -> None:
    """Choose the kernel of all attention layers. With few tokens two matrix products are faster on a CPU."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = on  # pyright: ignore[reportArgumentType] - a plain attribute of timm's layers


def fingerprint(model: nn.Module) -> str:
    """Twelve hex digits of SHA-256 over names and bytes of all tensors outside the head.

    Equal for equal weights from any file. Compute it before experts are injected, as that renames layers.
    """
    digest = hashlib.sha256()
    for name, value in sorted(backbone_state(model).items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:12]


def _timm_network(entry: Backbone, num_classes: int, drop_path: float) -> nn.Module:
    name = entry.name.removesuffix(RANDOM)
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, drop_path_rate=drop_path)
    except RuntimeError as error:  # raised by timm for a name or tag that this version does not have
        raise BackboneError(
            f"{entry.name} cannot be built by timm {timm.__version__} ({error}): install timm {table()['timm']}"
        ) from None


def _weights_of(entry: Backbone, weights: Path | None, folder: Path | None) -> Path | None:
    """The file to read, None for random weights."""
    if not entry.trained:
        if weights:
            trained = entry.name.removesuffix(RANDOM)
            raise BackboneError(
                f"{entry.name} is the control with random weights and takes no file: use {trained} for {weights}"
            )
        return None
    if weights:
        return Path(weights)
    if entry.bundled:
        if not BUNDLED_WEIGHTS.exists():
            raise BackboneError(f"{BUNDLED_WEIGHTS} does not exist: the bundled weights belong in {ASSETS}")
        return BUNDLED_WEIGHTS
    fetched = folder / entry.name / WEIGHTS_FILE if folder else None
    if fetched and fetched.is_file():
        return fetched
    option = f"put timm's {WEIGHTS_FILE} at {fetched}" if fetched else f"give timm's {WEIGHTS_FILE}"
    original = " or the original ViT-B_16.npz" if entry.name == "vit_base_patch16_224.orig_in21k" else ""
    raise BackboneError(
        f"the weights of {entry.name} are not in this repository and not on this machine: fetch them with "
        f"`{PROGRAM} fetch {entry.name}`, {option}, or name a file that ends in "
        f"{', '.join(ENDINGS[:-1])}{original}"
    )
