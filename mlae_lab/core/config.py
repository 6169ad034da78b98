"""RunConfig: all settings of a run, frozen before its first step."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from mlae_lab.core import catalog
from mlae_lab.core import method as methods
from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method
from mlae_lab.core.patterns import dense
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.search import HELD_OUT
from mlae_lab.core.settings import ConfigError, check_settings, hashed_values, option_arguments, setting, settings_of
from mlae_lab.locations import PROGRAM

MEAN_AND_DEVIATION = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# What `data.augment.augmented` does to training images: value of the setting to title.
AUGMENTATIONS = {
    "off": "off", "flip": "flip", "crop": "crop and flip", "colour": "crop, flip, colour", "randaugment": "RandAugment",
}  # fmt: skip
MAX_EPOCHS = 10_000
MAX_FOLDS = 20


@dataclass(frozen=True)
class Badge:
    """What must be equal for two accuracies to be comparable."""

    task: str
    data: str
    weights: str
    protocol: str
    preprocessing: str


@dataclass(frozen=True)
class RunConfig:
    """One run. Each field describes its setting: label, help, range, option, group in the form and role in the hash.

    Raises:
        ConfigError: If a setting breaks its rule.
        PlanError: If the plan is not valid.
        CatalogError: If the task, the backbone or one of the plan's layers is unknown.
    """

    task: str = field(metadata=setting("Task", "A name of `core.catalog`."))
    plan: MaskPlan = field(
        default_factory=dense,
        metadata=setting("Mask", "Which experts exist and how often each is dropped; a linear probe ignores it."),
    )
    method: str = field(
        default="mlae",
        metadata=setting(
            "Method",
            "What is trained besides the head; the command `methods` lists them with their parameters.",
            option="method", choices=tuple(methods.BUILT_IN), open_ended=True, group="main",
        ),
    )  # fmt: skip
    backbone: str = field(
        default=catalog.DEFAULT_BACKBONE,
        metadata=setting(
            "Backbone",
            "The frozen network: one of the list or any timm name, such as deit_small_patch16_224.fb_in1k. Names that "
            "end in .random have random weights: the control without pretraining.",
            option="backbone", metavar="B", group="setup",
            choices=tuple(entry.name for entry in catalog.BACKBONES), open_ended=True,
            titles={entry.name: entry.title for entry in catalog.BACKBONES},
        ),
    )  # fmt: skip
    protocol: str = field(
        default="val",
        metadata=setting(
            "Protocol",
            "val: train on the train split, evaluate on val (VTAB-1k: 800 and 200 images); use it to choose settings. "
            "test: train on train and val, evaluate on test; report its last epoch over several seeds.",
            option="protocol", choices=("val", "test"), group="setup",
            titles={"val": "train → val", "test": "train + val → test"},
        ),
    )  # fmt: skip
    epochs: int = field(
        default=500,
        metadata=setting(
            "Epochs",
            "Passes over the training images. The paper trains 500 epochs on VTAB-1k.",
            option="epochs", low=1, high=MAX_EPOCHS, proposed=16, plural="epochs", group="main",
        ),
    )  # fmt: skip
    max_seconds: float | None = field(
        default=None,
        metadata=setting(
            "Stop after seconds",
            "Time limit of the training. With a limit, the learning rate follows the clock, so results differ between "
            "machines.",
            option="seconds", low=0, high=30 * 86_400, exclusive=True, group="schedule",
            noun="time limit",
        ),
    )  # fmt: skip
    learning_rate: float = field(
        default=5e-4,
        metadata=setting(
            "Learning rate",
            "Peak learning rate. The paper: 5e-4 over 500 epochs; short runs need a larger one, SGD a far larger one.",
            option="lr", low=0, high=100, exclusive=True, step=1e-3, proposed=5e-3, group="main",
        ),
    )  # fmt: skip
    weight_decay: float = field(
        default=1e-4,
        metadata=setting(
            "Weight decay", "Weight decay of the optimizer. The paper: 1e-4.",
            option="weight-decay", low=0, high=10, step=1e-4, group="schedule",
        ),
    )  # fmt: skip
    batch_size: int = field(
        default=64,
        metadata=setting(
            "Batch size", "Images per step. The paper: 64.", option="batch-size", low=1, high=4096, group="setup"
        ),
    )
    warmup: float = field(
        default=0.0,
        metadata=setting(
            "Warm-up",
            "Share of the steps over which the learning rate rises from 0. The paper reports none.",
            option="warmup", low=0, high=0.9, step=0.05, proposed=0.1, plural="warm-ups", group="schedule",
        ),
    )  # fmt: skip
    evaluations: int = field(
        default=0,
        metadata=setting(
            "Evaluations",
            "Number of evaluations, spread evenly over the epochs; 0: after every epoch.",
            option="evaluations", low=0, high=10_000, proposed=8, plural="numbers of evaluations", group="setup",
        ),
    )  # fmt: skip
    seed: int = field(
        default=0,
        metadata=setting(
            "Seed",
            "Decides the initial values of the experts, the order of the images and the sampled masks.",
            option="seed", low=0, high=2**31 - 1, group="main",
        ),
    )  # fmt: skip
    device: str = field(
        default="auto",
        metadata=setting(
            "Device", "auto: a CUDA GPU if there is one.",
            option="device", choices=("auto", "cpu", "cuda"), group="machine",
        ),
    )  # fmt: skip
    precision: str = field(
        default="auto",
        metadata=setting(
            "Precision",
            "auto: bfloat16 where the hardware multiplies it faster (a GPU, a CPU with AMX or AVX-512 bfloat16), else "
            "float32.",
            option="precision", choices=("auto", "float32", "bfloat16"), group="machine",
        ),
    )  # fmt: skip
    data: str = field(
        default="",
        metadata=setting(
            "Image folder",
            "The task's images: VTAB layout, VPT's lists or class folders; by default the task's usual folder.",
            option="data", metavar="DIR", in_link=False, hashed="never",  # what the folder holds is in `data_label`
        ),
    )  # fmt: skip
    data_label: str = field(
        default="",
        metadata=setting(
            "Images",
            'Origin of the images, such as "VTAB-1k"; `data.tasks.located` finds it.',
            noun="images", plural="images",
        ),
    )  # fmt: skip
    data_notes: tuple[str, ...] = field(
        default=(),
        compare=False,
        metadata=setting(
            "Notes on the images",
            "What the census noted about them.",
            noun="notes on the images",
            plural="notes on the images",
            hashed="never",
        ),
    )
    data_fingerprint: str = field(
        default="",
        compare=False,
        metadata=setting(
            "Fingerprint of the images",
            'Of their listing (`data.listing`), "" for images without a census.',
            noun="fingerprint of the images", plural="fingerprints of the images", hashed="never",
        ),
    )  # fmt: skip
    weights: str = field(
        default="",
        metadata=setting(
            "Weight file",
            "Weights for the backbone in place of its default ones: safetensors, a file of torch.save, or npz.",
            option="weights", metavar="FILE", in_link=False, plural="weight files",
        ),
    )  # fmt: skip
    preprocessing: str = field(
        default="auto",
        metadata=setting(
            "Preprocessing",
            "vtab: resize, no augmentation. fgvc-rrc: random resized crop and flip. fgvc-crop: random crop and flip. "
            "auto: fgvc-rrc for FGVC, else vtab.",
            option="preprocessing", choices=("auto", "vtab", "fgvc-crop", "fgvc-rrc"), group="machine",
            plural="ways of preprocessing",
        ),
    )  # fmt: skip
    normalisation: str = field(
        default="auto",
        metadata=setting(
            "Normalisation",
            "half: mean = std = 0.5, as in the paper. auto: as in the backbone's pretraining.",
            option="normalisation", choices=("auto", *MEAN_AND_DEVIATION), group="machine",
        ),
    )  # fmt: skip
    mask_per: str = field(
        default="step",
        metadata=setting(
            "Masks sampled per",
            "step: one mask for the whole batch, as in the paper. token: one mask per token, that is, ordinary "
            "dropout on A x; the control that separates the structure of the mask from its noise.",
            option="mask-per", choices=("step", "token"), group="regularisation", noun="mask-per",
            plural="ways of sampling masks", hashed="unless default", method="mlae",
        ),
    )  # fmt: skip
    input_dropout: float = field(
        default=0.0,
        metadata=setting(
            "Input dropout",
            "Dropout rate of the experts' input x in training, as LoRA's lora_dropout; the frozen layer sees all of x. "
            "The paper: 0.",
            option="input-dropout", low=0, high=0.9, step=0.05, group="regularisation",
            hashed="unless default", method="mlae",
        ),
    )  # fmt: skip

    method_settings: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Settings of the method",
            "name=value for each of the method's own settings that differs from its default.",
            option="set", metavar="NAME=VALUE", noun="settings of the method", plural="settings of the method",
            hashed="unless default",
        ),
    )  # fmt: skip
    optimizer: str = field(
        default="adamw",
        metadata=setting(
            "Optimizer",
            "adamw: AdamW, as in the paper. sgd: SGD with momentum 0.9 and weight decay added to the gradient.",
            option="optimizer", choices=("adamw", "sgd"), group="schedule",
            titles={"adamw": "AdamW", "sgd": "SGD, momentum 0.9"}, hashed="unless default",
        ),
    )  # fmt: skip
    drop_path: float = field(
        default=0.0,
        metadata=setting(
            "Drop path",
            "Rate at which a residual branch of the backbone is skipped for a whole image in training (stochastic "
            "depth): 0 in the first block, rising linearly to this in the last, in frozen blocks too. Many recipes: "
            "0.1. No features are then computed once, so that methods which train late blocks only take longer.",
            option="drop-path", low=0, high=0.9, step=0.05, group="regularisation", hashed="unless default",
        ),
    )  # fmt: skip
    consistency: float = field(
        default=0.0,
        metadata=setting(
            "Consistency",
            "Weight of a second loss: the squared difference of the logits under two sampled masks, summed over "
            "classes, mean over images (PACE). Each step then has two forward passes. 0: off, as in the paper.",
            option="consistency", low=0, high=100, step=0.1, group="regularisation", plural="weights of consistency",
            hashed="unless default", method="mlae",
        ),
    )  # fmt: skip
    learned_drop_rates: str = field(
        default="off",
        metadata=setting(
            "Learned drop rates",
            "layer, expert: p of each layer or expert is trained by gradient on relaxed masks (concrete dropout), and "
            "the mask's p is its initial value, from 0.01 to 0.9. off: p is fixed, as in the paper.",
            option="learn-drop-rates", choices=("off", "layer", "expert"), group="regularisation",
            titles={"layer": "one p per layer", "expert": "one p per expert"}, plural="ways of learning drop rates",
            hashed="unless default", method="mlae",
        ),
    )  # fmt: skip
    drop_rate_entropy: float = field(
        default=1.0,
        metadata=setting(
            "Entropy of drop rates",
            "Weight w of the regulariser of learned drop rates, -w/N · the entropy of each expert's p for N training "
            "images. 0: none, and p falls, because dropping never helps the training loss; 1: the variational bound.",
            option="drop-rate-entropy", low=0, high=1000, step=0.5, group="regularisation",
            plural="weights of the entropy", hashed="unless default", method="mlae",
        ),
    )  # fmt: skip
    folds: int = field(
        default=0,
        metadata=setting(
            "Folds",
            "K: cross-validation with protocol val. Train and val together are divided by class into K parts; the run "
            "with seed s is evaluated on part s mod K of division s div K and trained on the others. 0: off.",
            option="folds", low=0, high=MAX_FOLDS, plural="numbers of folds", hashed="unless default",
        ),
    )  # fmt: skip
    image_size: int = field(
        default=0,
        metadata=setting(
            "Image size",
            "Pixels of the input's height and width; timm resamples position embeddings and windows to it. A ViT takes "
            "multiples of its patch size, Swin and ConvNeXt of 32, from 32 to 1,024. 0: the backbone's own size.",
            option="image-size", low=0, high=10_000, step=32, group="setup", hashed="unless default",
        ),
    )  # fmt: skip

    augmentation: str = field(
        default="off",
        metadata=setting(
            "Augmentation",
            "Random changes of each training image in every epoch, before the crops of the preprocessing. flip: left "
            "to right. crop: shift by up to 1/8, and flip. colour: also brightness, contrast and saturation by up to "
            "40 %. randaugment: crop, flip and two operations of RandAugment. Use it for few photographs, but not "
            "where left and right or colours tell the classes apart. No features are computed once.",
            option="augmentation", choices=tuple(AUGMENTATIONS), group="images", titles=AUGMENTATIONS,
            plural="augmentations", hashed="unless default",
        ),
    )  # fmt: skip
    mixup: float = field(
        default=0.0,
        metadata=setting(
            "Mixup",
            "α of mixup: each image is mixed with another one of its batch, in a share sampled from Beta(α, α), and so "
            "is the loss. Use 0.2 to 0.8 where training accuracy is far above validation accuracy. 0: off.",
            option="mixup", low=0, high=10, step=0.1, group="images", noun="mixup", plural="values of mixup",
            hashed="unless default",
        ),
    )  # fmt: skip
    label_smoothing: float = field(
        default=0.0,
        metadata=setting(
            "Label smoothing",
            "Share of the target that is spread evenly over all classes. Use 0.1 where labels are noisy or "
            "probabilities too confident. 0: off.",
            option="label-smoothing", low=0, high=0.9, step=0.05, group="images", noun="label smoothing",
            plural="values of label smoothing", hashed="unless default",
        ),
    )  # fmt: skip
    class_balance: str = field(
        default="off",
        metadata=setting(
            "Class balance",
            "For classes of unequal size. loss: the loss of an image is weighted by 1 / the size of its class. "
            "sampling: each epoch samples as many images as there are, with replacement, every class equally often. "
            "Either raises the recall of rare classes and may lower the accuracy.",
            option="class-balance", choices=("off", "loss", "sampling"), group="images", noun="class balance",
            titles={"loss": "weighted loss", "sampling": "balanced sampling"}, plural="ways of balancing classes",
            hashed="unless default",
        ),
    )  # fmt: skip
    accumulation: int = field(
        default=1,
        metadata=setting(
            "Gradient accumulation",
            "Parts in which a batch passes through the network; the gradients are added up, so the result is equal up "
            "to rounding (dropout of other methods is sampled for each part). Use it where a batch does not fit in "
            "memory. 1: off.",
            option="accumulation", low=1, high=256, group="machine", noun="gradient accumulation",
            plural="numbers of parts", hashed="unless default",
        ),
    )  # fmt: skip
    weight_average: float = field(
        default=0.0,
        metadata=setting(
            "Weight average",
            "Decay of an exponential moving average (EMA) of the trained parameters, which is evaluated and saved. "
            "It is min(this, (1 + t) / (10 + t)) at step t. Use 0.99 to 0.999 where accuracy jumps from epoch to "
            "epoch. 0: off.",
            option="weight-average", low=0, high=0.99999, step=0.001, group="schedule", noun="weight average",
            plural="decays of the weight average", hashed="unless default",
        ),
    )  # fmt: skip
    early_stopping: int = field(
        default=0,
        metadata=setting(
            "Early stopping",
            "Stop when the validation accuracy has not improved for this many evaluations (with equal accuracy the "
            "lower loss counts). The learning rate has not reached 0 then. Only with the protocol val. 0: off.",
            option="early-stopping", low=0, high=1000, group="schedule", noun="early stopping",
            plural="values of early stopping", hashed="unless default",
        ),
    )  # fmt: skip
    keep_best: bool = field(
        default=False,
        metadata=setting(
            "Keep the best adapter",
            "Keep the adapter of the evaluation with the highest validation accuracy, too, in a separate file. It "
            "was chosen on these images, so its accuracy on them is too high. Only with the protocol val.",
            option="keep-best", group="schedule", noun="keep-best", plural="ways of keeping the best adapter",
            hashed="unless default",
        ),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        task, backbone = catalog.task(self.task), catalog.backbone(self.backbone)
        object.__setattr__(self, "task", task.name)
        object.__setattr__(self, "backbone", backbone.name)  # with its tag: two spellings of one network, one hash
        if self.method != "mlae":
            object.__setattr__(self, "method_settings", self.tuning.texts())  # in one order, without defaults
        if backbone.at(self.image_size) is backbone:
            object.__setattr__(self, "image_size", 0)  # its own size has one spelling and one hash
        self.tuning.check(backbone)
        if search := self.tuning.search:
            search.check(self.epochs, self.max_seconds)
        if self.folds == 1 or (self.folds and self.protocol == "test"):
            rule = "it must be 0 or at least 2" if self.folds == 1 else "cross-validation needs the protocol val"
            raise ConfigError(f"folds is {self.folds} and the protocol {self.protocol}: {rule}")
        self._check_training()
        if task.bundled and self.preprocessing not in ("auto", "vtab"):
            raise ConfigError(
                f"preprocessing is {self.preprocessing!r} and the images of {task.name} are too small to crop: "
                "choose vtab or auto"
            )

    def _check_training(self) -> None:
        """Check settings of the training that exclude each other."""
        chooses = [name for name, on in (("early stopping", self.early_stopping), ("keep-best", self.keep_best)) if on]
        if chooses and self.protocol == "test":
            raise ConfigError(
                f"{chooses[0]} chooses an epoch by its accuracy and the protocol is test, whose images may choose "
                "nothing: use the protocol val"
            )
        if self.accumulation > self.batch_size:
            raise ConfigError(
                f"gradient accumulation is {self.accumulation} and a batch has {self.batch_size} images: it must be at "
                "most the batch size"
            )
        if self.accumulation > 1 and (why := self._whole_batch_because()):
            raise ConfigError(
                f"gradient accumulation is {self.accumulation} and {why} for the whole batch: accumulation must be 1"
            )
        if self.tuning.search and (self.early_stopping or self.weight_average or self.keep_best):
            raise ConfigError(
                f"the method {self.method} searches during training: early stopping and weight average must be 0, and "
                "keep-best off"
            )

    def _whole_batch_because(self) -> str:
        """What a step samples or adds up over its whole batch, a clause; "" for nothing."""
        if self.tuning.consistency_weight:
            return f"consistency {self.tuning.consistency_weight:g} compares two masks"
        if self.method == "mola":
            return "mola balances its experts"
        if self.method == "mlae" and self.learned_drop_rates != "off":
            return "learned drop rates sample relaxed masks"
        if self.method == "mlae" and (self.mask_per == "token" or self.input_dropout):
            return "the noise of tokens is sampled"
        return ""

    @property
    def ends_early(self) -> str:
        """What may end a run of these settings before its last epoch, a noun with its value; "" for nothing."""
        if self.max_seconds is not None:
            return f"a time limit of {self.max_seconds:g} seconds"
        return f"early stopping after {self.early_stopping} evaluations" if self.early_stopping else ""

    def to_the_end(self) -> RunConfig:
        """The config without what may end its runs before the last epoch."""
        return replace(self, max_seconds=None, early_stopping=0)

    @property
    def network(self) -> Backbone:
        """The backbone for images of the run's size."""
        return catalog.backbone(self.backbone).at(self.image_size)

    @property
    def evaluated_epochs(self) -> tuple[int, ...]:
        """Epochs (from 1) that end with an evaluation; the last is always among them."""
        count = self.evaluations or self.epochs
        if count >= self.epochs:
            return tuple(range(1, self.epochs + 1))
        return tuple(math.ceil((i + 1) * self.epochs / count) for i in range(count))

    @property
    def tuning(self) -> Method:
        """The method with its settings; `Unavailable` for a stored run whose method is not installed here."""
        own = (
            self.plan, self.mask_per, self.input_dropout, self.consistency, self.learned_drop_rates,
            self.drop_rate_entropy,
        )  # fmt: skip
        try:
            return _tuning(self.method, self.method_settings, own)
        except methods.UnavailableMethod as error:
            name = "".join(letter for letter in self.method[:60] if letter.isalnum() or letter in "_-")
            return methods.Unavailable(f"{name} (not installed)", error, self.method_settings)

    @property
    def unavailable(self) -> str:
        """What to do about a stored run whose method is not installed here, a clause; "" if it is installed."""
        tuning = self.tuning
        return tuning.problem.of_a_run if isinstance(tuning, methods.Unavailable) and tuning.problem else ""

    @property
    def has_mask(self) -> bool:
        """Whether the method trains the experts of `plan`."""
        return self.tuning.has_mask

    @property
    def canvas_size(self) -> tuple[int, int] | tuple[None, None]:
        """Rows and columns of the plan's canvas, (None, None) for a method without a mask."""
        return (self.plan.rows, self.plan.columns) if self.has_mask else (None, None)

    @property
    def what(self) -> str:
        """What is trained, as text: "stochastic mask", "linear probe"."""
        return self.tuning.what

    @property
    def prepared(self) -> str:
        """The preprocessing, with "auto" resolved: a name of `data.preprocessing`."""
        if self.preprocessing != "auto":
            return self.preprocessing
        return "fgvc-rrc" if catalog.task(self.task).group is catalog.Group.FGVC else "vtab"

    @property
    def mean_and_deviation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, for pixels in [0, 1]; "auto" means those of the pretraining."""
        backbone = catalog.backbone(self.backbone)
        return MEAN_AND_DEVIATION.get(self.normalisation, (backbone.mean, backbone.std))

    @cached_property
    def badge(self) -> Badge:
        task, backbone = catalog.task(self.task), self.network
        if task.bundled or self.data_label.startswith(("VTAB-1k", "FGVC")):
            train, val, together = f"train{task.train}", f"val{task.val}", f"train{task.train + task.val}"
        else:  # the label gives the counts
            train, val, together = "train", "val", "train + val"
        if self.folds:
            train, val = f"{self.folds - 1}/{self.folds} of {together}", f"1/{self.folds}, cross-validation"
        if self.tuning.search is None:
            counts = f"{train} → {val}", f"{together} → test"
        else:  # an accuracy on images that a choice was made by, or with fewer training images, is another one
            counts = f"{train}, searched on {val} → {val}", f"{together}, 1/{HELD_OUT} of it for a search → test"
        return Badge(
            task=self.task,
            data=self.data_label or ("bundled" if task.bundled else "unchecked images"),
            weights=self.backbone
            + (f" from {self.weights.replace(chr(92), '/').rsplit('/', 1)[-1]}" if self.weights else ""),
            protocol=counts[self.protocol == "test"],
            preprocessing=", ".join(
                (
                    f"{backbone.image_size} px bicubic",
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
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]

    def canonical(self, *without: str) -> str:
        """The hashed settings as JSON; equal for configs that differ only in settings that no hash holds.

        Args:
            without: Names of settings to leave out.
        """
        if without not in self._canonical:
            values = hashed_values(self, self.method)
            values["plan"] = self.plan.hash if self.has_mask else None
            hashed = {name: value for name, value in values.items() if name not in without}
            self._canonical[without] = json.dumps(hashed, sort_keys=True)
        return self._canonical[without]

    @cached_property
    def _canonical(self) -> dict[tuple[str, ...], str]:
        """What `canonical` returned so far: pages compare the same thousand configs again and again."""
        return {}

    def to_dict(self) -> dict:
        """Plain data; the plan as `MaskPlan.to_dict` gives it."""
        return _values(self) | {"plan": self.plan.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping) -> RunConfig:
        """The inverse of `to_dict`; the plan may be a MaskPlan already.

        Raises:
            ConfigError: If an entry is missing or unknown.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"a run is a JSON object with task and plan, not {type(data).__name__}")
        missing = {"task", "plan"} - set(data)
        if missing:
            raise ConfigError(f"the run lacks {', '.join(sorted(missing))}: it needs task and plan")
        unknown = set(data) - {entry.name for entry in settings_of(cls)}
        if unknown:
            raise ConfigError(f"the run has the unknown setting {min(map(str, unknown))[:60]!r}")
        try:
            return cls(**{**data, "plan": _plan(data["plan"])})
        except RecursionError:
            raise ConfigError("a setting of the run is nested too deeply: it must be one value") from None

    @classmethod
    def stored(cls, data: Mapping) -> RunConfig:
        """`from_dict` for a run that was checked when it was enqueued; its method may not be installed here any more.

        Raises:
            ConfigError, CatalogError: As `from_dict`, but not for such a method.
        """
        try:
            return cls.from_dict(data)
        except methods.UnavailableMethod:
            config = object.__new__(cls)
            for entry in settings_of(cls):
                object.__setattr__(config, entry.name, data.get(entry.name, entry.default))
            object.__setattr__(config, "plan", _plan(data["plan"]))
            check_settings(config)
            return config

    def command(self) -> str:
        """The equivalent command line."""
        mask = [f"--mask '{self.plan.code}'"] if self.has_mask else []
        return " ".join(
            [f"{PROGRAM} train", f"--task {shlex.quote(self.task)}", *mask, *option_arguments(self, self.method)]
        )


