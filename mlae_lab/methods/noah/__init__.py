"""NOAH: prompts, LoRA and adapters together, with sizes for each block that a search has chosen for each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Blocks, Method, Recipe, Trait, blocks_of
from mlae_lab.core.search import Search, generations_setting, parameters_setting, population_setting
from mlae_lab.core.settings import ConfigError, rate, setting
from mlae_lab.methods.noah.subnets import SUBNETS, Sizes

OWN, SEARCH = "own", "search"
CHOICES = (10, 5, 1)  # sizes that a search chooses from
_BLOCKS = 12  # of the published sub-networks
_QUARTERS = (4, 3, 2, 1)  # depths that a search chooses from, in quarters of the greatest


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
            "choose the sub-network of the task; there it starts from the weights of a super-network, here from new "
            "ones. The authors' whole run is subnet=search with 600 epochs: 500 for the super-network, with half the "
            f"learning rate, and 100 for the sub-network; {NOT_LIKE_THE_AUTHORS}",
        ),
        "fgvc": Recipe("the authors' recipe for VTAB; they publish none for FGVC", IMAGENET_VALUES, "not published"),
    }

    subnet: str = field(
        default=OWN,
        metadata=setting(
            "Sub-network",
            "The published sizes for a task of VTAB-1k, for networks of 12 blocks. own: as the settings below give. "
            "search: a super-network is trained and searched for sizes of 1, 5 and 10, then the sub-network is "
            "trained; parts that are 0 below are left out, and no part reaches deeper than given.",
            choices=(OWN, SEARCH, *SUBNETS),
        ),
    )
    prompt: int = _size("Prompts", "Number p of prompts of a block.")
    prompt_depth: int = _depth("Prompt depth")
    lora: int = _size("LoRA rank", "Rank l of the update of qkv.")
    lora_depth: int = _depth("LoRA depth")
    adapter: int = _size("Adapter width", "Hidden features a of the adapter after the MLP.")
    adapter_depth: int = _depth("Adapter depth")
    dropout: float = rate(0.1, "Dropout", "Dropout rate of prompts, LoRA's input and the adapter's hidden features.")

    search_generations: int = field(
        default=15,
        metadata=generations_setting("Populations of the search, with subnet=search. The authors: 15.", low=1),
    )
    search_population: int = field(default=50, metadata=population_setting())
    search_parameters: int = field(default=0, metadata=parameters_setting())
    search_share: float = field(
        default=0.8,
        metadata=setting(
            "Super-network epochs",
            "Share of the epochs that train the super-network, with subnet=search; the rest trains the sub-network, "
            "from the weights that it has then. The authors: 500 of 600.",
            low=0.1, high=0.95, step=0.05,
        ),
    )  # fmt: skip

    @property
    def search(self) -> Search | None:
        if self.subnet != SEARCH:
            return None
        return Search(self.search_generations, self.search_population, self.search_parameters, self.search_share)

    def depths(self, blocks: int) -> dict[str, tuple[int, ...]]:
        """The depths that a search chooses from, the greatest first, of each part that it includes."""
        greatest = {part: min(getattr(self, f"{part}_depth"), blocks) for part in Sizes._fields if getattr(self, part)}
        return {
            part: tuple(dict.fromkeys(-(-quarters * depth // 4) for quarters in _QUARTERS))
            for part, depth in greatest.items()
            if depth
        }

    def _uniform(self, blocks: int, size: int, place: int) -> Sizes:
        """One size in all blocks up to the depth at a place among those that a search chooses from."""
        depths = {part: choices[place] for part, choices in self.depths(blocks).items()}
        return Sizes(
            *(tuple(size if block < depths.get(part, 0) else 0 for block in range(blocks)) for part in Sizes._fields)
        )

    def smallest(self, blocks: int) -> Sizes:
        """The smallest sub-network that a search can choose."""
        return self._uniform(blocks, CHOICES[-1], -1)

    def sizes(self, blocks: int) -> Sizes:
        """The sizes by block; with a search those of the super-network.

        Raises:
            ConfigError: The published sub-networks have another number of blocks, or nothing is trained.
        """
        if self.subnet not in (OWN, SEARCH):
            if blocks != _BLOCKS:
                raise ConfigError(
                    f"subnet is {self.subnet!r} and the network has {blocks} blocks: the published sub-networks have "
                    f"{_BLOCKS}; choose {OWN} and give sizes"
                )
            return SUBNETS[self.subnet]
        rows = self._uniform(blocks, CHOICES[0], 0) if self.search else [
            tuple(size if block < depth else 0 for block in range(blocks))
            for size, depth in (
                (self.prompt, self.prompt_depth), (self.lora, self.lora_depth), (self.adapter, self.adapter_depth)
            )
        ]  # fmt: skip
        if not any(map(any, rows)):
            raise ConfigError("prompt, lora and adapter or their depths are all 0: make one of them larger")
        return Sizes(*rows)

    def check(self, backbone: Backbone) -> None:
        blocks = blocks_of(backbone, self.title)
        self.sizes(blocks.count)
        if self.search and self.search_parameters:
            least = count(self.smallest(blocks.count), blocks)
            if least > self.search_parameters:
                raise ConfigError(
                    f"search_parameters is {self.search_parameters:,} and the smallest sub-network of {backbone.name} "
                    f"has {least:,}: allow more"
                )

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        return count(self.sizes(blocks.count), blocks)


def count(sizes: Sizes, blocks: Blocks) -> int:
    """Trained parameters of a sub-network, without the head."""
    d_in, d_out = blocks.linears["attn.qkv"]
    of_adapters = sum(2 * blocks.width * size + size + blocks.width for size in sizes.adapter if size)
    return sum(sizes.prompt) * blocks.width + sum(sizes.lora) * (d_in + d_out) + of_adapters
