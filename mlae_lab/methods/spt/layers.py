"""SPT's tuned layers. All tuned values lie in one vector, so that every choice has the same shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.events import Canvas, Grid, StatisticValue
from mlae_lab.methods.adapter import Adapter, AttachError, Batches, Dropout, DropPath, NotMergeable
from mlae_lab.methods.spt import SPTAdapter, SPTLoRA, module_size
from mlae_lab.methods.spt.sensitivity import Piece, choose, pieces, sensitivity
from mlae_lab.model.experts import stream

_COLUMNS = ("q", "k", "v", "proj", "fc1", "fc2", "vectors")  # of the grids; vectors: biases and norms


def _column(piece: Piece) -> str:
    """The column of a piece of a block."""
    if len(piece.shape) == 1:
        return _COLUMNS[-1]
    kind = piece.module.rpartition(".")[2]
    return "qkv"[piece.first // piece.shape[0]] if kind == "qkv" else kind


@dataclass(frozen=True)
class Part:
    """What is tuned of a piece: values[start : stop], as a whole or at positions of the flattened parameter."""

    piece: Piece
    start: int
    stop: int
    positions: torch.Tensor | None


class Selection(nn.Module):
    """The tuned values and what they belong to.

    Parameter: values (budget,): first those of modules and whole vectors, in the order of the pieces, then those of
    single weights; the rest is unused and stays 0. Buffers, on the CPU: whole (pieces,), 1 where a piece is tuned
    whole; index (budget,), positions of single weights in the concatenation of all pieces, -1 for none.

    Args:
        choices: All pieces of the network.
        budget: Number of values.
        rank: Of modules.
        bottleneck: Whether modules are bottlenecks after a layer.
        device: Of the values.
    """

    def __init__(self, choices: list[Piece], budget: int, rank: int, bottleneck: bool, device: torch.device) -> None:
        super().__init__()
        self.choices, self.rank, self.bottleneck = choices, rank, bottleneck
        self.values = nn.Parameter(torch.zeros(budget, device=device))
        self.whole: torch.Tensor
        self.index: torch.Tensor
        self.register_buffer("whole", torch.zeros(len(choices), dtype=torch.int64))
        self.register_buffer("index", torch.full((budget,), -1))
        self._parts: dict[str, list[Part]] = {}
        self._versions = (-1, -1)

    def module(self, d_in: int, d_out: int) -> int:
        """Parameters of a matrix's module."""
        return module_size(d_in, d_out, self.rank, self.bottleneck)

    def size(self, piece: Piece) -> int:
        """Values of a piece that is tuned whole."""
        return self.module(piece.shape[1], piece.shape[0]) if len(piece.shape) == 2 else piece.size

    @torch.no_grad()
    def set(self, whole: torch.Tensor, positions: torch.Tensor, generator: torch.Generator) -> None:
        """Take a choice, with initial values: down projections are uniform in ±1/sqrt(d), all else is 0."""
        self.whole.copy_(whole)
        self.index.fill_(-1)[: len(positions)] = positions
        self.values.zero_()
        for parts in self.parts().values():
            for part in parts:
                if part.positions is None and len(part.piece.shape) == 2:
                    d = part.piece.shape[0] if self.bottleneck else part.piece.shape[1]
                    number = self.rank * (d + 1) if self.bottleneck else self.rank * d  # with the hidden bias
                    drawn = (2 * torch.rand(number, generator=generator) - 1) * d**-0.5
                    self.values[part.start : part.start + number] = drawn.to(self.values.device)

    def require_valid(self) -> None:
        """Raise ValueError unless `whole` is 0 or 1, `index` ascends within the choices, and both fit the budget."""
        index, total = self.index[self.index >= 0], sum(piece.size for piece in self.choices)
        whole = self.whole.tolist()
        if not set(whole) <= {0, 1} or (len(index) and int(index[-1]) >= total) or bool((index.diff() <= 0).any()):
            raise ValueError("selection.whole or selection.index names weights that the network does not have")
        used = len(index) + sum(self.size(piece) for piece, taken in zip(self.choices, whole, strict=True) if taken)
        if used > len(self.values):
            raise ValueError(f"its selection has {used:,} values and the budget is {len(self.values):,}")

    def parts(self) -> dict[str, list[Part]]:
        """Name of a module of the network to what is tuned of it; up to date after a state was loaded."""
        versions = (self.whole._version, self.index._version)
        if versions != self._versions:
            self._parts, self._versions = self._laid_out(), versions
        return self._parts

    def _laid_out(self) -> dict[str, list[Part]]:
        parts: dict[str, list[Part]] = {}
        start = 0
        for piece, whole in zip(self.choices, self.whole.tolist(), strict=True):
            if whole:
                parts.setdefault(piece.module, []).append(Part(piece, start, start + self.size(piece), None))
                start += self.size(piece)
        ends = torch.tensor([piece.size for piece in self.choices]).cumsum(0)
        index = self.index[self.index >= 0]
        counts = torch.bucketize(index, ends, right=True).bincount(minlength=len(ends)).tolist()
        first = 0
        for piece, end, count in zip(self.choices, ends.tolist(), counts, strict=True):
            if count:
                positions = index[first : first + count] - (end - piece.size) + piece.start
                part = Part(piece, start, start + count, positions.to(self.values.device))
                parts.setdefault(piece.module, []).append(part)
            first, start = first + count, start + count
        return parts

    def change(self, module: str, parameter: str, like: torch.Tensor) -> torch.Tensor | None:
        """Change of a parameter by single weights and whole vectors, in its shape; None for none."""
        flat: torch.Tensor | None = None
        for part in self.parts().get(module, []):
            if part.piece.parameter != parameter or (part.positions is None and len(part.piece.shape) == 2):
                continue
            positions, piece = part.positions, part.piece
            if positions is None:
                positions = torch.arange(piece.start, piece.start + piece.size, device=self.values.device)
            flat = self.values.new_zeros(like.numel()) if flat is None else flat
            flat = flat.index_add(0, positions, self.values[part.start : part.stop])
        return None if flat is None else flat.view(like.shape)

    def modules_of(self, module: str) -> dict[int, torch.Tensor]:
        """First output of a matrix to the values of its module."""
        return {
            part.piece.first: self.values[part.start : part.stop]
            for part in self.parts().get(module, [])
            if part.positions is None and len(part.piece.shape) == 2
        }


