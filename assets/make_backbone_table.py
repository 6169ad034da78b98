"""Writes `mlae_lab/core/backbones.json`: the shapes of timm's backbones, so that a page can show them without torch.

    python assets/make_backbone_table.py

Each architecture is built on the meta device (shapes without memory) and run once; only linear layers whose
own forward is called are listed. Some networks read `layer.weight` instead (EVA's fused qkv with a bias):
an expert in such a layer would not be seen, so it is no target. Takes some minutes.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

TABLE = Path(__file__).resolve().parents[1] / "mlae_lab" / "core" / "backbones.json"
# timm module -> the module kind that is the first choice of a target row
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
MAX_IMAGE = 518
MAX_PARAMETERS = 400_000_000
NORMS = {
    "0.5": [[0.5] * 3, [0.5] * 3],
    "ImageNet": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
    "CLIP": [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]],
    "0 to 1": [[0.0] * 3, [1.0] * 3],
    "satellite": [[0.43, 0.411, 0.296], [0.213, 0.156, 0.143]],
}


class Unfit(Exception):
    """An architecture that the lab does not take; the text says why."""


def measured(name: str, module: str) -> tuple[list, list]:
    """([layers, width, heads, image, tokens, parameters], rows of linear layers) of one timm name.

    A row is [pattern, count, d_in, d_out]; `*` in the pattern runs from 0 to count - 1.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name, pretrained=False, num_classes=10).eval()
    head = model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise Unfit("its head is not one linear layer")
    if model.pretrained_cfg["input_size"][0] != 3:
        raise Unfit("its images do not have three colours")
    image = getattr(getattr(model, "patch_embed", None), "img_size", None) or model.pretrained_cfg["input_size"][1:]
    parameters = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in head.parameters())
    if image[0] != image[1] or image[0] > MAX_IMAGE or parameters > MAX_PARAMETERS:
        raise Unfit(f"{image[0]} x {image[1]} pixels, {parameters:,} parameters")
    called: set[str] = set()
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            layer.register_forward_hook(lambda *_, path=path: called.add(path))
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, 3, *image, device="meta"))
        model.forward_head(features)
    found = [(path, layer) for path, layer in model.named_modules() if path in called]
    rows = grouped((path, layer.in_features, layer.out_features) for path, layer in found)
    targets = [row for row in rows if row[0].endswith(f"blocks.*.{module}")]
    if not targets:
        raise Unfit(f"no block calls a linear layer {module}")
    heads = {
        int(m.num_heads) for path, m in model.named_modules() if path.endswith(".attn") and hasattr(m, "num_heads")
    }
    tokens = features.shape[1] if features.dim() == 3 else None
    layers = sum(row[1] for row in targets)
    return [layers, model.num_features, max(heads, default=0), int(image[0]), tokens, parameters], rows


def grouped(found: Iterator[tuple[str, int, int]]) -> list[list]:
    """One row for the blocks of a stage that hold the same layer."""
    rows: dict[str, list] = {}
    for path, d_in, d_out in found:
        pattern = re.sub(r"\bblocks\.\d+\.", "blocks.*.", path, count=1)
        number = re.search(r"\bblocks\.(\d+)\.", path)
        row = rows.setdefault(pattern, [pattern, 0, d_in, d_out])
        if row[2:] != [d_in, d_out] or (number and int(number[1]) != row[1]):
            raise Unfit(f"its blocks differ at {path}")
        row[1] += 1
    return list(rows.values())


def norm(config: object) -> str:
    values = [list(config.mean), list(config.std)]
    for name, known in NORMS.items():
        if values == known:
            return name
    raise Unfit(f"mean and std {values} are new: add them to NORMS")


def published(name: str, family: str, module: str, numbers: list, rows: list) -> dict[str, list]:
    """Tag to what differs from the architecture's own row, timm's default tag first.

    [] for nothing, [norm], or [norm, image, tokens, parameters].
    """
    usual, tags = get_pretrained_cfg(name), {}
    for full in timm.list_models(f"{name}.*", module=family, pretrained=True):
        config, tag = get_pretrained_cfg(full), full.split(".", 1)[1]
        try:
            tags[tag] = [] if norm(config) == norm(usual) else [norm(config)]
            if config.input_size[-1] != numbers[3]:
                other, same = measured(full, module)
                if same != rows or other[:3] != numbers[:3]:
                    raise Unfit("it has other layers than its architecture")
                if other[3:] != numbers[3:]:
                    tags[tag] = [norm(config), *other[3:]]
        except Unfit as reason:
            tags.pop(tag, None)
            print(f"{full}: left out, {reason}", file=sys.stderr)
    return {tag: tags[tag] for tag in sorted(tags, key=lambda tag: tag != usual.tag)}


def main() -> None:
    linears: list[list] = []
    architectures: dict[str, list] = {}
    for family, module in FAMILIES.items():
        for name in timm.list_models(module=family):
            if name.startswith("convnextv2") or name in architectures:
                continue
            try:
                numbers, rows = measured(name, module)
            except Unfit as reason:
                print(f"{name}: left out, {reason}", file=sys.stderr)
                continue
            if rows not in linears:
                linears.append(rows)
            tags = published(name, family, module, numbers, rows)
            architectures[name] = [linears.index(rows), module, norm(get_pretrained_cfg(name)), *numbers, tags]
    compact = {"separators": (",", ":")}
    lines = [f'{{"timm":"{timm.__version__}","norms":{json.dumps(NORMS, **compact)},"linears":[']
    lines.append(",\n".join(json.dumps(rows, **compact) for rows in linears))
    lines.append('],"architectures":{')
    lines.append(",\n".join(f"{json.dumps(name)}:{json.dumps(row, **compact)}" for name, row in architectures.items()))
    lines.append("}}")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(architectures)} architectures, {len(linears)} shapes, {TABLE.stat().st_size / 1000:.0f} kB in {TABLE}")


if __name__ == "__main__":
    main()
