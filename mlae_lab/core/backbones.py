"""Backbones as plain data: which exist, how large they are and which linear layers can hold experts.

The shapes of timm's networks come from `backbones.json` (written by `assets/make_backbone_table.py`), so
that a page can draw a canvas and count its parameters without torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from pathlib import Path

from mlae_lab.errors import LabError

MAX_DEFAULT_ROWS = 64
RANDOM = ".random"
_TABLE = Path(__file__).with_name("backbones.json")
_HALF = (0.5, 0.5, 0.5)
_LEGACY = "vit_base_patch16_224_in21k"


class CatalogError(LabError):
    """A name that the catalog does not hold; its text says which would work."""


@dataclass(frozen=True)
class Rows:
    """The same linear layer in all blocks of one stage.

    pattern: its name, `*` in place of the block number, which runs from 0 to count - 1; without `*` one layer.
    """

    pattern: str
    count: int
    d_in: int
    d_out: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.pattern.replace("*", str(i)) for i in range(self.count))


@dataclass(frozen=True)
class Backbone:
    """A frozen network.

    name: `architecture.tag` as timm writes it, or one of the lab's own. layers: blocks. width: of the features
    before the head. heads: of attention (Swin: in the last stage), 0 where there is none. image: side of the
    input in pixels. tokens: per image with class and register tokens, None where stages differ. parameters:
    without head. bundled: one of the lab's own two; trained: False for random weights. linears: every linear layer outside the head. module: the kind of layer that
    `default_targets` takes. mean, std: of the images it was trained on, per colour, pixels from 0 to 1.
    """

    name: str
    title: str
    layers: int
    width: int
    heads: int
    image: int
    tokens: int | None
    parameters: int
    bundled: bool
    trained: bool
    note: str
    linears: tuple[Rows, ...]
    module: str = "attn.qkv"
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF
    norm: str = "0.5"

    @property
    def needs_file(self) -> bool:
        """Whether weights must be fetched or given before a run."""
        return self.trained and not self.bundled

    @property
    def normalisation(self) -> str:
        """How pixels are scaled, in words: "mean = std = 0.5" or "ImageNet mean and std"."""
        return "mean = std = 0.5" if self.norm == "0.5" else f"{self.norm} mean and std"

    @property
    def modules(self) -> tuple[str, ...]:
        """Kinds of layers that repeat over the blocks, such as attn.qkv and mlp.fc1; the default first."""
        kinds = dict.fromkeys([self.module])
        kinds |= dict.fromkeys(rows.pattern.split(".*.", 1)[1] for rows in self.linears if ".*." in rows.pattern)
        return tuple(kinds)

    def targets(self, module: str) -> tuple[str, ...]:
        """Names of the layers of one kind in all blocks, from the input to the output.

        module: one of `modules`. Raises CatalogError for another.
        """
        if module not in self.modules:
            raise CatalogError(f"{module[:60]!r} is no kind of layer of {self.name}: choose {', '.join(self.modules)}")
        return tuple(name for rows in self.linears if rows.pattern.endswith(f".*.{module}") for name in rows.names)

    @property
    def default_targets(self) -> tuple[str, ...]:
        """The rows of a new canvas: a ViT's and a Swin's qkv, a Mixer's and a ConvNeXt's first MLP layer; at most 64."""
        return self.targets(self.module)[:MAX_DEFAULT_ROWS]

    @cached_property
    def _known(self) -> dict[str, tuple[int, int]]:
        return {name: (rows.d_in, rows.d_out) for rows in self.linears for name in rows.names}

    def shapes(self, targets: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of the named linear layers. Raises CatalogError for a name that is not one of its layers."""
        for target in targets:
            if target not in self._known:
                rows = self.targets(self.module)
                others = f" (and {', '.join(self.modules[1:])})" if self.modules[1:] else ""
                raise CatalogError(
                    f"{target} is not a linear layer of {self.name}: it has {self.layers} blocks, "
                    f"{rows[0]} to {rows[-1]}{others}"
                )
        return {target: self._known[target] for target in targets}


def vit_rows(layers: int, width: int) -> tuple[Rows, ...]:
    """The linear layers of a plain vision transformer with MLPs of four times its width."""
    shapes = {"attn.qkv": (1, 3), "attn.proj": (1, 1), "mlp.fc1": (1, 4), "mlp.fc2": (4, 1)}
    return tuple(Rows(f"blocks.*.{kind}", layers, a * width, b * width) for kind, (a, b) in shapes.items())


_LAB = Backbone(
    "lab_vit_12x128", "Lab ViT 12 x 128", 12, 128, 4, 48, 37, 2_477_632, True, True,
    "bundled; pretrained on procedural images by this project, a stand-in for ViT-B/16", vit_rows(12, 128),
)  # fmt: skip
_LAB_RANDOM = replace(
    _LAB, name=_LAB.name + RANDOM, title="Lab ViT, random weights", trained=False,
    note="the same network without pretraining: the control",
)  # fmt: skip
DEFAULT_BACKBONE = _LAB.name

