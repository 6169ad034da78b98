"""NOAH's prompts, LoRA and adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from mlae_lab.core.events import Grid, StatisticValue
from mlae_lab.core.method import Blocks
from mlae_lab.methods.adapter import Adapter, AttachError, Batches, Dropout, blocks_of, linears_of
from mlae_lab.methods.branches import Parallel, uniform
from mlae_lab.methods.evolution import Candidate
from mlae_lab.methods.noah import CHOICES, NOAH, count
from mlae_lab.methods.noah.subnets import Sizes
from mlae_lab.methods.vpt.layers import has_position_bias, takes_rope
from mlae_lab.model.experts import stream

TITLES = {"prompt": "Prompts", "lora": "LoRA rank", "adapter": "Adapter width"}


def _by_block(sizes: Sizes) -> dict[str, tuple[str, StatisticValue]]:
    lines = tuple(tuple(float(size) if size else None for size in line) for line in zip(*sizes, strict=True))
    return {"sizes": ("Sizes of the sub-network", lines)}


def _xavier(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    return uniform((rows, columns), (6 / (rows + columns)) ** 0.5, generator)


class Prompts(nn.Module):
    """p prompts at the end of the tokens, in place of those of an earlier block. (N, T, D) -> (N, T - earlier + p, D).

    Xavier-uniform as of a (1, p, D) tensor, as in the authors' code: ±sqrt(6 / (D (p + 1))).

    Args:
        number: p.
        width: D.
        earlier: Prompts that the tokens end with.
        drop: Dropout of the prompts' elements.
        generator: Of the initial values.
    """

    def __init__(self, number: int, width: int, earlier: int, drop: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens = uniform((number, width), (6 / (width * (number + 1))) ** 0.5, generator)
        self.size, self.earlier, self.drop = number, earlier, drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.size:
            return x
        prompts = self.drop(self.tokens[: self.size].to(x.dtype).expand(len(x), -1, -1))
        return torch.cat([x[:, : x.shape[1] - self.earlier], prompts], 1)


class LowRank(nn.Module):
    """B A drop(x), (..., d_in) -> (..., d_out). A is uniform in ±1/sqrt(d_in), B = 0."""

    def __init__(self, d_in: int, d_out: int, rank: int, drop: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.a = uniform((rank, d_in), d_in**-0.5, generator)
        self.b = nn.Parameter(torch.zeros(d_out, rank))
        self.size, self.drop = rank, drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = F.linear(self.drop(x), self.a[: self.size].to(x.dtype))
        return F.linear(z, self.b[:, : self.size].to(x.dtype))


class Bottleneck(nn.Module):
    """U drop(σ(V h + c)) + d with σ(z) = z sigmoid(1.702 z), (..., D) -> (..., D).

    U and V are Xavier-uniform, c and d ~ N(0, 10⁻¹²): it is not 0 at the start.
    """

    def __init__(self, width: int, hidden: int, drop: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.down, self.up = _xavier(hidden, width, generator), _xavier(width, hidden, generator)
        self.down_bias = nn.Parameter(1e-6 * torch.randn(hidden, generator=generator))
        self.up_bias = nn.Parameter(1e-6 * torch.randn(width, generator=generator))
        self.size, self.drop = hidden, drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = F.linear(x, self.down[: self.size].to(x.dtype), self.down_bias[: self.size].to(x.dtype))
        z = self.drop(z * torch.sigmoid(1.702 * z))
        return F.linear(z, self.up[:, : self.size].to(z.dtype), self.up_bias.to(z.dtype))


class Following(nn.Module):
    """y + g(y), y = f(x), of a frozen f and a trained g; y while g has size 0."""

    def __init__(self, base: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.base, self.own = base, own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        return y + self.own(y) if self.own.size else y


class Updated(Parallel):
    """f(x) + g(x) of a frozen f and a trained g; f(x) while g has size 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if self.own.size else self.base(x)


