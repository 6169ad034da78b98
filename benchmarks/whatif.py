"""What if: how long a toggle of one expert takes, against the full pass that it replaces.

    python benchmarks/whatif.py [--images 200] [--backbone vit_base_patch16_224.orig_in21k.random --device cuda]

One process, one network with 12 x 8 experts (or as many rows as the backbone has), all of them non-zero. Each layer in
turn has its first expert switched off and on again, several rounds, medians. "full pass" is the whole network on the
same images with the same factors, in the same chunks; every answer is compared with it bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contextlib

from mlae_lab.analysis.importance import each_off, first_order, greedy
from mlae_lab.analysis.whatif import CHUNK, WhatIf
from mlae_lab.core import catalog
from mlae_lab.core.expert_state import Factors, all_on, existing, with_cells
from mlae_lab.core.patterns import fitted, uniform
from mlae_lab.model.backbones import build
from mlae_lab.model.experts import factored
from mlae_lab.model.frozen_prefix import depth, first_block, split
from mlae_lab.model.inject import inject
from mlae_lab.training.setup import choose_device, choose_precision


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--backbone", default=catalog.DEFAULT_BACKBONE)
    ask.add_argument("--device", default="auto")
    ask.add_argument("--precision", default="auto")
    ask.add_argument("--images", type=int, default=200)
    ask.add_argument("--chunk", type=int, default=CHUNK)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--matters", action="store_true", help="also leave one out, and one step of each greedy curve")
    chosen = ask.parse_args()
    device = choose_device(chosen.device)
    precision = choose_precision(chosen.precision, device)
    entry = catalog.backbone(chosen.backbone)
    model = build(chosen.backbone, 10, 0)
    experts = inject(model, fitted(uniform(0.5), entry.default_targets), 0)
    draw = torch.Generator().manual_seed(0)
    for layer in experts.layers.values():
        layer.b.data.copy_(torch.randn(layer.b.shape, generator=draw) * 0.02)
    head = model.get_classifier()
    head.weight.data.copy_(torch.randn(head.weight.shape, generator=draw))
    model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
    images = torch.randn(chosen.images, 3, entry.image, entry.image, generator=draw).to(device)
    labels = torch.randint(10, (chosen.images,), generator=draw).to(device)
    parts = [part.clone() for part in images.split(chosen.chunk)]

    def compute() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16)

    before, _ = split(model, first_block(experts.plan, depth(model)))
    with torch.no_grad(), compute():
        inputs = torch.cat([before(part) for part in parts])
    lab = WhatIf(model, experts, inputs, labels, compute, chosen.chunk)

    @torch.no_grad()
    def full(factors: Factors) -> torch.Tensor:
        with factored(lab.tensors(factors)), compute():
            return torch.cat([model(part).float() for part in parts])

    def timed(act: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began)

    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {device} ({name}), {precision}, {entry.name}, {chosen.images} images")
    on = all_on(lab.plan)
    print(f"first answer (fills the cache)  {timed(lambda: lab.ask(on)):8.1f} ms")
    full(on)
    times: list[tuple[int, float, float]] = []
    for _number in range(chosen.rounds):
        for row in range(lab.plan.rows):
            cell = next(cell for cell in existing(lab.plan) if cell[0] == row)
            off = with_cells(on, [cell], 0.0)
            lab.ask(with_cells(on, existing(lab.plan), 0.5))  # whatever was asked last is of no use
            mine = timed(lambda off=off: lab.ask(off))
            plain: list[torch.Tensor] = []
            slow = timed(lambda off=off: plain.append(full(off)))
            if not torch.equal(lab.ask(off).logits, plain[0]):
                raise SystemExit(f"layer {row + 1}: the answer is not the full pass's")
            times.append((row, mine, slow))
    rows = lab.plan.rows
    slow = statistics.median(slow for *_, slow in times)
    print(f"full pass                       {slow:8.1f} ms")
    for words, chosen_rows in (
        ("in the last third of layers", range(rows - rows // 3, rows)),
        ("anywhere", range(rows)),
    ):
        mine = [t for row, t, _ in times if row in chosen_rows]
        middle = statistics.median(mine)
        print(
            f"toggle {words:<28} {middle:5.1f} ms median, {max(mine):7.1f} ms at most; "
            f"full pass / toggle {slow / middle:.1f}"
        )
    print(f"reset                           {timed(lambda: lab.ask(on)):8.1f} ms")
    if chosen.matters:
        _importance(lab, timed)


def _importance(lab: WhatIf, timed: Callable[[Callable[[], object]], float]) -> None:
    cells = existing(lab.plan)
    print(
        f"leave one out, {len(cells)} experts       {timed(lambda: each_off(lab, [[cell] for cell in cells])):8.0f} ms"
    )
    print(f"first-order estimate            {timed(lambda: first_order(lab)):8.0f} ms")

    class Enough(Exception):
        pass

    def one_round(done: int, total: int) -> None:
        if done == len(cells):
            raise Enough

    def step(removal: bool) -> None:
        with contextlib.suppress(Enough):
            greedy(lab, removal, one_round)

    for removal in (True, False):
        took = timed(lambda removal=removal: step(removal))
        print(f"greedy {'removal ' if removal else 'addition'}, first step     {took:8.0f} ms")


if __name__ == "__main__":
    main()
