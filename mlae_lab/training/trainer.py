"""The training loop: `Training` runs a setup from its config or a checkpoint and yields events.

It opens no file and knows no store: the caller decides what happens with the events, and may take a `Checkpoint`
between any two of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mlae_lab.analysis.similarity import similarity_stats
from mlae_lab.core.config import RunConfig
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import (
    MAX_IMAGES_RECORDED,
    Evaluation,
    Event,
    Predictions,
    Resumed,
    SampleImages,
    SearchGeneration,
    Started,
    TrainStep,
    packed,
)
from mlae_lab.core.plan import MaskPlan
from mlae_lab.methods.adapter import copied
from mlae_lab.methods.evolution import Evolution
from mlae_lab.model.experts import stream
from mlae_lab.model.inject import Experts
from mlae_lab.training.averaging import WeightAverage
from mlae_lab.training.best_epoch import BestEpoch
from mlae_lab.training.checkpoint import Checkpoint, CheckpointError, TrainPosition
from mlae_lab.training.environment import environment_of
from mlae_lab.training.evaluation import (
    Diverged,
    OutOfTime,
    autocast,
    evaluate,
    expert_stats,
    search_accuracy,
    search_images,
)
from mlae_lab.training.objective import Objective, mix_of_step, order_of_epoch
from mlae_lab.training.sample_images import chosen as sample_indices
from mlae_lab.training.sample_images import encoded_image
from mlae_lab.training.schedule import cosine
from mlae_lab.training.setup import Setup
from mlae_lab.training.statistics import STATISTICS, Statistic, collect

MOMENTUM = 0.9  # of SGD, in all recipes
# What an optimizer keeps for each parameter, and the beginning of its names in a checkpoint.
_MOMENTS = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
_PREFIX = {"adamw": "adam", "sgd": "sgd"}
EVALUATION_SECONDS = 6.0  # longest final evaluation of a training that was asked to stop


def fit(setup: Setup, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train from the first step to the last; see `Training.run`."""
    return Training(setup).run(should_stop)


