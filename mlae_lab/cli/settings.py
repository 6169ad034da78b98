"""The settings of a run as options: what `train` and `race` share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mlae_lab.cli.output import UsageError
from mlae_lab.core import catalog
from mlae_lab.core.config import DEVICES, MASKS_PER, NORMALISATIONS, PRECISIONS, PREPROCESSINGS, PROTOCOLS, RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.plan import MaskPlan
from mlae_lab.data.tasks import located
from mlae_lab.locations import weights_file


def add_run_options(command: argparse.ArgumentParser) -> None:
    """The options that `config_of` reads, besides the task, the method and the mask."""
    command.add_argument("--backbone", default=catalog.DEFAULT_BACKBONE, metavar="B")
    command.add_argument("--protocol", default="val", metavar="|".join(PROTOCOLS))
    command.add_argument("--epochs", type=int, metavar="N", help=f"default {FIRST_RUN.epochs}")
    command.add_argument("--seconds", type=float, metavar="S", help="stop training after so many seconds")
    command.add_argument("--lr", type=float, help=f"learning rate (default {FIRST_RUN.learning_rate:g})")
    command.add_argument("--weight-decay", type=float, metavar="W")
    command.add_argument("--batch-size", type=int, metavar="N")
    command.add_argument("--warmup", type=float, metavar="SHARE", help="share of the steps with a rising learning rate")
    command.add_argument(
        "--evaluations", type=int, metavar="N", help="how many times to measure accuracy; 0: every epoch"
    )
    command.add_argument("--seed", type=int, default=0, metavar="S")
    command.add_argument("--device", default="auto", metavar="|".join(DEVICES))
    command.add_argument("--precision", default="auto", metavar="|".join(PRECISIONS))
    command.add_argument(
        "--data", type=Path, metavar="DIR", help="the task's images: VTAB layout, VPT's lists or class folders"
    )
    command.add_argument("--weights", type=Path, metavar="FILE", help="of the backbone: safetensors, bin or npz")
    command.add_argument("--preprocessing", default="auto", metavar="|".join(PREPROCESSINGS))
    command.add_argument("--normalisation", default="auto", metavar="|".join(NORMALISATIONS))
    command.add_argument(
        "--mask-per", default="step", metavar="|".join(MASKS_PER), help="draw masks once a step, or for every token"
    )
    command.add_argument(
        "--input-dropout", type=float, default=0.0, metavar="P", help="drop numbers of x in front of A, as LoRA does"
    )


def config_of(args: argparse.Namespace, plan: MaskPlan) -> RunConfig:
    """The run that the options ask for; what they leave open is taken from the first run."""
    asked = {
        "epochs": args.epochs, "learning_rate": args.lr, "weight_decay": args.weight_decay,
        "batch_size": args.batch_size, "warmup": args.warmup, "evaluations": args.evaluations,
    }  # fmt: skip
    usual = replace(FIRST_RUN, weight_decay=RunConfig.weight_decay, batch_size=RunConfig.batch_size)
    settings = {name: getattr(usual, name) if value is None else value for name, value in asked.items()}
    own = args.task == "own" and args.data is not None
    config = RunConfig(
        task=f"own:{args.data.absolute().name}" if own else args.task, plan=plan, method=args.method, backbone=args.backbone, protocol=args.protocol,
        max_seconds=args.seconds, seed=args.seed, device=args.device, precision=args.precision,
        data=str(args.data.expanduser().absolute()) if args.data else "", weights=_weights(args),
        preprocessing=args.preprocessing, normalisation=args.normalisation, mask_per=args.mask_per,
        input_dropout=args.input_dropout, **settings,
    )  # fmt: skip
    return located(config)


def _weights(args: argparse.Namespace) -> str:
    """The file that the run reads, "" for a bundled network. Wrong if there is none: before anything is written."""
    if args.weights is not None:
        file = args.weights.expanduser().absolute()
        if not file.is_file():
            raise UsageError(
                f"--weights {file} is not a file: name a .safetensors, .bin or .npz file of {args.backbone}"
            )
        return str(file)
    backbone = catalog.backbone(args.backbone)
    if backbone.needs_file and not weights_file(backbone.name).is_file():
        raise UsageError(
            f"the weights of {backbone.name} are not on this machine: fetch them with `mlae_lab fetch {backbone.name}`, "
            f"put timm's model.safetensors at {weights_file(backbone.name)}, or name a file with --weights"
        )
    return ""