class PromptModules(Adapter):
    """Adapter with prompts, LoRA and adapters of given sizes.

    Prompts come in through hooks of the blocks, so that the names in the network stay, and the last block drops them:
    pooling sees the network's own tokens. The authors' prompt in front of block 0 is left out, since their block 0
    replaces it and it never gets a gradient.

    Attributes:
        sizes: Of what was attached, by block.
    """

    def __init__(self, model: nn.Module, method: NOAH, seed: int) -> None:
        super().__init__(model, seed)
        blocks = blocks_of(model)
        self.sizes = method.sizes(len(blocks))
        self._hooks: list[RemovableHandle] = []
        self._parts: dict[str, dict[int, Any]] = {part: {} for part in Sizes._fields}  # by block
        generator = stream(seed, "noah")
        earlier = 0
        if any(self.sizes.prompt) and (has_position_bias(model) or any(takes_rope(block) for _, block in blocks)):
            raise AttachError(  # a rotary embedding has one row for each of the network's own tokens
                f"{type(model).__name__} has a fixed number of tokens and cannot take prompts: choose a ViT, DeiT, "
                "CLIP or DINO backbone, or prompt=0"
            )
        for index, (name, block) in enumerate(blocks):
            if not hasattr(block, "drop_path2"):
                raise AttachError(f"{name} is a {type(block).__name__} without drop_path2: choose a plain ViT")
            width = block.norm1.weight.numel()
            if number := self.sizes.prompt[index]:
                prompts = Prompts(number, width, earlier, self._drop(method), generator)
                self._parts["prompt"][index] = prompts
                self.add(f"{name}.prompt", prompts.to(block.norm1.weight.device))
                self._hooks.append(block.register_forward_pre_hook(_prompted(prompts)))
                earlier = number
            if size := self.sizes.adapter[index]:
                own = Bottleneck(width, size, self._drop(method), generator).to(block.norm1.weight.device)
                self._parts["adapter"][index] = own
                self.add(f"{name}.adapter", own)
                self.replace(f"{name}.drop_path2", Following(block.drop_path2, own))
        if earlier:
            self._hooks.append(blocks[-1][1].register_forward_hook(self._without_prompts))
        self._last = earlier
        for index, (name, base) in enumerate(linears_of(model, ("attn.qkv",))):
            if rank := self.sizes.lora[index]:
                own = LowRank(base.in_features, base.out_features, rank, self._drop(method), generator)
                self._parts["lora"][index] = own
                self.add(name, own.to(base.weight.device))
                self.replace(name, Updated(base, own))

    def _drop(self, method: NOAH) -> Dropout:
        return Dropout(self.noise, method.dropout)

    def _without_prompts(self, block: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """Forward hook of the last block: its output without the prompts at its end."""
        return output[:, : output.shape[1] - self._last]

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        return _by_block(self.sizes)

    def grids(self) -> dict[str, Grid]:
        note = "Number of prompts, rank of LoRA, and width of the adapter of each block. Crossed out: none."
        rows = tuple(str(number) for number in range(1, 1 + len(self.sizes.prompt)))
        return {"sizes": Grid(rows, ("prompts", "LoRA", "adapter"), "module", note)}

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        super().remove()


def _prompted(prompts: Prompts) -> Any:
    """Forward pre-hook of a block that adds prompts to its tokens."""

    def hook(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (prompts(inputs[0]), *inputs[1:])

    return hook


class SuperNetwork(PromptModules):
    """Adapter with the largest sizes, of which each training step uses a random sub-network until one is chosen.

    A sub-network uses the first p prompts, the first rows of A, V and c and the first columns of B and U; d is shared.
    In evaluation it is the chosen one, by default the largest.

    Attributes:
        sampling: Whether training uses random sub-networks; else the chosen one.
    """

    def __init__(self, model: nn.Module, method: NOAH, seed: int) -> None:
        qkv = next(linears_of(model, ("attn.qkv",)))[1]  # as it is before anything is put around it
        linears = {"attn.qkv": (qkv.in_features, qkv.out_features)}
        super().__init__(model, method, seed)
        self._chosen = Chosen(self.sizes)
        self.add("subnet", self._chosen)
        self.sampling = True
        self._space = Subnetworks(self, method, Blocks(len(blocks_of(model)), qkv.in_features, linears))

    @property
    def space(self) -> Subnetworks:
        return self._space

    @property
    def chosen(self) -> Sizes:
        """The sub-network of evaluation."""
        return Sizes(*map(tuple, self._chosen.sizes.tolist()))

    def use(self, sizes: Sizes) -> None:
        """Use a sub-network until the next step or change of mode."""
        for row, parts in zip(sizes, self._parts.values(), strict=True):
            for index, module in parts.items():
                module.size = row[index]
        self._last = 0
        for index, module in self._parts["prompt"].items():
            module.earlier = self._last
            self._last = sizes.prompt[index] or self._last

    def choose(self, sizes: Sizes) -> None:
        """Set the sub-network of evaluation."""
        self._chosen.sizes.copy_(torch.tensor(sizes))
        self.use(sizes)

    def train(self, mode: bool) -> None:
        super().train(mode)
        self.use(self.chosen)

    def before_step(self, step: int, progress: float) -> None:
        super().before_step(step, progress)
        if self.sampling:
            self.use(self.space.random(self.noise.generator(torch.device("cpu"))))

    def require_valid(self) -> None:
        fits = all(
            0 <= size <= most for row, largest in zip(self.chosen, self.sizes, strict=True)
            for size, most in zip(row, largest, strict=True)
        )  # fmt: skip
        if not fits:
            raise ValueError("subnet.sizes holds a size that the super-network does not have")

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        return _by_block(self.chosen)


class Chosen(nn.Module):
    """The sizes of the chosen sub-network: (3, blocks) integers, in the order of `Sizes`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes: torch.Tensor
        self.register_buffer("sizes", torch.tensor(sizes))


class Subnetworks:
    """The sub-networks as candidates of a search: for each part its depth, then a size for each block it can reach."""

    def __init__(self, adapter: SuperNetwork, method: NOAH, blocks: Blocks) -> None:
        self._adapter, self._blocks, self._depths = adapter, blocks, method.depths(blocks.count)

    @property
    def choices(self) -> Sequence[int]:
        return [n for depths in self._depths.values() for n in (len(depths), *[len(CHOICES)] * depths[0])]

    def _by_part(self, candidate: Candidate) -> Iterator[tuple[str, int, int, Candidate]]:
        """Part, position of its depth, depth, and position of the size of each block that it can reach."""
        at = 0
        for part, depths in self._depths.items():
            end = at + 1 + depths[0]
            yield part, candidate[at], depths[candidate[at]], candidate[at + 1 : end]
            at = end

    def canonical(self, candidate: Candidate) -> Candidate:
        entries: list[int] = []
        for _, place, depth, sizes in self._by_part(candidate):
            entries += [place, *(size if block < depth else 0 for block, size in enumerate(sizes))]
        return tuple(entries)

    def sizes(self, candidate: Candidate) -> Sizes:
        """The sub-network of a candidate."""
        rows = {part: [0] * self._blocks.count for part in Sizes._fields}
        for part, _, depth, sizes in self._by_part(candidate):
            rows[part][:depth] = [CHOICES[size] for size in sizes[:depth]]
        return Sizes(*(tuple(row) for row in rows.values()))

    def random(self, generator: torch.Generator) -> Sizes:
        """A sub-network with every depth and size at random."""
        drawn = torch.rand(len(self.choices), generator=generator).tolist()
        return self.sizes(tuple(int(value * number) for value, number in zip(drawn, self.choices, strict=True)))

    def count(self, candidate: Candidate) -> int:
        return count(self.sizes(candidate), self._blocks)

    def choose(self, candidate: Candidate | None) -> None:
        self._adapter.choose(self._adapter.sizes if candidate is None else self.sizes(candidate))

    def settle(self, candidate: Candidate | None) -> None:
        self.choose(candidate)
        self._adapter.sampling = candidate is None

    def grid(self, candidate: Candidate) -> Mapping[str, Sequence[tuple[str, float]]]:
        rows = zip(TITLES.values(), self.sizes(candidate), strict=True)
        return {title: [(str(size), size / CHOICES[0]) for size in row] for title, row in rows if any(row)}


def attach(model: nn.Module, method: NOAH, seed: int, batches: Batches | None = None) -> PromptModules:
    """Put prompts, LoRA and adapters into the blocks."""
    return SuperNetwork(model, method, seed) if method.search else PromptModules(model, method, seed)
