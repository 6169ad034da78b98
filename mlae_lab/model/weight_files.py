"""Load weights from a file: safetensors, PyTorch's own format (tensors only), the original ViT's npz.

No file can run code. A file that does not fit raises an error with one sentence, and the network must not be used then.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.core import bounded_json
from mlae_lab.core.weight_header import (
    AGAIN,
    ENDINGS,
    TENSORS_ONLY,
    BackboneError,
    kind_of,
    reading,
    refuse_integers,
    tensors_in,
)
from mlae_lab.core.weight_names import placed, unwrapped

__all__ = ["BackboneError", "backbone_state", "classifier", "grid_note", "head_prefix", "load_weights"]

State = dict[str, torch.Tensor]
_JAX_PREFIXES = ("", "opt/target/", "params/", "params/img/")
_PATCH = "patch_embed.proj.weight"


def head_prefix(model: nn.Module) -> str:
    """Prefix of the names of the head's tensors: `head.` in a ViT, `head.fc.` in Swin and ConvNeXt."""
    head = classifier(model)
    return next(name for name, module in model.named_modules() if module is head) + "."


def classifier(model: Any) -> nn.Module:
    """The head of a network of timm."""
    return model.get_classifier()


def backbone_state(model: nn.Module) -> State:
    """All tensors of the network outside its head, not copied."""
    head = head_prefix(model)
    return {name: value for name, value in model.state_dict().items() if not name.startswith(head)}


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Copy a file's weights into the network; a head in the file is ignored.

    Names may be timm's, Hugging Face's for ViT, DeiT and DINOv2, or the authors' own if timm can translate them. They
    may have any prefix, as of a compiled or wrapped network, and lie in any of `core.weight_names`' wrappers.

    Args:
        model: a network of timm.
        path: safetensors; a file of torch.save with tensors alone, whatever its ending (`.bin`, `.pt`, `.pth`,
            `.pth.tar`, `.ckpt`); `.npz` for timm's vision transformers in the naming of the original JAX code.

    Returns:
        Notes, such as that the position embedding was resampled to another grid by timm's function.

    Raises:
        BackboneError: the file cannot be read or does not fit.
    """
    kind = kind_of(path)
    if kind == "npz":
        return _load_npz(model, path)
    given, copies = (_read_safetensors(path), ()) if kind == "safetensors" else _read_torch(path)
    own = backbone_state(model)
    state, notes = _translated(model, own, given)
    differences = _differences(own, state)
    if differences:
        raise BackboneError(f"{path} does not fit this backbone: {'; '.join(differences)}")
    _require_floating_point(path, own, state)
    state = {name: state[name].to(value.dtype) for name, value in own.items()}
    _require_finite(path, state)
    model.load_state_dict(state, strict=False)
    return (*copies, *notes)


# ---------------------------------------------------------------- reading


def _read_safetensors(path: Path) -> State:
    with reading(path, "a readable safetensors file", AGAIN):
        with path.open("rb") as file:
            bounded_json.safetensors_header(file)
        return load_file(path)


def _read_torch(path: Path) -> tuple[State, tuple[str, ...]]:
    # Training scripts keep their options in a Namespace, which only has attributes.
    harmless = torch.serialization.safe_globals([argparse.Namespace])
    # an open file, as PyTorch would choose the reader by the ending of a path
    with reading(path, "a readable file of tensors", TENSORS_ONLY), harmless, path.open("rb") as file:
        content = torch.load(file, map_location="cpu", weights_only=True)
    content, notes = unwrapped(content)
    state = tensors_in(content, path, lambda v: isinstance(v, torch.Tensor) and v.layout is torch.strided)
    return state, notes


# ---------------------------------------------------------------- names and shapes


def _translated(model: nn.Module, own: State, given: State) -> tuple[State, tuple[str, ...]]:
    """The file's tensors under the network's names, and notes on what was changed."""
    given, copies = placed(given, own.keys(), lambda parts: torch.cat(list(parts)))
    given, note = _regridded(model, own, given)
    state = _without_head(model, given)
    same_patch = _PATCH not in given or _PATCH not in own or given[_PATCH].shape[2:] == own[_PATCH].shape[2:]
    if set(state) != set(own) and same_patch:  # timm would silently resample patches of another size
        other = _without_head(model, _timm_names(model, given))
        if len(set(other) ^ set(own)) < len(set(state) ^ set(own)):
            state = other
    return state, (*copies, *note)


def _timm_names(model: nn.Module, given: State) -> State:
    """The authors' names (DeiT, DINOv2, Swin, ConvNeXt, CLIP ...) as timm's own loader translates them."""
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    options = {"adapt_layer_scale": True} if isinstance(model, VisionTransformer) else {}
    try:
        return dict(translate(given, model, **options)) if translate else given
    except Exception:
        return given


def _without_head(model: nn.Module, state: State) -> State:
    """The tensors without the head, buffers that timm computes itself, and the layer before the head of old files."""
    head = head_prefix(model)
    computed = ("relative_position_index", "attn_mask")
    return {
        name: value
        for name, value in state.items()
        if not name.startswith((head, "pre_logits.")) and not name.endswith(computed)
    }


def _regridded(model: nn.Module, own: State, state: State) -> tuple[State, tuple[str, ...]]:
    """The tensors with the position embedding resampled to the network's grid, and a note, where the grids differ."""
    given, expected = state.get("pos_embed"), own.get("pos_embed")
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if given is None or expected is None or grid is None or given.shape == expected.shape:
        return state, ()
    extra = _prefix_tokens(model)
    width = math.isqrt(max(0, given.shape[1] - extra)) if given.dim() == 3 else 0
    is_grid = width and width * width + extra == given.shape[1]
    if expected.dim() != 3 or not is_grid or given.shape[2] != expected.shape[2]:
        return state, ()
    resampled = resample_abs_pos_embed(given.float(), new_size=list(grid), num_prefix_tokens=extra)
    return {**state, "pos_embed": resampled}, (grid_note((width, width), grid),)


