"""What a fine-tuning method is, as plain data: its settings, where it acts, how many parameters it trains.

A method is a package with a frozen dataclass that describes it (no torch, so that pages and the command line can use
it) and a module `layers` with what it puts into a network (`methods.adapter`). One line in `BUILT_IN` registers it; a
package outside the lab registers one through the entry point group `mlae_lab.methods`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.search import Search
from mlae_lab.core.settings import ConfigError, Setting, check_settings, settings_of

# Name to "module:class", in the order of menus.
BUILT_IN: dict[str, str] = {
    "mlae": "mlae_lab.methods.mlae:MLAE",
    "linear": "mlae_lab.methods.linear:LinearProbe",
    "full": "mlae_lab.methods.full:FullFineTuning",
    "bitfit": "mlae_lab.methods.bitfit:BitFit",
    "lora": "mlae_lab.methods.lora:LoRA",
    "dora": "mlae_lab.methods.dora:DoRA",
    "adalora": "mlae_lab.methods.adalora:AdaLoRA",
    "increlora": "mlae_lab.methods.increlora:IncreLoRA",
    "layerwise": "mlae_lab.methods.layerwise:LayerWise",
    "mola": "mlae_lab.methods.mola:MoLA",
    "fact_tt": "mlae_lab.methods.fact:FactTT",
    "fact_tk": "mlae_lab.methods.fact:FactTK",
    "ssf": "mlae_lab.methods.ssf:SSF",
    "repadapter": "mlae_lab.methods.repadapter:RepAdapter",
    "glora": "mlae_lab.methods.glora:GLoRA",
    "spt_lora": "mlae_lab.methods.spt:SPTLoRA",
    "spt_adapter": "mlae_lab.methods.spt:SPTAdapter",
    "vpt_shallow": "mlae_lab.methods.vpt:VPTShallow",
    "vpt_deep": "mlae_lab.methods.vpt:VPTDeep",
    "adapter": "mlae_lab.methods.bottleneck:BottleneckAdapter",
    "adapter_plus": "mlae_lab.methods.bottleneck:AdapterPlus",
    "adaptformer": "mlae_lab.methods.bottleneck:AdaptFormer",
    "convpass": "mlae_lab.methods.convpass:Convpass",
    "noah": "mlae_lab.methods.noah:NOAH",
}
ENTRY_POINTS = "mlae_lab.methods"
_MANY = 1_000_000  # more blocks than any network has


class UnavailableMethod(ConfigError):
    """A method that is not installed here or cannot be loaded. `of_a_run`: what to do about a run of it, a clause."""

    def __init__(self, text: str, of_a_run: str) -> None:
        super().__init__(text)
        self.of_a_run = of_a_run


class Trait(str, Enum):
    """A property of a method that pages, analyses and tests ask for."""

    MASK = "mask"  # it trains the experts of a MaskPlan
    LOW_RANK = "low_rank"  # the update of each adapted layer is a product of factors
    MERGEABLE = "mergeable"  # a trained network can be written as the frozen network with other weights
    IDENTITY_AT_INIT = "identity_at_init"  # before the first step the output is that of the frozen network
    PER_LAYER_GRID = "per_layer_grid"  # it records values by layer and column
    PEFT = "peft"  # its layers are those of Hugging Face's LoRA or DoRA: `Adapter.factors` and `magnitudes`


# Parts of a network in a drawing, from the pixels to the head. "parallel": added to the output of attention or MLP from
# the same input; "after": changes that output.
PLACES = (
    "patch", "tokens", "norm1", "before qkv", "qkv", "proj", "parallel to attention", "after attention", "norm2",
    "before fc1", "fc1", "fc2", "parallel to mlp", "after mlp", "norm", "head",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Settings of a run that the authors of a method used.

    Attributes:
        source: Where they are stated: paper and table, or file of a repository.
        values: Fields of RunConfig, and of the method itself.
        note: What the lab cannot reproduce of it, "" for nothing.
    """

    source: str
    values: Mapping[str, Any]
    note: str = ""


