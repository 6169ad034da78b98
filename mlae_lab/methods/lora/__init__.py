"""LoRA: a low-rank update of linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, KINDS, NOT_LIKE_THE_AUTHORS, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import ConfigError, rate, setting

TARGETS: dict[str, tuple[str, ...]] = {"qkv": KINDS[:1], "q+v": KINDS[:1], "q+k+v": KINDS[:1], "all": KINDS}
TARGET_TITLES = {
    "qkv": "qkv, one update",
    "q+v": "q and v, one update each",
    "q+k+v": "q, k and v, one update each",
    "all": "all linear layers",
}
_LAYERS = ("Layers", "Which linear layers of each block have an update.")
LAYERS = setting(*_LAYERS, choices=("qkv", "all"), titles={"all": TARGET_TITLES["all"]})


def parts(targets: str, kind: str, d_out: int) -> tuple[tuple[int, int], ...]:
    """First and last output (exclusive) of each separate update of a layer.

    Args:
        targets: A key of TARGETS.
        kind: Of the layer, such as "attn.qkv".
        d_out: Its outputs; those of a fused qkv are q, k and v, a third each.
    """
    if kind != "attn.qkv" or "+" not in targets:
        return ((0, d_out),)
    third = d_out // 3
    return tuple(("qkv".index(name) * third, ("qkv".index(name) + 1) * third) for name in targets.split("+"))


@dataclass(frozen=True)
class LowRankMethod(Method):
    """What LoRA and DoRA share.

    Attributes:
        rank: r.
        alpha: α; 0 means r, a factor of 1.
        targets: Which layers have an update.
    """

    places: ClassVar[tuple[str, ...]] = ("qkv", "head")

    rank: int = field(default=8, metadata=setting("Rank", "Rank r of each update.", low=1, high=256))
    alpha: float = field(
        default=0.0,
        metadata=setting(
            "Alpha", "The update is multiplied by alpha / rank; 0 means alpha = rank.", low=0, high=10_000
        ),
    )
    targets: str = field(default="qkv", metadata=LAYERS)

    @property
    def scale(self) -> float:
        """The factor α/r."""
        return (self.alpha or self.rank) / self.rank


@dataclass(frozen=True)
class LoRA(LowRankMethod):
    """y = (W + α/r · B A) x + bias with A (r, d_in) and B (d_out, r).

    A starts uniform in ±1/sqrt(d_in) (Kaiming-uniform with a = √5, the authors' code) and B at 0.

    Attributes:
        dropout: Rate in training.
        consistency: Weight of the loss on two samples of the dropout.
        dropout_on: What the dropout acts on: elements of the input x of A (the authors' lora_dropout); elements of
            ΔW, one mask per step (the paper's text on "LoRA + dropout"); the ranks z = A x of each token, or of each
            image.
    """

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    reference: ClassVar[str] = "Hu et al. 2022, LoRA: Low-rank adaptation of large language models (ICLR)"
    formula: ClassVar[str] = "y = (W + α/r · B A) x + bias"
    summary: ClassVar[str] = "Trains a low-rank update of linear layers."
    traits: ClassVar[frozenset[Trait]] = frozenset(
        {Trait.LOW_RANK, Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID, Trait.PEFT}
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "ZhangYuanhan-AI/NOAH, experiments/LoRA (the row LoRA of the VTAB-1k tables)",
            {"rank": 8, "alpha": 8.0, "targets": "qkv", "dropout": 0.1, "dropout_on": "input", **IMAGENET_VALUES},
            NOT_LIKE_THE_AUTHORS,
        ),
    }

    targets: str = field(default="qkv", metadata=setting(*_LAYERS, choices=tuple(TARGETS), titles=TARGET_TITLES))
    dropout: float = rate(0.0, "Dropout", "Dropout rate in training.")
    dropout_on: str = field(
        default="input",
        metadata=setting(
            "Dropout acts on",
            "input: elements of the input x of A. update: elements of ΔW, one mask per step. token: ranks of A x, for "
            "each token. sample: ranks of A x, for each image.",
            choices=("input", "update", "token", "sample"),
            titles={"input": "input", "update": "update ΔW", "token": "ranks, per token", "sample": "ranks, per image"},
        ),
    )
    consistency: float = field(
        default=0.0,
        metadata=setting(
            "Consistency",
            "Weight of the squared difference of the logits of two forward passes with other dropout, summed over "
            "classes, mean over images (PACE); each step then takes about twice as long.",
            low=0, high=100, step=0.1,
        ),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.consistency and not self.dropout:
            raise ConfigError(
                f"consistency is {self.consistency:g} and dropout is 0, so that two passes are equal: set consistency "
                "to 0, or a dropout above 0"
            )

    @property
    def consistency_weight(self) -> float:
        return self.consistency

    def parameters(self, backbone: Backbone) -> int:
        shapes = blocks_of(backbone, self.title)
        count = 0
        for kind in TARGETS[self.targets]:
            d_in, d_out = shapes.linears[kind]
            count += sum(self.rank * (d_in + last - first) for first, last in parts(self.targets, kind, d_out))
        return shapes.count * count