class TunedNorm(nn.Module):
    """A frozen norm with tuned weight and bias."""

    def __init__(self, base: nn.Module, name: str, selection: Selection) -> None:
        super().__init__()
        self.base, self.name = base, name
        self._selection = (selection,)  # not a submodule

    def changed(self) -> dict[str, torch.Tensor]:
        """The parameters of the norm that differ from the frozen ones."""
        changes = {key: self._selection[0].change(self.name, key, p) for key, p in self.base.named_parameters()}
        return {key: self.base.get_parameter(key) + value for key, value in changes.items() if value is not None}

    def forward(self, *inputs: Any) -> torch.Tensor:
        changed = self.changed()
        return torch.func.functional_call(self.base, changed, inputs) if changed else self.base(*inputs)


class TunedLinear(nn.Module):
    """A frozen linear layer with single tuned weights, and modules for its matrices. (..., d_in) -> (..., d_out).

    LoRA: y += droppath(B A drop(x)). Bottleneck: y += droppath(U GELU(V drop(y) + c) + d) behind q, k, v, fc1 and fc2;
    behind proj with x in the place of drop(y), as in the authors' code.
    """

    def __init__(self, base: nn.Linear, name: str, selection: Selection, drop: Dropout, path: DropPath) -> None:
        super().__init__()
        self.base, self.name = base, name
        self.drop, self.path = drop, path
        self._selection = (selection,)

    @property
    def rows(self) -> int:
        """Outputs of one matrix: a third for qkv."""
        return self.base.out_features // 3 if self.name.endswith("attn.qkv") else self.base.out_features

    def changes(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of weight and bias, without modules; None for none."""
        selection, bias = self._selection[0], self.base.bias
        of_weight = selection.change(self.name, "weight", self.base.weight)
        return of_weight, None if bias is None else selection.change(self.name, "bias", bias)

    def low_rank(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """First output of a matrix to A (r, d_in) and B (rows, r) of its LoRA."""
        rank, d_in = self._selection[0].rank, self.base.in_features
        return {
            first: (values[: rank * d_in].view(rank, d_in), values[rank * d_in :].view(-1, rank))
            for first, values in self._selection[0].modules_of(self.name).items()
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.base.weight, self.base.bias
        of_weight, of_bias = self.changes()
        if x.dtype is torch.float32 and not torch.is_autocast_enabled(x.device.type):
            whole = weight if of_weight is None else weight + of_weight
            y = F.linear(x, whole, bias if of_bias is None else bias + of_bias)
        else:  # in 16 bits W + ΔW would round small updates away
            y = F.linear(x, weight, bias)
            y = y if of_weight is None else y + F.linear(x, of_weight.to(x.dtype))
            y = y if of_bias is None else y + of_bias.to(y.dtype)
        updates = self._bottlenecks(x, y) if self._selection[0].bottleneck else self._lora(x)
        if not updates:
            return y
        parts = list(y.split(self.rows, -1))
        for first, update in updates.items():
            parts[first // self.rows] = parts[first // self.rows] + self.path(update)
        return torch.cat(parts, -1)

    def _lora(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        pairs = self.low_rank()
        dropped = self.drop(x) if pairs else x
        return {
            first: F.linear(F.linear(dropped, a.to(x.dtype)), b.to(x.dtype)) for first, (a, b) in pairs.items()
        }  # fmt: skip

    def _bottlenecks(self, x: torch.Tensor, y: torch.Tensor) -> dict[int, torch.Tensor]:
        updates, rank, rows = {}, self._selection[0].rank, self.rows
        for first, values in self._selection[0].modules_of(self.name).items():
            source = x if self.name.endswith("attn.proj") else self.drop(y[..., first : first + rows])
            down, shift, up, last = values.to(source.dtype).split([rank * rows, rank, rank * rows, rows])
            hidden = F.gelu(F.linear(source, down.view(rank, rows), shift))
            updates[first] = F.linear(hidden, up.view(rows, rank), last)
        return updates


class SensitiveTuning(Adapter):
    """Adapter with the weights that a sensitivity pass chose.

    Without batches nothing is chosen until a state is loaded, and the network stays as it is.

    Attributes:
        selection: What is tuned.
        sensitivity: Σ g² of each piece, (pieces,) float64; NaN where it is not known.
    """

    def __init__(self, model: nn.Module, method: SPTLoRA | SPTAdapter, seed: int, batches: Batches | None) -> None:
        super().__init__(model, seed)
        choices = pieces(model)
        token = getattr(model, "cls_token", None)
        budget = method.budget - (0 if token is None else token.numel())
        bottleneck = isinstance(method, SPTAdapter)
        device = next(model.parameters()).device
        self.selection = Selection(choices, budget, method.rank, bottleneck, device)
        self.sensitivity = torch.full((len(choices),), math.nan, dtype=torch.float64)
        if batches is not None:
            scores = sensitivity(model, batches, method.batches, stream(seed, "spt", "head"))
            whole, positions = choose(scores, choices, budget, partial(self.selection.module))
            self.selection.set(whole, positions, stream(seed, "spt"))
            for number, piece in enumerate(choices):
                own = scores[piece.name].flatten()[piece.start : piece.start + piece.size]
                self.sensitivity[number] = float(own.double().sum())
        self.add("selection", self.selection)
        if token is not None:
            self.train_parameter("cls_token", token)
        self.layers: dict[str, TunedLinear] = {}
        self.norms: dict[str, TunedNorm] = {}
        self._noisy = nn.ModuleList([Dropout(self.noise, method.dropout), DropPath(self.noise, method.drop_path)])
        self.add("noise", self._noisy)
        drop, path = self._noisy
        for name in dict.fromkeys(piece.module for piece in choices):
            base = model.get_submodule(name)
            if isinstance(base, nn.Linear):
                self.layers[name] = TunedLinear(base, name, self.selection, drop, path)  # pyright: ignore[reportArgumentType] - of a ModuleList
                self.replace(name, self.layers[name])
            else:
                self.norms[name] = TunedNorm(base, name, self.selection)
                self.replace(name, self.norms[name])

    def require_valid(self) -> None:
        self.selection.require_valid()

    @property
    def chosen(self) -> bool:
        """Whether it is known what is tuned."""
        return bool(self.selection.parts())

    def before_step(self, step: int, progress: float) -> None:
        if not self.chosen:
            raise AttachError("no weights were chosen: attach with batches of training images, or load a state first")
        super().before_step(step, progress)

    def running(self) -> dict[str, torch.Tensor]:
        return {"sensitivity": self.sensitivity}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        if "sensitivity" in tensors:  # not in a checkpoint of version 0.8
            super().restore(tensors)

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        parts = [part for entries in self.selection.parts().values() for part in entries]
        total = sum(part.stop - part.start for part in parts)
        statistics: dict[str, tuple[str, StatisticValue]] = {
            "tuned": ("Tuned parameters of the budget, without the class token", float(total)),
            "tuned_parts": ("Tuned parameters", self._canvas([(p.piece, float(p.stop - p.start)) for p in parts])),
        }
        if not self.sensitivity.isnan().any():
            shares = (100 * self.sensitivity / self.sensitivity.sum()).tolist()
            canvas = self._canvas([*zip(self.selection.choices, shares, strict=True)])
            statistics["sensitivity"] = ("Sensitivity", canvas)
        return statistics

    def grids(self) -> dict[str, Grid]:
        rows = tuple(str(number) for number in range(1, 1 + self._blocks))
        tuned = "Parameters that are tuned in a matrix or in the biases and norms of a block. Crossed out: none."
        sensitivity = "Share of all Σ g², in percent: g is the gradient of a weight in the pass before training."
        return {
            "tuned_parts": Grid(rows, _COLUMNS, "part", tuned),
            "sensitivity": Grid(rows, _COLUMNS, "part", sensitivity),
        }

    @property
    def _blocks(self) -> int:
        return len(self.model.get_submodule("blocks")._modules)

    def _canvas(self, values: Iterable[tuple[Piece, float]]) -> Canvas:
        """Sums of the values of pieces by block and column; None where a block has no value."""
        sums: list[list[float | None]] = [[None] * len(_COLUMNS) for _ in range(self._blocks)]
        for piece, value in values:
            if piece.module.startswith("blocks."):
                line, column = sums[int(piece.module.split(".")[1])], _COLUMNS.index(_column(piece))
                line[column] = (line[column] or 0.0) + value
        return tuple(map(tuple, sums))

    @torch.no_grad()
    def merge(self) -> None:
        if self.selection.bottleneck:
            raise NotMergeable("SPT-Adapter has bottlenecks with a GELU: keep it as an adapter")
        for layer in self.layers.values():
            of_weight, of_bias = layer.changes()
            pairs = layer.low_rank()
            if of_weight is not None:
                layer.base.weight.add_(of_weight)
            if of_bias is not None:
                layer.base.bias.add_(of_bias)
            for first, (a, b) in pairs.items():
                layer.base.weight[first : first + len(b)].add_(b @ a)
        for norm in self.norms.values():
            for key, value in norm.changed().items():
                norm.base.get_parameter(key).copy_(value)
        self.remove()


def attach(
    model: nn.Module, method: SPTLoRA | SPTAdapter, seed: int, batches: Batches | None = None
) -> SensitiveTuning:
    """Choose what is tuned, and put tuned layers in the place of linear layers and norms."""
    return SensitiveTuning(model, method, seed, batches)
