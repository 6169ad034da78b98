"""GLoRA's layers and their configurations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import KINDS
from mlae_lab.methods.adapter import Adapter, Batches, linears_of
from mlae_lab.methods.evolution import Candidate
from mlae_lab.methods.glora import CHOICES, GLoRA
from mlae_lab.model.experts import stream

Configuration = tuple[int, ...]  # of a layer: positions in CHOICES, in the order of its keys
_NUMBERS = tuple(len(names) for names in CHOICES.values())
CONFIGURATIONS = math.prod(_NUMBERS)
FULL: Configuration = (0, 0, 0, 0, 0)


def configuration(number: int) -> Configuration:
    """Configuration of a number from 0 to CONFIGURATIONS - 1."""
    digits = []
    for base in reversed(_NUMBERS):
        number, digit = divmod(number, base)
        digits.append(digit)
    return tuple(reversed(digits))


class Support(nn.Module):
    """The tensors of one layer, (d_in -> d_out): A and B (d_out, d_in), C (d_in, 1), D and E (d_out,).

    A = A_d A_u with A_d (d_out, r) = 0 and A_u (r, d_in) Xavier-uniform, B and C (d_in, r) (r, 1) likewise, D = E = 0.
    The vector form of A is the first column of A_d, the scalar form its first entry. D has no effect in a layer
    without a bias.
    """

    def __init__(self, d_in: int, d_out: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()

        def up(rows: int, columns: int) -> nn.Parameter:
            bound = (6 / (rows + columns)) ** 0.5
            return nn.Parameter((2 * torch.rand(rows, columns, generator=generator) - 1) * bound)

        self.a_down, self.a_up = nn.Parameter(torch.zeros(d_out, rank)), up(rank, d_in)
        self.b_down, self.b_up = nn.Parameter(torch.zeros(d_out, rank)), up(rank, d_in)
        self.c_down, self.c_up = nn.Parameter(torch.zeros(d_in, rank)), up(rank, 1)
        self.d = nn.Parameter(torch.zeros(d_out))
        self.e = nn.Parameter(torch.zeros(d_out))

    def matrix(self, key: str, choice: int) -> torch.Tensor | None:
        """A, B or C in the chosen form, None for none; a vector or scalar broadcasts over the input."""
        down, form = getattr(self, f"{key.lower()}_down"), CHOICES[key][choice]
        if form == "low rank":
            return down @ getattr(self, f"{key.lower()}_up")
        return {"vector": down[:, :1], "scalar": down[:1, :1]}.get(form)

    def vector(self, key: str, choice: int) -> torch.Tensor | None:
        """D or E in the chosen form, None for none."""
        whole = getattr(self, key.lower())
        return {"vector": whole, "scalar": whole[:1]}.get(CHOICES[key][choice])

    def update(
        self, weight: torch.Tensor, bias: torch.Tensor | None, chosen: Configuration
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Changes of weight (d_out, d_in) and bias (d_out,) by a configuration; None where there is none."""
        a, b, c = (self.matrix(key, choice) for key, choice in zip("ABC", chosen[:3], strict=True))
        d, e = (self.vector(key, choice) for key, choice in zip("DE", chosen[3:], strict=True))
        of_weight = [term for term in (None if a is None else weight * a, b) if term is not None]
        of_bias = [
            None if c is None else (weight @ c.expand(weight.shape[1], 1)).squeeze(1),
            None if d is None or bias is None else bias * d,
            e,
        ]
        terms = [term for term in of_bias if term is not None]
        return (
            sum(of_weight[1:], of_weight[0]).expand_as(weight) if of_weight else None,
            sum(terms[1:], terms[0]).expand(len(weight)) if terms else None,
        )


class GeneralLinear(nn.Module):
    """A frozen layer with its support. (..., d_in) -> (..., d_out).

    Attributes:
        sampled: The configuration of this training step, None for the chosen one.
        chosen: The configuration of evaluation, five integers on the CPU: a view into the adapter's state.
    """

    def __init__(self, base: nn.Linear, support: Support, chosen: torch.Tensor) -> None:
        super().__init__()
        self.base, self.support, self.chosen = base, support, chosen
        self.sampled: Configuration | None = None

    def configuration(self) -> Configuration:
        """What the next forward pass uses."""
        if self.support.training and self.sampled is not None:
            return self.sampled
        return tuple(self.chosen.tolist())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.base.weight, self.base.bias
        of_weight, of_bias = self.support.update(weight, bias, self.configuration())
        if x.dtype is torch.float32 and not torch.is_autocast_enabled(x.device.type):
            whole = weight if of_weight is None else weight + of_weight
            shift = bias if of_bias is None else of_bias if bias is None else bias + of_bias
            return F.linear(x, whole, shift)
        y = F.linear(x, weight, bias)  # in 16 bits W + ΔW would round small updates away
        if of_weight is not None:
            y = y + F.linear(x, of_weight.to(x.dtype))
        return y if of_bias is None else y + of_bias.to(y.dtype)


