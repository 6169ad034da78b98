"""What the live bench tells the browser: one packed message per refresh, made once for all viewers of a run.

The message has the words, the curves and what was measured; `live_bench.js` draws it in place. A live run sends its last
two measurements and the masks of its last steps; a run that is over sends its whole history, which the browser plays.
A viewer who comes late or loads the page again gets all of it, so nothing has to be remembered about anybody; a message
that says what the last one said costs a reference (`global.minCachedMessageSize` in config.toml).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from mlae_lab.core import paper
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import ExpertStats, Predictions, SampleImages, SimilarityStats, TrainStep, packed
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import devices
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, queries
from mlae_lab.ui.bundle import bundled
from mlae_lab.ui.figures import Figure, Reference
from mlae_lab.ui.figures.base import finite
from mlae_lab.ui.live_plot import plotly_url

MASKS_SENT = 40  # of a live run: the last ones
MASKS_KEPT = 2_000  # of a run that is over: every so manieth, if it took more steps
MEASURED_KEPT = 40  # measurements of a run that is over, evenly chosen
_COMPONENT = bundled("live_bench", ("palette.js", "plotting.js", "live_bench.js"), "live_bench.html", "live_bench.css")


@dataclass(frozen=True)
class Words:
    """What stands around the images. facts: name and value of each number above them, the second one large; waiting:
    what is being waited for; warning: what is wrong with a run that lives."""

    facts: Sequence[tuple[str, str]] = ()
    waiting: str = ""
    warning: str = ""


def live_bench(told: bytes, key: str) -> None:
    """Draw the bench, or update the one that stands under this key. told: by `message`; key: unique on the page."""
    _COMPONENT(key=key, data=told, height="content")


def images(run: Run, sample_images: SampleImages | None) -> None:
    """The watched images, hidden: they travel once, and the bench takes them from here."""
    images = "".join(f'<img src="{_address(text)}" alt="">' for text in (sample_images.images if sample_images else ()))
    st.html(f'<div class="lb-images" data-run="{run.id}" hidden>{images}</div>')


def _address(base64: str) -> str:
    return f"data:image/{'png' if base64.startswith('iVBOR') else 'jpeg'};base64,{escape(base64)}"


def message(run: Run, tail: queries.Tail, words: Words) -> bytes:
    """The whole bench as JSON, deflated; one for each state of a run."""
    live = not run.status.is_over
    revision = (live, len(tail.steps), len(tail.evaluations), words, *queries.references(run))
    return tail.memo("message", revision, lambda: zlib.compress(_told(run, tail, words, live).encode(), 6))


def _told(run: Run, tail: queries.Tail, words: Words, live: bool) -> str:
    config, outcome = run.config, tail.outcome(run.config)
    steps = tail.steps[-1].step if tail.steps else 0
    total = tail.started.steps if tail.started else 0
    progress = steps / total if total else 0.0
    if not tail.started and tail.preparing and tail.preparing.total:
        progress = tail.preparing.done / tail.preparing.total
    references = queries.references(run)
    dense = references.get("dense")
    data = {
        "run": run.id,
        "live": live,
        "facts": words.facts,
        "waiting": words.waiting,
        "warning": words.warning,
        "progress": round(progress, 4),
        "notes": [*config.data_notes, *(tail.started.notes if tail.started else ())],
        "steps": steps,
        "epochs": max(1, tail.steps[-1].epoch) if tail.steps else config.epochs,
        "trained": steps / outcome.steps_per_epoch if steps and outcome.steps_per_epoch else config.epochs,
        "plan": _plan(config.plan) if config.method == "mlae" else None,
        "masks": _masks(tail.steps, live),
        "measured": tail.memo("measured", (live, len(tail.evaluations)), lambda: _measured(tail, outcome, live)),
        "tops": tail.memo("tops", len(tail.experts), lambda: _tops(tail.experts, config.plan.coefficient_init)),
        "truth": tail.sample_images.labels if tail.sample_images else [],
        "dense": {"run": dense.run, "absolute": dense.similarity[-1].absolute} if dense and dense.similarity else None,
        "plotly": plotly_url(),
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    drawn = ",".join(f'"{name}":{_figure(figure)}' for name, figure in _curves(tail, outcome, references).items())
    more = tail.memo("statistics", len(tail.statistics), lambda: ",".join(map(_figure, _statistics(tail, outcome))))
    return f'{text[:-1]},"figures":{{{drawn}}},"statistics":[{more}]}}'


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "null"
    about = json.dumps({"key": f"{hash(figure.spec):x}", "name": figure.name, "alt": figure.alt}, ensure_ascii=False)
    return f'{about[:-1]},"figure":{figure.spec}}}'


def _curves(tail: queries.Tail, outcome: Outcome, references: dict[str, queries.Reference]) -> dict[str, Figure | None]:
    if not tail.steps:
        return {"accuracy": None, "loss": None, "alike": None}
    config, running = outcome.config, tail.running
    running.steps_per_epoch = outcome.steps_per_epoch or running.steps_per_epoch
    probe, dense = references.get("probe"), references.get("dense")
    lines, losses = [], []
    if (reported := beside(config)) is not None:
        lines.append(Reference(f"paper {reported.value:g}", reported.value))
    if probe and probe.evaluations:
        lines.append(Reference(f"probe {probe.evaluations[-1].accuracy:.1f}", probe.evaluations[-1].accuracy))
        losses.append(Reference("probe", probe.evaluations[-1].loss))
    revision = (len(tail.steps), len(tail.evaluations), *references)
    return {
        "accuracy": figures.accuracy_figure(running, outcome, lines),
        "loss": figures.loss_figure(running, outcome, losses),
        "alike": tail.memo(
            "alike", revision[1:], lambda: figures.similarity_curve(tail.similarity, dense.similarity if dense else ())
        )
        if config.method == "mlae" and tail.similarity
        else None,
    }


def _statistics(tail: queries.Tail, outcome: Outcome) -> list[Figure]:
    """A figure of everything that the run has recorded besides, whatever it is called."""
    labels = {name: label for event in tail.statistics for name, label in event.labels.items()}
    names = dict.fromkeys(name for event in tail.statistics for name in event.values)
    return [
        figures.statistic_figure(
            name,
            labels.get(name, (name.replace("_", " "), "")),
            [(outcome.epochs_at(event), event.values.get(name)) for event in tail.statistics],
            outcome.config.plan.row_labels,
            outcome.config.epochs,
        )
        for name in names
    ]


def _plan(plan: MaskPlan) -> dict:
    return {
        "rows": plan.rows,
        "columns": plan.columns,
        "keep": packed(cell for row in plan.keep for cell in row),
        "kept": plan.kept,
        "experts": plan.experts,
        "labels": plan.row_labels,
        "start": plan.coefficient_init,
        "trains": plan.train_coefficients,
    }


def _masks(steps: Sequence[TrainStep], live: bool) -> dict:
    """Masks of a row of steps: of number first, first + stride, ... pace: steps per second."""
    stride = 1 if live else max(1, -(-len(steps) // MASKS_KEPT))
    shown = steps[-MASKS_SENT:] if live else steps[::stride]
    told = [step for step in shown if step.mask]
    pace = 1.0
    if len(steps) > 1:
        recent = steps[-MASKS_SENT:] if live else steps
        pace = (len(recent) - 1) / max(1e-3, recent[-1].seconds - recent[0].seconds)
    return {
        "first": told[0].step if told else 1,
        "stride": stride,
        "hex": [step.mask for step in told],
        "pace": round(pace, 3),
    }


def _measured(tail: queries.Tail, outcome: Outcome, live: bool) -> list[dict]:
    """Each measurement with all that belongs to it; cosines as the lower triangles of the layers' matrices."""
    predictions: dict[int, Predictions] = {found.step: found for found in tail.predictions}
    indices = range(len(tail.evaluations))
    if live:
        indices = indices[-2:]
    elif len(indices) > MEASURED_KEPT:
        last = len(indices) - 1
        indices = sorted({round(i * last / (MEASURED_KEPT - 1)) for i in range(MEASURED_KEPT)})
    return [_one(tail, outcome, at, predictions.get(tail.evaluations[at].step)) for at in indices]


