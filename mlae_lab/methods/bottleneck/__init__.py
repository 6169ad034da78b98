"""Bottleneck adapters D -> d -> D with a nonlinearity: Adapter, Adapter+ and AdaptFormer, which differ in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, VPT_VALUES, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import rate, setting


def hidden_dropout() -> float:
    """The field of a dropout rate of the hidden elements."""
    return rate(0.1, "Dropout", "Rate at which a hidden element is dropped in training.")


@dataclass(frozen=True)
class _Bottleneck(Method):
    """What all three share."""

    places: ClassVar[tuple[str, ...]] = ("after mlp", "head")

    bottleneck: int = field(default=8, metadata=setting("Bottleneck", "Width d of the adapter.", low=1, high=1024))

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        return blocks.count * (2 * blocks.width * self.bottleneck + self.bottleneck + blocks.width)


@dataclass(frozen=True)
class BottleneckAdapter(_Bottleneck):
    """Adapter in sequence with a branch: Ad(h) = h + W_u dropout(act(W_d h + b_d)) + b_u.

    The defaults are those of NOAH's code, which the table on VTAB-1k calls Adapter. VPT's code, which the table on FGVC
    takes its Adapter from, starts with both projections at zero: act(0) = 0 leaves W_u without a gradient, and W_u = 0
    leaves W_d without one, so only b_u is ever trained. The recipe for FGVC starts with `zero_up` instead.
    """

    name: ClassVar[str] = "adapter"
    title: ClassVar[str] = "Adapter"
    reference: ClassVar[str] = "Houlsby et al. 2019, Parameter-efficient transfer learning for NLP (ICML)"
    formula: ClassVar[str] = "h + W_u σ(W_d h + b_d) + b_u, h = MLP(x)"
    summary: ClassVar[str] = "Trains a bottleneck after the MLP, and by choice after attention, of each block."
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "ZhangYuanhan-AI/NOAH, configs/Adapter/VTAB",
            {**IMAGENET_VALUES, "bottleneck": 8},
            NOT_LIKE_THE_AUTHORS,
        ),
        "fgvc": Recipe(
            "Jia et al. 2022 (VPT), table 1; KMnP/vpt, src/models/vit_adapter, reduction factor 64",
            {
                **VPT_VALUES,
                "bottleneck": 12,
                "activation": "gelu",
                "dropout": 0.0,
                "initialisation": "zero_up",
                "preprocessing": "fgvc-crop",
            },
            "learning rate and weight decay, which they choose by task, are those for VTAB; their initial values, zero "
            "in both projections, train b_u only and are not used",
        ),
    }

    place: str = field(
        default="after_mlp",
        metadata=setting(
            "Place",
            "After the MLP of each block, or after attention and after the MLP as in Houlsby et al.",
            choices=("after_mlp", "houlsby"),
            titles={"after_mlp": "after the MLP", "houlsby": "after attention and MLP"},
        ),
    )
    activation: str = field(
        default="quick_gelu",
        metadata=setting(
            "Activation",
            "Nonlinearity σ: NOAH's QuickGELU, or GELU.",
            choices=("quick_gelu", "gelu"),
            titles={"quick_gelu": "QuickGELU", "gelu": "GELU"},
        ),
    )
    initialisation: str = field(
        default="xavier",
        metadata=setting(
            "Initial values",
            "xavier: both projections, as NOAH. zero_up: W_u = 0 and W_d Kaiming-uniform, the identity at the start. "
            "normal: both N(0, 0.01²), cut off at two deviations, as Houlsby et al.",
            choices=("xavier", "zero_up", "normal"),
        ),
    )
    dropout: float = hidden_dropout()

    def parameters(self, backbone: Backbone) -> int:
        return super().parameters(backbone) * (2 if self.place == "houlsby" else 1)


@dataclass(frozen=True)
class AdapterPlus(_Bottleneck):
    """Adapter on the output x of each block: x + s ∘ drop_path(W_u GELU(W_d x + b_d) + b_u), s of D features."""

    name: ClassVar[str] = "adapter_plus"
    title: ClassVar[str] = "Adapter+"
    reference: ClassVar[str] = "Steitz and Roth 2024, Adapters strike back (CVPR)"
    formula: ClassVar[str] = "x + s ∘ (W_u GELU(W_d x + b_d) + b_u)"
    summary: ClassVar[str] = "Trains a bottleneck and a scale of each feature on the output of each block."
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "visinf/adapter_plus, conf/train/default.yaml, conf/adapter/adapter_plus.yaml",
            {**IMAGENET_VALUES, "normalisation": "half", "bottleneck": 8},
            "their learning rate rises from 1e-5 and ends at 1e-6 instead of 0",
        ),
        "fgvc": Recipe(
            "visinf/adapter_plus, conf/experiment/fgvc/adapter_plus_dim1-32.yaml",
            {**IMAGENET_VALUES, "normalisation": "half", "bottleneck": 2},
            "the bottleneck is the one for CUB and NABirds; 1 for Flowers and Dogs, 32 for Cars; their learning rate "
            "rises from 1e-5 and ends at 1e-6 instead of 0",
        ),
    }

    drop_path: float = rate(0.1, "Dropout", "Rate at which the adapter's output for an image is dropped in training.")

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        return super().parameters(backbone) + blocks.count * blocks.width


@dataclass(frozen=True)
class AdaptFormer(_Bottleneck):
    """Adapter parallel to the MLP: x + MLP(norm(x)) + s (W_u dropout(ReLU(W_d x + b_d)) + b_u), x not normalised."""

    name: ClassVar[str] = "adaptformer"
    title: ClassVar[str] = "AdaptFormer"
    reference: ClassVar[str] = "Chen et al. 2022, AdaptFormer (NeurIPS)"
    formula: ClassVar[str] = "x + MLP(norm(x)) + s (W_u ReLU(W_d x + b_d) + b_u)"
    summary: ClassVar[str] = "Trains a bottleneck parallel to the MLP of each block."
    places: ClassVar[tuple[str, ...]] = ("parallel to mlp", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.IDENTITY_AT_INIT})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "the rows of later papers, which follow ZhangYuanhan-AI/NOAH, configs/Adapter/VTAB",
            {**IMAGENET_VALUES, "bottleneck": 8, "scale": 0.1},
            NOT_LIKE_THE_AUTHORS,
        ),
        "fgvc": Recipe(
            "ShoufaChen/AdaptFormer, main_image.py, with the width 64 of the paper",
            {
                **IMAGENET_VALUES,
                "optimizer": "sgd",
                "learning_rate": 0.1 * 64 / 256,
                "weight_decay": 0.0,
                "warmup": 0.2,
                "drop_path": 0.0,
                "bottleneck": 64,
                "scale": 0.1,
            },
            "they trained on other data sets, with 512 images per step and GPU, and with a batch normalisation before "
            "the head",
        ),
    }

    scale: float = field(
        default=0.1, metadata=setting("Scale", "Factor s.", low=0, high=100, exclusive=True, step=0.05)
    )
    dropout: float = hidden_dropout()