# What the recipes of many methods share, and the same with ImageNet's mean and deviation.
COMMON_VALUES: Mapping[str, Any] = {
    "epochs": 100,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "warmup": 0.1,
    "drop_path": 0.1,
}
# What the lab does not do as they do. Label smoothing, mixup and cutmix are off in all of them.
NOT_LIKE_THE_AUTHORS = (
    "their learning rate rises from 1e-6 and ends at 1e-5 instead of 0, and they leave out the last, smaller batch of "
    "an epoch"
)
IMAGENET_VALUES: Mapping[str, Any] = {**COMMON_VALUES, "normalisation": "imagenet"}
# Of VPT and its baselines: the backbone stays in eval mode.
VPT_VALUES: Mapping[str, Any] = {**IMAGENET_VALUES, "drop_path": 0.0}


def with_crops(recipe: Recipe) -> Recipe:
    """A recipe of VPT for FGVC, where the authors crop at random after resizing to 256 pixels."""
    return replace(recipe, values={**recipe.values, "preprocessing": "fgvc-crop"})


def sgd_of_vpt(batch_size: int) -> dict[str, Any]:
    """What VPT uses for prompts and linear probes: SGD, with a learning rate from the middle of those it tries."""
    return {**VPT_VALUES, "optimizer": "sgd", "batch_size": batch_size, "learning_rate": batch_size / 256}