class Training:
    """One training.

    Args:
        setup: The network and its data.
        start: A checkpoint to continue from. With the same plan and data, training continues bit for bit (on a CPU).
            With another plan, experts that both plans have keep their values, moments and mask generators; the other
            experts start as in a new run, and a layer that gains an expert starts with fresh moments.
        statistics: Further statistics to record with every evaluation, by default `statistics.STATISTICS`.

    Raises:
        CheckpointError: For a checkpoint that does not fit.
    """

    def __init__(
        self, setup: Setup, start: Checkpoint | None = None, statistics: Sequence[Statistic] | None = None
    ) -> None:
        config = setup.config
        self.statistics = STATISTICS if statistics is None else statistics
        self.setup, self.adapter, self.experts = setup, setup.adapter, setup.experts
        self.learned = _learned(setup)
        self.optimizer = optimizer_of(config, self.learned, setup.adapter.rate_factors())
        self.order = stream(config.seed, "order")
        self.gradients = _GradientNorms(self.experts) if self.experts else None
        self.trained = setup.trained
        self.adapter.images = len(self.trained)
        self.batches = steps_per_epoch(len(self.trained), config.batch_size)
        self.objective = Objective(config, setup.train.labels[self.trained], setup.head.out_features)
        self.average = WeightAverage(self.learned, config.weight_average)
        self.best = BestEpoch()
        self.search, self.evolution = config.tuning.search, None
        if self.search is not None:
            assert self.adapter.space is not None  # as `Method.search` promises
            self.evolution = Evolution(self.search, self.adapter.space, config.seed)
        self.position = TrainPosition(epoch=1, batch=0, step=0, seconds=0.0, sampled_steps=0)
        self.order_then = self.order.get_state()  # before this epoch's permutation was sampled
        self.sample_images = sample_indices(setup.evaluation.part.labels.tolist())
        self.evaluation_seconds = 0.0  # of the last evaluation
        self.start = start
        if start is not None:
            self._restore(start)

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Train and yield events.

        Their order: Started, SampleImages, Resumed if training continues from a checkpoint, then TrainStep after every
        step, SearchGeneration after every generation of a search and, after every evaluated epoch, ExpertStats,
        SimilarityStats, Predictions, Statistics, Evaluation.

        Args:
            should_stop: Called after every step and between the pieces of an evaluation. True ends the training, with
                a final evaluation if that takes no more than EVALUATION_SECONDS and a search is not due.

        Raises:
            Diverged: If the loss or an evaluation is not finite.
        """
        # ------------------------------------------------------------ setup
        setup, config = self.setup, self.setup.config
        labels, device = setup.train.labels, setup.device
        total = self.batches * config.epochs
        yield self._started(total)
        yield self._sample_images_event()
        if self.start is not None:
            position = self.position
            finished_epoch = position.epoch - (position.batch == 0 and position.epoch > 1)
            yield Resumed(finished_epoch, position.step, position.seconds)
        # ------------------------------------------------------------ loop
        clock = _Clock(self.position.seconds)
        stop_requested: list[float] = []

        def may_continue() -> bool:
            if not stop_requested and should_stop():
                stop_requested.append(time.monotonic())
            return not stop_requested or time.monotonic() - stop_requested[0] < EVALUATION_SECONDS

        stop = False
        while not self.is_through:
            epoch, done = self.position.epoch, self.position.batch
            self.order_then = self.order.get_state()
            order = order_of_epoch(config, labels[self.trained], self.order)
            shuffled = self.trained[order.to(device)]
            self.adapter.train(True)
            for chosen in shuffled.split(config.batch_size)[done:]:
                step = self.position.step
                progress = step / total
                if config.max_seconds is not None:
                    progress = max(progress, clock.seconds() / config.max_seconds)
                rate = config.learning_rate * cosine(self._of_stage(progress), config.warmup)
                mask, logits, loss = self.advance(chosen, rate, progress)
                value = loss.item()
                if not math.isfinite(value):
                    raise Diverged(
                        f"diverged: the loss became {value} at step {step + 1} (epoch {epoch}): "
                        f"try a learning rate below {config.learning_rate:g}"
                    )
                self.position = self._at(epoch, self.position.batch + 1, step + 1, clock)
                yield TrainStep(
                    step=step + 1,
                    epoch=epoch,
                    loss=value,
                    accuracy=100 * (logits.argmax(1) == labels[chosen]).float().mean().item(),
                    learning_rate=rate,
                    active=int(mask.sum()) if mask is not None else 0,
                    seconds=self.position.seconds,
                    mask=packed(mask.flatten().tolist()) if mask is not None else "",
                )
                out_of_time = config.max_seconds is not None and clock.seconds() >= config.max_seconds
                may_continue()
                stop = out_of_time or bool(stop_requested)
                if stop:
                    break
            # -------------------------------------------------------- search
            if self._search_is_due():
                yield from self._searched(clock, lambda: may_continue() and not stop_requested)
                if stop_requested:
                    return
            # -------------------------------------------------------- evaluation
            due = self.position.batch == self.batches and epoch in config.evaluated_epochs
            if due or (stop and self._is_quick(bool(stop_requested))):
                try:
                    events = self._evaluation(may_continue, keep_sums=not due)
                except OutOfTime:
                    return  # the position is still before this evaluation, so a resumed run evaluates then
                if due:
                    self.position = self._at(epoch + 1, 0, self.position.step, clock)
                    self.best.add(epoch, self.result.accuracy, self.result.loss)
                yield from (*events, self._evaluation_event(epoch, clock))
                if due and self.stopped_early:
                    return
            elif self.position.batch == self.batches:
                self.position = self._at(epoch + 1, 0, self.position.step, clock)
            if stop or stop_requested:
                return

    def advance(
        self, chosen: torch.Tensor, rate: float, progress: float
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """One training step.

        Args:
            chosen: (k,) indices of the batch's images.
            rate: Learning rate.
            progress: Share of the training that is done, [0, 1].

        Returns:
            Mask of the experts (rows, columns) or None, logits (k, classes) and the loss of the batch.
        """
        setup, config, experts, step = self.setup, self.setup.config, self.experts, self.position.step
        consistency = config.tuning.consistency_weight
        labels = setup.train.labels[chosen]
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        self.adapter.before_step(step, progress)
        mask = experts.factors > 0 if experts else None
        mix = mix_of_step(config, step, len(chosen), setup.device)
        with autocast(setup):
            inputs = setup.train.take(chosen, mix)
        logits: list[torch.Tensor] = []
        losses: list[torch.Tensor] = []
        for part in self.objective.parts(labels, mix, config.accumulation):
            is_last = part.images.stop >= len(chosen)
            with autocast(setup):
                logits.append(setup.behind(inputs[part.images]))
                objective = loss = part.loss(logits[-1])
                if self.gradients and len(logits) == 1:
                    self.gradients.begin()
                if consistency:  # one part only
                    self.adapter.resample()
                    difference = logits[-1].float() - setup.behind(inputs).float()
                    objective = loss + consistency * difference.square().sum(1).mean()
            penalty = self.adapter.penalty() if is_last else None
            (objective if penalty is None else objective + penalty).backward()
            losses.append(loss.detach())
        if self.gradients:
            self.gradients.count()
        self.adapter.after_backward(step, progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.adapter.after_step(step, progress)
        self.average.update(step)
        return mask, torch.cat([part.detach() for part in logits]), torch.stack(losses).sum()

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping ends the training."""
        early_stopping = self.setup.config.early_stopping
        return 0 < early_stopping <= self.best.since

    @property
    def is_last_epoch(self) -> bool:
        """Whether no epoch follows the current one."""
        return self.position.epoch >= self.setup.config.epochs

    @property
    def is_searching(self) -> bool:
        """Whether a search has begun and is not over."""
        return self.evolution is not None and bool(self.evolution.scored) and self.evolution.next() is not None

    @property
    def is_through(self) -> bool:
        """Whether the last epoch is complete, or early stopping has ended the training."""
        return self.position.epoch > self.setup.config.epochs or self.stopped_early

    # ---------------------------------------------------------------- pieces of `run`

    def _started(self, total: int) -> Started:
        setup, learned = self.setup, sum(p.numel() for p in self.learned.values())
        return Started(
            parameters=sum(p.numel() for p in self.adapter.parameters().values()),
            head_parameters=sum(p.numel() for p in setup.head.parameters()),
            backbone_parameters=sum(p.numel() for p in setup.model.parameters()) - learned,
            train_images=len(self.trained),
            evaluation_images=len(setup.evaluation),
            steps=total,
            device=str(setup.device),
            precision=str(setup.precision).removeprefix("torch."),
            seconds=setup.seconds,
            notes=setup.notes,
            weights=setup.weights,
            evaluated=setup.evaluated if len(setup.evaluated) <= MAX_IMAGES_RECORDED else (),
        )

    def _of_stage(self, progress: float) -> float:
        """Progress within the part of the training before or after a search: each has its own schedule."""
        if self.search is None:
            return progress
        config = self.setup.config
        before = self.search.epoch(config.epochs) / config.epochs
        if progress < before - 1e-9:  # both are quotients: the first step after the search is not before it
            return progress / before
        return max(0.0, progress - before) / (1 - before)

    def _search_is_due(self) -> bool:
        position, search = self.position, self.search
        if search is None or position.epoch != search.epoch(self.setup.config.epochs):
            return False
        return position.batch == self.batches

    def _searched(self, clock: _Clock, may_continue: Callable[[], bool]) -> Iterator[Event]:
        """Search to the end or until `may_continue` returns False, and yield an event after each generation."""
        search, evolution, space, position = self.search, self.evolution, self.adapter.space, self.position
        assert search is not None
        assert evolution is not None
        assert space is not None
        self.adapter.train(False)
        while (candidate := evolution.next()) is not None:
            if not may_continue():
                break
            space.choose(candidate)
            try:
                accuracy = search_accuracy(self.setup, may_continue)
            except OutOfTime:
                break
            generation = evolution.generation
            is_last = evolution.record(accuracy)
            self.position = self._at(position.epoch, position.batch, position.step, clock)
            if is_last:
                best = evolution.best
                space.choose(best.candidate)  # what is saved now is the best network so far
                grid = space.grid(best.candidate)
                yield SearchGeneration(
                    epoch=position.epoch, step=position.step, generation=generation, generations=search.generations,
                    candidates=len(evolution.scored), images=search_images(self.setup), best=best.accuracy,
                    mean=evolution.mean(generation), parameters=best.parameters, seconds=self.position.seconds,
                    labels=tuple(grid),
                    chosen=tuple(tuple(form for form, _ in row) for row in grid.values()),
                    levels=tuple(tuple(round(level, 4) for _, level in row) for row in grid.values()),
                )  # fmt: skip
        if evolution.scored:
            space.choose(evolution.best.candidate)
        if evolution.next() is None:
            self._settle()

    def _settle(self) -> None:
        """Train the network that the search found from now on, with fresh moments if there is an epoch left."""
        assert self.evolution is not None
        assert self.adapter.space is not None
        self.adapter.space.settle(self.evolution.best.candidate)
        if not self.is_last_epoch:
            self.optimizer.state.clear()

    def _is_quick(self, stop_requested: bool) -> bool:
        """Whether there is time for a final evaluation that was not due."""
        return not stop_requested or self.evaluation_seconds < EVALUATION_SECONDS

    def _evaluation(self, may_continue: Callable[[], bool], keep_sums: bool) -> list[Event]:
        """Evaluate, and return the events that precede the Evaluation. keep_sums: do not reset the gradient sums."""
        with self.average.applied():
            return self._evaluated(may_continue, keep_sums)

    def _evaluated(self, may_continue: Callable[[], bool], keep_sums: bool) -> list[Event]:
        began, position = time.monotonic(), self.position
        try:
            result = self.result = evaluate(self.setup, may_continue, self.sample_images)
        except Diverged as error:
            raise Diverged(f"diverged: after step {position.step} (epoch {position.epoch}) {error}") from None
        self.evaluation_seconds = time.monotonic() - began
        names = tuple(self.setup.classes[number] for number in result.predicted)
        events: list[Event] = [Predictions(position.epoch, position.step, names, result.confidence)]
        if statistics := collect(self.statistics, self.setup, position.epoch, position.step):
            events.append(statistics)
        if self.experts is None or self.gradients is None:
            return events
        gradient = self.gradients.means(clear=not keep_sums)
        return [
            expert_stats(self.experts, position.epoch, result.contribution, gradient),
            similarity_stats(self.experts, position.epoch),
            *events,
        ]

    def _evaluation_event(self, epoch: int, clock: _Clock) -> Evaluation:
        result, protocol = self.result, self.setup.config.protocol
        return Evaluation(
            epoch, self.position.step, protocol, result.accuracy, result.loss, clock.seconds(), result.correct
        )

    def _sample_images_event(self) -> SampleImages:
        part, classes = self.setup.evaluation.part, self.setup.classes
        return SampleImages(
            images=tuple(encoded_image(part.images[index]) for index in self.sample_images),
            labels=tuple(classes[part.labels[index]] for index in self.sample_images),
        )

    def _at(self, epoch: int, batch: int, step: int, clock: _Clock) -> TrainPosition:
        sampled = self.experts.sampler.steps if self.experts else 0
        searched = len(self.evolution.scored) if self.evolution else 0
        return TrainPosition(epoch, batch, step, clock.seconds(), sampled, searched)

    # ---------------------------------------------------------------- checkpoints

    def checkpoint(self) -> Checkpoint:
        """Everything that determines how training continues. To be called after an event, not within an evaluation."""
        tensors: dict[str, torch.Tensor] = dict(self.learned)
        for name, parameter in self.learned.items():
            for part, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{_PREFIX[self.setup.config.optimizer]}.{part}.{name}"] = value
        tensors["generator.order"] = self.order.get_state() if self.position.batch == 0 else self.order_then
        if self.setup.train.generator is not None:
            tensors["generator.augment"] = self.setup.train.generator.get_state()
        tensors |= {name: value for name, value in self.adapter.state().items() if name not in tensors}
        tensors |= self.adapter.running()
        if self.gradients:
            tensors |= self.gradients.state()
        if self.evolution:
            tensors |= self.evolution.state()
        tensors |= self.average.state()
        if self.setup.config.early_stopping or self.setup.config.keep_best:
            tensors |= self.best.state()
        copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        environment = environment_of(self.setup.device, self.setup.precision)
        return Checkpoint(self.setup.config, self.position, copies, environment)

    @torch.no_grad()
    def _restore(self, start: Checkpoint) -> None:
        config, other = self.setup.config, start.config
        for name in (
            "task", "backbone", "method", "method_settings", "protocol", "batch_size", "seed", "optimizer",
            "learned_drop_rates",
        ):  # fmt: skip
            wanted, written = getattr(config, name), getattr(other, name)
            if wanted != written and name == "method_settings":
                wanted, written = (", ".join(texts) or "the defaults" for texts in (wanted, written))
                raise CheckpointError(
                    f"the checkpoint does not fit: the settings of its method {other.method} are {written}, "
                    f"not {wanted}"
                )
            if wanted != written:
                raise CheckpointError(
                    f"the checkpoint does not fit: its {name.replace('_', ' ')} is {written!r}, not {wanted!r}"
                )
        if not 1 <= start.position.epoch <= config.epochs + 1 or start.position.batch > self.batches:
            raise CheckpointError(f"the checkpoint does not fit: it is in epoch {start.position.epoch}")
        same = self.experts is None or config.plan == other.plan
        try:
            self._take_generators(start, same)
            for name, parameter in self.learned.items():
                self._take(name, parameter, start, same)
            if same:
                for name, tensor in self.adapter.state().items():
                    if name not in self.learned and name in start.tensors:  # version 0.7 kept only what is trained
                        copied(tensor, start.tensors[name], name)
                self.adapter.require_valid()
                self.adapter.restore(start.tensors)
            if self.experts and self.gradients and same:
                self.experts.sampler.steps = start.position.sampled_steps
                self.gradients.restore(start.tensors)
            self.average.restore(start.tensors, same)
            if other.canonical() == config.canonical():  # a branch starts its own count
                self.best.restore(start.tensors)
            self._restore_search(start)
        except (KeyError, RuntimeError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit: {error}") from None
        self.position = start.position

    def _restore_search(self, start: Checkpoint) -> None:
        """Restore the results of a search; those of a search that this training makes later are dropped."""
        if self.search is None or self.evolution is None:
            return
        assert self.adapter.space is not None
        epoch = self.search.epoch(self.setup.config.epochs)
        if (start.position.epoch, start.position.batch) >= (epoch, self.batches):
            self.evolution.restore(start.tensors)
        is_over = start.position.epoch > epoch
        if is_over and self.evolution.next() is not None:
            raise ValueError(
                f"it is from after epoch {epoch} and holds no finished search, which this run makes then: branch from "
                "an earlier checkpoint or train more epochs"
            )
        self.adapter.space.settle(self.evolution.best.candidate if is_over else None)

    def _take_generators(self, start: Checkpoint, same: bool) -> None:
        self.order.set_state(start.tensors["generator.order"])
        if self.setup.train.generator is not None:
            self.setup.train.generator.set_state(start.tensors["generator.augment"])
        if self.experts and not same:
            rows = {target: row for row, target in enumerate(start.config.plan.targets)}
            for row, target in enumerate(self.experts.plan.targets):
                if target in rows:
                    self.experts.sampler.generators[row].set_state(start.tensors[f"generator.mask.{rows[target]}"])

    def _take(self, name: str, parameter: torch.nn.Parameter, start: Checkpoint, same: bool) -> None:
        """Restore one parameter and its moments; with another plan, only the experts that both plans have."""
        optimizer = self.setup.config.optimizer
        moments = {part: start.tensors.get(f"{_PREFIX[optimizer]}.{part}.{name}") for part in _MOMENTS[optimizer]}
        target, _, kind = name.rpartition(".")
        of_layer = kind == "drop_logit" and self.setup.config.learned_drop_rates == "layer"
        if same or name.startswith("head.") or (of_layer and name in start.tensors):
            copied(parameter, start.tensors[name], name)
        else:
            assert self.experts is not None  # every other trained parameter belongs to an expert
            layer, old = self.experts.layers[target], _columns(start.config.plan, target)
            shared = [column for column in layer.columns if column in old]
            if not shared or name not in start.tensors:
                return
            to, of = _cells(layer.columns, shared, layer.rank, kind), _cells(old, shared, layer.rank, kind)
            along = 1 if kind == "b" else 0
            value = start.tensors[name].to(parameter.device).index_select(along, of.to(parameter.device))
            parameter.index_copy_(along, to.to(parameter.device), value)
            if len(shared) < len(layer.columns):
                return  # moments of different ages in one tensor would mislead the optimizer
            moments = {
                part: value if value is None or value.ndim == 0 else value.index_select(along, of)
                for part, value in moments.items()
            }
        known = {part: value for part, value in moments.items() if value is not None}
        if len(known) == len(moments):
            self.optimizer.state[parameter] = {
                part: value.to(parameter.device, copy=True) for part, value in known.items()
            }


def optimizer_of(
    config: RunConfig, parameters: Mapping[str, torch.nn.Parameter], rate_factors: Mapping[str, float]
) -> torch.optim.Optimizer:
    """The optimizer of a run, new.

    Args:
        config: Of the run.
        parameters: All that are trained, by name.
        rate_factors: As `Adapter.rate_factors`; a group of parameters keeps its factor as "rate_factor".
    """
    values = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in parameters.items() if name not in rate_factors], "rate_factor": 1.0}
    ]
    for factor in sorted(set(rate_factors.values())):
        own = [parameters[name] for name, of_this in rate_factors.items() if of_this == factor]
        groups.append({"params": own, "rate_factor": factor, "weight_decay": 0.0})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, **values)
    return torch.optim.AdamW(groups, **values)


