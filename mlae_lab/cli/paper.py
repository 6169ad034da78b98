"""`paper`: the tables of the paper, what each would train here, and the results next to the printed numbers."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from mlae_lab.cli.output import UsageError, current_owner, find_store, print_result, store_of
from mlae_lab.cli.study import follow, seeds_of, time_text, values_of_text
from mlae_lab.core import catalog
from mlae_lab.core.backbones import backbone
from mlae_lab.core.paper_arms import PAPER_BACKBONE, REFUSED, RUNNABLE, table_arms
from mlae_lab.core.paper_tables import KEYS, MEAN, label_of, printed_table
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paper_results, paper_studies, studies, throughput
from mlae_lab.runs.paper_results import Compared, TableResults
from mlae_lab.runs.paper_studies import TableStudy
from mlae_lab.runs.studies import Plan
from mlae_lab.runs.throughput import Throughput

_MANY_TASKS = 4  # more are not shown one by one in a terminal


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `paper`. command: creates a subparser."""
    parser = command(
        "paper", _paper, "train a table of the paper as a study; show ours next to its numbers", store=True
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help=f"{', '.join(KEYS)}; without it: list all")
    parser.add_argument("--tasks", metavar="T,...", help="tasks of the table, or bundled ones (default: those ready)")
    parser.add_argument("--rows", metavar="ROW;...", help="rows of the table, separated by semicolons (default: all)")
    parser.add_argument("--seeds", metavar="N", help="number of seeds, or a list (default 3)")
    parser.add_argument("--epochs", type=int, metavar="N", help="in place of those of the recipes")
    parser.add_argument("--backbone", metavar="B", default="", help="in place of the paper's or the bundled one")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--dry-run", action="store_true", help="print rows, runs and time, and start nothing; the default"
    )
    action.add_argument("--start", action="store_true", help="start the runs that are missing")
    action.add_argument("--show", action="store_true", help="print the newest results next to the paper's numbers")
    action.add_argument(
        "--measure", nargs="?", const="auto", choices=("auto", "cpu", "cuda"), metavar="DEVICE",
        help="of table3: measure images per second of inference on this machine (default: a CUDA GPU if there is one)",
    )  # fmt: skip
    parser.add_argument("--detach", action="store_true", help="with --start: print the study's id and return at once")


def _paper(args: argparse.Namespace) -> int:
    if args.table is None:
        if args.start or args.show or args.tasks or args.rows or args.epochs:
            raise UsageError(f"no table is named: choose one of {', '.join(KEYS)}")
        return _list(args)
    if args.table.lower() == "table3" and not args.start:
        return _measure(args) if args.measure else _efficiency(args)
    if args.measure:
        raise UsageError(f"--measure is for table3, and the table is {args.table[:40]}: leave it out")
    key = paper_studies.resolved(args.table)
    if args.show:
        return _show(args, key)
    planned = _planned(args, key)
    if not args.start:
        return _print_plan(args, planned)
    store = store_of(args)
    stored = paper_studies.start(store, planned, current_owner())
    if args.detach:
        return print_result(args, {"study": stored.id, "runs": stored.study.runs}, stored.id)
    print(f"study {stored.id}: {stored.study.title}; Ctrl-C leaves it running", flush=True)
    status = follow(args, store, stored.id)
    if not args.json and (state := studies.state(store, stored.id)).is_over:
        print("\n".join(["", *result_lines(paper_results.table_results(store, state))]), flush=True)
    return status


def _planned(args: argparse.Namespace, key: str) -> TableStudy:
    seeds = _seeds(args.seeds)
    tasks = values_of_text(args.tasks) if args.tasks else ()
    rows = [row.strip() for row in args.rows.split(";")] if args.rows else ()
    return paper_studies.table_study(key, tasks, rows, seeds, args.epochs, args.backbone)


def _seeds(text: str | None) -> Sequence[int]:
    seeds = len(paper_studies.SEEDS) if text is None else seeds_of(text)
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)


# ---------------------------------------------------------------- list


