"""Adapter: what a method has put into a network, as training, evaluation and the adapter file see it.

    adapter = attach(model, method, seed)       # the network is frozen, and changed in place
    optimizer = AdamW(adapter.parameters().values())
    adapter.train(True)
    adapter.before_step(step, progress); loss + adapter.penalty(); ...; adapter.after_step(step, progress)

A method subclasses `Adapter` for what it needs beyond trained tensors. Whatever it samples in a forward pass comes from
`noise`, which is seeded from seed and step, so that a run that is killed and resumed trains as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from timm.layers.drop import DropPath as DropPathOfTimm
from torch import nn

from mlae_lab.core.events import Grid, StatisticValue
from mlae_lab.core.method import KINDS, Method, Unavailable
from mlae_lab.core.plan import MaskPlan
from mlae_lab.errors import LabError
from mlae_lab.model.experts import stream

if TYPE_CHECKING:
    from mlae_lab.methods.evolution import Space
    from mlae_lab.model.inject import Experts

Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]  # (images, labels) for a pass before training


class AttachError(LabError):
    """A method that does not fit the network; its text says what it needs."""


class NotMergeable(LabError):
    """A method whose trained network is not the frozen network with other weights."""


class Factors(NamedTuple):
    """ΔW of a layer as a sum of experts of rank k, or of components of rank 1: Σ_i coefficient_i b_i a_i.

    Attributes:
        a: (E k, d_in).
        b: (d_out, E k).
        coefficient: (E,).
        rank: k.
    """

    a: torch.Tensor
    b: torch.Tensor
    coefficient: torch.Tensor
    rank: int


class Noise:
    """The randomness of one training step, equal for equal seed, purpose and step."""

    def __init__(self, seed: int, purpose: str = "noise") -> None:
        self.seed, self.purpose, self.step = seed, purpose, 0
        self._generators: dict[torch.device, torch.Generator] = {}

    def start(self, step: int) -> None:
        """Begin a step: what is sampled next depends on seed and step only."""
        self.step = step
        self._generators.clear()

    def generator(self, device: torch.device) -> torch.Generator:
        """Of the current step."""
        if device not in self._generators:
            start = int(torch.randint(2**62, (), generator=stream(self.seed, self.purpose, self.step)))
            self._generators[device] = torch.Generator(device).manual_seed(start)
        return self._generators[device]

    def kept(self, shape: Sequence[int], rate: float, device: torch.device) -> torch.Tensor:
        """Bernoulli(1 - rate) / (1 - rate), float32."""
        drawn = torch.rand(*shape, generator=self.generator(device), device=device)
        return (drawn >= rate).float() / (1 - rate)


class Dropout(nn.Module):
    """Dropout of elements from `Noise`; the identity in eval mode. rate: in [0, 1)."""

    def __init__(self, noise: Noise, rate: float) -> None:
        super().__init__()
        self.noise, self.rate = noise, rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return x
        return x * self.noise.kept(x.shape, self.rate, x.device).to(x.dtype)


class DropPath(Dropout):
    """Dropout of whole samples: one factor for each first index."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return x
        shape = (len(x), *(1 for _ in x.shape[1:]))
        return x * self.noise.kept(shape, self.rate, x.device).to(x.dtype)


