"""The glossary: every technical word of the pages, with its symbol and a definition of one or two sentences.

The only place where these words are defined. Pages mark the words (`ui.terms`),
and the page Glossary lists them. What a
setting of a run does stays on its field (`core.config`); `Term.setting` names that field.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlae_lab.errors import LabError


class GlossaryError(LabError):
    """A word that the glossary does not have."""


@dataclass(frozen=True)
class Term:
    """One entry.

    Attributes:
        name: In addresses: `/glossary?term=name`.
        title: The word.
        definition: One or two plain sentences.
        symbol: As formulas write it, "" for none.
        words: Spellings that pages mark besides the title, in singular and plural.
        pages: Pages where it appears.
        source: Equation, section or publication, "" for none.
        setting: Field of `RunConfig` that sets it, "" for none.
        is_common: A word of nearly every sentence, which is marked only in the first line of a page and in its facts.
        has_marks: Whether pages mark the title; off for a title that is also an everyday word.
    """

    name: str
    title: str
    definition: str
    symbol: str = ""
    words: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    source: str = ""
    setting: str = ""
    is_common: bool = False
    has_marks: bool = True

    @property
    def spellings(self) -> tuple[str, ...]:
        """All spellings that pages mark."""
        return (*([self.title] if self.has_marks else []), *self.words)


_PAPER = "paper, "
TERMS: tuple[Term, ...] = (
    Term(
        "accuracy",
        "Accuracy",
        "The share of images that the network puts into the correct class. At 50 %, every second image is "
        "classified correctly.",
        symbol="%",
        pages=("train", "compare", "runs"),
        is_common=True,
    ),
    Term(
        "active-experts",
        "Active experts",
        "The experts that take part in one training step. The mask is sampled for each step, so their number changes.",
        words=("active expert", "active share"),
        pages=("masks", "train", "experts"),
        source=_PAPER + "section 3.3",
    ),
    Term(
        "adapter",
        "Adapter",
        "A small trained part that is added to a frozen network. The lab saves only the adapter of a run, not the "
        "whole network.",
        words=("adapters",),
        pages=("methods", "experts"),
    ),
    Term(
        "arm",
        "Arm",
        "One of the variants that a study compares, such as one mask. All arms use the same seeds.",
        words=("arms",),
        pages=("studies",),
    ),
    Term(
        "attention",
        "Attention",
        "The part of a block that lets each patch of an image take in what other patches hold. Its weights say how "
        "much each patch gives.",
        pages=("experts",),
        has_marks=False,
        words=("attention of the block", "attention of its block"),
    ),
    Term(
        "augmentation",
        "Augmentation",
        "Random changes to training images, such as a flip or a crop. The network then sees no image twice in the "
        "same form.",
        pages=("train",),
        setting="augmentation",
    ),
    Term(
        "backbone",
        "Backbone",
        "The trained network that a run starts from. Its weights stay frozen.",
        words=("backbones",),
        symbol="W",
        pages=("train", "masks"),
        setting="backbone",
        is_common=True,
    ),
    Term(
        "badge",
        "Badge",
        "The conditions that make two accuracies comparable: task, images, weights, protocol and preprocessing. The "
        "lab compares only runs with equal badges.",
        words=("badges",),
        pages=("compare", "runs"),
    ),
    Term(
        "balanced-accuracy",
        "Balanced accuracy",
        "The mean of the accuracies of the single classes. Small classes count as much as large ones.",
        pages=("train", "experts"),
    ),
    Term(
        "baseline",
        "Baseline",
        "The run or the arm that others are compared with.",
        pages=("compare", "studies"),
    ),
    Term(
        "batch-size",
        "Batch size",
        "The number of images that one training step uses.",
        pages=("train",),
        setting="batch_size",
    ),
    Term(
        "best-epoch",
        "Best epoch",
        "The epoch with the highest accuracy. It is an optimistic number, because it was chosen with the images that "
        "it is measured on.",
        words=("best epochs",),
        pages=("train", "compare"),
    ),
    Term(
        "block",
        "Block",
        "One stage of a vision transformer: attention, then two linear layers. The bundled network has twelve of them.",
        words=("blocks",),
        pages=("masks", "experts"),
        is_common=True,
    ),
    Term(
        "calibration",
        "Calibration",
        "How well the confidence of a network fits its accuracy. Of all images with a confidence of 80 %, 80 % "
        "should be correct.",
        words=("calibrated", "ECE", "expected calibration error"),
        pages=("experts",),
        symbol="ECE",
    ),
    Term(
        "checkpoint",
        "Checkpoint",
        "The saved state of a run after an epoch. A run can be resumed from it.",
        words=("checkpoints",),
        pages=("train",),
    ),
    Term(
        "coefficient",
        "Coefficient λ",
        "The number that scales one expert. It is trained with the expert, and at 0 the expert does nothing.",
        symbol="λ",
        words=("coefficients", "coefficient", "λ"),
        pages=("masks", "train", "experts"),
        source=_PAPER + "equation 4, section 3.3",
    ),
    Term(
        "confidence",
        "Confidence",
        "The share that the network gives to the class that it predicts, from 0 to 100 %.",
        pages=("experts",),
    ),
    Term(
        "confusion-matrix",
        "Confusion matrix",
        "A table of true classes against predicted classes. Numbers off the diagonal are errors.",
        pages=("experts",),
    ),
    Term(
        "contribution",
        "Contribution",
        "How much an expert adds to the output of its layer, relative to what the frozen layer gives.",
        symbol="‖λ b aᵀx‖ / ‖Wx + bias‖",
        words=("contributions",),
        pages=("train", "experts", "tour"),
    ),
    Term(
        "delta-w",
        "Update ΔW",
        "The sum of all experts of a layer: what training adds to the frozen weight.",
        symbol="ΔW",
        words=("ΔW",),
        pages=("experts", "tour"),
        source=_PAPER + "equation 1",
    ),
    Term(
        "drop-rate",
        "Drop probability p",
        "The chance that an expert is left out of a training step. At p = 0.5 it is left out of every second step on "
        "average.",
        symbol="p",
        words=("drop probability", "drop rates", "drop rate"),
        pages=("masks", "train", "experts", "studies"),
        source=_PAPER + "equation 5, section 3.3",
    ),
    Term(
        "drop-path",
        "Drop path",
        "A way to regularise a network: in training, a block is skipped for some images at random.",
        pages=("train",),
        setting="drop_path",
        source="Huang et al. 2016",
    ),
    Term(
        "dropout",
        "Dropout",
        "Setting random parts of a network to 0 in each training step, so that the network does not rely on any "
        "single part.",
        pages=("train", "experts"),
        source="Srivastava et al. 2014",
    ),
    Term(
        "effective-rank",
        "Effective rank",
        "How many directions an update really uses. It is 1 if one direction holds everything, and 8 if eight are "
        "equally strong.",
        symbol="exp(−Σ p ln p)",
        words=("effective ranks",),
        pages=("experts", "studies"),
        source="Roy and Vetterli 2007",
    ),
    Term(
        "epoch",
        "Epoch",
        "One pass of the training over all training images.",
        words=("epochs",),
        pages=("train", "runs"),
        setting="epochs",
        is_common=True,
    ),
    Term(
        "equivalence",
        "Equivalence",
        "The finding that two arms differ by less than a margin that was set before. It is more than “no difference "
        "was found”.",
        words=("equivalent",),
        symbol="|difference| < margin",
        pages=("studies",),
        source="two one-sided tests, Schuirmann 1987",
    ),
    Term(
        "evaluation",
        "Evaluation",
        "Measuring the accuracy on images that were not used for training.",
        words=("evaluations", "evaluation images"),
        pages=("train",),
        setting="evaluations",
    ),
    Term(
        "expert",
        "Rank-1 expert",
        "One part of an update: a single pattern that it looks for in its input and a single direction that it adds "
        "to the output. It is the smallest update that a weight can have.",
        symbol="b aᵀ",
        words=("experts", "expert"),
        pages=("masks", "train", "experts", "tour"),
        source=_PAPER + "equation 2, section 3.2",
        is_common=True,
    ),
    Term(
        "expert-importance",
        "Expert importance",
        "How much the loss or the accuracy changes when an expert is switched off after training.",
        words=("importance of an expert", "importance of each expert"),
        pages=("experts",),
    ),
    Term(
        "fixed-mask",
        "Fixed mask",
        "A mask that removes some experts for good. The others are active in every step.",
        words=("fixed masks",),
        pages=("masks",),
        source=_PAPER + "section 3.3",
    ),
    Term(
        "frozen-weight",
        "Frozen weight",
        "A weight of the trained network that does not change. Only what is added to it learns.",
        symbol="W",
        words=("frozen weights", "frozen layer", "frozen network", "frozen"),
        pages=("tour", "train", "experts"),
        source=_PAPER + "equation 1",
    ),
    Term(
        "gradient",
        "Gradient",
        "The direction in which a weight must change to lower the loss, and how strongly.",
        words=("gradients",),
        pages=("experts", "train"),
    ),
    Term(
        "head",
        "Head",
        "The last layer of the network. It turns the features of an image into one number for each class.",
        pages=("train", "methods"),
        is_common=True,
    ),
    Term(
        "holm",
        "Holm's correction",
        "Makes several tests at once stricter. It keeps the chance of one or more false findings at 5 %.",
        words=("Holm's procedure", "Holm"),
        symbol="α / k",
        pages=("studies", "experts"),
        source="Holm 1979",
    ),
    Term(
        "interval",
        "Interval",
        "The range that the true value lies in, with a confidence of 95 % unless another number is given. Fewer "
        "seeds or images make it wider.",
        words=("intervals", "confidence interval", "95 % interval", "95 % intervals"),
        symbol="95 %",
        pages=("compare", "studies", "experts"),
    ),
    Term(
        "layer",
        "Layer",
        "One step of a network: it multiplies its input by a weight matrix. Each row of the canvas is one layer.",
        words=("layers",),
        pages=("masks", "experts"),
        is_common=True,
    ),
    Term(
        "learning-rate",
        "Learning rate",
        "How far one training step moves the weights. Too high a value makes the training unstable, too low a value "
        "slow.",
        symbol="η",
        words=("learning rates",),
        pages=("train",),
        setting="learning_rate",
    ),
    Term(
        "linear-probe",
        "Linear probe",
        "A run that trains only the head. It shows what the frozen network can do without experts.",
        words=("linear probes", "the probe"),
        pages=("train", "methods", "masks"),
    ),
    Term(
        "lora",
        "LoRA",
        "Low-rank adaptation: the weight stays frozen, and a thin product of two small matrices is added to it and "
        "trained.",
        symbol="W + B A",
        pages=("masks", "methods", "experts", "tour"),
        source="Hu et al. 2022; paper, equation 1",
    ),
    Term(
        "loss",
        "Loss",
        "The number that training makes smaller. It is high when the network gives little weight to the true class.",
        words=("losses",),
        pages=("train", "experts"),
    ),
    Term(
        "mask",
        "Mask",
        "Says which experts take part. A cell of the canvas is one expert: filled if it exists, crossed out if not.",
        symbol="m",
        words=("masks",),
        pages=("masks", "train", "tour"),
        source=_PAPER + "equation 3",
        is_common=True,
    ),
    Term(
        "mcnemar",
        "McNemar's test",
        "Compares two runs on the same images. It counts only images that exactly one of them classifies correctly.",
        words=("mid-p", "McNemar"),
        symbol="mid-p",
        pages=("experts",),
        source="McNemar 1947",
    ),
    Term(
        "merged",
        "Merged",
        "Added into the frozen weight. A merged network has the same size and speed as the original one.",
        words=("merge",),
        symbol="W + ΔW",
        pages=("methods",),
    ),
    Term(
        "mixed-mask",
        "Mixed mask",
        "A mask that removes some experts for good and drops some of the others at random in each step.",
        words=("mixed masks",),
        pages=("masks",),
        source=_PAPER + "section 3.3",
    ),
    Term(
        "mlae",
        "MLAE",
        "Masked LoRA experts: LoRA that is split into rank-1 experts, with a mask that drops some of them in each "
        "step.",
        pages=("home", "methods", "paper"),
        source=_PAPER + "section 3",
    ),
    Term(
        "paired-difference",
        "Paired difference",
        "The difference of two runs with the same seed. Chance that both share drops out, so fewer seeds are needed.",
        words=("paired differences", "difference by seed", "paired runs", "paired seeds"),
        pages=("compare", "studies", "experts"),
    ),
    Term(
        "parameters",
        "Trainable parameters",
        "The numbers that a run trains. In the lab they are often about 2 % of the network.",
        words=("parameters", "trainable parameter"),
        pages=("masks", "methods"),
        is_common=True,
    ),
    Term(
        "patch",
        "Patch",
        "A small square of the image. A vision transformer handles an image as a row of patches.",
        words=("patches",),
        pages=("experts",),
    ),
    Term(
        "peft",
        "PEFT",
        "Parameter-efficient fine-tuning: a large network learns a task while only a small part of it is trained.",
        words=("parameter-efficient fine-tuning",),
        pages=("methods", "paper"),
    ),
    Term(
        "pattern",
        "Pattern",
        "A mask of the paper that a rule describes, such as “hourglass” or “incremental”.",
        words=("patterns",),
        pages=("masks", "paper"),
        source=_PAPER + "Table 4",
        is_common=True,
    ),
    Term(
        "plan",
        "Plan",
        "A mask with all that belongs to it: which experts exist, their drop probabilities, their layers, their rank "
        "and the initial λ.",
        words=("plans",),
        pages=("masks", "train"),
        is_common=True,
    ),
    Term(
        "protocol",
        "Protocol",
        "Which images train the network and which measure it. “Validation” is for choices, “test” only for the final "
        "number.",
        words=("validation", "protocols", "val"),
        pages=("train", "runs", "studies"),
        setting="protocol",
    ),
    Term(
        "random-baseline",
        "Random baseline",
        "The value that random experts of the same size would have. Only what lies above it was learned.",
        words=("random experts", "random baselines"),
        symbol="|cos| of random vectors",
        pages=("experts",),
    ),
    Term(
        "rank",
        "Rank",
        "The number of independent directions of a matrix. A product of two thin matrices has a low rank and few "
        "numbers.",
        symbol="r",
        words=("ranks", "low-rank"),
        pages=("masks", "experts", "tour"),
        source=_PAPER + "equation 1",
    ),
    Term(
        "recipe",
        "Recipe",
        "The settings that authors published for a method.",
        words=("recipes",),
        pages=("train", "methods"),
        setting="method",
        is_common=True,
    ),
    Term(
        "robustness",
        "Robustness",
        "How well a trained run still works when some of its experts are switched off.",
        words=("robust",),
        pages=("experts",),
    ),
    Term(
        "rollout",
        "Rollout",
        "Combines the attention of all blocks into one map: which patches reach the output.",
        pages=("experts",),
        source="Abnar and Zuidema 2020",
    ),
    Term(
        "run",
        "Run",
        "One training with fixed settings, and all that the lab stores about it.",
        words=("runs",),
        pages=("train", "runs"),
        is_common=True,
        has_marks=False,
    ),
    Term(
        "seed",
        "Seed",
        "A number that fixes all random choices of a run. The same settings with another seed show how much is chance.",
        words=("seeds",),
        pages=("train", "compare", "studies"),
        setting="seed",
        is_common=True,
    ),
    Term(
        "similarity",
        "Similarity |cos|",
        "How much two experts of a layer point in the same direction: 0 is not at all, 1 is fully. Less similar "
        "experts do more different things.",
        symbol="|cos|",
        words=("|cosine|", "|cos|", "cosine", "mean cosine", "similarity"),
        pages=("train", "experts", "studies", "tour"),
        source=_PAPER + "appendix A.4",
    ),
    Term(
        "softmax",
        "Softmax",
        "Turns the outputs of the head into shares that sum to 1, one for each class.",
        words=("logits",),
        pages=("experts",),
    ),
    Term(
        "spectrum",
        "Spectrum",
        "The strengths of the directions of an update, from strongest to weakest.",
        symbol="σ₁ ≥ σ₂ ≥ …",
        words=("singular values", "singular value"),
        pages=("experts",),
    ),
    Term(
        "stable-rank",
        "Stable rank",
        "Like the effective rank, but it depends mostly on the strongest direction. Weak directions change it little.",
        symbol="‖ΔW‖² / σ₁²",
        words=("stable ranks",),
        pages=("experts",),
    ),
    Term(
        "standard-error",
        "Standard error",
        "How far a mean is likely to be from the true value, given the spread of the seeds and their number.",
        words=("standard errors",),
        symbol="s / √n",
        pages=("studies", "compare"),
    ),
    Term(
        "step",
        "Training step",
        "One change of the trained weights, computed from one batch of images.",
        words=("steps", "step"),
        pages=("train",),
        is_common=True,
    ),
    Term(
        "stochastic-mask",
        "Stochastic mask",
        "A mask that keeps all experts and drops some of them at random in each step. It is the proposal of the paper.",
        words=("stochastic masks", "stochastic"),
        pages=("masks", "tour"),
        source=_PAPER + "equation 5",
    ),
    Term(
        "study",
        "Study",
        "A question that is answered by several runs: some arms, some seeds and a rule for the verdict.",
        words=("studies",),
        pages=("studies", "paper"),
        is_common=True,
    ),
    Term(
        "target",
        "Target",
        "A kind of layer that gets experts. “qkv” is the layer of the attention that makes queries, keys and values.",
        words=("targets", "qkv"),
        symbol="qkv, proj, fc1, fc2",
        pages=("masks", "methods"),
        source=_PAPER + "section 4.1",
    ),
    Term(
        "token",
        "Token",
        "What a vision transformer computes with: one list of numbers for each patch, and one for the whole image.",
        words=("tokens",),
        pages=("experts", "train"),
    ),
    Term(
        "verdict",
        "Verdict",
        "What a study says by a rule that was set before: a difference, equivalence, or not settled.",
        words=("verdicts",),
        pages=("studies", "tour"),
    ),
    Term(
        "vit",
        "Vision transformer",
        "A network that cuts an image into patches and lets them exchange information, block after block.",
        symbol="ViT",
        words=("vision transformers", "ViT-B/16", "ViT"),
        pages=("home", "train", "paper"),
        source="Dosovitskiy et al. 2021",
    ),
    Term(
        "vtab",
        "VTAB-1k",
        "Nineteen image tasks with 1,000 training images each, in the groups natural, specialised and structured.",
        words=("VTAB",),
        pages=("task", "paper"),
        source="Zhai et al. 2019",
    ),
    Term(
        "fgvc",
        "FGVC",
        "Five tasks with classes that look alike, such as kinds of birds or cars.",
        pages=("task", "paper"),
        source=_PAPER + "section 4.1",
    ),
    Term(
        "weight-decay",
        "Weight decay",
        "Pulls every trained weight a little towards 0 in each step, against fitting the training images too closely.",
        pages=("train",),
        setting="weight_decay",
    ),
    Term(
        "what-if",
        "What-if",
        "Switching experts of a trained run off or on and measuring again. Nothing is trained.",
        words=("what if",),
        pages=("experts",),
    ),
    Term(
        "warm-up",
        "Warm-up",
        "The first part of a run, in which the learning rate rises from 0 to its full value.",
        words=("warmup",),
        pages=("train",),
    ),
    Term(
        "sampled-mask",
        "Sampled mask",
        "The mask of one training step: for each expert, chance decides by its p whether it takes part.",
        words=("sampled masks",),
        symbol="m ∈ {0, 1/(1−p)}",
        pages=("masks", "train", "tour"),
        source=_PAPER + "equation 5",
    ),
    Term(
        "multiply-adds",
        "Multiply-adds",
        "The usual unit for the cost of a network: one multiplication and one addition.",
        pages=("masks",),
    ),
    Term(
        "mixup",
        "Mixup",
        "Training on blends of two images, whose labels are blended in the same shares. It keeps a network from "
        "learning few images by heart.",
        symbol="α",
        pages=("train",),
        setting="mixup",
        source="Zhang et al. 2018",
    ),
    Term(
        "label-smoothing",
        "Label smoothing",
        "Training towards a target that gives the true class a little less than 1. The rest is shared by all classes, "
        "so the network grows less sure of itself.",
        pages=("train",),
        setting="label_smoothing",
        source="Szegedy et al. 2016",
    ),
    Term(
        "class-balance",
        "Class balance",
        "Making rare classes count as much as common ones in training, by weights in the loss or by sampling.",
        pages=("train",),
        setting="class_balance",
    ),
    Term(
        "gradient-accumulation",
        "Gradient accumulation",
        "Passing a batch through the network in parts and adding up their gradients. It needs less memory and gives "
        "the same result.",
        pages=("train",),
        setting="accumulation",
    ),
    Term(
        "weight-average",
        "Weight average",
        "A moving average of the trained weights over the last steps. It is tested and saved in place of the weights "
        "themselves.",
        words=("EMA",),
        pages=("train",),
        setting="weight_average",
        source="Polyak and Juditsky 1992",
    ),
    Term(
        "early-stopping",
        "Early stopping",
        "Ending a training when the validation accuracy no longer rises.",
        pages=("train",),
        setting="early_stopping",
    ),
    Term(
        "consistency",
        "Consistency",
        "A second loss that asks for the same output under two sampled masks.",
        pages=("train",),
        setting="consistency",
        source="PACE, Ni et al. 2024",
    ),
    Term(
        "deviation",
        "Standard deviation",
        "The usual distance of single values from their mean.",
        symbol="s",
        words=("standard deviations",),
        pages=("compare", "experts", "studies"),
    ),
    Term(
        "t-test",
        "Student's t",
        "The rule that turns the mean and the spread of a few seeds into an interval. With few seeds the interval is "
        "wide.",
        words=("t-test", "paired t-test"),
        symbol="t",
        pages=("experts", "studies"),
        source="Student 1908",
    ),
)
_BY_NAME = {entry.name: entry for entry in TERMS}


def term(name: str) -> Term:
    """The entry of that name.

    Raises:
        GlossaryError: The glossary has no such entry.
    """
    if name not in _BY_NAME:
        raise GlossaryError(f"the glossary has no {name[:40]!r}: choose one of {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[name]


def matching(words: str) -> list[Term]:
    """Entries that hold all of these words, in alphabetical order; those with them in the title come first.

    Args:
        words: What a person typed; upper and lower case are equal. Empty: all entries.
    """
    wanted = words.casefold().split()

    def holds(texts: tuple[str, ...]) -> bool:
        text = " ".join(texts).casefold()
        return all(word in text for word in wanted)

    matches = [e for e in TERMS if holds((e.title, e.symbol, e.definition, *e.words, e.source))]
    return sorted(
        matches, key=lambda e: (bool(wanted) and not holds((e.title, e.symbol, *e.words)), e.title.casefold())
    )
