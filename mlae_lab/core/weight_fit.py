"""Whether a weight file fits a backbone, judged by the names and shapes in its header, before a run is queued.

Only what is certain is refused here: loading the file compares every tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from mlae_lab.core.backbones import DEFAULT_BACKBONE, Backbone, Rows, backbone, table
from mlae_lab.core.config import RunConfig
from mlae_lab.core.weight_header import BackboneError, Shape, Shapes, refuse_integers, shapes_of
from mlae_lab.core.weight_names import placed
from mlae_lab.locations import weights_file

_PATCH = "patch_embed.proj.weight"
_SUGGESTED = 3
_ADVICE = "choose another file or another backbone"
_JAX_BLOCK = re.compile(r"(?:.*/)?encoderblock_(\d+)/(.+)")
_HEADS = ("head.", "fc.", "classifier.", "head_dist.", "pre_logits.")


def require_weights(config: RunConfig) -> tuple[str, ...]:
    """`require_fit` for the file that a run would read, named or fetched; nothing for bundled or random weights.

    Raises:
        BackboneError: The file cannot be used.
        CatalogError: The backbone is unknown.
    """
    entry = backbone(config.backbone)
    if config.weights and entry.trained:
        return require_fit(entry, Path(config.weights))
    fetched = weights_file(entry.name)
    return require_fit(entry, fetched) if entry.needs_file and fetched.exists() else ()


def require_fit(entry: Backbone, path: Path) -> tuple[str, ...]:
    """Raise BackboneError for a file that cannot hold the weights of a backbone; the text names one that it fits.

    Returns:
        Notes on which of several copies in the file would be used.
    """
    shapes, notes = shapes_of(path)
    if path.suffix.lower() == ".npz":
        shapes = _timm_shapes(shapes)
    expected = _expected(entry.linears)
    own, more = placed(shapes, expected.keys(), _joined)
    for name, shape in own.items():
        if name in expected and isinstance(shape, Shape) and shape.integers:
            refuse_integers(path, name, shape.integers)
    if trouble := _trouble(entry, own):
        fitting = [name for name in fitting_architectures(shapes) if name != entry.name.partition(".")[0]]
        advice = (
            f"it fits {', '.join(fitting[:_SUGGESTED])}: choose that backbone or another file" if fitting else _ADVICE
        )
        raise BackboneError(f"{path} does not fit {entry.name}: {trouble}; {advice}")
    if expected.keys() <= own.keys() and (missing := _missing_parameters(entry, own)) > 0:
        raise BackboneError(
            f"{path} does not fit {entry.name}: {missing:,} of {entry.parameters:,} parameters are missing; {_ADVICE}"
        )
    return (*notes, *more)


def fitting_architectures(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of timm's architectures (and the lab's own) that a file with these shapes fits, the closest first."""
    candidates: dict[tuple[Rows, ...], list[Backbone]] = {}
    for entry in _architectures():
        candidates.setdefault(entry.linears, []).append(entry)
    fitting: list[tuple[int, str]] = []
    for linears, entries in candidates.items():
        expected = _expected(linears)
        own, _ = placed(shapes, expected.keys(), _joined)
        if any(own.get(name) != shape for name, shape in expected.items()) or _beyond(linears, own):
            continue
        total = sum(math.prod(shape) for name, shape in own.items() if not name.startswith(_HEADS))
        fitting += [
            (abs(total - entry.parameters), entry.name.partition(".")[0])
            for entry in entries
            if not _patch_trouble(entry, own)
        ]
    fitting.sort(key=lambda pair: pair[0])
    return [name for difference, name in fitting if difference <= 2 * fitting[0][0] + 1000]


def _trouble(entry: Backbone, own: Mapping[str, tuple[int, ...]]) -> str:
    """Why shapes cannot be those of the backbone, "" if they may be."""
    blocks = tuple(rows for rows in entry.linears if ".*." in rows.pattern)
    expected = _expected(blocks)
    wrong = [name for name, shape in expected.items() if name in own and _plain(own[name]) != shape]
    if wrong:
        more = f" and {len(wrong) - 1} more have wrong shapes" if len(wrong) > 1 else ""
        return f"{wrong[0]} is {own[wrong[0]]}, not {expected[wrong[0]]}{more}"
    recognised = sum(name in own for name in expected)
    if recognised:
        if absent := _absent(blocks, own):
            return f"it has no {absent}"
        if beyond := _beyond(blocks, own):
            return f"it has {beyond}, which is not part of it"
        return _patch_trouble(entry, own)
    total = sum(math.prod(shape) for shape in own.values())
    if 2 * total < entry.parameters:
        return f"it holds {total:,} numbers, and the backbone has {entry.parameters:,} parameters"
    fitting = fitting_architectures(own)
    return "its tensors are those of another network" if fitting else ""


