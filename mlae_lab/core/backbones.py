"""Backbones as plain data: names, sizes and the linear layers that can hold experts.

The shapes of timm's networks come from `backbones.json` (written by `assets/make_backbone_table.py`), so
that a page can draw a canvas and count its parameters without torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from pathlib import Path

from mlae_lab.core.settings import ConfigError
from mlae_lab.errors import LabError

MAX_DEFAULT_ROWS = 64
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024  # pixels, of a size other than the network's own
RANDOM = ".random"
_TABLE = Path(__file__).with_name("backbones.json")
_HALF = (0.5, 0.5, 0.5)
_LEGACY = "vit_base_patch16_224_in21k"


class CatalogError(LabError):
    """An unknown name; the message lists names that would work."""


@dataclass(frozen=True)
class Rows:
    """The same linear layer in all blocks of one stage.

    Attributes:
        pattern: The layer's name with `*` for the block number, 0 to count - 1; without `*` a single layer.
        count: Number of blocks.
        d_in: Input width.
        d_out: Output width.
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

    Attributes:
        name: `architecture.tag` as in timm, or one of the lab's own names.
        title: Display name.
        layers: Number of blocks.
        width: Number of features before the head.
        heads: Attention heads (Swin: of the last stage), 0 without attention.
        image_size: Height and width of the input in pixels: the network's own, or that of `at`.
        tokens: Per image, with class and register tokens; None where stages differ.
        parameters: Without the head. At another image size exact but for tables of relative positions.
        bundled: Whether it is one of the lab's own two.
        trained: False for random weights.
        note: One line for menus.
        linears: Every linear layer outside the head.
        module: The kind of layer that `default_targets` takes.
        mean: Mean of the pretraining images per channel, pixels in [0, 1].
        std: Their standard deviation.
        norm: Name of `mean` and `std` in the table.
        biases: Number of values in all parameters named bias, without the head.
        step: The network takes images of any multiple of so many pixels; 0: only its own size.
        position_width: Parameters of the position embedding for each patch, 0 without one.
        licence: Of the weights, as timm states it; "" where it states none.
    """

    name: str
    title: str
    layers: int
    width: int
    heads: int
    image_size: int
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
    biases: int = 0
    step: int = 0
    position_width: int = 0
    licence: str = ""

    def at(self, size: int) -> Backbone:
        """The network for images of another size; itself for 0 or its own one.

        Raises:
            ConfigError: If the network does not take that size; the message names the nearest ones.
        """
        if size in (0, self.image_size):
            return self
        nearest = self.nearest_sizes(size)
        if nearest != (size,):
            rule = (
                f"multiples of {self.step} pixels from {self._smallest} to {self._largest}"
                if self.step
                else f"images of {self.image_size} pixels only, because its layers mix a fixed number of tokens"
            )
            raise ConfigError(
                f"image size is {size} and {self.name} takes {rule}: choose {' or '.join(map(str, nearest))}"
            )
        tokens = patches = 0
        if self.tokens is not None:
            grid = self.image_size // self.step
            patches = (size // self.step) ** 2 - grid**2
            tokens = self.tokens + patches
        return replace(
            self, image_size=size, tokens=tokens or None, parameters=self.parameters + self.position_width * patches
        )

    def nearest_sizes(self, size: int) -> tuple[int, ...]:
        """The size itself if the network takes it, else the largest smaller and the smallest larger one that it does.

        Its own size is one of them.
        """
        if size == self.image_size or not self.step:
            return (self.image_size,)
        clipped = min(max(size, self._smallest), self._largest)
        below, above = clipped // self.step * self.step, -(-clipped // self.step) * self.step
        return tuple(dict.fromkeys((below, above)))

    @property
    def _smallest(self) -> int:
        return -(-MIN_IMAGE_SIZE // self.step) * self.step

    @property
    def _largest(self) -> int:
        return MAX_IMAGE_SIZE // self.step * self.step

    @property
    def needs_file(self) -> bool:
        """Whether weights must be downloaded or given before a run."""
        return self.trained and not self.bundled

    @property
    def normalisation(self) -> str:
        """How pixels are scaled, as text: "mean = std = 0.5" or "ImageNet mean and std"."""
        return "mean = std = 0.5" if self.norm == "0.5" else f"{self.norm} mean and std"

    @property
    def modules(self) -> tuple[str, ...]:
        """Kinds of layers that repeat over the blocks, such as attn.qkv and mlp.fc1; the default first."""
        kinds = dict.fromkeys([self.module])
        kinds |= dict.fromkeys(rows.pattern.split(".*.", 1)[1] for rows in self.linears if ".*." in rows.pattern)
        return tuple(kinds)

    def targets(self, module: str) -> tuple[str, ...]:
        """Names of the layers of one kind in all blocks, from the input to the output.

        Raises:
            CatalogError: If `module` is not one of `modules`.
        """
        if module not in self.modules:
            raise CatalogError(f"{self.name} has no layers {module[:60]!r}: choose from {', '.join(self.modules)}")
        return tuple(name for rows in self.linears if rows.pattern.endswith(f".*.{module}") for name in rows.names)

    @property
    def default_targets(self) -> tuple[str, ...]:
        """The rows of a new canvas, at most 64: qkv of a ViT or Swin, the first MLP layer of a Mixer or ConvNeXt."""
        return self.targets(self.module)[:MAX_DEFAULT_ROWS]

    @cached_property
    def _known(self) -> dict[str, tuple[int, int]]:
        return {name: (rows.d_in, rows.d_out) for rows in self.linears for name in rows.names}

    def shapes(self, targets: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of the named linear layers.

        Raises:
            CatalogError: If a name is not one of the network's linear layers.
        """
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
    biases=17_248, step=8, position_width=128,
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
    """The table of timm's architectures; `assets/make_backbone_table.py` describes its rows."""
    return json.loads(_TABLE.read_text(encoding="utf-8"))


