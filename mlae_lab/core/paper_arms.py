"""What the lab trains for the rows of the paper's tables, as plain data.

A row becomes an arm on each task. Rows that mean the same training on a task, such as p = 0 with and without a mask,
are one arm there, and equal arms of several tables are equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from mlae_lab.core import method as methods
from mlae_lab.core import recipes
from mlae_lab.core.backbones import Backbone, backbone
from mlae_lab.core.catalog import Group, task
from mlae_lab.core.config import RunConfig
from mlae_lab.core.paper import TUNED, Tuned
from mlae_lab.core.paper_tables import FGVC, KEYS, MEAN, VTAB, PrintedRow, PrintedTable, printed_table
from mlae_lab.core.patterns import dense, fitted, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import proposed_values
from mlae_lab.core.study import configured
from mlae_lab.core.study_file import base_config

PAPER_BACKBONE = "vit_base_patch16_224.orig_in21k"
UNTUNED = Tuned(0.5, 1)  # for a task without a row in Table 10: the best single p (Table 15) and λ (Table 14)
# The bundled tasks that render the formula of a task of the paper
COUNTERPARTS = {"dsprites_loc_rendered": "dsprites_loc", "dsprites_ori_rendered": "dsprites_ori"}
STAND_INS = ("dsprites_loc_rendered", "fashion", "dsprites_ori_rendered", "digits")
GROUPS = {
    "natural": VTAB[:7], "specialized": VTAB[7:11], "structured": VTAB[11:],
}  # fmt: skip
_LEARNING_RATE_OF_FULL = 1.25e-4  # its authors' recipe: the lab's proposal is for few parameters and ruins all others
_SHORT_SEARCH = {"search_generations": "4", "search_population": "20"}  # of a stand-in, in place of 20 times 50
_GLORA_AS_LORA = 0.29  # M parameters at which Table 1 prints GLoRA and LoRA


@dataclass(frozen=True)
class Training:
    """What is trained. plan: of MLAE; settings: of the run or the method, name and value as text."""

    method: str = "mlae"
    plan: MaskPlan | None = None
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TableRow:
    """One row of a table as an arm.

    Attributes:
        name: Unique in its table.
        printed: Task, group or `MEAN` to the paper's number.
        kind: What decides its training: "method", "mask", "p", "λ", "rank", "experts", "component" or "figure".
        value: Its value of that.
        parameters: In millions as printed, None if there are none.
    """

    name: str
    printed: Mapping[str, float]
    kind: str
    value: str
    parameters: float | None = None

    def training(self, task_name: str, on: Backbone) -> Training:
        """What is trained for the row on a task, with a mask that is fitted to the backbone."""
        tuned = tuned_for(task_name)
        whole = replace(uniform(tuned.drop_rate), coefficient_init=tuned.coefficient_init)
        settings: tuple[tuple[str, str], ...] = ()
        if self.kind == "method":
            if self.value != "mlae":
                return Training(self.value, settings=self._of_method(on, task_name))
            plan = whole
        elif self.kind == "mask":
            name, _, kind = self.value.partition(".")
            plan = whole if name == "uniform" else pattern(name, kind)
        elif self.kind == "p":
            plan = uniform(float(self.value))
        elif self.kind == "λ":
            plan = replace(whole, coefficient_init=float(self.value))
        elif self.kind == "rank":
            plan = replace(_with_experts(whole, 8 // int(self.value)), expert_rank=int(self.value))
        elif self.kind == "experts":
            plan = _with_experts(whole, int(self.value))
        elif self.value == "λ":
            plan = dense()
        elif self.value == "mask":
            plan = replace(uniform(tuned.drop_rate), train_coefficients=False)
        elif self.value == "all":
            plan = whole
        else:
            plan = replace(dense(), train_coefficients=False)
            if self.value == "dropout" and tuned.drop_rate:
                settings = (("input_dropout", f"{tuned.drop_rate:g}"),)
        return Training("mlae", fitted(plan, on.default_targets), settings)

    def _of_method(self, on: Backbone, task_name: str) -> tuple[tuple[str, str], ...]:
        if self.value != "glora" or self.parameters is None:
            return ()
        # the printed sizes are of paths that a search chose: as large in relation to LoRA of rank 8
        of_lora = RunConfig("digits", method="lora", backbone=on.name).tuning.parameters(on)
        search = _SHORT_SEARCH if task(task_name).bundled else {"search_generations": "20"}
        limit = round(of_lora * self.parameters / _GLORA_AS_LORA)
        return (*search.items(), ("search_parameters", str(limit)))


def _with_experts(plan: MaskPlan, experts: int) -> MaskPlan:
    rate = plan.drop_rate[0][0]
    return replace(uniform(rate, experts=experts), coefficient_init=plan.coefficient_init)


def tuned_for(task_name: str) -> Tuned:
    """p and λ of Table 10 for a task or for the one that a bundled task renders, else `UNTUNED`."""
    return TUNED.get(COUNTERPARTS.get(task_name, task_name), UNTUNED)


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class TableArms:
    """A table as a study.

    Attributes:
        table: As printed.
        question: That its study answers.
        tasks: Its tasks in the paper.
        rows: That can be trained.
        reference: Name of the row that the others are compared with.
        protocol: As of a run.
        measure: "accuracy", "similarity" (mean |cosine| of experts), or "choice" (the best p and λ of each task).
        left_out: Name of a row to the reason why it is not trained.
        notes: What the paper leaves open, and what is assumed.
    """

    table: PrintedTable
    question: str
    tasks: tuple[str, ...]
    rows: tuple[TableRow, ...]
    reference: str
    protocol: str = "test"
    measure: str = "accuracy"
    left_out: tuple[tuple[str, str], ...] = ()
    notes: str = ""

    def row(self, name: str) -> TableRow:
        """A row by its name. Raises KeyError for an unknown one."""
        return {row.name: row for row in self.rows}[name]


REFUSED = {
    "table3": "it reports inference on an RTX 3090, and a study trains and compares accuracies: parameters are "
    "counted, images per second are measured with --measure, FLOPs are not",
}
RUNNABLE = tuple(key for key in KEYS if key not in REFUSED and not printed_table(key).means_of)
_OURS = "MLAE"
_QUESTIONS = {
    "table1": "Which method is most accurate on VTAB-1k?",
    "table2": "Which method is most accurate on FGVC, and with how many parameters?",
    "table4": "Which masking strategy is best at equal parameters?",
    "table5": "What do decomposition, mask and adaptive coefficients contribute?",
    "table10": "Which p and which initial λ suit each task?",
    "table11": "Which method is most accurate on each task of FGVC?",
    "table12": "Which rank should an expert have at equal parameters?",
    "table13": "How many experts per layer are worth their parameters?",
    "table14": "Which initial λ is best?",
    "table15": "Which drop probability is best, one for all layers?",
    "fig4": "Does masking make experts less similar than LoRA, with and without dropout?",
    "fig5": "How similar are the experts of LoRA and of MLAE?",
}  # fmt: skip
_NOTES = {
    "table2": "Table 10 has no p and λ for FGVC: p = 0.5 and λ = 1 are assumed.",
    "table4": "The paper gives no λ for these masks, and no p for the mixed ones: λ = 1 and p = 0.5 are assumed.",
    "table5": "Without adaptive coefficients, λ stays 1.",
    "table10": "Chosen on val, never on test. λ is varied at the paper's p of each task.",
    "table11": "Table 10 has no p and λ for FGVC: p = 0.5 and λ = 1 are assumed.",
    "fig4": "LoRA: all experts in every step, λ stays 1. Its dropout acts on the input of A with the p of MLAE.",
    "fig5": "LoRA: all experts in every step, λ stays 1.",
}  # fmt: skip
_REFERENCES = {
    "table1": _OURS, "table2": "MLAE (Ours)", "table4": "uniform (Ours)", "table5": "Decomposition",
    "table10": "p = 0.5", "table11": "MLAE (Avg)", "table12": "Rank 1", "table13": "8 experts", "table14": "λ = 1",
    "table15": "p = 0", "fig4": "LoRA", "fig5": "LoRA",
}  # fmt: skip
_COMPONENTS = ("none", "λ", "mask", "all")
_FIGURE_ROWS = {"LoRA": "none", "LoRA + Dropout": "dropout", "MLAE": "all"}


@cache
def table_arms(key: str) -> TableArms:
    """A table as a study. Raises KeyError for one that is not in `RUNNABLE`."""
    table = printed_table(key)
    left_out: tuple[tuple[str, str], ...] = ()
    if key in ("table1", "table2", "table11"):
        rows = _of_methods(table)
        left_out = tuple(
            (row.name, "one seed of the row MLAE (Avg), whose runs it shares")
            for row in table.rows
            if "(seed" in row.name
        )
    elif key == "table4":
        rows = tuple(
            TableRow(
                "uniform (Ours)" if name == "uniform" else f"{row.name}, {name}", {MEAN: value}, "mask",
                f"{name}.{row.name}",
            )
            for row in table.rows
            for name, value in row.values.items()
        )  # fmt: skip
    elif key == "table5":
        rows = tuple(_row(row, "component", part) for row, part in zip(table.rows, _COMPONENTS, strict=True))
    elif key == "table10":
        sweeps = [row for sweep in ("table15", "table14") for row in printed_table(sweep).rows]
        rows = tuple(TableRow(row.name, {}, *_setting(row)) for row in sweeps)
    elif key in ("table12", "table13"):
        kind, at = ("rank", 1) if key == "table12" else ("experts", 0)
        rows = tuple(_row(row, kind, row.name.split()[at]) for row in table.rows)
    elif key in ("table14", "table15"):
        rows = tuple(_row(row, *_setting(row)) for row in table.rows)
    else:
        rows = tuple(_row(row, "figure", _FIGURE_ROWS[row.name]) for row in table.rows)
    tasks = FGVC if key in ("table2", "table11") else ("cifar",) if key == "fig5" else VTAB
    measure = "similarity" if key.startswith("fig") else "choice" if key == "table10" else "accuracy"
    return TableArms(
        table, _QUESTIONS[key], tasks, rows, _REFERENCES[key], "val" if key == "table10" else "test", measure, left_out,
        _NOTES.get(key, ""),
    )  # fmt: skip


def _setting(row: PrintedRow) -> tuple[str, str]:
    """What a sweep varies and the value of a row: ("p", "0.5")."""
    kind, _, value = row.name.partition(" = ")
    return kind, value


def _row(row: PrintedRow, kind: str, value: str) -> TableRow:
    printed = dict(row.values) | ({} if row.mean is None else {MEAN: row.mean})
    return TableRow(row.name, printed, kind, value, row.parameters)


def _of_methods(table: PrintedTable) -> tuple[TableRow, ...]:
    rows = [row for row in table.rows if "(seed" not in row.name]
    names = [row.name for row in rows]
    named = [
        replace(row, name=f"{row.name}, {row.parameters:g} M") if names.count(row.name) > 1 else row for row in rows
    ]
    return tuple(_row(row, "method", row.method) for row in named)


# ---------------------------------------------------------------- runs


def table_config(base: RunConfig, training: Training, epochs: int | None = None) -> RunConfig:
    """The run of a training.

    On a task of the paper it follows the recipe of the method's authors for its benchmark, on a bundled one the lab's
    proposal for a short run. It is evaluated once, after the last epoch.

    Args:
        base: Task, images, backbone and protocol (`table_base`).
        training: What is trained.
        epochs: In place of those of the recipe, None to keep them.
    """
    values = {"method": training.method}
    if not task(base.task).bundled:
        values["recipe"] = recipe_for(training.method, base.task)
    config, _ = configured(base, values | dict(training.settings))
    if task(base.task).bundled and training.method == "full":
        config = replace(config, learning_rate=_LEARNING_RATE_OF_FULL)
    return replace(
        config, plan=training.plan or config.plan, evaluations=1, epochs=config.epochs if epochs is None else epochs
    )


def table_base(task_name: str, backbone_name: str, protocol: str) -> RunConfig:
    """What the runs of a table share on a task, without its images."""
    targets = backbone(backbone_name).default_targets
    base = base_config(task_name)
    return replace(base, backbone=backbone_name, protocol=protocol, plan=fitted(dense(), targets))


def recipe_for(method: str, task_name: str) -> str:
    """The recipe of a method's authors for the benchmark of a task, the one for VTAB-1k or MLAE's without it."""
    own = methods.method(method).recipes
    wanted = "fgvc" if task(task_name).group is Group.FGVC else "vtab"
    return next((name for name in (wanted, "vtab") if name in own), "mlae")


def deviations(config: RunConfig) -> tuple[str, ...]:
    """In what a run differs from the paper's conditions, a clause each; empty where its accuracy is comparable."""
    clauses = []
    if task(config.task).name not in (*VTAB, *FGVC):
        clauses.append("another task")
    elif config.data_label not in ("", "VTAB-1k", "FGVC"):  # empty: not looked at yet
        clauses.append(f"other images ({config.data_label})")
    if config.backbone != PAPER_BACKBONE or config.weights:
        clauses.append(f"other weights ({config.badge.weights})")
    if config.protocol != "test":
        clauses.append(f"evaluated on {config.protocol}")
    if not task(config.task).bundled:
        recipe = recipes.values_of(config, recipe_for(config.method, config.task))
        own = {name: value for name, value in recipe.items() if name not in ("method_settings", "preprocessing")}
        different = [name for name, value in own.items() if getattr(config, name) != value]
        clauses += [f"{name.replace('_', ' ')} {getattr(config, name)} for {own[name]}" for name in different]
    return tuple(clauses)


SHORT_EPOCHS: int = proposed_values(RunConfig)["epochs"]  # of a stand-in