def _plan(data: Any) -> MaskPlan:
    return data if isinstance(data, MaskPlan) else MaskPlan.from_dict(data)


def _values(config: RunConfig) -> dict[str, Any]:
    return {entry.name: getattr(config, entry.name) for entry in settings_of(type(config))}


def differences(a: RunConfig, b: RunConfig) -> dict[str, tuple]:
    """Settings in which two runs differ: name to (value of a, value of b); a plan is given as its code."""
    values_a, values_b = _values(a) | {"plan": a.plan.code}, _values(b) | {"plan": b.plan.code}
    compared = [entry.name for entry in settings_of(type(a)) if entry.compared]
    return {name: (values_a[name], values_b[name]) for name in compared if values_a[name] != values_b[name]}


@lru_cache(256)
def _tuning(name: str, texts: tuple[str, ...], of_mlae: tuple[MaskPlan, str, float, float, str, float]) -> Method:
    described = methods.method(name)
    if described.name != "mlae":
        return methods.with_texts(described, texts)
    if texts:  # its settings are fields of the run
        raise ConfigError(
            "method mlae takes no --set: use --mask, --mask-per, --input-dropout, --consistency, --learn-drop-rates "
            "and --drop-rate-entropy"
        )
    return described(*of_mlae)  # pyright: ignore[reportCallIssue]
