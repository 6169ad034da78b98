"""Write `mlae_lab/core/backbones.json`: the shapes of timm's backbones, so that a page can show them without torch.

    python assets/make_backbone_table.py

Each architecture is built on the meta device (shapes without memory) and run once; only linear layers whose
own forward is called are listed. Some networks read `layer.weight` instead (EVA's fused qkv with a bias):
an expert in such a layer would have no effect, so the layer is not a target. Takes some minutes.
"""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from mlae_lab.core.backbones import MIN_IMAGE_SIZE

TABLE = Path(__file__).resolve().parents[1] / "mlae_lab" / "core" / "backbones.json"
# timm module -> the kind of layer that is the default target
FAMILIES = {
    "vision_transformer": "attn.qkv",
    "vision_transformer_relpos": "attn.qkv",
    "vision_transformer_hybrid": "attn.qkv",
    "deit": "attn.qkv",
    "eva": "attn.qkv",
    "swin_transformer": "attn.qkv",
    "mlp_mixer": "mlp_channels.fc1",
    "convnext": "mlp.fc1",
}
MAX_IMAGE_SIZE = 518
STAGES_STEP = 32  # pixels per position of the last stage of Swin and ConvNeXt
MAX_PARAMETERS = 400_000_000
NORMS = {
    "0.5": [[0.5] * 3, [0.5] * 3],
    "ImageNet": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
    "CLIP": [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]],
    "0 to 1": [[0.0] * 3, [1.0] * 3],
    "satellite": [[0.43, 0.411, 0.296], [0.213, 0.156, 0.143]],
}


class Unsupported(Exception):
    """An architecture that the lab does not support; the text says why."""


def shapes_of(name: str, module: str) -> tuple[list, list]:
    """Build a network without memory and read its shapes.

    Args:
        name: of timm.
        module: the kind of layer that must be in its blocks.

    Returns:
        [layers, width, heads, biases, step, position_width, image, tokens, parameters], and a row [pattern, count,
        d_in, d_out] for each kind of linear layer; `*` in the pattern runs from 0 to count - 1. biases: number of
        values in all parameters named bias, without the head. step, position_width: of `other_sizes`.

    Raises:
        Unsupported: with the reason.
    """
    model = on_meta(name)
    head = model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise Unsupported("its head is not one linear layer")
    if model.pretrained_cfg["input_size"][0] != 3:
        raise Unsupported("its images do not have three channels")
    image = getattr(getattr(model, "patch_embed", None), "img_size", None) or model.pretrained_cfg["input_size"][1:]
    parameters = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in head.parameters())
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith(".bias")) - len(head.bias)
    if image[0] != image[1] or image[0] > MAX_IMAGE_SIZE or parameters > MAX_PARAMETERS:
        raise Unsupported(f"{image[0]} x {image[1]} pixels, {parameters:,} parameters")
    called: set[str] = set()
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            layer.register_forward_hook(lambda *_, path=path: called.add(path))
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, 3, *image, device="meta"))
        model.forward_head(features)
    rows = grouped(
        (path, layer.in_features, layer.out_features) for path, layer in model.named_modules() if path in called
    )
    targets = [row for row in rows if row[0].endswith(f"blocks.*.{module}")]
    if not targets:
        raise Unsupported(f"no block calls a linear layer {module}")
    heads = {
        int(m.num_heads) for path, m in model.named_modules() if path.endswith(".attn") and hasattr(m, "num_heads")
    }
    tokens = features.shape[1] if features.dim() == 3 else None
    layers = sum(row[1] for row in targets)
    numbers = [layers, model.num_features, max(heads, default=0), biases, *other_sizes(name, int(image[0]), tokens)]
    return [*numbers, int(image[0]), tokens, parameters], rows


