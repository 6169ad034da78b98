"""Names of a network's tensors in files of other programs: wrappers, prefixes and Hugging Face's names.

All functions work on names alone, so that they serve both a file's tensors and the shapes in its header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

EMA_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "teacher")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params", "student", "module")
PREFIXES = ("_orig_mod.", "module.", "base_model.model.", "model.", "backbone.", "net.")
_WHOLE_PREFIXES = ("encoder.", "vit.")  # of other parts in some files: removed where most names have them
_EMA_PREFIX = re.compile(r"(?:^|[._])(?:ema|teacher)[._]")


def unwrapped(content: Any) -> tuple[Any, tuple[str, ...]]:
    """The names and tensors in a checkpoint, and a note where it holds averaged (EMA) and plain ones.

    The averaged ones are taken, as by timm.
    """
    notes: list[str] = []
    while isinstance(content, Mapping):
        keys = [key for key in (*EMA_WRAPPERS, *WRAPPERS) if isinstance(content.get(key), Mapping) and content[key]]
        if not keys:
            break
        plain = [key for key in keys if key in WRAPPERS]
        if keys[0] in EMA_WRAPPERS and plain:
            notes.append(f"the file holds averaged weights (EMA, {keys[0]}) and plain ones ({plain[0]}): EMA is used")
        content = content[keys[0]]
    return content, tuple(notes)


def placed(
    given: Mapping[str, T], own: Collection[str], joined: Callable[[Sequence[T]], T]
) -> tuple[dict[str, T], tuple[str, ...]]:
    """A file's tensors under timm's names, as far as names alone tell, and notes.

    Args:
        given: By their names in the file.
        own: Names of the network.
        joined: Concatenates the query, key and value of one layer along their outputs.
    """
    sources = _from_hugging_face(given)
    if sources:
        return {
            name: given[source[0]] if len(source) == 1 else joined([given[part] for part in source])
            for name, source in sources.items()
        }, ()
    prefix, note = _prefix(given, own)
    if prefix is not None:
        return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}, note
    return _without_known_prefixes(dict(given), own), ()


def _prefix(names: Iterable[str], own: Collection[str]) -> tuple[str | None, tuple[str, ...]]:
    """What stands before the network's own names in the file; None where fewer than half of them are there."""
    own = own if isinstance(own, (set, frozenset, Mapping)) else set(own)
    count: Counter[str] = Counter()
    for name in names:
        start = 0
        while start >= 0:
            if name[start:] in own:
                count[name[:start]] += 1
            dot = name.find(".", start)
            start = dot + 1 if dot >= 0 else -1
    if not count or 2 * max(count.values()) < len(own):
        return None, ()
    most = max(count.values())
    best = [prefix for prefix, n in count.items() if n == most]
    best.sort(key=lambda prefix: (not _EMA_PREFIX.search(prefix), len(prefix), prefix))
    if len(best) == 1:
        return best[0], ()
    others = ", ".join(repr(prefix) for prefix in best[1:3])
    return best[0], (f"the file holds the network more than once: {best[0]!r} is used, not {others}",)


def _without_known_prefixes(given: dict[str, T], own: Collection[str]) -> dict[str, T]:
    """For the authors' names, which timm translates afterwards."""
    changed = True
    while changed:
        changed = False
        for prefix in (*PREFIXES, *_WHOLE_PREFIXES):
            having = sum(name.startswith(prefix) for name in given)
            enough = having > 0 if prefix in PREFIXES else 2 * having > len(given)
            if enough and not any(name.startswith(prefix) for name in own):
                given = {name.removeprefix(prefix): value for name, value in given.items()}
                changed = True
    return given


# ---------------------------------------------------------------- Hugging Face

_IN_LAYER = {
    "layernorm_before": "norm1", "layernorm_after": "norm2", "norm1": "norm1", "norm2": "norm2",
    "attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "mlp.weights_in": "mlp.fc1", "mlp.weights_out": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma",
}  # fmt: skip
_OUTSIDE = {
    "embeddings.cls_token": "cls_token", "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "register_tokens", "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias",
}  # fmt: skip
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_PART = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")
_ANCHOR = "embeddings.patch_embeddings.projection.weight"


def _from_hugging_face(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """timm's name of each tensor of a Hugging Face ViT, DeiT or DINOv2, with the names in the file that it joins.

    Empty for any other network. Heads, poolers and mask tokens are left out.
    """
    names = list(names)
    prefix = next((name.removesuffix(_ANCHOR) for name in names if name.endswith(_ANCHOR)), None)
    if prefix is None:
        return {}
    sources: dict[str, tuple[str, ...]] = {}
    parts: dict[str, dict[str, str]] = {}
    for name in names:
        if not name.startswith(prefix):
            continue
        own = name.removeprefix(prefix)
        if own in _OUTSIDE:
            sources[_OUTSIDE[own]] = (name,)
        elif match := _LAYER.fullmatch(own):
            block, inside = f"blocks.{match[1]}.", match[2]
            if part := _PART.fullmatch(inside):
                parts.setdefault(f"{block}attn.qkv.{part[2]}", {})[part[1]] = name
                continue
            module, _, kind = inside.rpartition(".")
            if inside in _IN_LAYER:
                sources[block + _IN_LAYER[inside]] = (name,)
            else:
                sources[f"{block}{_IN_LAYER.get(module, module)}.{kind}"] = (name,)
        elif not own.startswith(("embeddings.mask_token", "pooler.", "classifier.", "decoder.")):
            sources[own] = (name,)
    for goal, of in parts.items():
        sources[goal] = tuple(of[kind] for kind in ("query", "key", "value") if kind in of)
    return sources
