"""The message of the live bench to the browser: one packed message per refresh, made once for all viewers of a run.

The message contains the texts, the curves and the evaluations; `live_bench.js` draws it in place. A live run sends its
last two evaluations and the masks of its last steps; a run that is over sends its whole history for replay. Each
message is complete, so the server keeps no state per viewer; a repeated one is sent as a reference
(`global.minCachedMessageSize` in config.toml).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from html import escape

import streamlit as st

from mlae_lab.core import catalog, paper
from mlae_lab.core.config import RunConfig
from mlae_lab.core.data_url import data_url
from mlae_lab.core.events import ExpertStats, Predictions, SampleImages, SimilarityStats, TrainStep, packed
from mlae_lab.core.method import Trait
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.random_baseline import over_layers, random_experts
from mlae_lab.runs import devices
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, queries, terms
from mlae_lab.ui.bundle import bundled
from mlae_lab.ui.figures import Figure, Reference
from mlae_lab.ui.figures.base import finite
from mlae_lab.ui.layer_grids import LayerGrid, layer_grids
from mlae_lab.ui.live_plot import PLOTLY

MASKS_SENT = 40  # of a live run: the last ones
MASKS_KEPT = 2_000  # of a run that is over: every n-th, if it took more steps
EVALUATIONS_KEPT = 40  # of a run that is over, evenly chosen
_SCRIPTS = ("palette.js", "plotting.js", "svg_figure.js", "value_grid.js", "live_bench.js")
_COMPONENT = bundled("live_bench", _SCRIPTS, "live_bench.html", "live_bench.css")


@dataclass(frozen=True)
class BenchText:
    """The texts around the figures.

    Attributes:
        facts: Name and value of each number, the first one large; a second line of a value is small.
        waiting: What the run waits for.
        warning: What is wrong with an active run.
    """

    facts: Sequence[tuple[str, str]] = ()
    waiting: str = ""
    warning: str = ""


def live_bench(packed_message: bytes, key: str) -> None:
    """Draw the bench, or update the one with this key.

    Args:
        packed_message: From `message`.
        key: Unique on the page.
    """
    _COMPONENT(key=key, data=packed_message, height="content")


def images(run: Run, sample_images: SampleImages | None) -> None:
    """Put the sample images on the page, hidden: they are sent once, and the bench reads them from here."""
    tags = "".join(
        f'<img src="{escape(data_url(text))}" alt="">' for text in (sample_images.images if sample_images else ())
    )
    st.html(f'<div class="lb-images" data-run="{run.id}" hidden>{tags}</div>')


def message(run: Run, tail: queries.Tail, text: BenchText) -> bytes:
    """The whole bench as deflated JSON, made once for each state of a run."""
    live = not run.status.is_over
    revision = (
        live,
        len(tail.steps),
        len(tail.evaluations),
        len(tail.search),
        text,
        *tail.notes,
        *queries.references(run),
    )
    return tail.memo("message", revision, lambda: zlib.compress(_json(run, tail, text, live).encode(), 6))


def _json(run: Run, tail: queries.Tail, text: BenchText, live: bool) -> str:
    config, outcome = run.config, tail.outcome(run.config)
    steps = tail.steps[-1].step if tail.steps else 0
    total = tail.started.steps if tail.started else 0
    progress = steps / total if total else 0.0
    if not tail.started and tail.preparing and tail.preparing.total:
        progress = tail.preparing.done / tail.preparing.total
    references = queries.references(run)
    dense = references.get("dense")
    grids = tail.memo("grids", len(tail.statistics), lambda: layer_grids(tail.statistics, config.has_mask))
    data = {
        "run": run.id,
        "live": live,
        "facts": text.facts,
        "names": [terms.marked(escape(name), with_common=True) for name, _ in text.facts],
        "waiting": text.waiting,
        "warning": text.warning,
        "progress": round(progress, 4),
        "notes": [*config.data_notes, *tail.notes],
        "steps": steps,
        "epochs": max(1, tail.steps[-1].epoch) if tail.steps else config.epochs,
        "trained": steps / outcome.steps_per_epoch if steps and outcome.steps_per_epoch else config.epochs,
        "plan": _plan(config.plan) if config.has_mask else None,
        "grids": [_grid(grid) for grid in grids],
        "by_layer": not config.has_mask
        and (bool(grids) or (not tail.evaluations and Trait.PER_LAYER_GRID in config.tuning.traits)),
        "masks": _masks(tail.steps, live),
        "evaluations": tail.memo(
            "evaluations", (live, len(tail.evaluations)), lambda: _evaluations(tail, outcome, live, grids)
        ),
        "tops": tail.memo("tops", len(tail.experts), lambda: _tops(tail.experts, config.plan.coefficient_init)),
        "cosines": tail.memo("cosines", len(tail.similarity), lambda: _cosine_scale(tail, config)),
        "truth": tail.sample_images.labels if tail.sample_images else [],
        "dense": {"run": dense.run, "absolute": dense.similarity[-1].absolute} if dense and dense.similarity else None,
        "plotly": PLOTLY,
    }
    encoded = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    curves = ",".join(f'"{name}":{_figure(figure)}' for name, figure in _curves(tail, outcome, references).items())
    drawn = set() if config.has_mask else {grid.name for grid in grids}
    more = tail.memo(
        "statistics", len(tail.statistics), lambda: ",".join(map(_figure, _statistics(tail, outcome, drawn)))
    )
    search = tail.memo("search", len(tail.search), lambda: ",".join(map(_figure, _search(tail))))
    return f'{encoded[:-1]},"figures":{{{curves}}},"search":[{search}],"statistics":[{more}]}}'


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "null"
    about = json.dumps({"key": f"{hash(figure.spec):x}", "name": figure.name, "alt": figure.alt}, ensure_ascii=False)
    return f'{about[:-1]},"figure":{figure.spec}}}'


def _curves(tail: queries.Tail, outcome: Outcome, references: dict[str, queries.Reference]) -> dict[str, Figure | None]:
    if not tail.steps:
        return {"accuracy": None, "loss": None, "similarity": None}
    config, running = outcome.config, tail.running
    probe, dense = references.get("probe"), references.get("dense")
    lines, losses = [], []
    if (reported := reported_accuracy(config)) is not None:
        lines.append(Reference(f"paper {reported.value:g}", reported.value))
    if probe and probe.evaluations:
        lines.append(Reference(f"probe {probe.evaluations[-1].accuracy:.1f}", probe.evaluations[-1].accuracy))
        losses.append(Reference("probe", probe.evaluations[-1].loss))
    revision = (len(tail.steps), len(tail.evaluations), *references)
    return {
        "accuracy": figures.accuracy_figure(running, outcome, lines),
        "loss": figures.loss_figure(running, outcome, losses),
        "similarity": tail.memo(
            "similarity",
            revision[1:],
            lambda: figures.similarity_curve(
                tail.similarity, dense.similarity if dense else (), baseline=random_cosine(config)
            ),
        )
        if config.has_mask and tail.similarity
        else None,
    }


def _statistics(tail: queries.Tail, outcome: Outcome, drawn: Set[str]) -> list[Figure]:
    """A figure of each `Statistics` value that the run recorded, whatever its name. drawn: those drawn as a grid."""
    labels = {name: label for event in tail.statistics for name, label in event.labels.items()}
    names = dict.fromkeys(name for event in tail.statistics for name in event.values if name not in drawn)
    return [
        figures.statistic_figure(
            name,
            labels.get(name, (name.replace("_", " "), "")),
            [(outcome.epochs_at(event), event.values.get(name)) for event in tail.statistics],
            outcome.config.plan.row_labels if outcome.config.has_mask else _numbered(tail, name),
            outcome.config.epochs,
        )
        for name in names
    ]


def _search(tail: queries.Tail) -> list[Figure]:
    return [figures.search_figure(tail.search), figures.chosen_figure(tail.search[-1])] if tail.search else []


def _numbered(tail: queries.Tail, name: str) -> list[str]:
    """Labels 1, 2, … of the layers of a statistic of a method without a mask."""
    values = (event.values.get(name) for event in tail.statistics)
    return [str(n) for n in range(1, 1 + max((len(v) for v in values if isinstance(v, tuple)), default=0))]


def _plan(plan: MaskPlan) -> dict:
    return {
        "rows": plan.rows,
        "columns": plan.columns,
        "keep": packed(cell for row in plan.keep for cell in row),
        "kept": plan.kept,
        "experts": plan.experts,
        "labels": plan.row_labels,
        "rates": [_short(rate) for row in plan.drop_rate for rate in row],
        "start": plan.coefficient_init,
        "trains": plan.train_coefficients,
    }


def _grid(own: LayerGrid) -> dict:
    return {
        "name": own.name,
        "title": own.title,
        "rows": own.grid.rows,
        "columns": own.grid.columns,
        "axis": own.grid.axis,
        "note": own.grid.note,
        "low": _short(own.low),
        "high": _short(own.high),
    }


def _masks(steps: Sequence[TrainStep], live: bool) -> dict:
    """The masks of steps first, first + stride, ..., and the pace in steps per second."""
    stride = 1 if live else max(1, -(-len(steps) // MASKS_KEPT))
    shown = steps[-MASKS_SENT:] if live else steps[::stride]
    masked = [step for step in shown if step.mask]
    pace = 1.0
    if len(steps) > 1:
        recent = steps[-MASKS_SENT:] if live else steps
        pace = (len(recent) - 1) / max(1e-3, recent[-1].seconds - recent[0].seconds)
    return {
        "first": masked[0].step if masked else 1,
        "stride": stride,
        "hex": [step.mask for step in masked],
        "pace": round(pace, 3),
    }


def _evaluations(tail: queries.Tail, outcome: Outcome, live: bool, grids: Sequence[LayerGrid]) -> list[dict]:
    """The evaluations with their statistics; cosines as the lower triangles of the layers' matrices."""
    predictions: dict[int, Predictions] = {event.step: event for event in tail.predictions}
    indices = range(len(tail.evaluations))
    if live:
        indices = indices[-2:]
    elif len(indices) > EVALUATIONS_KEPT:
        last = len(indices) - 1
        indices = sorted({round(i * last / (EVALUATIONS_KEPT - 1)) for i in range(EVALUATIONS_KEPT)})
    return [
        _evaluation(tail, outcome, index, predictions.get(tail.evaluations[index].step))
        | {"grids": {own.name: _cells(own, tail.evaluations[index].step) for own in grids}}
        for index in indices
    ]


