"""What-if: the time of toggling one expert, compared with the full pass that it replaces.

    python -m benchmarks whatif [--images 200] [--backbone vit_base_patch16_224.orig_in21k.random --device cuda]

One process, one network with 12 x 8 experts (or as many rows as the backbone has), all of them non-zero. In several
rounds the first expert of each layer is switched off and on again; times are medians. "full pass" is the whole network
on the same images with the same factors, in the same chunks; every answer is compared with it bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.networks import Network, network
from mlae_lab.analysis.importance import each_off, first_order, greedy
from mlae_lab.analysis.whatif import CHUNK, WhatIf
from mlae_lab.core import catalog
from mlae_lab.core.expert_state import Factors, all_on, existing, with_cells
from mlae_lab.core.plan import first_block
from mlae_lab.model.experts import factored
from mlae_lab.model.frozen_prefix import depth, split
from mlae_lab.training.setup import choose_device, choose_precision
from mlae_lab.training.throughput import seconds_of


@dataclass(frozen=True)
class Toggle:
    """One expert switched off. row: its layer; times in seconds; identical: whether both logits agree bit by bit."""

    row: int
    seconds: float
    full_pass: float
    identical: bool


class Case:
    """A what-if over random images.

    Args:
        net: its experts and its head are set to random values.
        images: how many.
        chunk: images in one pass.
    """

    def __init__(self, net: Network, images: int, chunk: int = CHUNK) -> None:
        self.net = net
        generator = torch.Generator().manual_seed(0)
        for layer in net.experts.layers.values():
            layer.b.data.copy_(torch.randn(layer.b.shape, generator=generator) * 0.02)
        head = net.model.get_classifier()
        head.weight.data.copy_(torch.randn(head.weight.shape, generator=generator))
        net.model.eval().requires_grad_(False)
        # each chunk is a separate tensor, so that both methods compute the same bits
        self.chunks = [chunk.clone() for chunk in net.images(images, generator).split(chunk)]
        labels = torch.randint(head.out_features, (images,), generator=generator).to(net.device)
        before, _ = split(net.model, first_block(net.experts.plan, depth(net.model)))
        with torch.no_grad(), net.autocast():
            inputs = torch.cat([before(chunk) for chunk in self.chunks])
        self.whatif = WhatIf(net.model, net.experts, inputs, labels, net.autocast, chunk)
        self.on = all_on(self.whatif.plan)

    @torch.no_grad()
    def full_pass(self, factors: Factors) -> torch.Tensor:
        """Logits of the whole network, nothing cached."""
        with factored(self.whatif.tensors(factors)), self.net.autocast():
            return torch.cat([self.net.model(chunk).float() for chunk in self.chunks])

    def first_answer(self) -> float:
        """Seconds of the first question, which fills the cache."""
        seconds = self._seconds(lambda: self.whatif.outcome(self.on))
        self.full_pass(self.on)
        return seconds

    def reset(self) -> float:
        """Seconds to return to all experts on."""
        return self._seconds(lambda: self.whatif.outcome(self.on))

    def toggles(self, rounds: int) -> list[Toggle]:
        """Switch off the first expert of each row, in several rounds."""
        rows = range(self.whatif.plan.rows)
        return [self._toggle(row) for _ in range(rounds) for row in rows]

    def _toggle(self, row: int) -> Toggle:
        cells = existing(self.whatif.plan)
        off = with_cells(self.on, [next(cell for cell in cells if cell[0] == row)], 0.0)
        self.whatif.outcome(with_cells(self.on, cells, 0.5))  # makes the cache of the last state useless
        seconds = self._seconds(lambda: self.whatif.outcome(off))
        logits: list[torch.Tensor] = []
        full_pass = self._seconds(lambda: logits.append(self.full_pass(off)))
        return Toggle(row, seconds, full_pass, torch.equal(self.whatif.outcome(off).logits, logits[0]))

    def _seconds(self, work: Callable[[], object]) -> float:
        return seconds_of(work, self.net.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default=catalog.DEFAULT_BACKBONE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=CHUNK)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--importance", action="store_true", help="also leave-one-out and the first step of each greedy curve"
    )
    options = parser.parse_args()
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    case = Case(network(options.backbone, 10, device, precision), options.images, options.chunk)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {device} ({name}), {precision}, {case.net.entry.name}, {options.images} images")
    print(f"first answer (fills the cache)  {1000 * case.first_answer():8.1f} ms")
    toggles = case.toggles(options.rounds)
    for toggle in toggles:
        if not toggle.identical:
            raise SystemExit(f"layer {toggle.row + 1}: the answer differs from the full pass")
    rows = case.whatif.plan.rows
    full_pass = statistics.median(toggle.full_pass for toggle in toggles)
    print(f"full pass                       {1000 * full_pass:8.1f} ms")
    _print_toggles("in the last third of layers", toggles, range(rows - rows // 3, rows), full_pass)
    _print_toggles("in any layer", toggles, range(rows), full_pass)
    print(f"reset                           {1000 * case.reset():8.1f} ms")
    if options.importance:
        _importance(case.whatif, device)


def _print_toggles(where: str, toggles: Iterable[Toggle], rows: range, full_pass: float) -> None:
    seconds = [toggle.seconds for toggle in toggles if toggle.row in rows]
    median = statistics.median(seconds)
    print(
        f"toggle {where:<28} {1000 * median:5.1f} ms median, {1000 * max(seconds):7.1f} ms at most; "
        f"full pass / toggle {full_pass / median:.1f}"
    )


class _FirstStepDone(Exception):
    """Ends a greedy curve after its first step."""


def _importance(whatif: WhatIf, device: torch.device) -> None:
    cells = existing(whatif.plan)

    def first_greedy_step(removal: bool) -> None:
        def on_progress(done: int, total: int) -> None:
            if done == len(cells):
                raise _FirstStepDone

        with suppress(_FirstStepDone):
            greedy(whatif, removal, on_progress)

    for name, work in (
        (f"leave one out, {len(cells)} experts", lambda: each_off(whatif, [[cell] for cell in cells])),
        ("first-order estimate", lambda: first_order(whatif)),
        ("greedy removal, first step", lambda: first_greedy_step(True)),
        ("greedy addition, first step", lambda: first_greedy_step(False)),
    ):
        print(f"{name:<32}{1000 * seconds_of(work, device):8.0f} ms")


if __name__ == "__main__":
    main()
