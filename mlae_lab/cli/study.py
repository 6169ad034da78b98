"""`study`: a question with arms and seeds; plan it, run it, and read what it says."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlae_lab.cli.following import print_failures, report_supervisor
from mlae_lab.cli.masks import plan_of
from mlae_lab.cli.output import (
    UsageError,
    check_owner,
    current_owner,
    find_store,
    folder_of,
    print_json,
    print_result,
    store_of,
)
from mlae_lab.cli.settings import TASK_HELP, checked_weights_file
from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.inference import ALPHA
from mlae_lab.core.patterns import NAMES
from mlae_lab.core.settings import settings_of
from mlae_lab.core.study import PLAN_FACTORS, Study
from mlae_lab.core.study_file import RESERVED, as_yaml, described, parsed, with_reference
from mlae_lab.core.units import format_bytes, format_duration
from mlae_lab.data.listing import counted
from mlae_lab.data.tasks import located
from mlae_lab.environment import expanded
from mlae_lab.files import read_regular, require_free, write_whole
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import choosing, outcomes, studies, study_results, supervisor
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import Plan, State
from mlae_lab.runs.study_results import Results

_TICK_SECONDS = 0.5
_NOT_OFFERED = ("seed", "max_seconds", "early_stopping", "data", "weights", "method_settings")


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `study`. command: creates a subparser."""
    parser = command("study", _missing, "a question with arms and seeds: new, show, list, extend, stop, resume, ...")
    words = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=type(parser))

    def word(
        name: str, do: Callable[[argparse.Namespace], int], help: str, takes_study: bool = True
    ) -> argparse.ArgumentParser:
        sub = words.add_parser(name, help=help, description=help)
        sub.set_defaults(do=do)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
        sub.add_argument(
            "--store", type=Path, default=None, help="folder of the runs (else $MLAE_LAB_STORE or ~/.mlae_lab)"
        )
        if takes_study:
            sub.add_argument("study", metavar="STUDY")
        return sub

    new = word(
        "new", _new, "plan a study and run it; several values, separated by commas, make a factor", takes_study=False
    )
    new.add_argument(
        "file",
        nargs="?",
        metavar="FILE.yaml",
        help="a description of the study; its texts, seeds and paths may be replaced by options",
    )
    _add_factor_options(new)
    new.add_argument("--seeds", metavar="N", help="number of seeds, starting with --seed (default 1)")
    new.add_argument("--seed", type=int, metavar="N", help="the first seed (default 0)")
    new.add_argument("--title", metavar="TEXT")
    new.add_argument("--question", metavar="TEXT")
    new.add_argument("--notes", metavar="TEXT")
    new.add_argument(
        "--reference", metavar="ARM|FACTOR=VALUE", help="what the arms are compared with (default: the first)"
    )
    new.add_argument("--margin", type=float, metavar="POINTS", help="smaller differences count as equivalent")
    new.add_argument("--dry-run", action="store_true", help="print arms, runs, time and memory, and start nothing")
    new.add_argument("--detach", action="store_true", help="print the study's id and return at once")
    word("list", _list, "list the studies of a store", takes_study=False)
    word("show", _show, "what a study says: mean, interval and difference of each arm, and a verdict")
    extend = word("extend", _extend, "add seeds, as the next version of the study, and run them")
    extend.add_argument("--seeds", type=int, default=0, metavar="N", help="number of seeds to add")
    extend.add_argument("--detach", action="store_true", help="return at once")
    _owned(extend)
    stop = word("stop", _stop, "stop the runs of a study")
    stop.add_argument("--now", action="store_true", help="kill them instead of saving a checkpoint")
    _owned(stop)
    resume = word("resume", _resume, "resume or start whatever is missing")
    resume.add_argument("--detach", action="store_true", help="return at once")
    _owned(resume)
    delete = word("delete", _delete, "delete a study")
    delete.add_argument("--runs", action="store_true", help="delete the runs that it started, too")
    _owned(delete)
    export = word(
        "export", _export, "write a study to a file: its table as CSV or JSON, its description as YAML, or a report"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE.csv|.json|.yaml|.html")
    export.add_argument("--force", action="store_true", help="replace an existing file")


def _owned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="also for a study that somebody else owns")


def _missing(args: argparse.Namespace) -> int:
    raise UsageError(f"`study` needs a command (see `{PROGRAM} study --help`)")