def _cells(own: LayerGrid, step: int) -> list[float | None] | None:
    """The canvas of an evaluation, row by row; None if it has none."""
    canvas = own.canvases.get(step)
    return None if canvas is None else [_short(value) for line in canvas for value in line]


def _evaluation(tail: queries.Tail, outcome: Outcome, index: int, predictions: Predictions | None) -> dict:
    evaluation = tail.evaluations[index]
    data: dict = {
        "epoch": evaluation.epoch,
        "when": outcome.when(evaluation),
        "step": evaluation.step,
        "accuracy": evaluation.accuracy,
    }
    if index < len(tail.experts):
        stats: ExpertStats = tail.experts[index]
        canvases = {
            "contribution": stats.contribution,
            "coefficient": stats.coefficient,
            "share": stats.active_share,
            "gradient": stats.gradient,
        }
        for name, canvas in canvases.items():
            data[name] = [_short(value) for row in canvas for value in row]
    if index < len(tail.similarity):
        similarity: SimilarityStats = tail.similarity[index]
        data["absolute"] = similarity.absolute
        data["similarity"] = [_cosine(row[j]) for m in similarity.matrices for i, row in enumerate(m) for j in range(i)]
    if predictions:
        data["predicted"], data["confidence"] = predictions.predicted, predictions.confidence
    return data


