"""What a trained network says when some of its experts are off or count more or less.

    y = (W + Σ_i f_i λ_i b_i a_iᵀ) x + bias        f_i: the factor of expert i, 1 as trained, 0 off

(paper, equations 3 to 5, with a mask that a person sets after training). Only what lies behind the change is
computed again: what enters each block is kept, for the network as trained and for the last state that was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.expert_state import Factors, all_on
from mlae_lab.model.experts import MLAELinear, factored
from mlae_lab.model.frozen_prefix import depth, first_block, pieces
from mlae_lab.model.inject import Experts

CHUNK = 64
KEPT = 3 * 2**30  # bytes of what enters blocks; 200 images of ViT-B/16 take 2.8 GB for both states


@dataclass(frozen=True)
class Outcome:
    """What a network said about N images. logits: (N, classes) float32; labels: (N,); loss_sum: Σ cross-entropy."""

    logits: torch.Tensor
    labels: torch.Tensor
    loss_sum: float

    @cached_property
    def predicted(self) -> torch.Tensor:
        """Class numbers, (N,)."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Probability of the predicted class, (N,)."""
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
        """Top-1 in percent for each class; None for one that has no image here."""
        classes = self.logits.shape[1]
        total = torch.bincount(self.labels, minlength=classes).tolist()
        right = torch.bincount(self.labels[self.predicted == self.labels], minlength=classes).tolist()
        return [100 * r / t if t else None for r, t in zip(right, total, strict=False)]


_Entering = list[list[torch.Tensor] | None]  # by piece, what enters it for each chunk; None where it is not kept


@dataclass
class _Pass:
    """A state that was asked."""

    factors: Factors
    entering: _Entering
    outcome: Outcome | None = field(default=None)


class WhatIf:
    """Answers states of one network on N images.

    model, experts: in eval mode. inputs: what enters the first adapted block (`prefix.first_block`), N images;
    for a network that cannot be cut, images or whatever `prefix.split` hands on. labels: (N,).
    compute: opened around every forward pass, such as an autocast. chunk: images in one pass.
    kept: most bytes that are kept besides the inputs; with less room fewer blocks are kept, with none each answer
    is a full pass. The answer is the same bit for bit whatever is kept.

    Nothing in the model is changed, and states of several threads do not mix: one is answered after the other.
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
    ) -> None:
        self.model, self.experts, self.plan = model, experts, experts.plan
        self.labels, self.compute = labels, compute
        self.inputs = [
            part.clone() for part in inputs.split(chunk)
        ]  # each begins on its own: products are the same bits
        self._truth = labels.split(chunk)
        start = first_block(self.plan, depth(model))
        self.pieces = pieces(model, start)
        self.piece_of = {row: self._piece(target, start) for row, target in enumerate(self.plan.targets)}
        self._kept, self._places = kept, None
        self._lock = threading.RLock()
        self._trained: _Pass | None = None
        self._last: _Pass | None = None

    def _piece(self, target: str, start: int) -> int:
        words = target.split(".")
        if len(self.pieces) == 1:
            return 0
        return int(words[1]) - start if words[0] == "blocks" else len(self.pieces) - 1

    # ------------------------------------------------------------ asking

    @property
    def trained(self) -> Outcome:
        """The network as it was trained: all experts on."""
        return self.ask(all_on(self.plan))

    def ask(self, factors: Factors) -> Outcome:
        """The answer to a state. factors: as `core.expert_state` makes them, for this plan."""
        with self._lock:
            if self._trained is None:
                self._trained = self._run(all_on(self.plan), [self.inputs], keep=True)
            for known in (self._last, self._trained):
                if known is not None and known.factors == factors:
                    return known.outcome
            source = self._nearest(factors)
            self._last = None  # what the new state does not share goes before the new is made
            self._last = self._run(factors, source, keep=True)
            return self._last.outcome

    def try_out(self, factors: Factors, most: float = float("inf")) -> Outcome | None:
        """Like `ask`, but the last state stays the one that is kept: for many neighbours of one state.

        most: a sum of losses; None is returned as soon as the images seen so far lose more. Exact, since no
        image has a loss below 0.
        """
        with self._lock:
            if self._trained is None:
                self._trained = self._run(all_on(self.plan), [self.inputs], keep=True)
            return self._run(factors, self._nearest(factors), keep=False, most=most).outcome

    # ------------------------------------------------------------ the pass

    def tensors(self, factors: Factors) -> dict[MLAELinear, torch.Tensor]:
        """The factors of each layer that has experts, (E,), on its device."""
        return {
            self.experts.layers[target]: torch.tensor(
                [value for value in row if value is not None], device=self.experts.layers[target].a.device
            )
            for target, row in zip(self.plan.targets, factors, strict=False)
            if target in self.experts.layers
        }

    def _first_change(self, one: Factors, other: Factors) -> int:
        """The first piece that has different factors; the number of pieces where none has."""
        changed = [self.piece_of[row] for row, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
        return min(changed, default=len(self.pieces))

    def _nearest(self, factors: Factors) -> _Entering:
        """What is known to enter the first pieces, up to the last one that is kept before the change."""
        best: _Entering = [self.inputs]
        for known in (self._trained, self._last):
            if known is not None:
                usable = min(self._first_change(known.factors, factors), len(self.pieces) - 1)
                place = max(i for i in range(usable + 1) if known.entering[i] is not None)
                best = max(best, known.entering[: place + 1], key=len)
        return best

    @torch.no_grad()
    def _run(self, factors: Factors, source: _Entering, keep: bool, most: float = float("inf")) -> _Pass:
        place = len(source) - 1
        entering: _Entering = source + [None] * (len(self.pieces) - len(source))
        chunks, loss = entering[place], 0.0
        logits = []
        with factored(self.tensors(factors)):
            for number, (x, truth) in enumerate(zip(chunks, self._truth, strict=False)):
                with self.compute():
                    for i in range(place, len(self.pieces)):
                        if i > place and keep and self._is_kept(i, x):
                            if number == 0:
                                entering[i] = []
                            entering[i].append(x)
                        x = self.pieces[i](x)
                logits.append(x.float())
                loss += F.cross_entropy(logits[-1].double(), truth, reduction="sum").item()
                if loss > most:
                    return _Pass(factors, entering)
        return _Pass(factors, entering, Outcome(torch.cat(logits), self.labels, loss))

    def _is_kept(self, piece: int, x: torch.Tensor) -> bool:
        """Whether what enters this piece is kept. Decided once: all of them, every second, every third ..."""
        if self._places is None:
            one = x.numel() * x.element_size() * len(self.labels) // len(x)
            inner = range(1, len(self.pieces))
            self._places = set()
            for stride in inner:
                chosen = inner[stride - 1 :: stride]
                if 2 * len(chosen) * one <= self._kept:
                    self._places = set(chosen)
                    break
        return piece in self._places
