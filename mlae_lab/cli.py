"""The command line. A button and its command do the same thing.

Exit status: 0, 2 for a wrong request (one sentence on standard error, nothing written), 1 for a
run that failed or was lost. With --json the last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from mlae_lab.core import catalog, hosts, paper
from mlae_lab.core.budget import budget
from mlae_lab.core.config import (
    DEVICES,
    METHODS,
    NORMALISATIONS,
    PRECISIONS,
    PREPROCESSINGS,
    PROTOCOLS,
    ConfigError,
    RunConfig,
)
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation, Started
from mlae_lab.core.patterns import NAMES, fitted, paper_patterns, pattern, scaled
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.data import fetching
from mlae_lab.data.bundled import DataError
from mlae_lab.data.fetch import ready_folder
from mlae_lab.data.progress import Cancelled, FetchError, Progress, gigabytes
from mlae_lab.data.tasks import located, own_tasks, ready
from mlae_lab.places import PACKAGE, data_folder, default_store, weights_file
from mlae_lab.runs import paths, supervisor
from mlae_lab.runs.report import report, state
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError

REQUEST_ERRORS = (PlanError, ConfigError, catalog.CatalogError, DataError, StoreError)


class Wrong(Exception):
    """A request that cannot be met; its text is the one sentence that the user reads."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Wrong(f"{message} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    try:
        chosen = _parser().parse_args(arguments)
        return chosen.do(chosen)
    except (Wrong, *REQUEST_ERRORS) as error:
        print(f"mlae_lab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that the interpreter's last flush is quiet
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mlae_lab", description="MLAE Lab: masked LoRA experts on a frozen vision transformer.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, do, help: str, store: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(do=do)
        made.add_argument("--json", action="store_true", help="one JSON object on the last line")
        if store:
            made.add_argument(
                "--store", type=Path, default=None, help="folder of the runs (else $MLAE_LAB_STORE or ~/.mlae_lab)"
            )
        return made

    command("tasks", _tasks, "list the 24 tasks of the paper and the bundled ones")
    command("masks", _masks, "list every mask of the paper with its plan and budget")
    train = command("train", _train, "enqueue a run and follow it to its end", store=True)
    train.add_argument("--task", required=True, metavar="T")
    train.add_argument("--mask", metavar="PATTERN|CODE|PLAN.json",
                       help=f"a pattern ({', '.join(NAMES)}), a mask code or a plan file; default: the first run's")  # fmt: skip
    train.add_argument("--kind", metavar="fixed|stochastic|mixed", help="which mask of that pattern")
    train.add_argument("--drop-rate", type=float, metavar="P", help="for uniform and mixed masks, in [0, 1)")
    train.add_argument(
        "--experts", type=int, metavar="E", help="experts per layer of dense, uniform and stochastic masks"
    )
    train.add_argument("--pattern-seed", type=int, default=0, metavar="S", help="seed of the random allocation")
    train.add_argument("--expert-rank", type=int, metavar="K", help="rank of each expert (default 1)")
    train.add_argument("--coefficient-init", type=float, metavar="L", help="start of λ")
    train.add_argument("--freeze-coefficients", action="store_true", help="do not train λ")
    train.add_argument("--method", default="mlae", metavar="|".join(METHODS))
    train.add_argument("--backbone", default=catalog.DEFAULT_BACKBONE, metavar="B")
    train.add_argument("--protocol", default="val", metavar="|".join(PROTOCOLS))
    train.add_argument("--epochs", type=int, metavar="N", help=f"default {FIRST_RUN.epochs}")
    train.add_argument("--seconds", type=float, metavar="S", help="stop training after so many seconds")
    train.add_argument("--lr", type=float, help=f"learning rate (default {FIRST_RUN.learning_rate:g})")
    train.add_argument("--weight-decay", type=float, metavar="W")
    train.add_argument("--batch-size", type=int, metavar="N")
    train.add_argument("--warmup", type=float, metavar="SHARE", help="share of the steps with a rising learning rate")
    train.add_argument(
        "--evaluations", type=int, metavar="N", help="how many times to measure accuracy; 0: every epoch"
    )
    train.add_argument("--seed", type=int, default=0, metavar="S")
    train.add_argument("--device", default="auto", metavar="|".join(DEVICES))
    train.add_argument("--precision", default="auto", metavar="|".join(PRECISIONS))
    train.add_argument(
        "--data", type=Path, metavar="DIR", help="the task's pictures: VTAB layout, VPT's lists or class folders"
    )
    train.add_argument("--weights", type=Path, metavar="FILE", help="of the backbone: safetensors, bin or npz")
    train.add_argument("--preprocessing", default="auto", metavar="|".join(PREPROCESSINGS))
    train.add_argument("--normalisation", default="auto", metavar="|".join(NORMALISATIONS))
    train.add_argument("--detach", action="store_true", help="print the run's name and return at once")
    runs = command("runs", _runs, "list all runs, or show one", store=True)
    runs.add_argument("run", nargs="?", metavar="RUN")
    stop = command("stop", _stop, "end a run and keep what it has learned", store=True)
    stop.add_argument("run", metavar="RUN")
    stop.add_argument("--now", action="store_true", help="kill it at once")
    delete = command("delete", _delete, "forget a run that is over, with its files", store=True)
    delete.add_argument("run", metavar="RUN")
    fetch = command("fetch", _fetch, "download a task's pictures or a backbone's weights")
    fetch.add_argument("name", metavar="TASK|BACKBONE")
    fetch.add_argument("--yes", action="store_true", help="do not ask before a large download")
    fetch.add_argument(
        "--into", type=Path, default=None, metavar="DIR", help="data folder (else $MLAE_LAB_DATA or data/ in the store)"
    )
    app = command("app", _app, "start the lab in a browser", store=True)
    app.add_argument("--port", type=int, default=8501)
    return parser


# ---------------------------------------------------------------- commands


def _tasks(chosen: argparse.Namespace) -> int:
    rows = [
        {
            "task": t.name, "title": t.title, "group": t.group.value, "classes": t.classes, "train": t.train,
            "val": t.val, "test": t.test, "ready": ready(t), "question": t.question, "licence": t.licence,
            "paper_drop_rate": paper.TUNED[t.name].drop_rate if t.name in paper.TUNED else None,
            "paper_coefficient_init": paper.TUNED[t.name].coefficient_init if t.name in paper.TUNED else None,
            "paper_accuracy": paper.MLAE_ACCURACY[t.name].value if t.name in paper.MLAE_ACCURACY else None,
        }
        for t in (*catalog.TASKS, *own_tasks())
    ]  # fmt: skip
    if chosen.json:
        return _say_json({"tasks": rows})
    print(f"{'task':<24}{'group':<13}{'classes':>7}{'train':>8}{'val':>7}{'test':>8}   data     paper p, λ, accuracy")
    for row in rows:
        reported = (
            ""
            if row["paper_accuracy"] is None
            else f"{_or_dash(row['paper_drop_rate'])}, {_or_dash(row['paper_coefficient_init'])}, {row['paper_accuracy']}"
        )
        print(f"{row['task']:<24}{row['group']:<13}{row['classes']:>7}{row['train']:>8}{row['val']:>7}{row['test']:>8}"
              f"   {'ready' if row['ready'] else 'missing'}  {reported}")  # fmt: skip
    return 0


def _masks(chosen: argparse.Namespace) -> int:
    vit = catalog.backbone("vit_base_patch16_224.orig_in21k")
    rows = []
    for found in paper_patterns():
        cost = budget(found.plan, vit.shapes(found.plan.targets))
        score = paper.PATTERN_AVERAGE.get((found.name, found.kind))
        rows.append(
            {
                "pattern": found.name, "kind": found.kind.value, "experts": cost.experts,
                "experts_per_layer": list(found.plan.kept), "drop_rate_per_layer": list(found.plan.row_rates()),
                "parameters_vit_b16": cost.parameters, "expected_active": round(cost.expected_active, 2),
                "paper_average": score.value if score else None, "paper_table": score.table if score else None,
                "code": found.plan.code, "hash": found.plan.hash, "plan": found.plan.to_dict(),
            }
        )  # fmt: skip
    if chosen.json:
        return _say_json({"masks": rows})
    print(f"{'pattern':<13}{'kind':<12}{'experts':>7}{'active':>8}{'parameters':>12}{'paper':>7}   code")
    for row in rows:
        print(f"{row['pattern']:<13}{row['kind']:<12}{row['experts']:>7}{row['expected_active']:>8}"
              f"{row['parameters_vit_b16']:>12,}{row['paper_average'] or '':>7}   {row['code']}")  # fmt: skip
    return 0


def _train(chosen: argparse.Namespace) -> int:
    config = _config(chosen)
    store = _store(chosen)
    run = supervisor.launch(store, config)
    if chosen.detach:
        if chosen.json:
            return _say_json({"run": run.id, "status": run.status.value, "config_hash": run.config_hash})
        print(run.id)
        return 0
    try:
        print(f"run {run.id} is queued on {run.device}; Ctrl-C leaves it running", flush=True)
        run = _follow(store, run)
    except KeyboardInterrupt:
        print(
            f"\nrun {run.id} goes on without this terminal: `mlae_lab runs {run.id}` shows it, `mlae_lab stop {run.id}` ends it"
        )
        return _say_json({"run": run.id, "status": store.run(run.id).status.value}) if chosen.json else 0
    told = report(store, run)
    if run.status not in (Status.FINISHED, Status.STOPPED):
        print(f"run {run.id} {run.status.value}: {run.reason}", file=sys.stderr)
        for line in supervisor.log_tail(store, run.id, 40):
            print(f"    {line}", file=sys.stderr)
    if chosen.json:
        _say_json(told)
    return 0 if run.status in (Status.FINISHED, Status.STOPPED) else 1


def _config(chosen: argparse.Namespace) -> RunConfig:
    """The run that the options ask for; what they leave open is taken from the first run."""
    plan = _plan(chosen) if chosen.method == "mlae" else FIRST_RUN.plan
    asked = {
        "epochs": chosen.epochs, "learning_rate": chosen.lr, "weight_decay": chosen.weight_decay,
        "batch_size": chosen.batch_size, "warmup": chosen.warmup, "evaluations": chosen.evaluations,
    }  # fmt: skip
    usual = replace(FIRST_RUN, weight_decay=RunConfig.weight_decay, batch_size=RunConfig.batch_size)
    settings = {name: getattr(usual, name) if value is None else value for name, value in asked.items()}
    own = chosen.task == "own" and chosen.data is not None
    config = RunConfig(
        task=f"own:{chosen.data.absolute().name}" if own else chosen.task, plan=plan, method=chosen.method, backbone=chosen.backbone, protocol=chosen.protocol,
        max_seconds=chosen.seconds, seed=chosen.seed, device=chosen.device, precision=chosen.precision,
        data=str(chosen.data.expanduser().absolute()) if chosen.data else "", weights=_weights(chosen),
        preprocessing=chosen.preprocessing, normalisation=chosen.normalisation, **settings,
    )  # fmt: skip
    return located(config)


def _weights(chosen: argparse.Namespace) -> str:
    """The file that the run reads, "" for a bundled network. Wrong if there is none: before anything is written."""
    if chosen.weights is not None:
        file = chosen.weights.expanduser().absolute()
        if not file.is_file():
            raise Wrong(f"--weights {file} is not a file: name a .safetensors, .bin or .npz file of {chosen.backbone}")
        return str(file)
    backbone = catalog.backbone(chosen.backbone)
    if backbone.needs_file and not weights_file(backbone.name).is_file():
        raise Wrong(
            f"the weights of {backbone.name} are not on this machine: fetch them with `mlae_lab fetch {backbone.name}`, "
            f"put timm's model.safetensors at {weights_file(backbone.name)}, or name a file with --weights"
        )
    return ""


def _plan(chosen: argparse.Namespace) -> MaskPlan:
    name = chosen.mask
    pattern_options = (chosen.kind, chosen.drop_rate, chosen.experts)
    targets = catalog.backbone(chosen.backbone).default_targets
    if name is None and pattern_options == (None, None, None):
        plan = fitted(FIRST_RUN.plan, targets)
    elif name is None or name in NAMES:
        plan = pattern(name or "uniform", chosen.kind, chosen.drop_rate, chosen.experts, chosen.pattern_seed)
        plan = fitted(plan, targets)
    else:
        if pattern_options != (None, None, None):
            raise Wrong(
                f"--kind, --drop-rate and --experts go with a pattern, not with {name}: it already says all that"
            )
        plan = _read_plan(name)
    changed = {}
    if chosen.expert_rank is not None:
        changed["expert_rank"] = chosen.expert_rank
    if chosen.coefficient_init is not None:
        changed["coefficient_init"] = chosen.coefficient_init
    if chosen.freeze_coefficients:
        changed["train_coefficients"] = False
    return scaled(plan, **changed)


def _read_plan(name: str) -> MaskPlan:
    if name.startswith("m1_"):
        return MaskPlan.from_code(name)
    path = Path(name)
    if not name.endswith(".json") and (len(name) > 200 or not path.exists()):
        raise Wrong(f"{name[:60]!r} is neither a pattern ({', '.join(NAMES)}) nor a mask code nor a plan file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Wrong(
            f"the plan file {name} cannot be read ({error}): name a JSON file that `mlae_lab masks --json` could have written"
        ) from None
    return MaskPlan.from_json(text)


def _follow(store: RunStore, run: Run) -> Run:
    """Print what the run does until it is over."""
    seen = 0
    while True:
        supervisor.reconcile(store)
        run = store.run(run.id)
        for stored in store.events(run.id, after=seen, kinds=("started", "evaluation")):
            seen, event = stored.id, stored.event
            if isinstance(event, Started):
                print(f"{event.train_pictures} pictures, {event.parameters:,} expert and {event.head_parameters:,} head "
                      f"parameters, {event.steps} steps on {event.device} in {event.precision}", flush=True)  # fmt: skip
            elif isinstance(event, Evaluation):
                print(f"epoch {event.epoch:>4}   {event.split} accuracy {event.accuracy:5.1f} %   loss {event.loss:.3f}"
                      f"   {event.seconds:6.1f} s", flush=True)  # fmt: skip
        if run.status.is_over:
            return run
        time.sleep(0.2)


def _runs(chosen: argparse.Namespace) -> int:
    store = _existing_store(chosen)
    if store is None:
        return _say_json({"runs": []}) if chosen.json else print(_NO_RUNS.format(_folder(chosen))) or 0
    supervisor.reconcile(store)
    if chosen.run is not None:
        row = state(store, store.run(chosen.run))
        if chosen.json:
            return _say_json(row)
        for name, value in row.items():
            print(f"{name:<14}{json.dumps(value) if isinstance(value, dict) else value}")
        return 0
    rows = [state(store, run) for run in store.runs()]
    if chosen.json:
        return _say_json({"runs": rows})
    if not rows:
        print(_NO_RUNS.format(store.folder))
    for row in rows:
        accuracy = row.get("val_accuracy", row.get("test_accuracy"))
        print(f"{row['run']}  {row['status']:<9} {row['config']['task']:<24}{row['config']['method']:<7}"
              f"{'' if accuracy is None else format(accuracy, '5.1f') + ' %'}  {row['reason'] or ''}")  # fmt: skip
    return 0


def _stop(chosen: argparse.Namespace) -> int:
    store = _existing_store(chosen)
    supervisor.reconcile(store)
    before = store.run(chosen.run)
    if before.status.is_over:
        raise Wrong(f"run {before.id} is already {before.status.value}: there is nothing to stop")
    status = supervisor.stop(store, before.id, now=chosen.now)
    deadline = time.monotonic() + 30
    while not status.is_over and time.monotonic() < deadline:
        time.sleep(0.1)
        supervisor.reconcile(store)
        status = store.run(before.id).status
    return (
        _say_json({"run": before.id, "status": status.value})
        if chosen.json
        else print(f"{before.id} {status.value}") or 0
    )


def _delete(chosen: argparse.Namespace) -> int:
    store = _existing_store(chosen)
    supervisor.reconcile(store)
    store.delete(chosen.run)
    return _say_json({"run": chosen.run, "deleted": True}) if chosen.json else print(f"{chosen.run} deleted") or 0


def _app(chosen: argparse.Namespace) -> int:
    environment = dict(os.environ)
    if chosen.store is not None:
        environment["MLAE_LAB_STORE"] = str(chosen.store.absolute())
    app = str(PACKAGE / "app.py")
    words = [sys.executable, "-m", "streamlit", "run", app, "--server.port", str(chosen.port)]
    os.execve(sys.executable, words, environment)


def _fetch(chosen: argparse.Namespace) -> int:
    wanted, into = hosts.remote(chosen.name), (chosen.into or data_folder()).expanduser().absolute()
    there = ready_folder(wanted, into)
    if there is not None:
        print(f"{wanted.name} is in {there} already")
        return _say_json({"name": wanted.name, "folder": str(there), "fetched": False}) if chosen.json else 0
    size = wanted.size_bytes
    said_size = "an unknown number of bytes" if size is None else gigabytes(size)
    ask = (size is None or size > _ASK_ABOVE) and not chosen.yes
    if ask and not sys.stdin.isatty():
        raise Wrong(f"{wanted.name} has {said_size} to download: add --yes, since there is no terminal to ask")
    print(f"{wanted.name}: {wanted.citation}\nlicence: {wanted.licence}\nfrom: {wanted.page}, {said_size}")
    print(f"to: {into / wanted.subfolder}", *([f"note: {wanted.note}"] if wanted.note else []), sep="\n", flush=True)
    if ask and not _agreed(f"Download {said_size}? [y/N] "):
        print("nothing was fetched")
        return 1
    line = _ProgressLine()
    try:
        folder = fetching.run(wanted.name, into, line.show)
    except FetchError as error:
        line.end()
        print(f"mlae_lab: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Cancelled):
        line.end()
        print("mlae_lab: cancelled; what was fetched is kept, the same command goes on", file=sys.stderr)
        return 1
    line.end()
    print(f"{wanted.name} is in {folder}")
    return _say_json({"name": wanted.name, "folder": str(folder), "fetched": True}) if chosen.json else 0


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


_ASK_ABOVE = 100_000_000  # bytes


class _ProgressLine:
    """One line that is written over on a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self._over, self._width, self._next = sys.stdout.isatty(), 0, 0.0

    def show(self, told: Progress) -> None:
        if not self._over and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 10
        parts = [f"{told.phase} {told.file}".strip()]
        if told.total:
            parts.append(f"{gigabytes(told.done)} of {gigabytes(told.total)} ({told.done / told.total:.0%})")
        if told.speed:
            parts.append(f"{gigabytes(told.speed)}/s")
        if told.seconds_left is not None:
            minutes, seconds = divmod(round(told.seconds_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        text = "   ".join(parts)
        width = max(20, shutil.get_terminal_size().columns - 1)  # a line that wraps cannot be written over
        print("\r" + text[:width].ljust(min(self._width, width)) if self._over else text,
              end="" if self._over else "\n", flush=True)  # fmt: skip
        self._width = len(text)

    def end(self) -> None:
        if self._over and self._width:
            print(flush=True)


_NO_RUNS = "no runs in {} yet: `mlae_lab train --task digits` starts one"


def _folder(chosen: argparse.Namespace) -> Path:
    return (chosen.store or default_store()).expanduser().absolute()


def _store(chosen: argparse.Namespace) -> RunStore:
    return RunStore(_folder(chosen))


def _existing_store(chosen: argparse.Namespace) -> RunStore | None:
    """The store if there is one; a question makes none. Wrong if a run is asked for where there is no store."""
    folder = _folder(chosen)
    if paths.database(folder).exists() or (folder.exists() and not folder.is_dir()):
        return _store(chosen)
    if chosen.run is not None:
        raise Wrong(
            f"run {chosen.run[:60]!r} is not in {_folder(chosen)}: there is no store yet; `mlae_lab runs --store DIR` lists another's"
        )
    return None


def _say_json(value: dict) -> int:
    print(json.dumps(value), flush=True)
    return 0


def _or_dash(value: object) -> object:
    return "–" if value is None else value
