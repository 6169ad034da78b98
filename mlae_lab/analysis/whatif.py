"""Predictions of a trained network with some of its experts off or rescaled.

    y = (W + Σ_i f_i λ_i b_i a_iᵀ) x + bias        f_i: the factor of expert i, 1 as trained, 0 off

(paper, equations 3 to 5, with a mask that is set after training). Only the blocks after the first change are computed
again: the input of each block is kept, for the network as trained and for the last state that was evaluated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.expert_state import Factors, all_on
from mlae_lab.core.plan import first_block
from mlae_lab.model.experts import MLAELinear, factored
from mlae_lab.model.frozen_prefix import depth, pieces
from mlae_lab.model.inject import Experts

CHUNK = 64
GRADIENT_CHUNK = 16  # images in one backward pass, which holds all activations of ViT-B/16: 2 GB
KEPT = 3 * 2**30  # bytes of block inputs; 200 images of ViT-B/16 take 2.8 GB for both states


@dataclass(frozen=True)
class Outcome:
    """Predictions for N images: logits (N, classes) float32, labels (N,), and the sum of the cross-entropies."""

    logits: torch.Tensor
    labels: torch.Tensor
    loss_sum: float

    @cached_property
    def predicted(self) -> torch.Tensor:
        """Predicted class numbers, (N,)."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Probability of each predicted class, (N,)."""
        return self.logits.softmax(1).amax(1)

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return 100 * int((self.predicted == self.labels).sum()) / len(self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return self.loss_sum / len(self.labels)

    def class_accuracy(self) -> list[float | None]:
        """Top-1 in percent for each class; None for a class without images."""
        classes = self.logits.shape[1]
        total = torch.bincount(self.labels, minlength=classes).tolist()
        correct = torch.bincount(self.labels[self.predicted == self.labels], minlength=classes).tolist()
        return [100 * c / t if t else None for c, t in zip(correct, total, strict=True)]


_Entering = list[list[torch.Tensor] | None]  # by piece, its input for each chunk; None where it is not kept


@dataclass
class _Pass:
    """A state that was evaluated. outcome: None for an evaluation that was stopped early."""

    factors: Factors
    entering: _Entering
    outcome: Outcome | None = None


class WhatIf:
    """Evaluates states of one network on N images.

    The model is not changed. States of several threads do not mix: they are evaluated one after the other.

    Args:
        model: in eval mode.
        experts: of the model, in eval mode.
        inputs: of the first adapted block (`core.plan.first_block`), N images; for a network that cannot be split,
            images or the result of the first part of `frozen_prefix.split`.
        labels: (N,).
        compute: a context for every forward pass, such as an autocast.
        chunk: images in one pass.
        kept: maximum bytes that are kept besides the inputs; with less memory fewer block inputs are kept, with none
            each evaluation is a full pass. The result is the same bit for bit.
        gradient_chunk: images in one backward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        experts: Experts,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        compute: Callable[[], AbstractContextManager] = nullcontext,
        chunk: int = CHUNK,
        kept: int = KEPT,
        gradient_chunk: int = GRADIENT_CHUNK,
    ) -> None:
        self.model, self.experts, self.plan = model, experts, experts.plan
        self.labels, self.compute, self.gradient_chunk = labels, compute, gradient_chunk
        self.inputs = [part.clone() for part in inputs.split(chunk)]  # own memory: aligned alike, so equal bit for bit
        self._truth = labels.split(chunk)
        start = first_block(self.plan, depth(model))
        self.pieces = pieces(model, start)
        self.piece_of = {row: self._piece(target, start) for row, target in enumerate(self.plan.targets)}
        self._kept = kept
        self._kept_pieces: set[int] | None = None
        self._lock = threading.RLock()
        self._trained: _Pass | None = None
        self._last: _Pass | None = None

    def _piece(self, target: str, start: int) -> int:
        """Number of the piece that holds a target."""
        names = target.split(".")
        if len(self.pieces) == 1:
            return 0
        return int(names[1]) - start if names[0] == "blocks" else len(self.pieces) - 1

    # ------------------------------------------------------------ evaluating states

    @property
    def trained(self) -> Outcome:
        """The network as trained: all experts on."""
        return self.outcome(all_on(self.plan))

    def outcome(self, factors: Factors) -> Outcome:
        """The outcome of a state, whose block inputs are kept for the next one.

        Args:
            factors: as `core.expert_state` makes them, for this plan.
        """
        with self._lock:
            trained = self._keep_trained()
            for known in (self._last, trained):
                if known is not None and known.factors == factors:
                    return _complete(known)
            source = self._nearest(factors)
            self._last = None  # frees what the new state does not share before the new state is computed
            self._last = self._run(factors, source, keep=True)
            return _complete(self._last)

    def evaluate(self, factors: Factors) -> Outcome:
        """Like `outcome`, but the state that is kept stays: for many neighbours of one state."""
        return _complete(self._try(factors))

    def try_out(self, factors: Factors, most: float = float("inf")) -> Outcome | None:
        """Like `evaluate`, but stops early with None once the sum of losses exceeds `most`.

        Exact, since no image has a loss below 0.
        """
        return self._try(factors, most).outcome

    # ------------------------------------------------------------ the forward pass

    def _keep_trained(self) -> _Pass:
        if self._trained is None:
            self._trained = self._run(all_on(self.plan), [self.inputs], keep=True)
        return self._trained

    def _try(self, factors: Factors, most: float = float("inf")) -> _Pass:
        with self._lock:
            self._keep_trained()
            return self._run(factors, self._nearest(factors), keep=False, most=most)

    def tensors(self, factors: Factors) -> dict[MLAELinear, torch.Tensor]:
        """The factors of each layer that has experts, (E,), on its device."""
        return {
            self.experts.layers[target]: torch.tensor(
                [value for value in row if value is not None], device=self.experts.layers[target].a.device
            )
            for target, row in zip(self.plan.targets, factors, strict=True)
            if target in self.experts.layers
        }

    def _first_change(self, factors_a: Factors, factors_b: Factors) -> int:
        """The first piece with different factors; the number of pieces if there is none."""
        changed = [self.piece_of[row] for row, (a, b) in enumerate(zip(factors_a, factors_b, strict=True)) if a != b]
        return min(changed, default=len(self.pieces))

    def _nearest(self, factors: Factors) -> _Entering:
        """Kept inputs of the first pieces, up to the last one that is kept before the change."""
        best: _Entering = [self.inputs]
        for known in (self._trained, self._last):
            if known is not None:
                usable = min(self._first_change(known.factors, factors), len(self.pieces) - 1)
                last = max(i for i in range(usable + 1) if known.entering[i] is not None)
                best = max(best, known.entering[: last + 1], key=len)
        return best

    @torch.no_grad()
    def _run(self, factors: Factors, source: _Entering, keep: bool, most: float = float("inf")) -> _Pass:
        """Evaluate a state from the last input in `source` on. most: as in `try_out`."""
        first = len(source) - 1
        entering: _Entering = [*source, *([None] * (len(self.pieces) - len(source)))]
        chunks, loss = source[first], 0.0
        assert chunks is not None
        logits = []
        with factored(self.tensors(factors)):
            for x, truth in zip(chunks, self._truth, strict=True):
                with self.compute():
                    for i in range(first, len(self.pieces)):
                        if i > first and keep and self._is_kept(i, x):
                            inputs = entering[i] = entering[i] or []
                            inputs.append(x)
                        x = self.pieces[i](x)
                logits.append(x.float())
                loss += F.cross_entropy(logits[-1].double(), truth, reduction="sum").item()
                if loss > most:
                    return _Pass(factors, entering)
        return _Pass(factors, entering, Outcome(torch.cat(logits), self.labels, loss))

    def _is_kept(self, piece: int, x: torch.Tensor) -> bool:
        """Whether the input of this piece is kept. Decided once: of all pieces, of every second, every third ..."""
        if self._kept_pieces is None:
            size = x.numel() * x.element_size() * len(self.labels) // len(x)
            inner = range(1, len(self.pieces))
            self._kept_pieces = set()
            for stride in inner:
                selected = inner[stride - 1 :: stride]
                if 2 * len(selected) * size <= self._kept:
                    self._kept_pieces = set(selected)
                    break
        return piece in self._kept_pieces


def _complete(evaluated: _Pass) -> Outcome:
    """The outcome of an evaluation that had no limit."""
    assert evaluated.outcome is not None
    return evaluated.outcome