@dataclass(frozen=True)
class Method:
    """Base class of all methods. Fields of a subclass are its settings, described with `core.settings.setting`.

    Attributes:
        name: On the command line and in a config.
        title: In menus and tables.
        reference: Authors, year and title or venue.
        formula: What it computes, in one line.
        summary: What it trains and where, in one sentence.
        places: Where it acts, names of `PLACES`, for the drawing of a block.
        traits: What holds for it.
        recipes: "vtab" and "fgvc" to the settings that its authors used there.

    Raises:
        ConfigError: A setting breaks its rule.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    formula: ClassVar[str]
    summary: ClassVar[str]
    places: ClassVar[tuple[str, ...]] = ()
    traits: ClassVar[frozenset[Trait]] = frozenset()
    recipes: ClassVar[Mapping[str, Recipe]] = {}

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def has_mask(self) -> bool:
        """Whether it trains the experts of a MaskPlan."""
        return Trait.MASK in self.traits

    @property
    def what(self) -> str:
        """What is trained, as it stands in a sentence: "stochastic mask", "linear probe", "SSF"."""
        return self.title

    @property
    def consistency_weight(self) -> float:
        """Weight w of the loss w · mean over images of Σ over classes (f - f')², 0 for none.

        f and f' are the logits of two forward passes of a step, with different samples of the method; the cross-entropy
        is that of f (PACE, Ni et al. 2024; MaxwellYaoNi/PACE, Vision/pace/pace_ops.py).
        """
        return 0.0

    @property
    def trains_only_head(self) -> bool:
        """Whether nothing but the head is trained."""
        return self.first_block(_MANY) == _MANY

    @property
    def search(self) -> Search | None:
        """The search over a super-network that is a stage of the run, None for none. Its adapter has a `space`."""
        return None

    def check(self, backbone: Backbone) -> None:
        """Raise ConfigError or CatalogError if the method cannot be used with a backbone."""
        blocks_of(backbone, self.title)

    def parameters(self, backbone: Backbone) -> int:
        """Trained parameters without the head, exact. Raises as `check` does."""
        raise NotImplementedError

    def first_block(self, blocks: int) -> int:
        """Number (from 0) of the first block whose output training changes.

        Everything before it is computed once. -1: not even the patch embedding stays as it is; `blocks`, the number of
        blocks: only the head is trained.
        """
        return 0

    def texts(self) -> tuple[str, ...]:
        """The settings that differ from their defaults, each as `name=value`."""
        pairs = ((entry, getattr(self, entry.name)) for entry in settings_of(type(self)))
        return tuple(f"{entry.name}={entry.to_text(value)}" for entry, value in pairs if value != entry.default)


@dataclass(frozen=True)
class Unavailable(Method):
    """The method of a stored run that is not installed here: the run can be shown, moved and deleted, not trained.

    Attributes:
        problem: What `method` raises.
        kept: The settings as the run has them.
    """

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    formula: ClassVar[str] = "not installed"
    summary: ClassVar[str] = "A method that is not installed here."

    title: str = ""  # pyright: ignore[reportIncompatibleVariableOverride] - of this one method
    problem: UnavailableMethod | None = None
    kept: tuple[str, ...] = ()

    def check(self, backbone: Backbone) -> None:
        assert self.problem is not None
        raise self.problem

    def parameters(self, backbone: Backbone) -> int:
        assert self.problem is not None
        raise self.problem

    def texts(self) -> tuple[str, ...]:
        return self.kept


def with_texts(described: type[Method], texts: Iterable[str]) -> Method:
    """The inverse of `Method.texts`.

    Raises:
        ConfigError: A text is not `name=value` with one of the method's settings, or its value is not legal.
    """
    known: dict[str, Setting] = {entry.name: entry for entry in settings_of(described)}
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            choice = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"{text[:60]!r} is not a setting of {described.name} in the form NAME=VALUE: {choice}")
        if name in values:
            raise ConfigError(f"the setting {name} of {described.name} is given twice: give it once")
        values[name] = known[name].from_text(value[:80])
    return described(**values)


# ---------------------------------------------------------------- the registry


@cache
def _registered() -> dict[str, Any]:
    """Name to "module:class" of the lab's own methods, and to the entry point of others. Nothing is loaded."""
    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    return {**others, **BUILT_IN}


def names() -> tuple[str, ...]:
    """Names of all methods, the lab's own first."""
    return tuple(dict.fromkeys([*BUILT_IN, *sorted(_registered())]))


@cache
def method(name: str) -> type[Method]:
    """The class of a method. Raises ConfigError for an unknown name or a method that cannot be loaded."""
    where = _registered().get(name)
    if where is None:
        near = get_close_matches(name[:80], names(), 3, 0.5) or names()
        raise UnavailableMethod(
            f"method is {name[:60]!r}, which the lab does not have: choose from {', '.join(near)}",
            f"its method {name[:60]!r} is not installed here: install the package of that method, or update MLAE Lab",
        )
    if not isinstance(where, str):
        try:
            loaded = where.load()
        except Exception as error:  # another package's code may raise anything
            cause = f"the method {name} cannot be loaded ({error}): repair or remove its package"
            raise UnavailableMethod(cause, cause) from error
        if not (isinstance(loaded, type) and issubclass(loaded, Method) and loaded.name == name):
            cause = f"the entry point {name} is not a Method of that name: see CONTRIBUTING.md"
            raise UnavailableMethod(cause, cause)
        return loaded
    module, _, own = where.partition(":")
    return getattr(import_module(module), own)


def available() -> tuple[dict[str, type[Method]], tuple[str, ...]]:
    """All methods that can be loaded, by name in the order of menus, and a sentence for each of the others."""
    methods: dict[str, type[Method]] = {}
    problems = []
    for name in names():
        try:
            methods[name] = method(name)
        except ConfigError as error:
            problems.append(str(error))
    return methods, tuple(problems)


# ---------------------------------------------------------------- vision transformers


@dataclass(frozen=True)
class Blocks:
    """The blocks of a plain vision transformer.

    Attributes:
        count: Number of blocks L.
        width: Features of a token D.
        linears: Of each block: "attn.qkv", "attn.proj", "mlp.fc1" and "mlp.fc2" to (d_in, d_out).
    """

    count: int
    width: int
    linears: Mapping[str, tuple[int, int]]

    @property
    def hidden(self) -> int:
        """Width of the MLP."""
        return self.linears["mlp.fc1"][1]


KINDS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def blocks_of(backbone: Backbone, title: str) -> Blocks:
    """The blocks of a backbone with equal blocks of attention (fused qkv) and MLP.

    Args:
        backbone: Any.
        title: Of the method that needs such blocks, for the message.

    Raises:
        ConfigError: The backbone is not such a vision transformer.
    """
    start = "blocks.*."
    rows = {row.pattern.removeprefix(start): row for row in backbone.linears if row.pattern.startswith(start)}
    if (
        backbone.heads
        and backbone.tokens is not None
        and all(kind in rows and rows[kind].count == backbone.layers for kind in KINDS)
        and rows["mlp.fc1"].d_out == rows["mlp.fc2"].d_in
    ):
        shapes = {kind: (rows[kind].d_in, rows[kind].d_out) for kind in KINDS}
        return Blocks(backbone.layers, rows["attn.qkv"].d_in, shapes)
    raise ConfigError(
        f"backbone is {backbone.name!r} and {title} needs a vision transformer with fused qkv and a plain MLP in each "
        "block: choose a ViT, DeiT, CLIP or DINO backbone"
    )