def on_meta(name: str) -> Any:
    """A network of timm without memory."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, pretrained=False, num_classes=10).eval()


def other_sizes(name: str, image: int, tokens: int | None) -> tuple[int, int]:
    """Which other image sizes a network takes: found by running it at the smallest one and at one above its own.

    Args:
        name: Of timm.
        image: Its own size.
        tokens: At that size, None where stages differ.

    Returns:
        It takes multiples of so many pixels, 0: its own size only; and the parameters of its position embedding for
        each patch, 0 without one.
    """
    grid = math.isqrt(tokens) if tokens else 0  # class and register tokens are too few for another grid
    step = image // grid if grid and image % grid == 0 else STAGES_STEP
    widths = set()
    for size in (-(-MIN_IMAGE_SIZE // step) * step, image // step * step + step):
        model = on_meta(name)
        before = sum(p.numel() for p in model.parameters())
        try:
            if hasattr(model, "set_input_size"):
                model.set_input_size(img_size=(size, size))
            with torch.no_grad():
                features = model.forward_features(torch.zeros(1, 3, size, size, device="meta"))
                model.forward_head(features)
        except (AssertionError, RuntimeError) as reason:
            print(f"{name}: only {image} pixels, {reason}", file=sys.stderr)
            return 0, 0
        patches = (size // step) ** 2 - grid**2
        if tokens and features.shape[1] != tokens + patches:
            return 0, 0
        widths.add((sum(p.numel() for p in model.parameters()) - before) / patches)
    width = widths.pop()
    return step, 0 if widths or width != int(width) else int(width)  # tables of relative positions grow otherwise


def grouped(layers: Iterable[tuple[str, int, int]]) -> list[list]:
    """One row for all blocks of a stage that hold the same layer. layers: (path, d_in, d_out)."""
    rows: dict[str, list] = {}
    for path, d_in, d_out in layers:
        pattern = re.sub(r"\bblocks\.\d+\.", "blocks.*.", path, count=1)
        number = re.search(r"\bblocks\.(\d+)\.", path)
        row = rows.setdefault(pattern, [pattern, 0, d_in, d_out])
        if row[2:] != [d_in, d_out] or (number and int(number[1]) != row[1]):
            raise Unsupported(f"its blocks differ at {path}")
        row[1] += 1
    return list(rows.values())


def norm(config: Any) -> str:
    """The name of a pretrained config's mean and standard deviation in NORMS."""
    values = [list(config.mean), list(config.std)]
    for name, known in NORMS.items():
        if values == known:
            return name
    raise Unsupported(f"mean and std {values} are new: add them to NORMS")


def published(name: str, family: str, module: str, numbers: list, rows: list) -> dict[str, list]:
    """The licence and what differs from the architecture's own row, by tag, timm's default tag first.

    Each value is [licence], [licence, norm], or [licence, norm, image, tokens, parameters].
    """
    tags: dict[str, list] = {}
    default: Any = get_pretrained_cfg(name)
    for full in timm.list_models(f"{name}.*", module=family, pretrained=True):
        config: Any = get_pretrained_cfg(full)
        tag = full.split(".", 1)[1]
        try:
            tags[tag] = [config.license or "", *([] if norm(config) == norm(default) else [norm(config)])]
            if config.input_size[-1] != numbers[-3]:
                tag_numbers, tag_rows = shapes_of(full, module)
                if tag_rows != rows or tag_numbers[:-3] != numbers[:-3]:
                    raise Unsupported("its layers differ from its architecture's")
                if tag_numbers[-3:] != numbers[-3:]:
                    tags[tag] = [config.license or "", norm(config), *tag_numbers[-3:]]
        except Unsupported as reason:
            tags.pop(tag, None)
            print(f"{full}: skipped, {reason}", file=sys.stderr)
    return {tag: tags[tag] for tag in sorted(tags, key=lambda tag: tag != default.tag)}


def compact(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    linears: list[list] = []
    architectures: dict[str, list] = {}
    for family, module in FAMILIES.items():
        for name in timm.list_models(module=family):
            if name.startswith("convnextv2") or name in architectures:
                continue
            try:
                numbers, rows = shapes_of(name, module)
            except Unsupported as reason:
                print(f"{name}: skipped, {reason}", file=sys.stderr)
                continue
            if rows not in linears:
                linears.append(rows)
            tags = published(name, family, module, numbers, rows)
            architectures[name] = [linears.index(rows), module, norm(get_pretrained_cfg(name)), *numbers, tags]
    lines = [
        f'{{"timm":"{timm.__version__}","norms":{compact(NORMS)},"linears":[',
        ",\n".join(map(compact, linears)),
        '],"architectures":{',
        ",\n".join(f"{compact(name)}:{compact(row)}" for name, row in architectures.items()),
        "}}",
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(architectures)} architectures, {len(linears)} shapes, {TABLE.stat().st_size / 1000:.0f} kB in {TABLE}")


if __name__ == "__main__":
    main()