def _add_factor_options(parser: argparse.ArgumentParser) -> None:
    """One option for each factor; all take several values."""
    parser.add_argument("--task", dest="factor_task", metavar="T,...", help=TASK_HELP)
    parser.add_argument("--data", metavar="DIR", help="folder of the images")
    parser.add_argument("--weights", metavar="FILE", help="weights of the backbone")
    parser.add_argument(
        "--mask",
        dest="factor_mask",
        metavar="M,...",
        help=f"patterns ({', '.join(NAMES)}; hourglass.mixed), mask codes, plan files",
    )
    for name, noun in PLAN_FACTORS.items():
        if name != "mask":
            parser.add_argument(f"--{name.replace('_', '-')}", dest=f"factor_{name}", metavar="X,...", help=noun)
    parser.add_argument("--recipe", dest="factor_recipe", metavar="NAME,...", help="vtab, fgvc, common or mlae")
    for entry in settings_of(RunConfig):
        if entry.option and entry.name not in _NOT_OFFERED:
            parser.add_argument(
                f"--{entry.option}", dest=f"factor_{entry.name}", metavar="X,...", help=entry.label.replace("%", "%%")
            )
    parser.add_argument(
        "--set", dest="method_settings", nargs="+", action="extend", default=[], metavar="NAME=X,...",
        help="settings of the methods",
    )  # fmt: skip


# ---------------------------------------------------------------- new


def _new(args: argparse.Namespace) -> int:
    study, notes = _described(args)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.dry_run:
        return print_plan(args, study, studies.plan(find_store(args), study), notes)
    store = store_of(args)
    stored = studies.new(store, study, current_owner())
    if args.detach:
        return print_result(args, {"study": stored.id, "runs": study.runs, "notes": list(notes)}, stored.id)
    print(f"study {stored.id}: {len(study.arms)} arms, {len(study.seeds)} seeds; Ctrl-C leaves it running", flush=True)
    return follow(args, store, stored.id)


def _described(args: argparse.Namespace) -> tuple[Study, tuple[str, ...]]:
    """The study that a file and options describe. Raises UsageError or ConfigError."""
    values: dict[str, list[str]] = {
        name.removeprefix("factor_"): values_of_text(value)
        for name, value in vars(args).items()
        if name.startswith("factor_") and value is not None
    }
    for text in args.method_settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes NAME=VALUE: {text[:60]!r} has no =")
        if name in values or name in RESERVED:
            raise UsageError(f"--set {name[:60]} is given twice or is not a setting of a method: name each one once")
        values[name] = values_of_text(value)
    if "mask" in values:
        backbone = values.get("backbone", [catalog.DEFAULT_BACKBONE])[0]
        values["mask"] = [mask_text(word, backbone) for word in values["mask"]]
    data: dict[str, Any]
    if args.file:
        data = _from_file(args, values)
    elif "task" not in values:
        raise UsageError(f"no task is named: add --task with {TASK_HELP}, or name a file that describes the study")
    else:
        data = {name: value[0] for name, value in values.items() if len(value) == 1 or name == "task"}
        data["factors"] = {name: value for name, value in values.items() if len(value) > 1}
    own = {name: getattr(args, name) for name in ("title", "question", "notes", "margin", "seed", "data", "weights")}
    data |= {name: value for name, value in own.items() if value is not None}
    if args.seeds is not None:
        data["seeds"] = seeds_of(args.seeds)
    study, notes = described(data, _completed)
    return (with_reference(study, args.reference) if args.reference else study), notes


def _completed(config: RunConfig) -> RunConfig:
    """A config with its images and its weights file. Raises UsageError or DataError if they are not there."""
    return located(replace(config, weights=checked_weights_file(config.weights, config.backbone)))


def values_of_text(text: str) -> list[str]:
    """Values that are separated by commas."""
    return [part.strip() for part in text.split(",")]


def seeds_of(text: str) -> int | list[int]:
    words = values_of_text(text)
    if not all(word.isdecimal() and len(word) < 11 for word in words):
        raise UsageError(f"--seeds is {text[:60]!r}: it must be a number of seeds, or seeds separated by commas")
    return int(words[0]) if len(words) == 1 else [int(word) for word in words]


def mask_text(word: str, backbone: str) -> str:
    """A pattern or a mask code as it is; a plan file as the code of its plan."""
    if word.partition(".")[0] in NAMES or word.startswith("m1_"):
        return word
    options = {"kind": None, "drop_rate": None, "experts": None, "expert_rank": None, "coefficient_init": None}
    named = argparse.Namespace(mask=word, pattern_seed=0, freeze_coefficients=False, **options)
    return plan_of(named, backbone).code


def _from_file(args: argparse.Namespace, values: dict[str, list[str]]) -> dict[str, Any]:
    """The description in a file. Options may replace its texts, seeds and paths, not its settings."""
    if values:
        option = next(iter(values)).replace("_", "-")
        raise UsageError(f"--{option} and a file both set the study: change the file, or leave it out")
    try:
        text = read_regular(Path(args.file)).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the file {args.file} cannot be read ({error}): name a YAML file that describes a study"
        ) from None
    return parsed(text)


