"""The command line. A button of the app and its command do the same thing.

Exit status: 0 success; 1 a run failed or was lost, or the doctor found a problem; 2 an invalid request (one sentence on
standard error, nothing written). After Ctrl-C: 130, but 0 if the command was only following runs, which continue, and 1
from `fetch`. With --json the last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import getpass
import io
import os
import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from mlae_lab import doctor, environment, network
from mlae_lab.cli import (
    alerts,
    choose,
    datasets,
    diversity,
    errors,
    exporting,
    fetching,
    find_lr,
    lessons,
    library,
    maps,
    methods,
    pairs,
    race,
    repeats,
    runs,
    similarity,
    study,
    whatif,
)
from mlae_lab.cli import paper as paper_tables
from mlae_lab.cli.following import follow_to_end
from mlae_lab.cli.masks import add_mask_options, plan_of, refuse_mask_options
from mlae_lab.cli.output import UsageError, current_owner, folder_of, print_json, print_result, store_of
from mlae_lab.cli.renamed import refuse_old_names
from mlae_lab.cli.settings import TASK_HELP, add_run_options, config_of
from mlae_lab.core import catalog, paper
from mlae_lab.core.budget import budget
from mlae_lab.core.catalog import Group
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.method import Trait, method
from mlae_lab.core.patterns import paper_patterns
from mlae_lab.core.units import format_bytes, format_duration
from mlae_lab.data.tasks import own_tasks, ready
from mlae_lab.locations import PACKAGE, PROGRAM, home_store, use_store
from mlae_lab.runs import commands
from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message
from mlae_lab.runs.estimate import estimate, estimated_memory, rough_estimate
from mlae_lab.runs.recovery import recover
from mlae_lab.runs.store import RunStore


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. arguments: without the program's name; by default of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no "×" shows a question mark
    try:
        words = sys.argv[1:] if arguments is None else arguments
        refuse_old_names(words)
        _refuse_empty_paths(words)
        args = _parser().parse_args(words)
        environment.check()
        use_store(folder_of(args) if getattr(args, "store", None) is not None else None)
        return args.do(args)
    except BrokenPipeError:  # the reader of the output closed it, as in `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it at exit
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except EXPECTED_ERRORS as error:
        print(f"mlae_lab: {error_message(error)}", file=sys.stderr)
        return 2


_PATHS = ("--store", "--data", "--weights", "--into", "--out", "--export", "--images", "--labels")


def _refuse_empty_paths(words: Sequence[str]) -> None:
    """Raise UsageError for an empty path, as from `--store "$UNSET"`: it would mean the current folder."""
    for word, following in zip_longest(words, words[1:]):
        name, equals, value = word.partition("=")
        is_path = len(name) > 2 and any(option.startswith(name) for option in _PATHS)
        given = value if equals else following
        if is_path and given is not None and not given.strip():
            raise UsageError(f"{name} is empty: name a path, or leave {name} out")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="MLAE Lab: masked LoRA experts on a frozen vision transformer.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, do: Callable[[argparse.Namespace], int], help: str, store: bool = False
    ) -> argparse.ArgumentParser:
        subparser = subparsers.add_parser(name, help=help, description=help)
        subparser.set_defaults(do=do)
        subparser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
        if store:
            subparser.add_argument(
                "--store", type=Path, default=None, help="folder of the runs (else $MLAE_LAB_STORE or ~/.mlae_lab)"
            )
        return subparser

    command("tasks", _tasks, "list the 24 tasks of the paper, the bundled tasks and your own")
    command("masks", _masks, "list the 16 masks of the paper with plan, parameters and published score")
    methods.add(command)
    train = command("train", _train, "enqueue a run and follow it", store=True)
    train.add_argument("--task", metavar="T", help=TASK_HELP)
    add_mask_options(train)
    add_run_options(train)
    train.add_argument(
        "--recipe", metavar="NAME", default="",
        help="settings of the method's authors (vtab, fgvc), common, or mlae for MLAE's; options given here take "
        "precedence (methods --json lists them)",
    )  # fmt: skip
    train.add_argument("--detach", action="store_true", help="print the run's id and return at once")
    runs.add(command)
    exporting.add(command)
    alerts.add(command)
    pairs.add(command)
    race.add(command)
    library.add(command)
    repeats.add(command)
    study.add(command)
    paper_tables.add(command)
    choose.add(command)
    find_lr.add(command)
    lessons.add(command)
    errors.add(command)
    maps.add(command)
    whatif.add(command)
    diversity.add(command)
    similarity.add(command)
    datasets.add(command)
    fetch = command("fetch", fetching.fetch, "download a task's images or a backbone's weights")
    fetch.add_argument("name", metavar="TASK|BACKBONE")
    fetch.add_argument("--yes", action="store_true", help="skip the confirmation of a large download")
    fetch.add_argument(
        "--into", type=Path, default=None, metavar="DIR", help="data folder (else $MLAE_LAB_DATA or data/ in the store)"
    )
    app = command("app", _app, "start the lab in a browser", store=True)
    app.add_argument("--port", type=int, default=8501)
    app.add_argument(
        "--host",
        metavar="ADDRESS",
        help="default: this machine only; a network address always requires a password",
    )
    app.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="public host name under which a proxy serves the lab; always requires a password; may be repeated",
    )
    app.add_argument(
        "--images", action="append", default=[], type=Path, metavar="DIR",
        help="folder below which the pages may read images for datasets; may be repeated",
    )  # fmt: skip
    doctor = command("doctor", _doctor, "check devices, versions, data, disk and store", store=True)
    doctor.add_argument("--deep", action="store_true", help="also load torch and try every device (takes seconds)")
    doctor.add_argument(
        "--recover", action="store_true", help="first register folders of runs that the store's database does not know"
    )
    return parser


# ---------------------------------------------------------------- commands


def _tasks(args: argparse.Namespace) -> int:
    rows = [
        {
            "task": task.name, "title": task.title, "group": task.group.value, "classes": task.classes,
            "train": task.train, "val": task.val, "test": task.test, "ready": ready(task), "question": task.question,
            "licence": task.licence,
            "paper_drop_rate": paper.TUNED[task.name].drop_rate if task.name in paper.TUNED else None,
            "paper_coefficient_init": paper.TUNED[task.name].coefficient_init if task.name in paper.TUNED else None,
            "paper_accuracy": paper.MLAE_ACCURACY[task.name].value if task.name in paper.MLAE_ACCURACY else None,
        }
        for task in (*catalog.TASKS, *own_tasks())
    ]  # fmt: skip
    if args.json:
        return print_json({"tasks": rows})
    print(f"{'task':<24}{'group':<13}{'classes':>7}{'train':>8}{'val':>7}{'test':>8}   data     paper p, λ, accuracy")
    for row in rows:
        values = [row["paper_drop_rate"], row["paper_coefficient_init"], row["paper_accuracy"]]
        reported = "" if values[-1] is None else ", ".join("–" if value is None else str(value) for value in values)
        state = "missing" if not row["ready"] else "bundled" if row["group"] == Group.BUNDLED.value else "folder"
        print(
            f"{row['task']:<24}{row['group']:<13}{row['classes']:>7}{row['train']:>8}{row['val']:>7}{row['test']:>8}"
            f"   {state:<9}{reported}".rstrip()
        )
    return 0


def _masks(args: argparse.Namespace) -> int:
    vit = catalog.backbone("vit_base_patch16_224.orig_in21k")
    rows = []
    for pattern in paper_patterns():
        cost = budget(pattern.plan, vit.shapes(pattern.plan.targets))
        score = paper.PATTERN_AVERAGE.get((pattern.name, pattern.kind))
        rows.append(
            {
                "pattern": pattern.name, "kind": pattern.kind.value, "experts": cost.experts,
                "experts_per_layer": list(pattern.plan.kept), "drop_rate_per_layer": list(pattern.plan.row_rates()),
                "parameters_vit_b16": cost.parameters, "expected_active": round(cost.expected_active, 2),
                "paper_average": score.value if score else None, "paper_table": score.table if score else None,
                "code": pattern.plan.code, "hash": pattern.plan.hash, "plan": pattern.plan.to_dict(),
            }
        )  # fmt: skip
    if args.json:
        return print_json({"masks": rows})
    print(f"{'pattern':<13}{'kind':<12}{'experts':>7}{'active':>8}{'parameters':>12}{'paper':>7}   code")
    for row in rows:
        print(
            f"{row['pattern']:<13}{row['kind']:<12}{row['experts']:>7}{row['expected_active']:>8}"
            f"{row['parameters_vit_b16']:>12,}{row['paper_average'] or '':>7}   {row['code']}"
        )
    return 0


def _train(args: argparse.Namespace) -> int:
    config = _config(args)
    store = store_of(args)
    return follow_to_end(args, store, commands.launch(store, config, current_owner()), _cost_text(store, config))


def _cost_text(store: RunStore, config: RunConfig) -> str:
    """What a run is estimated to take, before it starts."""
    known = estimate(store, config)
    if known.seconds is None:
        known = rough_estimate(store, config)
    time = "not available" if known.seconds is None else format_duration(known.seconds)
    return f"estimated time {time}, memory {format_bytes(estimated_memory(config).total)}. {known.reason}"


def _config(args: argparse.Namespace) -> RunConfig:
    if Trait.MASK in method(args.method).traits:
        return config_of(args, plan_of(args, args.backbone))
    refuse_mask_options(args)
    return config_of(args, FIRST_RUN.plan)


def _app(args: argparse.Namespace) -> int:
    variables, store = dict(os.environ), folder_of(args)
    if args.store is not None:
        variables[environment.STORE] = str(store)
    if home_store() is None:
        variables["HOME"] = str(store)  # Streamlit does not start without one
    if args.images:
        roots = [environment.expanded(folder, "--images").absolute() for folder in args.images]
        for root in roots:
            if not root.is_dir():
                raise UsageError(f"--images is {root}, which is not a folder: name one that holds images")
        variables[environment.IMAGE_FOLDERS] = os.pathsep.join(map(str, roots))
    arguments = [sys.executable, "-m", "streamlit", "run", str(PACKAGE / "app.py"), "--server.port", str(args.port)]
    if args.host is not None:
        arguments += ["--server.address", args.host.strip("[]")]
    public = [_public_name(name) for name in args.allow_host]
    if args.host is not None or public:
        for name in (*network.allowed_hosts(args.host or "localhost"), *public):
            arguments += ["--server.allowedHosts", name]
    for name in public:  # for a proxy that sends its own address as Host: the browser's Origin then differs
        arguments += ["--server.corsAllowedOrigins", f"https://{f'[{name}]' if ':' in name else name}"]
    if network.is_public(args.host or "localhost", public):
        variables[network.PASSWORD_VARIABLE] = _password(variables.get(network.PASSWORD_VARIABLE))
        print(
            "The lab accepts connections from the network. The password restricts access; traffic is not encrypted "
            "unless a proxy adds TLS. Everyone with the password can see, start and stop runs.",
            flush=True,
        )
    os.execve(sys.executable, arguments, variables)


def _public_name(text: str) -> str:
    name = network.public_name(text)
    if name is None:
        raise UsageError(f"--allow-host is {text[:60]!r}: give only a host name, such as lab.example.com")
    return name


def _password(password: str | None) -> str:
    if password is None and sys.stdin.isatty():
        password = getpass.getpass("Password for the lab (every user needs it): ")
    if password is None:
        raise UsageError(
            f"a lab on a network needs a password, and no terminal can ask for it: set {network.PASSWORD_VARIABLE}"
        )
    if problem := network.password_problem(password):
        raise UsageError(problem[:1].lower() + problem[1:].rstrip("."))
    return password


def _doctor(args: argparse.Namespace) -> int:
    if args.recover and not folder_of(args).is_dir():
        raise UsageError(f"{folder_of(args)} is not a folder: name the store with --store")
    recovered = recover(RunStore(folder_of(args), recover=True)) if args.recover else None
    report = doctor.examine(folder_of(args), deep=args.deep)
    result, lines = report.to_dict(), report.lines()
    if recovered is not None:
        result |= {"recovered": list(recovered.runs), "not_recovered": recovered.left}
        lines = [
            f"runs registered again: {', '.join(recovered.runs) or 'none'}",
            *(f"{name} was left as it is: {cause}" for name, cause in recovered.left.items()),
            "",
            *lines,
        ]
    print_result(args, result, "\n".join(lines))
    return 1 if report.troubles else 0
