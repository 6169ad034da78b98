"""Convpass: convolutional bypasses parallel to attention and MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import setting
from mlae_lab.methods.bottleneck import hidden_dropout

_VALUES = {**IMAGENET_VALUES, "scale": 1.0}


@dataclass(frozen=True)
class Convpass(Method):
    """x + f(h) + s U dropout(σ(K * σ(D h + b_D) + b_K) + b_U), h = norm(x), for f = attention and f = MLP.

    D (d, features) and U (features, d) are 1 x 1 convolutions, K (d, d, 3, 3) a convolution over the map of patches
    with a border of zeros, σ QuickGELU. The class token, and every other prefix token, passes K as a map of one token.

    From the authors' code (JieShibo/PETL-ViT, convpass/vtab): the formula, d = 8, dropout 0.1, the initial values (D
    Xavier-uniform; K zero but for the identity in its centre, or Xavier-uniform; U and biases 0), and the recipe. From
    the paper: the rounded count of 0.33M. The exact count here, 24 (17 · 768 + 592) = 327,552 on ViT-B/16, follows
    from the shapes; there is no exact published count to compare it with.
    """

    name: ClassVar[str] = "convpass"
    title: ClassVar[str] = "Convpass"
    reference: ClassVar[str] = "Jie and Deng 2022, Convolutional bypasses are better vision transformer adapters"
    formula: ClassVar[str] = "x + f(h) + s U σ(K * σ(D h)), h = norm(x)"
    summary: ClassVar[str] = "Trains a bottleneck with a 3 × 3 convolution parallel to attention and MLP of each block."
    places: ClassVar[tuple[str, ...]] = ("parallel to attention", "parallel to mlp", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.IDENTITY_AT_INIT})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "JieShibo/PETL-ViT, convpass/vtab/train.py",
            _VALUES,
            "scale and initial values of K are set by task in their configs, such as 0.1 for SUN397; "
            f"{NOT_LIKE_THE_AUTHORS}",
        ),
        "fgvc": Recipe("JieShibo/PETL-ViT, convpass/vtab/train.py, as for VTAB", _VALUES, "no results on FGVC"),
    }

    bottleneck: int = field(default=8, metadata=setting("Bottleneck", "Width d of the bypass.", low=1, high=1024))
    scale: float = field(
        default=1.0,
        metadata=setting(
            "Scale", "Factor s; the authors choose it by task.", low=0, high=100, exclusive=True, step=0.5
        ),
    )
    place: str = field(
        default="block",
        metadata=setting(
            "Place",
            "Parallel to attention and MLP, or to attention only (Convpass-attn).",
            choices=("block", "attention"),
            titles={"block": "attention and MLP", "attention": "attention only"},
        ),
    )
    initialisation: str = field(
        default="identity",
        metadata=setting(
            "Initial values of K",
            "identity: K passes its input through. xavier: Xavier-uniform, which the authors use for some tasks.",
            choices=("identity", "xavier"),
        ),
    )
    dropout: float = hidden_dropout()

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        width, d = blocks.width, self.bottleneck
        places = 2 if self.place == "block" else 1
        return blocks.count * places * ((width * d + d) + (9 * d * d + d) + (d * width + width))