class Choice(nn.Module):
    """The configuration of each layer in evaluation: (layers, 5) integers, positions in CHOICES."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.chosen: torch.Tensor
        self.register_buffer("chosen", torch.tensor([FULL] * layers))


class GeneralLoRA(Adapter):
    """Adapter with the super-network.

    Attributes:
        layers: By name, in the order of the forward pass.
    """

    def __init__(self, model: nn.Module, method: GLoRA, seed: int) -> None:
        super().__init__(model, seed)
        bases = dict(linears_of(model))
        self._sampling = method.sampling
        self._choice = Choice(len(bases))
        self.add("configuration", self._choice)
        self.layers: dict[str, GeneralLinear] = {}
        generator = stream(seed, "glora")
        for index, (name, base) in enumerate(bases.items()):
            support = Support(base.in_features, base.out_features, method.rank, generator).to(base.weight.device)
            self.add(name, support)
            self.layers[name] = GeneralLinear(base, support, self._choice.chosen[index])
            self.replace(name, self.layers[name])
        self._paths = Paths(self)

    @property
    def space(self) -> Paths:
        return self._paths

    def sample(self, sampling: bool) -> None:
        """Whether training samples a configuration for each layer; else it uses the chosen one."""
        self._sampling = sampling
        for layer in self.layers.values():
            layer.sampled = None

    def before_step(self, step: int, progress: float) -> None:
        super().before_step(step, progress)
        if not self._sampling:
            return
        generator = self.noise.generator(torch.device("cpu"))
        numbers = torch.randint(CONFIGURATIONS, (len(self.layers),), generator=generator).tolist()
        for layer, number in zip(self.layers.values(), numbers, strict=True):
            layer.sampled = configuration(number)

    @property
    def chosen(self) -> tuple[Configuration, ...]:
        """The configuration of each layer in evaluation and in `merge`."""
        return tuple(tuple(row) for row in self._choice.chosen.tolist())

    def require_valid(self) -> None:
        if not all(0 <= digit < number for row in self.chosen for digit, number in zip(row, _NUMBERS, strict=True)):
            raise ValueError("configuration.chosen holds a number that is no position in CHOICES")

    def choose(self, configurations: Sequence[Configuration]) -> None:
        """Set the configuration of each layer. Raises ValueError for a configuration that does not exist."""
        rows = [tuple(row) for row in configurations]
        if len(rows) != len(self.layers) or not all(
            len(row) == len(_NUMBERS) and all(0 <= digit < number for digit, number in zip(row, _NUMBERS, strict=True))
            for row in rows
        ):
            raise ValueError(
                f"{len(rows)} configurations were given: {len(self.layers)} positions in CHOICES are needed"
            )
        self._choice.chosen.copy_(torch.tensor(rows))

    def count(self, configurations: Sequence[Configuration]) -> int:
        """Trained parameters that a choice of configurations uses."""
        total = 0
        for layer, row in zip(self.layers.values(), configurations, strict=True):
            rank = layer.support.a_up.shape[0]
            d_in, d_out = layer.base.in_features, layer.base.out_features
            shapes = {"A": (d_out, d_in), "B": (d_out, d_in), "C": (d_in, 1), "D": (d_out, 0), "E": (d_out, 0)}
            for (key, names), choice in zip(CHOICES.items(), row, strict=True):
                sizes = {"low rank": rank * sum(shapes[key]), "vector": shapes[key][0], "scalar": 1, "none": 0}
                total += sizes[names[choice]]
        return total

    @torch.no_grad()
    def merge(self) -> None:
        for layer in self.layers.values():
            base = layer.base
            of_weight, of_bias = layer.support.update(base.weight, base.bias, tuple(layer.chosen.tolist()))
            if of_bias is not None and base.bias is None:
                base.bias = nn.Parameter(torch.zeros_like(base.weight[:, 0]), requires_grad=False)
            if of_weight is not None:
                base.weight.add_(of_weight)
            if of_bias is not None:
                base.bias.add_(of_bias)
        self.remove()


class Paths:
    """The configurations of all layers as candidates of a search: five entries for each layer, in CHOICES' order."""

    def __init__(self, adapter: GeneralLoRA) -> None:
        self._adapter = adapter

    @property
    def choices(self) -> Sequence[int]:
        return _NUMBERS * len(self._adapter.layers)

    def canonical(self, candidate: Candidate) -> Candidate:
        return candidate

    def count(self, candidate: Candidate) -> int:
        return self._adapter.count(_by_layer(candidate))

    def choose(self, candidate: Candidate | None) -> None:
        self._adapter.choose([FULL] * len(self._adapter.layers) if candidate is None else _by_layer(candidate))

    def settle(self, candidate: Candidate | None) -> None:
        self.choose(candidate)
        self._adapter.sample(candidate is None)

    def grid(self, candidate: Candidate) -> Mapping[str, Sequence[tuple[str, float]]]:
        rows = _by_layer(candidate)
        return {
            f"{kind.rpartition('.')[2]} {key}": [
                (forms[row[place]], 1 - row[place] / (len(forms) - 1)) for row in rows[index :: len(KINDS)]
            ]
            for index, kind in enumerate(KINDS)
            for place, (key, forms) in enumerate(CHOICES.items())
        }


def _by_layer(candidate: Candidate) -> list[Configuration]:
    size = len(_NUMBERS)
    return [candidate[at : at + size] for at in range(0, len(candidate), size)]


def attach(model: nn.Module, method: GLoRA, seed: int, batches: Batches | None = None) -> GeneralLoRA:
    """Put the super-network into the linear layers of all blocks."""
    return GeneralLoRA(model, method, seed)