class Adapter:
    """Trained tensors in a frozen network. Also the adapter of a method that adds nothing.

    Attributes:
        model: The network.
        noise: Randomness for what is sampled in forward passes.
        path_noise: That of the backbone's drop paths; the same for all methods, so that paired runs drop the same.
        experts: The experts of a MaskPlan, None for a method without a mask.
        images: Number of images that are trained on; the training sets it.
    """

    experts: Experts | None = None
    images: int = 1

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model = model
        self.noise, self.path_noise = Noise(seed), Noise(seed, "drop path")
        self._modules: dict[str, nn.Module] = _own_drop_paths(model, self.path_noise)
        self._tensors: dict[str, torch.Tensor] = {}
        self._replaced: list[tuple[str, nn.Module]] = []

    # ---------------------------------------------------------------- for subclasses, in `__init__`

    def add(self, name: str, module: nn.Module, tensors: Iterable[str] | None = None) -> nn.Module:
        """Take a module's tensors into state and training. Returns the module.

        Args:
            name: Prefix of the names of its tensors.
            module: It holds nothing of the frozen network among `tensors`.
            tensors: Names of parameters and buffers within the module, by default all of both. Parameters that require
                a gradient are trained; the others are only kept in the adapter file.
        """
        self._modules[name] = module
        known = dict(module.named_parameters()) | dict(module.named_buffers())
        for own in known if tensors is None else tensors:
            self._tensors[f"{name}.{own}"] = known[own]
        return module

    @property
    def space(self) -> Space | None:
        """What a search can choose, of a method with `Method.search`."""
        return None

    @property
    def plan(self) -> MaskPlan | None:
        """The mask, None for a method without one."""
        return self.experts.plan if self.experts else None

    def train_parameter(self, name: str, parameter: nn.Parameter) -> None:
        """Train a parameter of the network itself."""
        self._tensors[name] = parameter.requires_grad_(True)

    def replace(self, name: str, module: nn.Module) -> None:
        """Put a module in the place of the network's module of that name; `remove` puts that back.

        Raises:
            AttachError: The network, such as BEiT, reads that module's weights without calling it.
        """
        parent, _, own = name.rpartition(".")
        if own == "qkv" and getattr(self.model.get_submodule(parent), "q_bias", None) is not None:
            raise AttachError(
                f"{type(self.model).__name__} reads the weights of {name} without calling it: choose a ViT, DeiT, CLIP "
                "or DINO backbone"
            )
        self._replaced.append((name, self.model.get_submodule(name)))
        _set(self.model, name, module)

    # ---------------------------------------------------------------- tensors

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters without the head, by their names in an adapter file."""
        return {n: t for n, t in self._tensors.items() if isinstance(t, nn.Parameter) and t.requires_grad}

    def rate_factors(self) -> dict[str, float]:
        """Parameters with another learning rate, by name: the factor of the run's. They have no weight decay."""
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that an adapter file holds, without the head."""
        return dict(self._tensors)

    def require_valid(self) -> None:
        """Raise ValueError if a state was loaded that no training leaves, such as a position out of range."""

    # ---------------------------------------------------------------- training

    def train(self, mode: bool) -> None:
        """Training or eval mode of what the method added; the frozen network stays in eval mode."""
        for module in self._modules.values():
            module.train(mode)

    def before_step(self, step: int, progress: float) -> None:
        """Before the forward pass of a step. step: from 0. progress: share of the training that is done, [0, 1)."""
        self.noise.start(step)
        self.path_noise.start(step)

    def resample(self) -> None:
        """Between two forward passes of a step (`Method.consistency_weight`): the second takes other samples.

        The backbone drops the same paths in both, as in PACE's code.
        """
        self.path_noise.start(self.path_noise.step)

    def penalty(self) -> torch.Tensor | None:
        """What is added to the cross-entropy of a step."""
        return None

    def after_backward(self, step: int, progress: float) -> None:
        """After the backward pass of a step, before the optimizer's step: gradients are still there."""

    def after_step(self, step: int, progress: float) -> None:
        """After the optimizer's step."""

    def running(self) -> dict[str, torch.Tensor]:
        """What `restore` needs besides `state` to continue a training bit for bit, as a checkpoint keeps it."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `running`. Raises KeyError or RuntimeError for tensors that do not fit."""
        for name, value in self.running().items():
            copied(value, tensors[name], name)

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        """Values to record with an evaluation: name to (title, value); by layer for a method with that trait."""
        return {}

    def grids(self) -> dict[str, Grid]:
        """How canvases among `statistics` are drawn, by their names; for a method with the trait PER_LAYER_GRID."""
        return {}

    def factors(self) -> dict[str, Factors]:
        """ΔW of each adapted layer on the CPU, for a method whose layers do not share their factors."""
        return {}

    def magnitudes(self) -> dict[str, torch.Tensor]:
        """Trained norms m of the rows of V = W + Σ factors, (d_out,) on the CPU by layer, where the layer's weight is
        m ∘ V / ‖V‖; else empty.
        """
        return {}

    # ---------------------------------------------------------------- the end

    def merge(self) -> None:
        """Write the trained update into the network's own weights, and remove what was added.

        Raises:
            NotMergeable: The method has not the trait MERGEABLE.
        """
        if not self._tensors:
            return
        raise NotMergeable(f"{type(self).__name__} is not a change of weights: keep it as an adapter")

    def remove(self) -> None:
        """Put the network's own modules back. Parameters of the network that were trained keep their values."""
        for name, module in reversed(self._replaced):
            _set(self.model, name, module)
        self._replaced.clear()


def attach(model: nn.Module, method: Method, seed: int = 0, batches: Batches | None = None) -> Adapter:
    """Freeze a network and put a method into it.

    Args:
        model: Of timm; changed in place. The caller unfreezes the head.
        method: Which method, with its settings.
        seed: Of initial values and of whatever is sampled in training.
        batches: Passes over training images, for methods that look at gradients before they choose what to train.

    Raises:
        AttachError, InjectError: The method does not fit the network.
    """
    if isinstance(method, Unavailable):
        raise AttachError(f"this needs the method of the run: {method.problem}")
    model.requires_grad_(False)
    layers = import_module(f"{type(method).__module__}.layers")
    return layers.attach(model, method, seed, batches)


def blocks_of(model: nn.Module) -> list[tuple[str, Any]]:
    """Name and module of each block, "blocks.0" first. Raises AttachError for a network without blocks."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        raise AttachError(f"{type(model).__name__} has no sequence of blocks: choose a vision transformer")
    return [(f"blocks.{i}", block) for i, block in enumerate(blocks)]


def linears_of(model: nn.Module, kinds: Sequence[str] = KINDS) -> Iterator[tuple[str, nn.Linear]]:
    """Name and layer of the named linear layers of all blocks, in the order of the forward pass."""
    for name, block in blocks_of(model):
        for kind in kinds:
            layer = block.get_submodule(kind)
            if not isinstance(layer, nn.Linear):
                raise AttachError(f"{name}.{kind} is a {type(layer).__name__}, not a linear layer")
            yield f"{name}.{kind}", layer


def _own_drop_paths(model: nn.Module, noise: Noise) -> dict[str, nn.Module]:
    """Replace timm's drop paths by others of the same rates that draw from `noise`. Returns them by name."""
    own: dict[str, nn.Module] = {
        name: DropPath(noise, module.drop_prob).eval()
        for name, module in model.named_modules()
        if isinstance(module, DropPathOfTimm) and module.drop_prob
    }
    for name, module in own.items():
        _set(model, name, module)
    return own


def copied(goal: torch.Tensor, value: torch.Tensor, name: str) -> None:
    """Copy a tensor of equal shape. Raises RuntimeError with the name otherwise."""
    if goal.shape != value.shape:
        raise RuntimeError(f"{name} is {tuple(value.shape)}, not {tuple(goal.shape)}")
    with torch.no_grad():
        goal.copy_(value)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