def _list(args: argparse.Namespace) -> int:
    store = find_store(args)
    stored = paper_studies.stored_tables(store.studies()) if store else {}
    seeds = _seeds(args.seeds)
    rows: list[dict[str, Any]] = []
    counted_before: set = set()
    for key in KEYS:
        table = printed_table(key)
        row = {"table": key, "title": table.title, "means_of": table.means_of, "refused": REFUSED.get(key, "")}
        if key in RUNNABLE:
            tasks, missing = paper_studies.table_tasks(key)
            on = backbone(args.backbone or paper_studies.table_backbone(tasks))
            own = paper_studies.trainings(key, tasks, on)
            row |= {
                "rows": len(table_arms(key).rows),
                "tasks": list(tasks),
                "stand_in": catalog.task(tasks[0]).bundled,
                "tasks_of_paper": len(table_arms(key).tasks),
                "missing": list(missing),
                "runs": len(own) * len(seeds),
                "new_runs": len(own - counted_before) * len(seeds),
                "studies": [
                    {"study": entry.id, "done": studies.state(store, entry.id).done, "runs": entry.study.runs}
                    for entry in stored.get(key, ())
                    if store is not None
                ],
            }
            counted_before |= own
        rows.append(row)
    total = len(counted_before) * len(seeds)
    lines = [f"{'table':<9}{'rows':>4}{'ready':>8}{'runs':>7}{'new':>6}  {'done':<12}what it shows"]
    for row in rows:
        if row["means_of"]:
            lines.append(f"{row['table']:<9}{'':39}the means of {row['means_of']}")
        elif row["refused"]:
            lines.append(f"{row['table']:<9}{'':39}{row['title']} (parameters only)")
        else:
            done = ", ".join(f"{entry['done']}/{entry['runs']}" for entry in row["studies"]) or "–"
            bundled = counted(len(row["tasks"]), "bundled task")
            kind = f" (stand-in: {bundled})" if row["stand_in"] else ""
            ready = f"{row['tasks_of_paper'] - len(row['missing'])}/{row['tasks_of_paper']}"
            lines.append(
                f"{row['table']:<9}{row['rows']:>4}{ready:>8}{row['runs']:>7}{row['new_runs']:>6}  "
                f"{done:<12}{row['title']}{kind}"
            )
    lines.append(
        f"all tables together: {total:,} runs with {counted(len(seeds), 'seed')}; ready: tasks with images here; new: "
        "runs that no table above has"
    )
    return print_result(args, {"tables": rows, "runs": total}, "\n".join(lines))


# ---------------------------------------------------------------- plan


def _print_plan(args: argparse.Namespace, planned: TableStudy) -> int:
    study, key = planned.study, planned.arms.table.key
    plan = studies.plan(find_store(args), study)
    shared = paper_studies.shared(planned)
    by_row = _runs_by_row(plan, planned)
    result = {
        "table": key, "title": study.title, "question": study.question, "stand_in": planned.is_stand_in,
        "tasks": list(planned.tasks), "missing": list(planned.missing), "backbone": planned.backbone,
        "seeds": list(study.seeds), "reference": study.reference,
        "arms": [
            {"name": arm.name, **dict(arm.values), "config": arm.config.to_dict(), "command": arm.config.command()}
            for arm in study.arms
        ],
        "runs": study.runs, "to_run": plan.to_run, "reused": plan.reused, "seconds": plan.seconds, "low": plan.low,
        "high": plan.high, "memory_bytes": plan.memory, "shared": shared, "left_out": dict(planned.arms.left_out),
        "notes": list(planned.notes),
    }  # fmt: skip
    return print_result(args, result, "\n".join(_plan_lines(planned, plan, shared, by_row)))


def _runs_by_row(plan: Plan, planned: TableStudy) -> dict[str, tuple[int, int]]:
    """Row to its number of runs and of those that are present. A row that shares its arm with another row has none."""
    row_of = {arm.name: dict(arm.values)["row"] for arm in planned.study.arms}
    runs = Counter(row_of[cell.arm] for cell, _ in plan.entries)
    present = Counter(row_of[cell.arm] for cell, run in plan.entries if run is not None)
    return {row.name: (runs[row.name], present[row.name]) for row in planned.arms.rows if row.name in row_of.values()}