def _one(tail: queries.Tail, outcome: Outcome, at: int, predictions: Predictions | None) -> dict:
    evaluation = tail.evaluations[at]
    found: dict = {
        "epoch": evaluation.epoch,
        "when": outcome.when(evaluation),
        "step": evaluation.step,
        "accuracy": evaluation.accuracy,
    }
    if at < len(tail.experts):
        stats: ExpertStats = tail.experts[at]
        for name, canvas in (("contribution", stats.contribution), ("coefficient", stats.coefficient),
                             ("share", stats.active_share), ("gradient", stats.gradient)):  # fmt: skip
            found[name] = [_short(value) for row in canvas for value in row]
    if at < len(tail.similarity):
        alike: SimilarityStats = tail.similarity[at]
        found["absolute"] = alike.absolute
        found["alike"] = [_cosine(row[j]) for m in alike.matrices for i, row in enumerate(m) for j in range(i)]
    if predictions:
        found["predicted"], found["confidence"] = predictions.predicted, predictions.confidence
    return found


def _cosine(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _short(value: float | None) -> float | None:
    """Four digits; None for what JSON cannot hold."""
    return None if value is None or finite(value) is None else float(f"{value:.4g}")


def _tops(experts: Sequence[ExpertStats], start: float) -> dict[str, float]:
    """The ends of the colour scales, over all measurements, so that a colour means one thing throughout a run."""

    def most(name: str) -> float:
        return max((v for s in experts for row in getattr(s, name) for v in row if v is not None), default=0.0) or 1.0

    drift = max((abs(v - start) for s in experts for row in s.coefficient for v in row if v is not None), default=0.0)
    return {
        "contribution": most("contribution"),
        "coefficient": 1.0,
        "gradient": most("gradient"),
        "share": 1.0,
        "drift": drift,
    }


def load_text(run: Run) -> str | None:
    """How busy the run's device is, None where nobody can say."""
    return queries.shared(("load", run.slot), lambda: devices.load(run.slot or "cpu"), 2.0)


def beside(config: RunConfig) -> paper.Cell | None:
    """The paper's number that a run's last epoch may stand beside: same data, weights, protocol and preprocessing."""
    badge = config.badge
    same = (
        config.protocol == "test"
        and config.method == "mlae"
        and badge.data in ("VTAB-1k", "FGVC")
        and badge.weights == "vit_base_patch16_224.orig_in21k"
        and badge.preprocessing.endswith("mean = std = 0.5")
    )
    return paper.MLAE_ACCURACY.get(config.task) if same else None
