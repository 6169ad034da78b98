"""RunConfig: everything that decides a run, frozen before its first step."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from mlae_lab.core import catalog
from mlae_lab.core.patterns import dense
from mlae_lab.core.plan import MaskPlan
from mlae_lab.errors import LabError

METHODS = ("mlae", "linear")
PROTOCOLS = ("val", "test")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")
PREPROCESSINGS = ("auto", "vtab", "fgvc-crop", "fgvc-rrc")  # `data.preprocessing` says what each does
MEAN_AND_DEVIATION = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
NORMALISATIONS = ("auto", *MEAN_AND_DEVIATION)
MASKS_PER = ("step", "token")
MAX_INPUT_DROPOUT = 0.9
# Settings that came after runs were stored: they enter a hash only where they are not the default, so that a run of
# before keeps its own.
MAX_EPOCHS = 10_000
LATER = {"mask_per": "step", "input_dropout": 0.0}
# In no hash: where the images lie, and what was noted about them, is no part of the experiment; their label is.
NOT_HASHED = ("data", "data_notes", "data_fingerprint")


class ConfigError(LabError):
    """A setting that breaks a rule; its text gives the value, the rule and what would work."""


@dataclass(frozen=True)
class Badge:
    """What must be equal before two accuracies may stand on one scale: data, weights, protocol, preprocessing."""

    task: str
    data: str
    weights: str
    protocol: str
    preprocessing: str


@dataclass(frozen=True)
class RunConfig:
    """One run.

    task, backbone: names in `core.catalog`. plan: which experts; ignored by the linear probe.
    method: "mlae", or "linear" (only the head learns). protocol: "val" trains on 800 images and
    evaluates on 200; "test" trains on all 1,000 and evaluates on the test set.
    epochs: 1 to 10,000. max_seconds: stop training after so many seconds, None for no limit; the
    learning rate then follows the clock.
    learning_rate, weight_decay: of AdamW (paper: 5e-4 and 1e-4). batch_size: 1 to 4096 (paper: 64).
    warmup: share of the steps over which the learning rate rises, [0, 1) (the paper names none).
    evaluations: how many times accuracy is measured, spread evenly over the epochs; 0: every epoch.
    seed: of everything random. device, precision: "auto" takes a GPU with bfloat16 where there is one.
    data: folder of the images, "" for the task's usual place; data_label: what they may be called,
    such as "VTAB-1k", as `data.tasks.located` found them; data_notes: what the census noted about them, in sentences;
    data_fingerprint: of their listing (`data.listing`), "" for images that were not looked at. weights: a file in place of the backbone's own.
    preprocessing: "auto" is "vtab" (resized, nothing augmented), for FGVC "fgvc-rrc" (random resized crop
    and flip). normalisation: "auto" is the backbone's own; "half" is mean = std = 0.5.
    mask_per: "step" draws each expert once per step for the whole batch (the paper); "token" draws it anew for every
    token, with the same rates: ordinary dropout on z = A x. input_dropout: rate in [0, 0.9] at which single numbers of
    x are dropped in front of A, as LoRA's lora_dropout does; the frozen layer sees all of x. Both act in training only.

    Raises ConfigError, PlanError or CatalogError at construction for anything else.
    """

    task: str
    plan: MaskPlan = field(default_factory=dense)
    method: str = "mlae"
    backbone: str = catalog.DEFAULT_BACKBONE
    protocol: str = "val"
    epochs: int = 500
    max_seconds: float | None = None
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    batch_size: int = 64
    warmup: float = 0.0
    evaluations: int = 0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    data: str = ""
    data_label: str = ""
    data_notes: tuple[str, ...] = field(default=(), compare=False)
    data_fingerprint: str = field(default="", compare=False)
    weights: str = ""
    preprocessing: str = "auto"
    normalisation: str = "auto"
    mask_per: str = "step"
    input_dropout: float = 0.0

    def __post_init__(self) -> None:
        task = catalog.task(_text(self.task, "task"))
        object.__setattr__(self, "task", task.name)
        backbone = catalog.backbone(_text(self.backbone, "backbone"))
        object.__setattr__(self, "backbone", backbone.name)  # with its tag: two spellings of one network, one hash
        if not isinstance(self.plan, MaskPlan):
            raise ConfigError(f"plan is {self.plan!r}: it must be a MaskPlan")
        if self.method == "mlae":
            backbone.shapes(self.plan.targets)  # names a row that this backbone does not have
        _one_of(self.method, "method", METHODS)
        _one_of(self.protocol, "protocol", PROTOCOLS)
        _one_of(self.device, "device", DEVICES)
        _one_of(self.precision, "precision", PRECISIONS)
        _one_of(self.preprocessing, "preprocessing", PREPROCESSINGS)
        _one_of(self.normalisation, "normalisation", NORMALISATIONS)
        _one_of(self.mask_per, "mask per", MASKS_PER)
        if task.bundled and self.preprocessing not in ("auto", "vtab"):
            raise ConfigError(
                f"preprocessing is {self.preprocessing!r} and the images of {task.name} are too small to crop: "
                "choose vtab or auto"
            )
        for name in ("data", "data_label", "data_fingerprint", "weights"):
            _text(getattr(self, name), name)
        if not isinstance(self.data_notes, tuple | list):
            raise ConfigError(f"data_notes is {self.data_notes!r}: it must be a list of texts")
        object.__setattr__(self, "data_notes", tuple(_text(note, "data_notes") for note in self.data_notes))
        _whole(self.epochs, "epochs", 1, MAX_EPOCHS)
        _whole(self.batch_size, "batch size", 1, 4096)
        _whole(self.seed, "seed", 0, 2**31 - 1)
        _whole(self.evaluations, "evaluations", 0, 10_000)
        _number(self.learning_rate, "learning rate", 0, 10, low_is_allowed=False)
        _number(self.weight_decay, "weight decay", 0, 10)
        _number(self.warmup, "warmup", 0, 0.9)
        _number(self.input_dropout, "input dropout", 0, MAX_INPUT_DROPOUT)
        if self.max_seconds is not None:
            _number(self.max_seconds, "seconds", 0, 30 * 86_400, low_is_allowed=False)
        for name in (
            "learning_rate",
            "weight_decay",
            "warmup",
            "max_seconds",
            "input_dropout",
        ):  # 1 and 1.0 are one setting, one hash
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else float(value))

    @property
    def evaluated_epochs(self) -> tuple[int, ...]:
        """Epochs (from 1) after which accuracy is measured; the last is always among them."""
        count = self.evaluations or self.epochs
        if count >= self.epochs:
            return tuple(range(1, self.epochs + 1))
        return tuple(math.ceil((i + 1) * self.epochs / count) for i in range(count))

    @property
    def what(self) -> str:
        """What learns, in two words: "stochastic mask", "linear probe"."""
        return f"{self.plan.kind.value} mask" if self.method == "mlae" else "linear probe"

    @property
    def prepared(self) -> str:
        """The preprocessing that "auto" means here: a name of `data.preprocessing`."""
        if self.preprocessing != "auto":
            return self.preprocessing
        return "fgvc-rrc" if catalog.task(self.task).group is catalog.Group.FGVC else "vtab"

    @property
    def mean_and_deviation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What pixels from 0 to 1 are normalised with, per colour; "auto" is what the backbone was trained with."""
        backbone = catalog.backbone(self.backbone)
        return MEAN_AND_DEVIATION.get(self.normalisation, (backbone.mean, backbone.std))

    @property
    def badge(self) -> Badge:
        task, backbone = catalog.task(self.task), catalog.backbone(self.backbone)
        if task.bundled or self.data_label.startswith(("VTAB-1k", "FGVC")):
            counts = f"train{task.train} → val{task.val}", f"train{task.train + task.val} → test"
        else:  # the label says how many
            counts = "train → val", "train + val → test"
        return Badge(
            task=self.task,
            data=self.data_label or ("bundled" if task.bundled else "unchecked images"),
            weights=self.backbone
            + (f" from {self.weights.replace(chr(92), '/').rsplit('/', 1)[-1]}" if self.weights else ""),
            protocol=counts[self.protocol == "test"],
            preprocessing=", ".join(
                (
                    f"{backbone.image} px bicubic",
                    *([] if self.prepared == "vtab" else [self.prepared]),
                    {"half": "mean = std = 0.5", "imagenet": "ImageNet mean and std"}.get(
                        self.normalisation, backbone.normalisation
                    ),
                )
            ),
        )

    @property
    def hash(self) -> str:
        """Twelve hex digits of SHA-256 over the canonical JSON."""
        plan = self.plan.hash if self.method == "mlae" else None  # a linear probe has no mask
        data = {**self.to_dict(), "plan": plan}
        for name in NOT_HASHED:
            del data[name]
        for name, default in LATER.items():
            if data[name] == default or self.method != "mlae":
                del data[name]
        canonical = json.dumps(data, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_dict(self) -> dict:
        """Plain data; the plan as `MaskPlan.to_dict` gives it."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"plan": self.plan.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping) -> RunConfig:
        """The inverse of `to_dict`. Raises ConfigError for missing or unknown entries."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"a run is a JSON object with task and plan, not {str(data)[:60]!r}")
        missing = {"task", "plan"} - set(data)
        if missing:
            raise ConfigError(f"the run lacks {', '.join(sorted(missing))}: it needs task and plan")
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise ConfigError(f"the run has the unknown setting {min(map(str, unknown))[:60]!r}")
        return cls(**{**data, "plan": MaskPlan.from_dict(data["plan"])})

    def command(self) -> str:
        """The command line that starts the same run."""
        base = RunConfig(self.task)
        words = ["python -m mlae_lab train", f"--task {shlex.quote(self.task)}"]
        if self.method != "mlae":
            words.append(f"--method {self.method}")
        else:
            words.append(f"--mask '{self.plan.code}'")
        names = {"backbone": "backbone", "protocol": "protocol", "epochs": "epochs", "max_seconds": "seconds",
                 "learning_rate": "lr", "weight_decay": "weight-decay", "batch_size": "batch-size",
                 "warmup": "warmup", "evaluations": "evaluations", "seed": "seed", "device": "device",
                 "precision": "precision", "data": "data", "weights": "weights", "preprocessing": "preprocessing",
                 "normalisation": "normalisation", "mask_per": "mask-per", "input_dropout": "input-dropout"}  # fmt: skip
        for name, option in names.items():
            value = getattr(self, name)
            if value != getattr(base, name) or name in ("epochs", "learning_rate", "warmup", "evaluations"):
                words.append(f"--{option} {shlex.quote(str(value))}")
        return " ".join(words)


def differences(one: RunConfig, other: RunConfig) -> dict[str, tuple]:
    """Settings in which two runs differ: name to (value of one, value of other); a plan stands as its code."""
    a, b = asdict(one) | {"plan": one.plan.code}, asdict(other) | {"plan": other.plan.code}
    return {f.name: (a[f.name], b[f.name]) for f in fields(RunConfig) if f.compare and a[f.name] != b[f.name]}


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r}: it must be a name")
    return value


def _one_of(value: object, name: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: choose from {', '.join(allowed)}")


def _whole(value: object, name: str, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number from {low} to {high}")


def _number(value: object, name: str, low: float, high: float, low_is_allowed: bool = True) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = number and low <= value <= high and (low_is_allowed or value > low)
    if not inside:
        bound = "from" if low_is_allowed else "above"
        raise ConfigError(f"{name} is {value!r}: it must be a number {bound} {low:g} and at most {high:g}")
