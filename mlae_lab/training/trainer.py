"""How a model learns: `prepare` builds it from a config, `fit` trains it and yields events.

Knows no files, no store and no screen: whoever iterates over `fit` decides what becomes of the
events, and reads the learned weights off the `Setup` whenever it likes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.analysis.activation import recording
from mlae_lab.analysis.similarity import similarity_stats
from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Canvas, Evaluation, Event, ExpertStats, Started, TrainStep
from mlae_lab.data.splits import Pictures
from mlae_lab.data.tasks import load_protocol
from mlae_lab.model import backbones
from mlae_lab.model.experts import stream
from mlae_lab.model.inject import Experts, inject
from mlae_lab.model.prefix import depth, first_block, split
from mlae_lab.places import data_folder
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.schedule import cosine


class DeviceError(ValueError):
    """A device that this machine does not have; its text says which would work."""


class Diverged(RuntimeError):
    """Training left the finite numbers; the text names the quantity, the step and a way out."""


@dataclass
class Setup:
    """A network ready to train. train, evaluation: pictures on their way into the first adapted block;
    behind: what enters there -> logits. experts: None for a linear probe. notes: what was changed to make
    the weights fit; weights: their fingerprint."""

    config: RunConfig
    model: nn.Module
    experts: Experts | None
    head: nn.Linear
    behind: Callable[[torch.Tensor], torch.Tensor]
    train: Inputs
    evaluation: Inputs
    device: torch.device
    precision: torch.dtype
    seconds: float
    notes: tuple[str, ...] = ()
    weights: str = ""


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises DeviceError for an absent GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device is 'cuda' and this machine shows no CUDA GPU: choose cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; "auto" is bfloat16 where the hardware multiplies it faster.

    That is a GPU, or a CPU with bfloat16 products of its own (AMX or AVX-512; `benchmarks/step.py`
    prints both times). On other CPUs bfloat16 is emulated and slower. The choice is recorded in
    Started and is the same for every run on one machine.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or _multiplies_bfloat16() else torch.float32
    return getattr(torch, name)


def _multiplies_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def prepare(
    config: RunConfig, weights: Path | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Setup:
    """Load data and backbone, inject the experts, and compute once what stays fixed.

    weights: a file in place of the config's. on_progress: told (done, total) while pictures are decoded
    for the first time. Raises DataError, BackboneError or InjectError, each with one sentence.
    """
    began = time.monotonic()
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    entry = catalog.backbone(config.backbone)
    train, evaluated, class_names = load_protocol(config, on_progress)
    file = weights or (Path(config.weights) if config.weights else None)
    model, notes = backbones.build_with_notes(
        config.backbone, len(class_names), config.seed, file, data_folder() / "weights"
    )
    fingerprint = backbones.fingerprint(model)
    model = model.to(device)
    plan = config.plan if config.method == "mlae" else None
    experts = inject(model, plan, config.seed) if plan is not None else None
    head = model.get_classifier().requires_grad_(True)
    before, behind = split(model, first_block(plan, depth(model)))
    if device.type == "cpu":
        for module in model.modules():  # two matrix products beat the fused kernel on a CPU (benchmarks/step.py)
            if hasattr(module, "fused_attn"):
                module.fused_attn = False

    def inputs(part: Pictures, generator: torch.Generator | None) -> Inputs:
        return Inputs(part, before, device, entry.picture, config.mean_and_deviation, config.prepared, generator)

    return Setup(
        config, model, experts, head, behind, inputs(train, stream(config.seed, "augment")), inputs(evaluated, None),
        device, precision, time.monotonic() - began, notes, fingerprint,
    )  # fmt: skip


def fit(setup: Setup, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train and yield what happens, in order: Started, then TrainStep after every step and, after
    every evaluated epoch, Evaluation, ExpertStats and SimilarityStats.

    should_stop: asked after every step; True ends the run after an evaluation of what is there.
    Raises Diverged if the loss or an evaluation is not finite.
    """
    # ---------------------------------------------------------------- setup
    config, experts, device = setup.config, setup.experts, setup.device
    labels = setup.train.labels
    learned = [*setup.head.parameters(), *(experts.parameters() if experts else [])]
    optimizer = torch.optim.AdamW(learned, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    order = stream(config.seed, "order")
    batches = -(-len(labels) // config.batch_size)
    total = batches * config.epochs
    gradients = _GradientNorms(experts) if experts else None
    yield Started(
        parameters=sum(p.numel() for p in experts.parameters()) if experts else 0,
        head_parameters=sum(p.numel() for p in setup.head.parameters()),
        backbone_parameters=sum(p.numel() for p in setup.model.parameters()) - sum(p.numel() for p in learned),
        train_pictures=len(labels),
        evaluation_pictures=len(setup.evaluation),
        steps=total,
        device=str(device),
        precision=str(setup.precision).removeprefix("torch."),
        seconds=setup.seconds,
        notes=setup.notes,
        weights=setup.weights,
    )
    # ---------------------------------------------------------------- loop
    began = time.monotonic()
    step, stop = 0, False
    for epoch in range(1, config.epochs + 1):
        shuffled = torch.randperm(len(labels), generator=order).to(device)
        _train_mode(experts, True)
        for chosen in shuffled.split(config.batch_size):
            progress = step / total
            if config.max_seconds is not None:
                progress = max(progress, (time.monotonic() - began) / config.max_seconds)
            rate = config.learning_rate * cosine(progress, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            drawn = experts.draw() if experts else None
            with _autocast(setup):
                logits = setup.behind(setup.train.take(chosen))
                loss = F.cross_entropy(logits.float(), labels[chosen])
            loss.backward()
            if gradients:
                gradients.count()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            value = loss.item()
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss became {value} at step {step} (epoch {epoch}): "
                    f"try a learning rate below {config.learning_rate:g}"
                )
            yield TrainStep(
                step=step,
                epoch=epoch,
                loss=value,
                accuracy=100 * (logits.argmax(1) == labels[chosen]).float().mean().item(),
                learning_rate=rate,
                drawn=int((drawn > 0).sum()) if drawn is not None else 0,
                seconds=time.monotonic() - began,
            )
            out_of_time = config.max_seconds is not None and time.monotonic() - began >= config.max_seconds
            stop = out_of_time or should_stop()
            if stop:
                break
        # ------------------------------------------------------------ evaluation
        if stop or epoch in config.evaluated_epochs:
            try:
                accuracy, loss_now, contribution = evaluate(setup)
            except Diverged as error:
                raise Diverged(f"after step {step} (epoch {epoch}) {error}") from None
            yield Evaluation(epoch, step, config.protocol, accuracy, loss_now, time.monotonic() - began)
            if experts:
                yield expert_stats(experts, epoch, contribution, gradients.means())
                yield similarity_stats(experts, epoch)
        if stop:
            return


@torch.no_grad()
def evaluate(setup: Setup) -> tuple[float, float, dict[str, torch.Tensor]]:
    """(top-1 in percent, mean loss, contribution by target) on the evaluation pictures, all experts on.

    Contribution is read off the first 256 of them; it costs a second pass through each target.
    """
    _train_mode(setup.experts, False)
    right, loss, pictures = 0, 0.0, len(setup.evaluation)
    contribution: dict[str, torch.Tensor] = {}
    for number, (chunk, truth) in enumerate(setup.evaluation.chunks()):
        watched = setup.experts.layers if setup.experts and number == 0 else {}
        with _autocast(setup), recording(watched) as found:
            logits = setup.behind(chunk).float()
        contribution |= found.means
        right += int((logits.argmax(1) == truth).sum())
        loss += F.cross_entropy(logits, truth, reduction="sum").item()
    if not math.isfinite(loss):
        raise Diverged(f"the evaluation loss is {loss}: try a learning rate below {setup.config.learning_rate:g}")
    return 100 * right / pictures, loss / pictures, contribution


def expert_stats(
    experts: Experts, epoch: int, contribution: dict[str, torch.Tensor], gradient: dict[str, torch.Tensor]
) -> ExpertStats:
    """Put per-layer numbers on the plan's canvas, None where no expert exists."""
    plan, sampler = experts.plan, experts.sampler
    share = sampler.drawn / max(1, sampler.steps)

    def canvas(values: dict[str, torch.Tensor]) -> Canvas:
        rows: list[list[float | None]] = [[None] * plan.columns for _ in range(plan.rows)]
        for row, target in enumerate(plan.targets):
            if target in experts.layers:
                for column, value in zip(experts.layers[target].columns, values[target].tolist()):
                    rows[row][column] = round(value, 6)
        return tuple(map(tuple, rows))

    return ExpertStats(
        epoch=epoch,
        share_drawn=canvas({t: share[plan.targets.index(t), list(e.columns)] for t, e in experts.layers.items()}),
        contribution=canvas(contribution),
        coefficient=canvas({t: layer.coefficient.detach().cpu() for t, layer in experts.layers.items()}),
        gradient=canvas(gradient),
    )


class _GradientNorms:
    """Mean norm of each expert's gradient (a and b together) over the steps that drew it."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts
        self._clear()

    def _clear(self) -> None:
        self.sum = {t: torch.zeros(len(e.columns), device=e.a.device) for t, e in self.experts.layers.items()}
        self.steps = {t: torch.zeros(len(e.columns), device=e.a.device) for t, e in self.experts.layers.items()}

    def count(self) -> None:
        for target, layer in self.experts.layers.items():
            square = layer.a.grad.square().sum(1) + layer.b.grad.square().sum(0)
            self.sum[target] += square.reshape(-1, layer.rank).sum(1).sqrt()
            self.steps[target] += layer.mask > 0

    def means(self) -> dict[str, torch.Tensor]:
        """Means since the last call."""
        found = {t: (self.sum[t] / self.steps[t].clamp_min(1)).cpu() for t in self.sum}
        self._clear()
        return found


def _train_mode(experts: Experts | None, on: bool) -> None:
    """Only the experts know two modes; the frozen backbone stays in eval mode throughout."""
    for layer in experts.layers.values() if experts else ():
        layer.train(on)


def _autocast(setup: Setup):
    return torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision is torch.bfloat16)