def _plan_lines(
    planned: TableStudy, plan: Plan, shared: dict[str, int], by_row: dict[str, tuple[int, int]]
) -> list[str]:
    study = planned.study
    settings = study.arms[0].config
    tasks = ", ".join(planned.tasks) if len(planned.tasks) <= _MANY_TASKS else f"{len(planned.tasks)} tasks"
    epochs = sorted({arm.config.epochs for arm in study.arms})
    lines = [
        study.title,
        study.question,
        f"{tasks} · {planned.backbone} · {' and '.join(counted(number, 'epoch') for number in epochs)} · "
        f"{counted(len(study.seeds), 'seed')} · {settings.badge.protocol}",
    ]
    width = max(map(len, by_row))
    lines.append(f"  {'row':<{width}}  runs  present  {'paper':>6}")
    for row, (runs, present) in by_row.items():
        printed = planned.arms.row(row).printed.get(MEAN)
        lines.append(f"  {row:<{width}}  {runs:>4}  {present:>7}  {'–' if printed is None else printed:>6}")
    lines += [f"  left out: {row} ({reason})" for row, reason in planned.arms.left_out]
    lines.append(
        f"of {counted(study.runs, 'run')} {plan.reused} {'is' if plan.reused == 1 else 'are'} there: "
        f"{plan.to_run} to run"
    )
    if shared:
        with_others = ", ".join(f"{other} {count * len(study.seeds)}" for other, count in shared.items())
        lines.append(f"runs that other tables have, too: {with_others}")
    if planned.missing:
        few = ", ".join(planned.missing[:_MANY_TASKS])
        more = f" and {len(planned.missing) - _MANY_TASKS} more" if len(planned.missing) > _MANY_TASKS else ""
        lines.append(f"no images here of {few}{more}: `{PROGRAM} fetch {planned.missing[0]}`")
    if planned.wants_weights:
        lines.append(f"no weights of the paper here: `{PROGRAM} fetch {PAPER_BACKBONE}`")
    lines += [time_text(plan), f"minimum memory {format_bytes(plan.memory)}, without the images", *planned.notes]
    return [*lines, f"`--start` starts it, `{PROGRAM} paper {planned.arms.table.key} --show` compares"]


# ---------------------------------------------------------------- show


def _show(args: argparse.Namespace, key: str) -> int:
    store = find_store(args)
    stored = paper_studies.stored_tables(store.studies()).get(key, []) if store else []
    if store is None or not stored:
        raise UsageError(f"{label_of(key)} was not started here: `{PROGRAM} paper {key} --start` does that")
    results = paper_results.table_results(store, studies.state(store, stored[0].id))
    data = paper_results.results_data(results) | {"other_studies": [entry.id for entry in stored[1:]]}
    lines = result_lines(results)
    if len(stored) > 1:
        others = ", ".join(entry.id for entry in stored[1:6])
        lines.append(f"newest of {len(stored)} studies of this table; the others: {others}")
    return print_result(args, data, "\n".join(lines))


def result_lines(results: TableResults) -> list[str]:
    """A table as text: ours, the paper's number and the difference, by row; the columns of at most four tasks."""
    state = results.state
    lines = [f"{state.stored.study.title}   {state.done} of {len(state.cells)} runs   study {state.stored.id}"]
    if results.choices:
        lines.append(f"  {'task':<22}  {'p':>5}  {'paper':>5}  {'λ':>6}  {'paper':>6}")
        for choice in results.choices:
            chosen = (
                (f"{choice.result.drop_rate:g}", f"{choice.result.coefficient_init:g}") if choice.result else ("–", "–")
            )
            paper = choice.paper and (f"{choice.paper.drop_rate:g}", f"{choice.paper.coefficient_init:g}")
            p, λ = paper or ("–", "–")
            lines.append(f"  {choice.task:<22}  {chosen[0]:>5}  {p:>5}  {chosen[1]:>6}  {λ:>6}")
    else:
        few = len(results.columns) <= _MANY_TASKS + 1
        columns = results.columns if few else tuple(name for name in results.columns if name not in results.tasks)
        width = max(map(len, results.rows))
        titles = [catalog.task(name).title if name in results.tasks else name for name in columns]
        lines.append(f"  {'':<{width}}  " + "  ".join(f"{title[:22]:<22}" for title in titles))
        lines.append(f"  {'row':<{width}}  " + "  ".join(f"{'ours':>6}{'paper':>8}{'diff.':>8}" for _ in columns))
        for row in results.rows:
            cells = "  ".join(_cells_text(results.cells[row, column], results.arms.measure) for column in columns)
            lines.append(f"  {row:<{width}}  {cells}".rstrip())
        lines += _order_lines(results, width)
    claims = [f"{row}: {results.cells[row, MEAN].claim}" for row in results.rows if results.cells[row, MEAN].claim]
    lines += claims
    if results.differs:
        lines.append(f"No claim about the paper's numbers: {', '.join(results.differs[:6])}.")
    badges = dict.fromkeys(arm.config.badge for arm in state.stored.study.arms)
    lines += [
        f"{b.task}: {b.data} · {b.protocol} · {b.weights} · {b.preprocessing}" for b in list(badges)[:_MANY_TASKS]
    ]
    if len(badges) > _MANY_TASKS:
        lines.append(f"and {len(badges) - _MANY_TASKS} more combinations of task and preprocessing: see --json")
    return [*lines, results.arms.table.note]