def _absent(blocks: tuple[Rows, ...], own: Mapping[str, tuple[int, ...]]) -> str:
    """The first block without any tensor in the file; names within a block may differ."""
    have = {name[: match.end() - 1] for name in own for match in re.finditer(r"\.\d+\.", name)}
    for rows in blocks:
        start = rows.pattern.partition("*")[0]
        for number in range(rows.count):
            if f"{start}{number}" not in have:
                return f"{start}{number}"
    return ""


def _missing_parameters(entry: Backbone, own: Mapping[str, tuple[int, ...]]) -> int:
    """How many parameters a file with all linear layers lacks at least, such as those of a norm.

    The position embedding may have another grid, so it is left out on both sides; in the network it has at most one
    row for each token.
    """
    positions = own.get("pos_embed", ())
    if len(positions) != 3 or not entry.tokens:
        return 0
    total = sum(math.prod(shape) for name, shape in own.items() if not name.startswith((*_HEADS, "pos_embed")))
    return max(0, entry.parameters - entry.tokens * positions[2] - total)


def _beyond(linears: tuple[Rows, ...], own: Mapping[str, tuple[int, ...]]) -> str:
    """A linear layer of the file in a block that the network does not have."""
    names = (rows.pattern.replace("*", str(rows.count)) for rows in linears if "*" in rows.pattern)
    return next((name for name in names if f"{name}.weight" in own), "")


def _patch_trouble(entry: Backbone, own: Mapping[str, tuple[int, ...]]) -> str:
    patch, given = _patch_size(entry), own.get(_PATCH, ())
    if not patch or len(given) != 4 or given[-1] == patch:
        return ""
    return f"its patches have {given[-1]} x {given[-2]} pixels, not {patch} x {patch}"


def _patch_size(entry: Backbone) -> int:
    """Pixels of a patch of a plain vision transformer, 0 where the table does not tell."""
    if not entry.tokens or entry.bundled or not entry.linears[0].pattern.startswith("blocks."):
        return 0
    grid = math.isqrt(entry.tokens)  # class and register tokens are too few for another grid
    return entry.image_size // grid if grid and entry.image_size % grid == 0 else 0


def _expected(linears: tuple[Rows, ...]) -> Shapes:
    return {f"{name}.weight": (rows.d_out, rows.d_in) for rows in linears for name in rows.names}


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1 x 1 convolution as the linear layer that it is."""
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def _joined(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


@cache
def _architectures() -> tuple[Backbone, ...]:
    return tuple(backbone(name) for name in (DEFAULT_BACKBONE, *table()["architectures"]))


def _timm_shapes(shapes: Shapes) -> Shapes:
    """The shapes of an original ViT file (JAX) under timm's names, as far as the comparison needs them."""
    result: Shapes = {}
    for name, shape in shapes.items():
        if name.endswith("embedding/kernel") and len(shape) == 4:
            result[_PATCH] = (shape[3], shape[2], shape[0], shape[1])
        elif match := _JAX_BLOCK.fullmatch(name):
            block, inside = f"blocks.{match[1]}.", match[2]
            if inside.endswith("query/kernel") and len(shape) == 3:
                result[f"{block}attn.qkv.weight"] = (3 * shape[1] * shape[2], shape[0])
            elif inside.endswith("out/kernel") and len(shape) == 3:
                result[f"{block}attn.proj.weight"] = (shape[2], shape[0] * shape[1])
            elif dense := re.search(r"Dense_([01])/kernel$", inside):
                result[f"{block}mlp.fc{int(dense[1]) + 1}.weight"] = shape[::-1]
            else:
                result[block + inside] = shape
        else:
            result[name] = shape
    return result
