"""Pretrain the bundled backbone on procedural images and write it to `assets/`.

    python -m pretraining.train --fonts /usr/share/fonts/truetype/noto --minutes 120 --out assets/backbone.safetensors

Three tasks on one 12-block ViT: name the figure, name the texture (both read from the class
token), and paint the clean image from a noisy one with holes (read from every patch token;
He et al. 2022, Xie et al. 2022 in spirit). The card in `assets/README.md` says what came of it.
Compute runs in bfloat16 against float32 master weights; attention is written as two matrix
products, because the fused CPU kernel is five times slower in bfloat16 (LOG.md, 2026-11-23).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from mlae_lab.model.backbones import bundled_network
from pretraining.images import Banks, Composer, build_banks


class Pretrainer(nn.Module):
    """The backbone and its three heads; forward returns the summed loss and its parts."""

    def __init__(self, backbone: nn.Module, figures: int, textures: int) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.embed_dim
        self.figure_head = nn.Linear(width, figures)
        self.texture_head = nn.Linear(width, textures)
        self.paint_head = nn.Linear(width, 64)

    def forward(self, images: torch.Tensor, clean: torch.Tensor, figure: torch.Tensor, texture: torch.Tensor,
                shown: torch.Tensor):  # fmt: skip
        """images: (n, 3, s, s); clean: (n, patches, 64); shown: (n, k) numbers of the patches that are read."""
        body = self.backbone
        tokens = body.patch_embed(images) + body.pos_embed[:, 1:]
        tokens = tokens.gather(1, shown[..., None].expand(-1, -1, tokens.shape[-1]))
        clean = clean.gather(1, shown[..., None].expand(-1, -1, 64))
        first = (body.cls_token + body.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = body.norm(body.blocks(torch.cat([first, tokens], 1)))
        token = tokens[:, 0]
        seen = F.cross_entropy(self.figure_head(token).float(), figure, ignore_index=-1, label_smoothing=0.05)
        grain = F.cross_entropy(self.texture_head(token).float(), texture, ignore_index=-1, label_smoothing=0.05)
        painted = self.paint_head(tokens[:, 1:]).float()
        paint = F.mse_loss(painted, clean)
        return seen + 0.5 * grain + paint, seen, grain, paint


def patches(clean: torch.Tensor) -> torch.Tensor:
    """Grey values of 8 x 8 patches, (n, 3, s, s) -> (n, tokens, 64)."""
    grey = clean.mean(1, keepdim=True)
    return F.unfold(grey, 8, stride=8).transpose(1, 2)


class Masters:
    """Float32 copies of bfloat16 weights, stepped by Muon (matrices of the blocks) and AdamW (the rest)."""

    def __init__(self, model: nn.Module, lr: float, muon_lr: float, weight_decay: float) -> None:
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.kept = [p.detach().clone().float() for p in self.live]
        hidden = {id(p) for n, p in model.named_parameters() if ".blocks." in n and p.ndim == 2}
        matrices = [k for k, p in zip(self.kept, self.live, strict=False) if id(p) in hidden]
        others = [k for k, p in zip(self.kept, self.live, strict=False) if id(p) not in hidden]
        plain = [p for p in others if p.ndim < 2]
        decayed = [p for p in others if p.ndim >= 2]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([{"params": decayed, "weight_decay": weight_decay},
                               {"params": plain, "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.98), fused=True)
        ]  # fmt: skip
        if muon_lr:
            self.optimizers.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay,
                                                    adjust_lr_fn="match_rms_adamw"))  # fmt: skip
        else:
            self.optimizers[0].add_param_group({"params": matrices, "weight_decay": weight_decay})
        self.base = [[g["lr"] for g in o.param_groups] for o in self.optimizers]

    def step(self, factor: float) -> None:
        for kept, live in zip(self.kept, self.live, strict=False):
            kept.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        torch.nn.utils.clip_grad_norm_(self.kept, 1.0)
        for optimizer, base in zip(self.optimizers, self.base, strict=False):
            for group, lr in zip(optimizer.param_groups, base, strict=False):
                group["lr"] = lr * factor
            optimizer.step()
        with torch.no_grad():
            for kept, live in zip(self.kept, self.live, strict=False):
                live.copy_(kept)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype/noto"))
    ask.add_argument("--banks", type=Path, help="npz to keep the drawn banks in between runs")
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--minutes", type=float, default=None, help="stop after so many minutes (the schedule follows)")
    ask.add_argument("--steps", type=int, default=None, help="or after so many steps")
    ask.add_argument("--batch-size", type=int, default=256)
    ask.add_argument("--lr", type=float, default=2e-3)
    ask.add_argument("--muon-lr", type=float, default=2e-3, help="0: AdamW everywhere")
    ask.add_argument("--weight-decay", type=float, default=0.05)
    ask.add_argument("--half-until", type=float, default=0.8, help="share of the run that reads half of the patches")
    ask.add_argument("--ramp", type=float, default=0.25, help="share of the run over which images get harder")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--threads", type=int, default=0)
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ask.add_argument("--no-compile", action="store_true")
    chosen = ask.parse_args()
    if (chosen.minutes is None) == (chosen.steps is None):
        ask.error("give either --minutes or --steps")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)

    if chosen.banks and chosen.banks.exists():
        banks = Banks(**np.load(chosen.banks))
    else:
        banks = build_banks(chosen.fonts, chosen.seed)
        if chosen.banks:
            np.savez(chosen.banks, **vars(banks))
    backbone = bundled_network(num_classes=0)
    for block in backbone.blocks:
        block.attn.fused_attn = chosen.device != "cpu"
    model = Pretrainer(backbone, banks.figure_classes, banks.texture_classes)
    model = model.to(chosen.device, torch.bfloat16).train()
    masters = Masters(model, chosen.lr, chosen.muon_lr, chosen.weight_decay)
    composer = Composer(banks, backbone.patch_embed.img_size[0], chosen.seed + 1)
    loss_of = model if chosen.no_compile else torch.compile(model)

    averaged = [k.clone() for k in masters.kept]  # an exponential average over the last thousand steps or so
    log = chosen.out.with_suffix(".log.jsonl")
    log.unlink(missing_ok=True)
    started, step, sums = time.monotonic(), 0, torch.zeros(5)
    while True:
        elapsed = (time.monotonic() - started) / 60
        done = elapsed / chosen.minutes if chosen.minutes else step / chosen.steps
        if done >= 1:
            break
        batch = composer.batch(chosen.batch_size, min(1.0, done / chosen.ramp) if chosen.ramp else 1.0)
        clean = patches(batch.clean)
        # reading half of the patches halves the cost of a step; the last fifth of the time reads all
        order = torch.rand(clean.shape[:2], generator=composer.generator).argsort(1)
        shown = order[:, : clean.shape[1] // 2] if done < chosen.half_until else order
        on = chosen.device
        inputs = (batch.images.to(on, torch.bfloat16), clean.to(on), batch.figure.to(on), batch.texture.to(on),
                  shown.to(on))  # fmt: skip
        loss, *parts = loss_of(*inputs)
        loss.backward()
        factor = min(1.0, (step + 1) / 300) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        masters.step(factor)
        keep = min(0.998, step / (step + 10))
        for mean, kept in zip(averaged, masters.kept, strict=False):
            mean.lerp_(kept, 1 - keep)
        step += 1
        sums += torch.tensor([loss.item(), *(p.item() for p in parts), 1.0])
        if step % 100 == 0:
            mean = (sums / sums[-1]).tolist()
            row = {"step": step, "images": step * chosen.batch_size, "minutes": round(elapsed, 2),
                   "loss": mean[0], "figure": mean[1], "texture": mean[2], "paint": mean[3]}  # fmt: skip
            with log.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
            sums.zero_()
        if step % 1000 == 0:
            save(chosen, model, averaged, masters, step)
    save(chosen, model, averaged, masters, step)


def save(chosen: argparse.Namespace, model: Pretrainer, averaged: list[torch.Tensor], masters: Masters, step: int):
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    weights = {n.removeprefix("backbone."): w.cpu().contiguous() for n, w in zip(names, averaged, strict=False)
               if n.startswith("backbone.")}  # fmt: skip
    asked = {k: str(v) for k, v in vars(chosen).items() if k not in ("fonts", "banks", "out")}  # no paths in what ships
    made = {"made_by": "python -m pretraining.train", "settings": json.dumps(asked), "steps": str(step),
            "images": str(step * chosen.batch_size)}  # fmt: skip
    temporary = chosen.out.with_suffix(".part")
    save_file(weights, temporary, metadata=made)
    temporary.replace(chosen.out)


if __name__ == "__main__":
    main()