def _cells_text(cell: Compared, measure: str) -> str:
    digits = 3 if measure == "similarity" else 1
    result = "–" if cell.result is None else f"{cell.result.mean:.{digits}f}"
    paper = "–" if cell.paper is None else cell.paper.text
    difference = "–" if cell.difference is None else points(cell.difference, signed=True)
    return f"{result:>6}{paper:>8}{difference:>8}"


def _order_lines(results: TableResults, width: int) -> list[str]:
    """The differences of the means to the reference, ours and the paper's: comparable in kind if not in size."""
    lines = []
    for row in results.rows:
        result, paper = results.to_reference(row)
        if row != results.reference and result is not None and paper is not None:
            lines.append(f"  {row:<{width}}  {points(result, signed=True):>6}{points(paper, signed=True):>8}")
    return [f"difference of the mean to {results.reference}: ours, the paper's", *lines] if lines else []


def _measure(args: argparse.Namespace) -> int:
    rows = [row.strip() for row in args.rows.split(";")] if args.rows else []
    methods = throughput.methods_of(rows)
    store = store_of(args)
    few = f"{counted(len(methods), 'method')} with batches of {', '.join(map(str, throughput.BATCHES))}"
    print(f"measuring {few}; other work on this machine makes the numbers smaller", file=sys.stderr)
    throughput.measure(
        store.folder, rows, args.measure, args.backbone, lambda text: print(text, file=sys.stderr, flush=True)
    )
    return _efficiency(args)


def _efficiency(args: argparse.Namespace) -> int:
    rows = paper_results.added_parameters()
    lines = [
        f"Table 3: {printed_table('table3').title} · ViT-B/16, parameters that inference adds, in millions",
        f"  {'row':<14}{'ours':>8}{'paper':>8}{'diff.':>8}",
    ]
    for row in rows:
        paper = "–" if row.paper is None else f"{row.paper:g}"
        difference = "–" if row.paper is None else f"{row.added - row.paper:+.2f}"
        lines.append(f"  {row.row:<14}{row.added:>8.3f}{paper:>8}{difference:>8}")
    store = find_store(args)
    measured = throughput.measured(store.folder) if store else []
    for entry in measured:
        lines += ["", *_rate_lines(entry)]
    lines += ["", f"Not trained: {REFUSED['table3']}.", printed_table("table3").note]
    data = {
        "table": "table3", "refused": REFUSED["table3"], "rows": [vars(row) for row in rows],
        "measured": [
            {"backbone": entry.backbone, "chip": entry.chip, "date": entry.date, "precision": entry.precision,
             "rows": [vars(row) for row in throughput.rate_rows(entry)]}
            for entry in measured
        ],
    }  # fmt: skip
    return print_result(args, data, "\n".join(lines))


def _rate_lines(entry: Throughput) -> list[str]:
    paper = "the paper's on an RTX 3090 in parentheses" if entry.is_papers else "another network than the paper's"
    lines = [f"images per second: {entry.where}, {entry.backbone.removesuffix(throughput.RANDOM)}; {paper}"]
    lines.append(f"  {'row':<14}{'':<10}" + "".join(f"{f'batch {batch}':>18}" for batch in throughput.BATCHES))
    for row in throughput.rate_rows(entry):
        cells = [
            f"{row.rates[batch]:.1f}" + (f" ({row.paper[batch]:g})" if entry.is_papers and batch in row.paper else "")
            for batch in throughput.BATCHES
        ]
        lines.append(f"  {row.row:<14}{'merged' if row.merged else '':<10}" + "".join(f"{cell:>18}" for cell in cells))
    return lines