def _cosine(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _cosine_scale(tail: queries.Tail, config: RunConfig) -> dict[str, float | None]:
    """End of the colour scale of the newest cosines, and the mean |cosine| of random experts."""
    reach = figures.cosine_reach(*tail.similarity[-1:])
    return {"reach": reach, "random": random_cosine(config)}


def random_cosine(config: RunConfig) -> float | None:
    """Mean |cosine| of random experts of the shapes of a run, mean over layers; None if it has no closed form."""
    if not config.has_mask or config.plan.expert_rank != 1:
        return None
    try:
        shapes = catalog.backbone(config.backbone).shapes(config.plan.targets)
    except catalog.CatalogError:  # a run on a network that this version does not know
        return None
    layers = zip(config.plan.targets, config.plan.kept, strict=True)
    level = over_layers([random_experts(*shapes[target], count) for target, count in layers])
    return None if level is None else _short(level.mean)


def _short(value: float | None) -> float | None:
    """The value to four digits; None for what JSON cannot hold."""
    return None if value is None or finite(value) is None else float(f"{value:.4g}")


def _tops(experts: Sequence[ExpertStats], start: float) -> dict[str, float]:
    """The ends of the colour scales over all evaluations, so that a colour has one meaning throughout a run."""

    def largest(name: str) -> float:
        return max((v for s in experts for row in getattr(s, name) for v in row if v is not None), default=0.0) or 1.0

    drift = max((abs(v - start) for s in experts for row in s.coefficient for v in row if v is not None), default=0.0)
    return {
        "contribution": largest("contribution"),
        "coefficient": 1.0,
        "gradient": largest("gradient"),
        "share": 1.0,
        "drift": drift,
    }


def load_text(run: Run) -> str | None:
    """The utilization of the run's device as text, None if unknown."""
    return queries.shared(("load", run.slot), lambda: devices.load(run.slot or "cpu"), 2.0)


def reported_accuracy(config: RunConfig) -> paper.Cell | None:
    """The accuracy of the paper that a run is comparable with: same data, weights, protocol and preprocessing."""
    badge = config.badge
    same = (
        config.protocol == "test"
        and config.has_mask
        and badge.data in ("VTAB-1k", "FGVC")
        and badge.weights == "vit_base_patch16_224.orig_in21k"
        and badge.preprocessing.endswith("mean = std = 0.5")
    )
    return paper.MLAE_ACCURACY.get(config.task) if same else None
