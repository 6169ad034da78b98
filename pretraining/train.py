"""Pretrain the bundled backbone on procedural images and write it to `assets/`.

    python -m pretraining.train --fonts /usr/share/fonts/truetype/noto --minutes 120 --out assets/backbone.safetensors

Three tasks on one 12-block ViT: classify the figure and the texture (both from the class token), and reconstruct the
clean image from a noisy one with holes (from every patch token; similar to He et al. 2022 and Xie et al. 2022). The
results are in the model card in `assets/README.md`.
Compute runs in bfloat16 against float32 master weights. On a CPU attention is written as two matrix products, because
the fused kernel is five times slower in bfloat16 (LOG.md, 2026-11-23).
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
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.files import replacing
from mlae_lab.model.backbones import bundled_network, set_fused_attention
from pretraining.images import Banks, Composer, build_banks

PATCH = 8  # side of a patch in pixels


class Pretrainer(nn.Module):
    """The backbone and its three heads."""

    def __init__(self, backbone: VisionTransformer, figures: int, textures: int) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.embed_dim
        self.figure_head = nn.Linear(width, figures)
        self.texture_head = nn.Linear(width, textures)
        self.paint_head = nn.Linear(width, PATCH * PATCH)

    def forward(
        self,
        images: torch.Tensor,
        clean: torch.Tensor,
        figure: torch.Tensor,
        texture: torch.Tensor,
        shown: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the training loss.

        Args:
            images: (n, 3, s, s).
            clean: (n, patches, 64), grey values to reconstruct.
            figure: (n,) classes, -1 where there is no figure.
            texture: (n,) classes, -1 where there is no texture.
            shown: (n, k) indices of the patches that the network reads.

        Returns:
            The summed loss, then its parts: figure, texture, reconstruction.
        """
        backbone = self.backbone
        assert backbone.cls_token is not None
        assert backbone.pos_embed is not None
        tokens = backbone.patch_embed(images) + backbone.pos_embed[:, 1:]
        tokens = tokens.gather(1, shown[..., None].expand(-1, -1, tokens.shape[-1]))
        clean = clean.gather(1, shown[..., None].expand(-1, -1, clean.shape[-1]))
        first = (backbone.cls_token + backbone.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = backbone.norm(backbone.blocks(torch.cat([first, tokens], 1)))
        class_token = tokens[:, 0]
        figure_loss = F.cross_entropy(
            self.figure_head(class_token).float(), figure, ignore_index=-1, label_smoothing=0.05
        )
        texture_loss = F.cross_entropy(
            self.texture_head(class_token).float(), texture, ignore_index=-1, label_smoothing=0.05
        )
        paint_loss = F.mse_loss(self.paint_head(tokens[:, 1:]).float(), clean)
        return figure_loss + 0.5 * texture_loss + paint_loss, figure_loss, texture_loss, paint_loss


def patches(clean: torch.Tensor) -> torch.Tensor:
    """Grey values of 8 x 8 patches, (n, 3, s, s) -> (n, tokens, 64)."""
    grey = clean.mean(1, keepdim=True)
    return F.unfold(grey, PATCH, stride=PATCH).transpose(1, 2)


class MasterWeights:
    """Float32 copies of bfloat16 weights, updated by Muon (matrices of the blocks) and AdamW (the rest).

    Args:
        model: its trainable parameters are in bfloat16.
        lr: learning rate of AdamW.
        muon_lr: learning rate of Muon; 0 leaves everything to AdamW.
        weight_decay: of all matrices.
    """

    def __init__(self, model: nn.Module, lr: float, muon_lr: float, weight_decay: float) -> None:
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p.detach().clone().float() for p in self.live]
        hidden = {id(p) for n, p in model.named_parameters() if ".blocks." in n and p.ndim == 2}
        matrices = [m for m, p in zip(self.masters, self.live, strict=True) if id(p) in hidden]
        others = [m for m, p in zip(self.masters, self.live, strict=True) if id(p) not in hidden]
        groups = [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]
        if muon_lr:
            self.optimizers.append(
                torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        else:
            self.optimizers[0].add_param_group({"params": matrices, "weight_decay": weight_decay})
        self.learning_rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def step(self, factor: float) -> None:
        """Apply the gradients of the live weights and copy the masters back.

        Args:
            factor: of every learning rate, from the schedule.
        """
        for master, live in zip(self.masters, self.live, strict=True):
            master.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        for optimizer, rates in zip(self.optimizers, self.learning_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
        with torch.no_grad():
            for master, live in zip(self.masters, self.live, strict=True):
                live.copy_(master)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype/noto"))
    parser.add_argument("--banks", type=Path, help="npz file that caches the banks between runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=None, help="stop after so many minutes; the schedule follows the clock"
    )
    parser.add_argument("--steps", type=int, default=None, help="stop after so many steps")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--muon-lr", type=float, default=2e-3, help="0: AdamW everywhere")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument(
        "--half-until", type=float, default=0.8, help="share of the run in which the network reads half of the patches"
    )
    parser.add_argument("--ramp", type=float, default=0.25, help="share of the run over which images get harder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    if (options.minutes is None) == (options.steps is None):
        parser.error("give either --minutes or --steps")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    if options.banks and options.banks.exists():
        banks = Banks(**np.load(options.banks))
    else:
        banks = build_banks(options.fonts, options.seed)
        if options.banks:
            np.savez(options.banks, **vars(banks))
    backbone = bundled_network(num_classes=0)
    set_fused_attention(backbone, options.device != "cpu")
    model = Pretrainer(backbone, banks.figure_classes, banks.texture_classes)
    model = model.to(options.device, torch.bfloat16).train()
    weights = MasterWeights(model, options.lr, options.muon_lr, options.weight_decay)
    composer = Composer(banks, backbone.patch_embed.img_size[0], options.seed + 1)
    compute_loss = model if options.no_compile else torch.compile(model)

    # an exponential average over about the last thousand steps
    averaged = [master.clone() for master in weights.masters]
    log = options.out.with_suffix(".log.jsonl")
    log.unlink(missing_ok=True)
    started, step, sums = time.monotonic(), 0, torch.zeros(5)
    while True:
        elapsed = (time.monotonic() - started) / 60
        done = elapsed / options.minutes if options.minutes else step / options.steps
        if done >= 1:
            break
        batch = composer.batch(options.batch_size, min(1.0, done / options.ramp) if options.ramp else 1.0)
        clean = patches(batch.clean)
        # a step on half of the patches costs half; the last fifth of the time reads all
        order = torch.rand(clean.shape[:2], generator=composer.generator).argsort(1)
        shown = order[:, : clean.shape[1] // 2] if done < options.half_until else order
        device = options.device
        inputs = (batch.images.to(device, torch.bfloat16), clean, batch.figure, batch.texture, shown)
        loss, *parts = compute_loss(*(tensor.to(device) for tensor in inputs))
        loss.backward()
        factor = min(1.0, (step + 1) / 300) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        weights.step(factor)
        keep = min(0.998, step / (step + 10))
        for average, master in zip(averaged, weights.masters, strict=True):
            average.lerp_(master, 1 - keep)
        step += 1
        sums += torch.tensor([loss.item(), *(p.item() for p in parts), 1.0])
        if step % 100 == 0:
            mean = (sums / sums[-1]).tolist()
            row = {"step": step, "images": step * options.batch_size, "minutes": round(elapsed, 2)}
            row |= dict(zip(("loss", "figure", "texture", "paint"), mean[:-1], strict=True))
            with log.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
            sums.zero_()
        if step % 1000 == 0:
            save(options, model, averaged, step)
    save(options, model, averaged, step)


def save(options: argparse.Namespace, model: Pretrainer, averaged: list[torch.Tensor], step: int) -> None:
    """Write the averaged weights of the backbone with the settings that made them, and no paths."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    weights = {
        name.removeprefix("backbone."): average.cpu().contiguous()
        for name, average in zip(names, averaged, strict=True)
        if name.startswith("backbone.")
    }
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("fonts", "banks", "out")}
    metadata = {
        "made_by": "python -m pretraining.train",
        "settings": json.dumps(settings),
        "steps": str(step),
        "images": str(step * options.batch_size),
    }
    with replacing(options.out) as partial:
        save_file(weights, partial, metadata=metadata)


if __name__ == "__main__":
    main()