# Shown first in menus: name to title and note.
_FEATURED = {
    "vit_base_patch16_224.orig_in21k": (
        "ViT-B/16, ImageNet-21k", "the paper's backbone; its weights are not in this repository"
    ),
    "vit_base_patch16_224.augreg_in21k": (
        "ViT-B/16 AugReg, ImageNet-21k", "same shape as the paper's backbone, other weights; used by SSF"
    ),
    "vit_base_patch14_dinov2.lvd142m": (
        "DINOv2 ViT-B/14", "self-supervised; 1,370 tokens per image where ViT-B/16 has 197"
    ),
    "vit_small_patch16_224.augreg_in21k": ("ViT-S/16 AugReg, ImageNet-21k", "a quarter of ViT-B/16"),
    "swin_base_patch4_window7_224.ms_in22k": ("Swin-B, ImageNet-22k", "windows in four stages; 24 qkv layers"),
    "mixer_b16_224.goog_in21k": ("MLP-Mixer-B/16, ImageNet-21k", "no attention; experts in the channel MLPs"),
    "convnext_base.fb_in22k": ("ConvNeXt-B, ImageNet-22k", "convolutions; experts in the block MLPs"),
}  # fmt: skip


@cache
def table() -> dict:
    """The table of timm's architectures, read once: see `assets/make_backbone_table.py` for its rows."""
    return json.loads(_TABLE.read_text(encoding="utf-8"))


@cache
def _rows(number: int) -> tuple[Rows, ...]:
    return tuple(Rows(*row) for row in table()["linears"][number])


def _from_table(architecture: str, tag: str) -> Backbone:
    """tag: a published one, "random", or "" for an architecture without published weights."""
    number, module, norm, layers, width, heads, *rest, tags = table()["architectures"][architecture]
    norm, *other = tags.get(tag) or [norm]
    image, tokens, parameters = other or rest
    mean, std = table()["norms"][norm]
    name = f"{architecture}.{tag}" if tag else architecture
    trained = tag != RANDOM[1:]
    size = f"{parameters / 1e6:,.1f} M parameters, {image} px"
    note = f"{size}; its weights are not in this repository" if trained else f"{size}; without pretraining: a control"
    title, note = _FEATURED.get(name, (name if trained else f"{architecture}, random weights", note))
    return Backbone(
        name, title, layers, width, heads, image, tokens, parameters, False, trained, note,
        _rows(number), module, tuple(mean), tuple(std), norm,
    )  # fmt: skip


@cache
def names() -> tuple[str, ...]:
    """Every name with published weights, `architecture.tag`, in the table's order; the lab's own two first."""
    known = [_LAB.name, _LAB_RANDOM.name]
    for architecture, row in table()["architectures"].items():
        known += [f"{architecture}.{tag}" for tag in row[-1]] or [architecture]
    return tuple(known)


@lru_cache(1024)
def _find(name: str) -> Backbone | None:
    if name in (_LAB.name, _LAB_RANDOM.name):
        return _LAB if name == _LAB.name else _LAB_RANDOM
    architecture, _, tag = name.partition(".")
    row = table()["architectures"].get(architecture)
    if row is None:
        return None
    tags = row[-1]
    if name == architecture:
        return _from_table(architecture, next(iter(tags), ""))
    return _from_table(architecture, tag) if tag in tags or tag == RANDOM[1:] else None


def backbone(name: str) -> Backbone:
    """The backbone of that name: one of the lab's, `architecture.tag` of timm, or `architecture.random`.

    An architecture alone means its default tag, as in timm; the entry's name then says which. Raises
    CatalogError with the nearest names for an unknown one.
    """
    name = name[:80]  # nothing is called longer, and looking for near names takes the square of it
    found = _find(name)
    if found:
        return found
    if name == _LEGACY:
        raise CatalogError(
            f"{name!r} is timm's legacy alias of augreg, not the paper's weights: write "
            "vit_base_patch16_224.orig_in21k for the paper's or vit_base_patch16_224.augreg_in21k for augreg's"
        )
    architecture, _, tag = name.partition(".")
    row = table()["architectures"].get(architecture)
    if row is not None:
        tags = ", ".join([*row[-1], RANDOM[1:]])
        raise CatalogError(f"{name!r} is not a backbone: {architecture} has no weights {tag!r}, choose from {tags}")
    near = get_close_matches(name, names(), 3, 0.7) or get_close_matches(architecture, table()["architectures"], 3, 0.7)
    if near:
        raise CatalogError(f"{name!r} is not a backbone: try {', '.join(near)}")
    like = [known for known in names() if len(name) > 3 and name.lower() in known][:3]
    such = f", such as {', '.join(like)}" if like else ""
    raise CatalogError(
        f"{name!r} is not a backbone: choose from {', '.join(b.name for b in FEATURED)}, or another timm network of "
        f"the ViT, Swin, MLP-Mixer or ConvNeXt families{such}"
    )


FEATURED: tuple[Backbone, ...] = (_LAB, _LAB_RANDOM, *(_from_table(*name.split(".", 1)) for name in _FEATURED))