def print_plan(
    args: argparse.Namespace, study: Study, plan: Plan, notes: Sequence[str], more: Mapping[str, Any] = {}
) -> int:
    """Print what a study would start. more: entries for `--json`."""
    arms = [
        {
            "name": arm.name, "values": dict(arm.values), "config_hash": arm.config.hash,
            "command": arm.config.command(),
            "parameters": arm.config.tuning.parameters(arm.config.network),
        }
        for arm in study.arms
    ]  # fmt: skip
    result = {
        "title": study.title, "arms": arms, "seeds": list(study.seeds), "reference": study.reference,
        "runs": study.runs, "to_run": plan.to_run, "reused": plan.reused,
        "seconds": plan.seconds, "seconds_low": plan.low, "seconds_high": plan.high,
        "arms_without_estimate": list(plan.unknown), "memory_bytes": plan.memory, "notes": list(notes), **more,
    }  # fmt: skip
    width = max(len(arm.name) for arm in study.arms)
    lines = [
        f"{study.title}: {len(study.arms)} arms × {len(study.seeds)} seeds = {study.runs} runs, {plan.to_run} to run",
        *(f"  {arm['name']:<{width}}  {arm['parameters']:>12,} parameters" for arm in arms),
        time_text(plan),
        f"minimum memory {format_bytes(plan.memory)}, without the images",
    ]
    return print_result(args, result, "\n".join(lines))


def time_text(plan: Plan) -> str:
    if not plan.to_run:
        return "nothing to run: the store has every run"
    if plan.seconds is None or plan.low is None or plan.high is None:
        count = len(plan.unknown)
        return f"no estimated time: for {count} arm{'s' * (count != 1)}, no similar run was timed on this machine"
    seconds, low, high = map(format_duration, (plan.seconds, plan.low, plan.high))
    return f"about {seconds} one after the other ({low} to {high})"


# ---------------------------------------------------------------- follow and show


def follow(
    args: argparse.Namespace,
    store: RunStore,
    name: str,
    show: Callable[[argparse.Namespace, RunStore, State], int] | None = None,
    launched: Mapping[str, Any] = {},
) -> int:
    """Print each run as it ends, then what the study says.

    Args:
        args: Of the command.
        store: Of the study.
        name: Its id.
        show: Prints what it says when it is over, by default as `study show` does.
        launched: What `--json` prints after Ctrl-C, besides the study's id.
    """
    reported: set[str] = set()
    is_reported = False
    curves: dict[str, Curve] = {}

    def curve_of(store: RunStore, run: Run) -> Curve:
        """The accuracies of a run; those of a run that is over are read once."""
        curve = curves.get(run.id)
        if curve is None:
            curve = outcomes.accuracies(store, run)
            if run.status.is_over:
                curves[run.id] = curve
        return curve

    try:
        while True:
            supervisor.ensure(store)
            state = studies.state(store, name, curve_of)
            for cell in state.cells:
                if cell.run is not None and cell.run.status.is_over and cell.run.id not in reported:
                    reported.add(cell.run.id)
                    result = cell.run.status.value if cell.accuracy is None else f"{cell.accuracy:5.1f} %"
                    print(f"{state.done:>4} of {len(state.cells)}  {cell.arm}, seed {cell.seed}: {result}", flush=True)
            is_reported = is_reported or (not state.is_over and report_supervisor(store))
            if state.is_over:
                studies.advance(store, [name])  # waits for the supervisor if that is starting the next stage
                state = studies.state(store, name, curve_of)
            if state.is_over:
                break
            time.sleep(_TICK_SECONDS)
    except KeyboardInterrupt:
        print(f"\nthe study continues without this terminal: `{PROGRAM} study show {name}` shows it", flush=True)
        return print_json({"study": name, **launched}) if args.json else 0
    status = print_failures(store, [cell.run for cell in state.cells if cell.run is not None])
    (show or _print_results)(args, store, state)
    return status


def _print_results(args: argparse.Namespace, store: RunStore, state: State) -> int:
    results = study_results.results(store, state)
    data, text = study_results.as_data(results, state), table(results, state)
    if report := choosing.report(store, state):
        data |= {"choice": choosing.as_data(report)}
        text += "\n" + "\n".join(report.sentences)
    return print_result(args, data, text)


def table(results: Results, state: State) -> str:
    """The arms of a study, the best first, as text, with the verdict below."""
    width = max(len(result.arm.name) for result in results.arms)
    lines = [f"{results.study.title}   {state.done} of {len(state.cells)} runs"]
    if results.study.question:
        lines.append(results.study.question)
    ranked = results.ranked
    for result in (*ranked, *(result for result in results.arms if result not in ranked)):
        mean = f"{result.statistics.mean:5.1f} %" if result.statistics else "      –"
        lines.append(f"  {result.arm.name:<{width}}  {mean}  {result.verdict}".rstrip())
    compared = sum(result.comparison is not None and result.comparison.p is not None for result in results.arms)
    if compared > 1:
        lines.append(f"({compared} comparisons, corrected by Holm's procedure at {ALPHA:g})")
    return "\n".join([*lines, results.verdict])