@cache
def _rows(number: int) -> tuple[Rows, ...]:
    return tuple(Rows(*row) for row in table()["linears"][number])


def _from_table(architecture: str, tag: str) -> Backbone:
    """A backbone of the table. tag: a published one, "random", or "" for one without published weights."""
    number, module, norm, layers, width, heads, biases, step, positions, *rest, tags = table()["architectures"][
        architecture
    ]
    licence, *other = tags.get(tag, [""])
    norm, *sizes = other or [norm]
    image, tokens, parameters = sizes or rest
    mean, std = table()["norms"][norm]
    name = f"{architecture}.{tag}" if tag else architecture
    trained = tag != RANDOM[1:]
    size = f"{parameters / 1e6:,.1f} M parameters, {image} px"
    note = f"{size}; its weights are not in this repository" if trained else f"{size}; a control without pretraining"
    title, note = _FEATURED.get(name, (name if trained else f"{architecture}, random weights", note))
    return Backbone(
        name, title, layers, width, heads, image, tokens, parameters, False, trained, note,
        _rows(number), module, tuple(mean), tuple(std), norm, biases, step, positions, licence,
    )  # fmt: skip


@cache
def names() -> tuple[str, ...]:
    """Every name with published weights, `architecture.tag`: the lab's own two, then the table's in its order."""
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
    """The backbone of that name.

    Args:
        name: One of the lab's, `architecture.tag` of timm, or `architecture.random`. An architecture alone means its
            default tag, as in timm; `Backbone.name` then holds the tag.

    Raises:
        CatalogError: If the name is unknown; the message lists the closest names.
    """
    name = name[:80]  # no name is longer, and the search for close names takes quadratic time
    match = _find(name)
    if match:
        return match
    if name == _LEGACY:
        raise CatalogError(
            f"{name!r} is timm's legacy alias of augreg, not the paper's weights: use "
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
    containing = [known for known in names() if len(name) > 3 and name.lower() in known][:3]
    examples = f", such as {', '.join(containing)}" if containing else ""
    raise CatalogError(
        f"{name!r} is not a backbone: choose from {', '.join(b.name for b in FEATURED)}, or another timm network of "
        f"the ViT, Swin, MLP-Mixer or ConvNeXt families{examples}"
    )


FEATURED: tuple[Backbone, ...] = (_LAB, _LAB_RANDOM, *(_from_table(*name.split(".", 1)) for name in _FEATURED))
