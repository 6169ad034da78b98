"""NOAH: prompts, LoRA and adapters together, with sizes for each block that a search has chosen for each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import ConfigError, rate, setting
from mlae_lab.methods.noah.subnets import SUBNETS, Sizes

OWN = "own"
_BLOCKS = 12  # of the published sub-networks


def _size(label: str, help: str) -> Any:
    return field(default=5, metadata=setting(label, f"{help} 0 for none.", low=0, high=200))


def _depth(label: str) -> Any:
    return field(
        default=_BLOCKS,
        metadata=setting(label, "In so many blocks from the first. The authors search over 3, 6, 9 and 12.", low=0,
                         high=100, step=3),
    )  # fmt: skip


@dataclass(frozen=True)
class NOAH(Method):
    """Prompts, LoRA in qkv and an adapter after the MLP, with sizes by block.

    Block i puts p_i prompts in place of the previous ones at the end of the tokens: [x; P_i].
    """

    name: ClassVar[str] = "noah"
    title: ClassVar[str] = "NOAH"
    reference: ClassVar[str] = "Zhang et al. 2022, Neural prompt search (TPAMI 2024)"
    formula: ClassVar[str] = "[x; P], (W + B A) x and h + U σ(V h), with sizes by block"
    summary: ClassVar[str] = "Trains prompts, LoRA and adapters, with sizes by block that a search found for each task."
    places: ClassVar[tuple[str, ...]] = ("tokens", "qkv", "after mlp", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.PER_LAYER_GRID})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "ZhangYuanhan-AI/NOAH, configs/NOAH/VTAB/subnet/slurm_retrain_vtab.sh",
            IMAGENET_VALUES,
            "choose the sub-network of the task; there it starts from the weights of a super-network that is trained "
            f"for 500 epochs, here from new ones; {NOT_LIKE_THE_AUTHORS}",
        ),
        "fgvc": Recipe("the authors' recipe for VTAB; they publish none for FGVC", IMAGENET_VALUES, "not published"),
    }

    subnet: str = field(
        default=OWN,
        metadata=setting(
            "Sub-network",
            "The published sizes for a task of VTAB-1k, for networks of 12 blocks; own: as the settings below give.",
            choices=(OWN, *SUBNETS),
        ),
    )
    prompt: int = _size("Prompts", "Number p of prompts of a block.")
    prompt_depth: int = _depth("Prompt depth")
    lora: int = _size("LoRA rank", "Rank l of the update of qkv.")
    lora_depth: int = _depth("LoRA depth")
    adapter: int = _size("Adapter width", "Hidden features a of the adapter after the MLP.")
    adapter_depth: int = _depth("Adapter depth")
    dropout: float = rate(0.1, "Dropout", "Dropout rate of prompts, LoRA's input and the adapter's hidden features.")

    def sizes(self, blocks: int) -> Sizes:
        """The sizes by block.

        Raises:
            ConfigError: The published sub-networks have another number of blocks, or nothing is trained.
        """
        if self.subnet != OWN:
            if blocks != _BLOCKS:
                raise ConfigError(
                    f"subnet is {self.subnet!r} and the network has {blocks} blocks: the published sub-networks have "
                    f"{_BLOCKS}; choose {OWN} and give sizes"
                )
            return SUBNETS[self.subnet]
        rows = [
            tuple(size if block < depth else 0 for block in range(blocks))
            for size, depth in (
                (self.prompt, self.prompt_depth), (self.lora, self.lora_depth), (self.adapter, self.adapter_depth)
            )
        ]  # fmt: skip
        if not any(map(any, rows)):
            raise ConfigError("prompt, lora and adapter or their depths are all 0: make one of them larger")
        return Sizes(*rows)

    def check(self, backbone: Backbone) -> None:
        self.sizes(blocks_of(backbone, self.title).count)

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        sizes, width = self.sizes(blocks.count), blocks.width
        d_in, d_out = blocks.linears["attn.qkv"]
        of_adapters = sum(2 * width * size + size + width for size in sizes.adapter if size)
        return sum(sizes.prompt) * width + sum(sizes.lora) * (d_in + d_out) + of_adapters