def existing(args: argparse.Namespace) -> RunStore:
    """The store that holds `args.study`. Raises UsageError or StoreError."""
    store = find_store(args)
    if store is None:
        raise UsageError(f"study {args.study[:60]!r} is not in {folder_of(args)}: there is no store yet")
    store.study(args.study)
    return store


def _mine(args: argparse.Namespace) -> RunStore:
    """`existing`, for a command that changes the study."""
    store = existing(args)
    check_owner(args, store, store.study(args.study).owner, f"study {args.study}")
    return store


def _show(args: argparse.Namespace) -> int:
    store = existing(args)
    supervisor.ensure(store)
    return _print_results(args, store, studies.state(store, args.study))


def _list(args: argparse.Namespace) -> int:
    store = find_store(args)
    rows = []
    for stored in store.studies() if store else ():
        assert store is not None
        state = studies.state(store, stored.id)
        rows.append(
            {
                "study": stored.id, "title": stored.study.title, "created": stored.created,
                "arms": len(stored.study.arms), "seeds": len(stored.study.seeds), "runs": len(state.cells),
                "done": state.done, "counts": state.counts, "version": stored.version, "halted": stored.halted,
            }
        )  # fmt: skip
    unread = store.unread_studies() if store else []
    for name in unread:
        print(f"study {name} cannot be read: `{PROGRAM} study show {name}` says why", file=sys.stderr)
    lines = [
        f"{row['study']}  {row['done']:>5} of {row['runs']:<5}  {row['arms']:>4} arms  {row['seeds']:>3} seeds  "
        f"{row['title']}"
        for row in rows
    ] or [f"no study in {folder_of(args)} yet: `{PROGRAM} study new --task digits --drop-rate 0,0.3,0.5` starts one"]
    return print_result(args, {"studies": rows, "unread": unread}, "\n".join(lines))


# ---------------------------------------------------------------- change


def _extend(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UsageError(f"--seeds is {args.seeds}: it must be the number of seeds to add, 1 or more")
    store = _mine(args)
    stored = studies.extend(store, args.study, args.seeds)
    if args.detach:
        return print_result(args, {"study": stored.id, "version": stored.version}, f"version {stored.version}")
    return follow(args, store, args.study)


def _stop(args: argparse.Namespace) -> int:
    store = _mine(args)
    stopped, kept = studies.stop(store, args.study, args.now)
    text = f"{stopped} run{'s' * (stopped != 1)} stopped"
    if kept:
        text += f"; {kept} continue{'s' * (kept == 1)} for another study"
    return print_result(args, {"study": args.study, "stopped": stopped, "kept": kept}, text)


def _resume(args: argparse.Namespace) -> int:
    store = _mine(args)
    begun = studies.start(store, args.study)
    if args.detach:
        result = {"study": args.study, "started": [run.id for run in begun]}
        return print_result(args, result, f"{len(begun)} run{'s' * (len(begun) != 1)} started or resumed")
    return follow(args, store, args.study)


def _delete(args: argparse.Namespace) -> int:
    store = _mine(args)
    deleted = studies.delete(store, args.study, args.runs)
    text = f"study {args.study} deleted, with {counted(deleted, 'run')}"
    return print_result(args, {"study": args.study, "deleted_runs": deleted}, text)


def _export(args: argparse.Namespace) -> int:
    store = existing(args)
    kind = args.out.suffix.lower()
    if kind not in (".csv", ".json", ".yaml", ".yml", ".html", ".htm"):
        raise UsageError(f"--out is {args.out.name[:60]!r}: its name must end in .csv, .json, .yaml or .html")
    out = expanded(args.out, "--out", "file").absolute()
    if not out.parent.is_dir():
        raise UsageError(f"--out is {out}: its folder does not exist, so create it or name another one")
    require_free(out, args.force, store=store.folder)
    state = studies.state(store, args.study)
    results = study_results.results(store, state)
    if kind == ".csv":
        text = study_results.as_csv(results)
    elif kind == ".json":
        report = choosing.report(store, state)
        chosen = {"choice": choosing.as_data(report)} if report else {}
        text = json.dumps(study_results.as_data(results, state) | chosen, indent=1)
    elif kind in (".yaml", ".yml"):
        text = as_yaml(results.study)
    else:
        from mlae_lab.ui.figures.study_report import study_report  # with NumPy, which no other command of a study needs

        report = choosing.report(store, state)
        text = study_report(results, state, studies.curves(store, state), report.sentences if report else ())
    write_whole(out, text)
    return print_result(args, {"study": args.study, "file": str(out)}, str(out))