def _prefix_tokens(model: nn.Module) -> int:
    return 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 1)


def grid_note(old: tuple[int, ...], new: tuple[int, ...]) -> str:
    """What is said about a resampled position embedding. old, new: height and width in patches."""
    return f"position embedding resampled from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches"


def _differences(own: State, state: State) -> list[str]:
    """What does not fit, as parts of a sentence; empty if everything fits."""
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    parts = []
    for names, singular, plural in (
        ([name for name in own if name not in state], " is missing", " are missing"),
        ([name for name in state if name not in own], " is not part of it", " are not part of it"),
        (shapes, "", " (wrong shapes)"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            ending = singular if len(names) == 1 else plural
            parts.append(f"{', '.join(name[:100] for name in names[:3])}{more}{ending}")
    return parts


def _require_floating_point(path: Path, own: State, state: State) -> None:
    for name, value in own.items():
        if value.is_floating_point() and not state[name].is_floating_point():
            refuse_integers(path, name, str(state[name].dtype).removeprefix("torch."))


def _require_finite(path: Path, state: State) -> None:
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise BackboneError(f"{path} cannot be used: {broken[0]} holds values that are not finite numbers")


# ---------------------------------------------------------------- the original ViT files


@torch.no_grad()
def _load_npz(model: nn.Module, path: Path) -> tuple[str, ...]:
    if not isinstance(model, VisionTransformer) or not hasattr(model.patch_embed, "proj"):
        raise BackboneError(
            f"{path} is in the naming of the original JAX ViT, which fits only timm's vision transformers: "
            f"give a {' or '.join(ENDINGS[:2])} file for this backbone"
        )
    # opened here and below, because numpy and timm leave a file open that they cannot read
    with reading(path, "a readable npz file"), path.open("rb") as file, np.load(file) as arrays:
        names = set(arrays.files)
        prefix = next((p for p in _JAX_PREFIXES if f"{p}embedding/kernel" in names), None)
        kernel = () if prefix is None else arrays[f"{prefix}embedding/kernel"].shape
        key = next((name for name in names if name.endswith("pos_embedding")), None)
        positions = arrays[key].shape[-2] if key else 0
    if prefix is None:
        raise BackboneError(f"{path} is not an original ViT file: it has no embedding/kernel")
    blocks = len({match[1] for name in names if (match := re.search(r"/encoderblock_(\d+)/", f"/{name}"))})
    width, colours, *patch = model.patch_embed.proj.weight.shape
    if kernel != (*patch, colours, width) or blocks not in (0, len(model.blocks)):  # 0: all blocks in one array
        raise BackboneError(
            f"{path} does not fit this backbone: its patch embedding is {kernel} with {blocks} blocks, "
            f"not {(*patch, colours, width)} with {len(model.blocks)}"
        )
    own = backbone_state(model)
    for value in own.values():
        if value.is_floating_point():
            value.fill_(math.nan)  # timm's loader copies what it knows; what is still nan then was not in the file
    with reading(path, "a fitting ViT file"), path.open("rb") as file:
        model.load_pretrained(file)  # pyright: ignore[reportArgumentType] - numpy, which reads it, takes open files
    missing = [name for name, value in own.items() if not bool(torch.isfinite(value).all())]
    if missing:
        differences = _differences(dict.fromkeys(missing, own[missing[0]]), {})
        raise BackboneError(f"{path} does not fit this backbone: {differences[0]} or not finite")
    grid = model.patch_embed.grid_size
    width = math.isqrt(max(0, positions - _prefix_tokens(model)))
    if model.pos_embed is None or width * width == grid[0] * grid[1]:
        return ()
    return (grid_note((width, width), grid),)
