"""`find-lr`: the loss while the learning rate rises, and the peak rate that it suggests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict

from mlae_lab.cli.masks import add_mask_options, plan_of, refuse_mask_options
from mlae_lab.cli.output import print_result
from mlae_lab.cli.settings import TASK_HELP, add_run_options, config_of
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.method import Trait, method
from mlae_lab.core.rate_curve import bounds, suggested
from mlae_lab.runs.previews import rate_points

_IRRELEVANT = ("learning_rate", "epochs", "max_seconds", "warmup", "evaluations", "early_stopping", "keep_best")
_WIDTH = 48  # of the longest bar, in characters


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `find-lr`. command: creates a subparser."""
    parser = command(
        "find-lr", _find_lr, "train 60 steps with a rising learning rate and suggest a peak rate", store=True
    )
    parser.add_argument("--task", metavar="T", help=TASK_HELP)
    add_mask_options(parser)
    add_run_options(parser, without=_IRRELEVANT)


def _find_lr(args: argparse.Namespace) -> int:
    for name in _IRRELEVANT:
        setattr(args, name, getattr(FIRST_RUN, name))
    if Trait.MASK in method(args.method).traits:
        plan = plan_of(args, args.backbone)
    else:
        refuse_mask_options(args)
        plan = FIRST_RUN.plan
    config = config_of(args, plan)

    def report(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\rstep {done} of {total}", end="", file=sys.stderr, flush=True)

    points = rate_points(config, report)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rate = suggested(points)
    longest = max((point.smoothed for point in points), default=1.0)
    lines = [f"{'rate':>9}  loss, smoothed"]
    for point in points[::3]:
        bar = "█" * max(1, round(_WIDTH * point.smoothed / longest))
        lines.append(f"{point.rate:>9.1e}  {point.smoothed:6.3f} {bar}")
    low, high = bounds(config.optimizer)
    if rate is None:
        lines.append(f"no suggestion: the loss does not fall at any rate from {low:g} to {high:g}")
    else:
        lines.append(f"suggested peak: --lr {rate:g} (a tenth of the rate with the lowest smoothed loss)")
    return print_result(args, {"suggested": rate, "points": [asdict(point) for point in points]}, "\n".join(lines))