def _learned(setup: Setup) -> dict[str, torch.nn.Parameter]:
    """The trained parameters, by their names in an adapter file."""
    return {"head.weight": setup.head.weight, "head.bias": setup.head.bias} | setup.adapter.parameters()


def _columns(plan: MaskPlan, target: str) -> tuple[int, ...]:
    if target not in plan.targets:
        return ()
    return tuple(i for i, kept in enumerate(plan.keep[plan.targets.index(target)]) if kept)


def _cells(columns: tuple[int, ...], chosen: list[int], rank: int, kind: str) -> torch.Tensor:
    """Indices of the chosen canvas columns in a tensor of a layer that has these columns."""
    each = 1 if kind in ("coefficient", "drop_logit") else rank
    return torch.tensor([columns.index(column) * each + k for column in chosen for k in range(each)])


class _Clock:
    """Seconds of training, including earlier attempts."""

    def __init__(self, before: float) -> None:
        self.zero = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self.zero


class _GradientNorms:
    """Mean norm of each expert's gradient (a and b together) over the steps in which it was active."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts
        self._clear()

    def _clear(self) -> None:
        self.active: dict[str, torch.Tensor] = {}  # in the first pass of this step
        self.sum = {t: torch.zeros(len(e.columns), device=e.a.device) for t, e in self.experts.layers.items()}
        self.steps = {t: torch.zeros(len(e.columns), device=e.a.device) for t, e in self.experts.layers.items()}

    def begin(self) -> None:
        """After the first forward pass of a step."""
        self.active = {t: layer.active for t, layer in self.experts.layers.items() if layer.active is not None}

    def count(self) -> None:
        """After the backward pass of a step; an expert that is active in either of two passes is active."""
        for target, layer in self.experts.layers.items():
            assert layer.a.grad is not None
            assert layer.b.grad is not None
            assert layer.active is not None
            square = layer.a.grad.square().sum(1) + layer.b.grad.square().sum(0)
            self.sum[target] += square.reshape(-1, layer.rank).sum(1).sqrt()
            self.steps[target] += self.active[target] | layer.active

    def means(self, clear: bool = True) -> dict[str, torch.Tensor]:
        """Means since the sums were last cleared."""
        means = {t: (self.sum[t] / self.steps[t].clamp_min(1)).cpu() for t in self.sum}
        if clear:
            self._clear()
        return means

    def state(self) -> dict[str, torch.Tensor]:
        """The sums, as a checkpoint keeps them."""
        return {f"gradient.sum.{t}": value for t, value in self.sum.items()} | {
            f"gradient.steps.{t}": value for t, value in self.steps.items()
        }

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `state`."""
        for t in self.sum:
            for goal, name in ((self.sum[t], f"gradient.sum.{t}"), (self.steps[t], f"gradient.steps.{t}")):
                copied(goal, tensors[name], name)
