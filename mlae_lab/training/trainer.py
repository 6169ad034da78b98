"""How a model learns: `Training` runs a setup from a config or a checkpoint and yields events.

Knows no files, no store and no screen: whoever iterates decides what becomes of the events, and may take a
`Checkpoint` between any two of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from mlae_lab.analysis.similarity import similarity_stats
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import Evaluation, Event, Predictions, Resumed, SampleImages, Started, TrainStep, packed
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.experts import stream
from mlae_lab.model.inject import Experts
from mlae_lab.training.checkpoint import Checkpoint, CheckpointError, TrainPosition
from mlae_lab.training.evaluation import Diverged, OutOfTime, autocast, evaluate, expert_stats, train_mode
from mlae_lab.training.sample_images import chosen as sample_indices
from mlae_lab.training.sample_images import encoded_image
from mlae_lab.training.schedule import cosine
from mlae_lab.training.setup import Setup
from mlae_lab.training.statistics import STATISTICS, Statistic
from mlae_lab.training.statistics import measured as measured_statistics

MEASURE_SECONDS = 6.0  # a training that was asked to stop may still measure itself for so long


def fit(setup: Setup, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train from the first step to the last; see `Training.run`."""
    return Training(setup).run(should_stop)


class Training:
    """One training under way.

    statistics: what else is recorded with every evaluation, by default `statistics.STATISTICS`.
    start: a checkpoint to go on from. One of a run with the same plan and data goes on bit for bit (on a CPU); of one
    with another plan the cells that both plans have are taken over with their moments and mask generators, the other
    cells start as they would in a new run, and a layer that gains one starts its moments anew.
    Raises CheckpointError for a checkpoint that does not fit.
    """

    def __init__(
        self, setup: Setup, start: Checkpoint | None = None, statistics: Sequence[Statistic] | None = None
    ) -> None:
        config = setup.config
        self.statistics = STATISTICS if statistics is None else statistics
        self.setup, self.experts = setup, setup.experts
        self.learned = _learned(setup)
        self.optimizer = torch.optim.AdamW(
            self.learned.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.order = stream(config.seed, "order")
        self.gradients = _GradientNorms(self.experts) if self.experts else None
        self.batches = steps_per_epoch(len(setup.train.labels), config.batch_size)
        self.position = TrainPosition(epoch=1, batch=0, step=0, seconds=0.0, sampled_steps=0)
        self.order_then = self.order.get_state()  # before this epoch's permutation was drawn
        self.sample_images = sample_indices(setup.evaluation.part.labels.tolist())
        self.measured_in = 0.0  # seconds that the last evaluation took
        self.start = start
        if start is not None:
            self._restore(start)

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Train and yield what happens, in order: Started, SampleImages, Resumed where it goes on from a checkpoint, then
        TrainStep after every step and, after every evaluated epoch, ExpertStats, SimilarityStats, Predictions, Statistics,
        Evaluation.

        should_stop: asked after every step and between the pieces of an evaluation; True ends the run, with an
        evaluation of what is there if that takes no more than MEASURE_SECONDS.
        Raises Diverged if the loss or an evaluation is not finite.
        """
        # ------------------------------------------------------------ setup
        setup, config, experts = self.setup, self.setup.config, self.experts
        labels, device = setup.train.labels, setup.device
        total = self.batches * config.epochs
        yield self._started(total)
        yield self._watched()
        if self.start is not None:
            here = self.position
            yield Resumed(here.epoch - (here.batch == 0 and here.epoch > 1), here.step, here.seconds)
        # ------------------------------------------------------------ loop
        clock = _Clock(self.position.seconds)
        asked: list[float] = []

        def may_go_on() -> bool:
            if not asked and should_stop():
                asked.append(time.monotonic())
            return not asked or time.monotonic() - asked[0] < MEASURE_SECONDS

        stop = False
        while self.position.epoch <= config.epochs:
            epoch, done = self.position.epoch, self.position.batch
            self.order_then = self.order.get_state()
            shuffled = torch.randperm(len(labels), generator=self.order).to(device)
            train_mode(experts, True)
            for chosen in shuffled.split(config.batch_size)[done:]:
                step = self.position.step
                progress = step / total
                if config.max_seconds is not None:
                    progress = max(progress, clock.seconds() / config.max_seconds)
                rate = config.learning_rate * cosine(progress, config.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                mask = experts.sample() > 0 if experts else None
                with autocast(setup):
                    logits = setup.behind(setup.train.take(chosen))
                    loss = F.cross_entropy(logits.float(), labels[chosen])
                loss.backward()
                if self.gradients:
                    self.gradients.count()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
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
                may_go_on()
                stop = out_of_time or bool(asked)
                if stop:
                    break
            # -------------------------------------------------------- evaluation
            due = self.position.batch == self.batches and epoch in config.evaluated_epochs
            if due or (stop and self._is_quick(bool(asked))):
                try:
                    found = self._evaluation(may_go_on, keep_sums=not due)
                except OutOfTime:
                    return  # the place is the one before this evaluation: a resumed run makes it then
                if due:
                    self.position = self._at(epoch + 1, 0, self.position.step, clock)
                yield from (*found, self._measured(epoch, clock))
            elif self.position.batch == self.batches:
                self.position = self._at(epoch + 1, 0, self.position.step, clock)
            if stop or asked:
                return

    @property
    def is_through(self) -> bool:
        """Whether the last epoch is behind it."""
        return self.position.epoch > self.setup.config.epochs

    # ---------------------------------------------------------------- pieces of `run`

    def _started(self, total: int) -> Started:
        setup, learned = self.setup, sum(p.numel() for p in self.learned.values())
        return Started(
            parameters=sum(p.numel() for p in self.experts.parameters()) if self.experts else 0,
            head_parameters=sum(p.numel() for p in setup.head.parameters()),
            backbone_parameters=sum(p.numel() for p in setup.model.parameters()) - learned,
            train_images=len(setup.train.labels),
            evaluation_images=len(setup.evaluation),
            steps=total,
            device=str(setup.device),
            precision=str(setup.precision).removeprefix("torch."),
            seconds=setup.seconds,
            notes=setup.notes,
            weights=setup.weights,
        )

    def _is_quick(self, asked: bool) -> bool:
        """Whether an evaluation that was not due may be made before leaving."""
        return not asked or self.measured_in < MEASURE_SECONDS

    def _evaluation(self, may_go_on: Callable[[], bool], keep_sums: bool) -> list[Event]:
        """Measure; the events that go before the Evaluation itself. keep_sums: the gradients are summed on."""
        began, position = time.monotonic(), self.position
        try:
            found = self.measured = evaluate(self.setup, may_go_on, self.sample_images)
        except Diverged as error:
            raise Diverged(f"diverged: after step {position.step} (epoch {position.epoch}) {error}") from None
        self.measured_in = time.monotonic() - began
        names = tuple(self.setup.classes[predicted] for predicted in found.predicted)
        events: list[Event] = [Predictions(position.epoch, position.step, names, found.confidence)]
        if statistics := measured_statistics(self.statistics, self.setup, position.epoch, position.step):
            events.append(statistics)
        if self.experts is None or self.gradients is None:
            return events
        gradient = self.gradients.means(clear=not keep_sums)
        return [
            expert_stats(self.experts, position.epoch, found.contribution, gradient),
            similarity_stats(self.experts, position.epoch),
            *events,
        ]

    def _measured(self, epoch: int, clock: _Clock) -> Evaluation:
        found = self.measured
        return Evaluation(
            epoch, self.position.step, self.setup.config.protocol, found.accuracy, found.loss, clock.seconds()
        )

    def _watched(self) -> SampleImages:
        part, classes = self.setup.evaluation.part, self.setup.classes
        return SampleImages(
            images=tuple(encoded_image(part.images[at]) for at in self.sample_images),
            labels=tuple(classes[part.labels[at]] for at in self.sample_images),
        )

    def _at(self, epoch: int, batch: int, step: int, clock: _Clock) -> TrainPosition:
        return TrainPosition(epoch, batch, step, clock.seconds(), self.experts.sampler.steps if self.experts else 0)

    # ---------------------------------------------------------------- checkpoints

    def checkpoint(self) -> Checkpoint:
        """Everything that decides how this goes on from here. To be taken after an event, of an evaluation its last."""
        tensors: dict[str, torch.Tensor] = dict(self.learned)
        for name, parameter in self.learned.items():
            for part, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{part}.{name}"] = value
        tensors["generator.order"] = self.order.get_state() if self.position.batch == 0 else self.order_then
        if self.setup.train.generator is not None:
            tensors["generator.augment"] = self.setup.train.generator.get_state()
        if self.experts and self.gradients:
            for row, generator in enumerate(self.experts.sampler.generators):
                tensors[f"generator.mask.{row}"] = generator.get_state()
            tensors["active_steps"] = self.experts.sampler.active_steps
            tensors |= self.gradients.state()
        copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        return Checkpoint(self.setup.config, self.position, copies)

    @torch.no_grad()
    def _restore(self, start: Checkpoint) -> None:
        mine, its = self.setup.config, start.config
        for name in ("task", "backbone", "method", "protocol", "batch_size", "seed"):
            if getattr(mine, name) != getattr(its, name):
                raise CheckpointError(
                    f"the checkpoint does not fit: its {name.replace('_', ' ')} is {getattr(its, name)!r}, "
                    f"not {getattr(mine, name)!r}"
                )
        if not 1 <= start.position.epoch <= mine.epochs + 1 or start.position.batch > self.batches:
            raise CheckpointError(f"the checkpoint does not fit: it stands in epoch {start.position.epoch}")
        same = self.experts is None or mine.plan == its.plan
        try:
            self._take_generators(start, same)
            for name, parameter in self.learned.items():
                self._take(name, parameter, start, same)
            if self.experts and self.gradients and same:
                _copy(self.experts.sampler.active_steps, start.tensors["active_steps"], "active_steps")
                self.experts.sampler.steps = start.position.sampled_steps
                self.gradients.restore(start.tensors)
        except (KeyError, RuntimeError, IndexError, TypeError) as error:
            raise CheckpointError(f"the checkpoint does not fit: {error}") from None
        self.position = start.position

    def _take_generators(self, start: Checkpoint, same: bool) -> None:
        self.order.set_state(start.tensors["generator.order"])
        if self.setup.train.generator is not None:
            self.setup.train.generator.set_state(start.tensors["generator.augment"])
        if self.experts:
            rows = {target: row for row, target in enumerate(start.config.plan.targets)}
            for row, target in enumerate(self.experts.plan.targets):
                if target in rows:
                    self.experts.sampler.generators[row].set_state(start.tensors[f"generator.mask.{rows[target]}"])
                elif same:
                    raise KeyError(f"no generator for {target}")

    def _take(self, name: str, parameter: torch.nn.Parameter, start: Checkpoint, same: bool) -> None:
        """One parameter and its moments; of another plan only the cells that it had."""
        moments = {part: start.tensors.get(f"adam.{part}.{name}") for part in ("step", "exp_avg", "exp_avg_sq")}
        if same or name.startswith("head."):
            _copy(parameter, start.tensors[name], name)
        else:
            assert self.experts is not None  # everything else that learns is an expert's
            target, _, kind = name.rpartition(".")
            layer, old = self.experts.layers[target], _columns(start.config.plan, target)
            both = [column for column in layer.columns if column in old]
            if not both or name not in start.tensors:
                return
            to, of = _cells(layer.columns, both, layer.rank, kind), _cells(old, both, layer.rank, kind)
            along = 1 if kind == "b" else 0
            value = start.tensors[name].to(parameter.device).index_select(along, of.to(parameter.device))
            parameter.index_copy_(along, to.to(parameter.device), value)
            if len(both) < len(layer.columns):
                return  # a cell without a past: moments of different ages in one tensor would mislead the optimizer
            moments = {
                part: value if value is None or value.ndim == 0 else value.index_select(along, of)
                for part, value in moments.items()
            }
        known = {part: value for part, value in moments.items() if value is not None}
        if len(known) == len(moments):
            self.optimizer.state[parameter] = {
                part: value.to(parameter.device, copy=True) for part, value in known.items()
            }


def _learned(setup: Setup) -> dict[str, torch.nn.Parameter]:
    """What learns, by the names of an adapter file."""
    found = {"head.weight": setup.head.weight, "head.bias": setup.head.bias}
    for target, layer in (setup.experts.layers if setup.experts else {}).items():
        found |= {f"{target}.a": layer.a, f"{target}.b": layer.b}
        if layer.coefficient.requires_grad:
            found[f"{target}.coefficient"] = layer.coefficient
    return found


def _columns(plan: MaskPlan, target: str) -> tuple[int, ...]:
    if target not in plan.targets:
        return ()
    return tuple(i for i, kept in enumerate(plan.keep[plan.targets.index(target)]) if kept)


def _cells(columns: tuple[int, ...], chosen: list[int], rank: int, kind: str) -> torch.Tensor:
    """Where the chosen canvas columns lie in a tensor of a layer that has these columns."""
    each = 1 if kind == "coefficient" else rank
    return torch.tensor([columns.index(column) * each + k for column in chosen for k in range(each)])


def _copy(goal: torch.Tensor, value: torch.Tensor, name: str) -> None:
    if goal.shape != value.shape:
        raise RuntimeError(f"{name} is {tuple(value.shape)}, not {tuple(goal.shape)}")
    goal.copy_(value)


class _Clock:
    """Seconds of training, those of earlier attempts included."""

    def __init__(self, before: float) -> None:
        self.zero = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self.zero


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
            assert layer.a.grad is not None
            assert layer.b.grad is not None
            assert layer.mask is not None
            square = layer.a.grad.square().sum(1) + layer.b.grad.square().sum(0)
            self.sum[target] += square.reshape(-1, layer.rank).sum(1).sqrt()
            self.steps[target] += layer.mask > 0

    def means(self, clear: bool = True) -> dict[str, torch.Tensor]:
        """Means since the sums were cleared last."""
        found = {t: (self.sum[t] / self.steps[t].clamp_min(1)).cpu() for t in self.sum}
        if clear:
            self._clear()
        return found

    def state(self) -> dict[str, torch.Tensor]:
        """The sums, as a checkpoint keeps them."""
        return {f"gradient.sum.{t}": value for t, value in self.sum.items()} | {
            f"gradient.steps.{t}": value for t, value in self.steps.items()
        }

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `state`."""
        for t in self.sum:
            for goal, name in ((self.sum[t], f"gradient.sum.{t}"), (self.steps[t], f"gradient.steps.{t}")):
                _copy(goal, tensors[name], name)
