"""The mask options of a command: a pattern, a mask code or a plan file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mlae_lab.cli.output import UsageError
from mlae_lab.core import catalog
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import NAMES, fitted, pattern
from mlae_lab.core.plan import Kind, MaskPlan
from mlae_lab.files import read_regular
from mlae_lab.locations import PROGRAM


def add_mask_options(command: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the options that `plan_of` reads."""
    command.add_argument(
        "--mask",
        metavar="PATTERN|CODE|PLAN.json",
        required=required,
        help=f"a pattern ({', '.join(NAMES)}), a mask code or a plan file",
    )
    command.add_argument("--kind", metavar="fixed|stochastic|mixed", help="which mask of the pattern")
    command.add_argument("--drop-rate", type=float, metavar="P", help="p of uniform and mixed masks, in [0, 1)")
    command.add_argument(
        "--experts", type=int, metavar="E", help="experts per layer of dense, uniform and stochastic masks"
    )
    _add_expert_options(command)


def add_masks_options(command: argparse.ArgumentParser) -> None:
    """Add the options that `plans_of` reads: `--mask` once for each of several masks."""
    command.add_argument(
        "--mask",
        metavar="PATTERN[.KIND]|CODE|PLAN.json",
        action="append",
        required=True,
        help=f"once for each mask: a pattern ({', '.join(NAMES)}), such as hourglass or hourglass.mixed, a mask code "
        "or a plan file",
    )
    command.add_argument("--drop-rate", type=float, metavar="P", help="p of uniform and mixed masks, in [0, 1)")
    _add_expert_options(command)


def _add_expert_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pattern-seed", type=int, default=0, metavar="S", help="seed of the random allocation")
    command.add_argument("--expert-rank", type=int, metavar="K", help="rank of each expert (default 1)")
    command.add_argument("--coefficient-init", type=float, metavar="L", help="initial λ (default 1)")
    command.add_argument("--freeze-coefficients", action="store_true", help="do not train λ")


def refuse_mask_options(args: argparse.Namespace) -> None:
    """Raise UsageError for a mask option of a method without a mask, which would be ignored."""
    names = ("mask", "kind", "drop_rate", "experts", "expert_rank", "coefficient_init", "freeze_coefficients")
    given = [name for name in names if getattr(args, name) not in (None, False)]
    if given:
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} describes a mask, which the method {args.method} does not have: leave it out")


def plans_of(args: argparse.Namespace, backbone: str) -> list[MaskPlan]:
    """The plans of several `--mask`, in their order, each read as by `plan_of`."""
    plans = []
    for word in args.mask:
        name, _, kind = word.partition(".") if word.partition(".")[0] in NAMES else (word, "", "")
        has_rate = name == "uniform" or kind == Kind.MIXED.value
        own = {"mask": name, "kind": kind or None, "drop_rate": args.drop_rate if has_rate else None, "experts": None}
        plans.append(plan_of(argparse.Namespace(**{**vars(args), **own}), backbone))
    return plans


def plan_of(args: argparse.Namespace, backbone: str) -> MaskPlan:
    """The plan that the options describe, fitted to a backbone; without any option the first run's plan."""
    name = args.mask
    pattern_options = (args.kind, args.drop_rate, args.experts)
    targets = catalog.backbone(backbone).default_targets
    if name is None and pattern_options == (None, None, None):
        plan = fitted(FIRST_RUN.plan, targets)
    elif name is None or name in NAMES:
        plan = pattern(name or "uniform", args.kind, args.drop_rate, args.experts, args.pattern_seed)
        plan = fitted(plan, targets)
    else:
        if pattern_options != (None, None, None):
            raise UsageError(
                f"--kind, --drop-rate and --experts go with a pattern, not with {name}: it already contains them"
            )
        plan = _read_plan(name)
    changed = {}
    if args.expert_rank is not None:
        changed["expert_rank"] = args.expert_rank
    if args.coefficient_init is not None:
        changed["coefficient_init"] = args.coefficient_init
    if args.freeze_coefficients:
        changed["train_coefficients"] = False
    return replace(plan, **changed)


def _read_plan(name: str) -> MaskPlan:
    if name.startswith("m1_"):
        return MaskPlan.from_code(name)
    path = Path(name)
    if not name.endswith(".json") and (len(name) > 200 or not path.exists()):
        raise UsageError(f"{name[:60]!r} is neither a pattern ({', '.join(NAMES)}) nor a mask code nor a plan file")
    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the plan file {name} cannot be read ({error}): name a JSON file with a plan from `{PROGRAM} masks --json`"
        ) from None
    return MaskPlan.from_json(text)
