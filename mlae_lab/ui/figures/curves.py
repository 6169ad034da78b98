"""Curves over epochs: accuracy, loss, similarity."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from mlae_lab.core.events import SimilarityStats, mean_of
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.ui.figures.base import (
    FRAME,
    Figure,
    Reference,
    Running,
    apart,
    axis,
    end_label,
    figure,
    finite,
    rounded,
    spread,
)

_HEIGHT = 300  # of the figure of accuracy, in pixels
_TOP = 102  # of its axis, in percent


def accuracy_figure(running: Running, outcome: Outcome, references: Sequence[Reference] = ()) -> Figure:
    """Accuracy over epochs on the evaluation images, the running training accuracy, and lines for reference results."""
    evaluations, split, epochs = outcome.evaluations, outcome.config.protocol, outcome.config.epochs
    images = outcome.started.evaluation_images if outcome.started else 0
    training = [(outcome.epochs_at(m), m.mean_accuracy) for m in running.moments if m.mean_accuracy is not None]
    name = f"{images:,} {'validation' if split == 'val' else 'test'} images"
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "training batches",
            "x": [x for x, _ in training],
            "y": [round(y, 2) for _, y in training],
            "line": {"color": "@quiet", "width": 1.5, "dash": "dot"},
            "hovertemplate": "epoch %{x:.1f}: %{y:.1f} % of the training images<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [outcome.epochs_at(e) for e in evaluations],
            "y": [round(e.accuracy, 2) for e in evaluations],
            "line": {"color": "@accent", "width": 2.5},
            "marker": {"size": 6, "color": "@accent"},
            "hovertemplate": "epoch %{x}: %{y:.1f} % of the " + name + "<extra></extra>",
        },
    ]
    title = "Accuracy: not evaluated yet"
    ends, levels = [], _reference_labels(references)
    low = _lowest([e.accuracy for e in evaluations], [reference.value for reference in references])
    if evaluations:
        last = evaluations[-1]
        title = f"Accuracy {last.accuracy:.1f} % on {name} {outcome.when(last)}"
        if training:
            ends.append(end_label(*training[-1], "train", "@quiet", of="training batches"))
        ends.append(end_label(outcome.epochs_at(last), last.accuracy, split, "@accent", of=name))
    reach_edge = any(label["x"] > 0.9 * epochs for label in ends)  # where the labels of the references are
    groups = [ends + levels] if reach_edge else [ends, levels]
    return figure(
        data,
        title,
        f"Line chart. {title}.",
        "accuracy",
        xaxis=axis("epoch", range=[0, epochs * 1.06], fixedrange=False),
        yaxis=axis("top-1 accuracy in %" + (f", from {low}" if low else ""), range=[low, _TOP]),
        annotations=[label for group in groups for label in spread(group, (_HEIGHT - FRAME) / (_TOP - low))],
        height=_HEIGHT,
        shapes=_reference_lines(references),
        margin={"l": 52, "r": 84 if references else 44, "t": 44, "b": 44},
    )


def _lowest(accuracies: Sequence[float], references: Sequence[float]) -> int:
    """Lower end of the axis: a multiple of 10 under the evaluations and the references; 0 before the third one."""
    return 0 if len(accuracies) < 3 else max(0, int(min([*accuracies, *references]) - 2) // 10 * 10)


def paper_figure(rates: dict[float, float], probe: float, best: float) -> Figure:
    """The paper's accuracy over the drop rate for one task (Table 15), with its linear probe and best result (Table 1).

    Args:
        rates: Accuracy in percent, by p.
        probe: Accuracy of the linear probe in percent.
        best: Best accuracy in percent.
    """
    points = sorted(rates.items())
    top = max(rates, key=lambda p: rates[p])
    title = f"In the paper, p = {top:g} is best: {rates[top]:.1f} %; without masking {rates[0]:.1f} %"
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": y,
            "y1": y,
            "line": {"color": "@quiet", "dash": "dash", "width": 1.2},
        }
        for y in (probe, best)
    ]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "MLAE, one p for all layers",
            "x": [p for p, _ in points],
            "y": [a for _, a in points],
            "line": {"color": "@accent", "width": 2.5},
            "marker": {"size": 7, "color": "@accent"},
            "hovertemplate": "p = %{x}: %{y:.1f} %<extra>Table 15</extra>",
        }
    ]
    low, high = min([probe, *rates.values()]), max([best, *rates.values()])
    return figure(
        data,
        title,
        f"Line chart. {title}.",
        "paper-drop-rate",
        height=260,
        xaxis=axis("drop rate p", range=[-0.03, 1.2], tickvals=[p for p, _ in points]),
        yaxis=axis("top-1 accuracy in %", range=[low - 0.08 * (high - low) - 1, high + 0.08 * (high - low) + 1]),
        shapes=lines,
        annotations=[
            end_label(0.93, probe, f"probe {probe:g}", "@quiet", 9),
            end_label(0.93, best, f"tuned {best:g}", "@quiet", 9),
        ],
    )


def _reference_lines(references: Sequence[Reference]) -> list[dict]:
    line = {"color": "@quiet", "dash": "dash", "width": 1.2}
    return [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": r.value, "y1": r.value, "line": line}
        for r in references
    ]


def _reference_labels(references: Sequence[Reference]) -> list[dict]:
    return [end_label(1.0, r.value, r.label, "@quiet") | {"xref": "paper", "xshift": 4} for r in references]


def loss_figure(running: Running, outcome: Outcome, references: Sequence[Reference] = ()) -> Figure:
    """Cross-entropy over epochs of training batches and evaluation images, with lines for reference results."""
    evaluations, split, epochs = outcome.evaluations, outcome.config.protocol, outcome.config.epochs
    training = [(outcome.epochs_at(m), m.loss, m.mean_loss) for m in running.moments if m.mean_loss is not None]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "each batch",
            "x": [x for x, *_ in training],
            "y": [rounded(y, 4) for _, y, _ in training],
            "line": {"color": "@hairline", "width": 1},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "training, running mean",
            "x": [x for x, *_ in training],
            "y": [round(y, 4) for *_, y in training],
            "line": {"color": "@quiet", "width": 2, "dash": "dot"},
            "hovertemplate": "epoch %{x:.1f}: %{y:.3f} in training<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": split,
            "x": [outcome.epochs_at(e) for e in evaluations],
            "y": [rounded(finite(e.loss), 4) for e in evaluations],
            "line": {"color": "@accent", "width": 2.5},
            "marker": {"size": 6, "color": "@accent"},
            "hovertemplate": "epoch %{x}: %{y:.3f}<extra></extra>",
        },
    ]
    title = f"Loss is {training[-1][2]:.3f} in training" if training else "Loss: training has not started"
    if evaluations and training:
        title += f", {evaluations[-1].loss:.3f} on {split}"
    losses = [e.loss for e in evaluations] + [r.value for r in references]
    top = max([y for _, _, y in training] + [y for y in losses if isfinite(y)], default=1.0)
    return figure(
        data,
        title,
        f"Line chart. {title}.",
        "loss",
        height=220,
        xaxis=axis("epoch", range=[0, epochs * 1.06]),
        yaxis=axis("cross-entropy in nats", range=[0, top * 1.1]),
        shapes=_reference_lines(references),
        annotations=_reference_labels(references),
        margin={"l": 52, "r": 84 if references else 44, "t": 44, "b": 44},
    )


def similarity_curve(
    history: Sequence[SimilarityStats], other: Sequence[SimilarityStats] = (), name: str = "dense",
    baseline: float | None = None,
) -> Figure:  # fmt: skip
    """Mean cosine between the experts of a layer over epochs, averaged over layers: absolute and signed.

    Args:
        history: Of the run.
        other: Of another run, drawn as a reference; usually a dense one.
        name: Label of the other run.
        baseline: Mean |cosine| of random experts, None for no line.
    """
    pairs = [
        (s.epoch, absolute, signed)
        for s in history
        if (absolute := mean_of(s.absolute)) is not None and (signed := mean_of(s.signed)) is not None
    ]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": [p[0] for p in pairs],
            "y": [round(p[i], 5) for p in pairs],
            "line": {"color": colour, "width": 2, "dash": dash},
            "marker": {"size": 5, "color": colour},
            "hovertemplate": "epoch %{x}: %{y:.3f} " + label + "<extra></extra>",
        }
        for i, label, colour, dash in ((1, "absolute", "@accent", "solid"), (2, "signed", "@quiet", "dot"))
    ]
    other_means = [(s.epoch, value) for s in other if (value := mean_of(s.absolute)) is not None]
    if other_means:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{name} run, absolute",
                "x": [epoch for epoch, _ in other_means],
                "y": [round(value, 5) for _, value in other_means],
                "line": {"color": "@quiet", "width": 1.2, "dash": "dash"},
                "hovertemplate": "epoch %{x}: %{y:.3f} absolute in the " + name + " run<extra></extra>",
            }
        )
    title = (
        f"Experts of a layer: mean |cosine| {pairs[-1][1]:.3f}"
        if pairs
        else "Similarity requires two experts in a layer"
    )
    last = max([1, *(epoch for epoch, *_ in (*pairs, *other_means))])
    traces = {"absolute": "absolute", "signed": "signed", name: f"{name} run, absolute"}  # by label
    ends = []
    if pairs:
        ends += [(last, pairs[-1][1], "absolute", "@accent"), (last, pairs[-1][2], "signed", "@quiet")]
    if other_means:
        title += f", in the {name} run {other_means[-1][1]:.3f}"
        ends.append((last, other_means[-1][1], name, "@quiet"))
    levels = [Reference("random", baseline)] if baseline is not None and pairs else []
    ends += [(last, level.value, level.label, "@quiet") for level in levels]
    values = [v for p in pairs for v in p[1:]] + [value for _, value in other_means] + [r.value for r in levels]
    low, high = min([0.0, *values]) - 0.02, max([0.1, *values]) * 1.15
    height = 220
    labels = [
        label | ({"name": traces[label["text"]], "captureevents": True} if label["text"] in traces else {})
        for label in apart(ends, (height - FRAME) / (high - low))
    ]
    return figure(
        data,
        title,
        f"Line chart. {title}.",
        "similarity-over-epochs",
        height=height,
        xaxis=axis("epoch", range=[0, 1.02 * last]),
        yaxis=axis("cosine", range=[low, high]),
        shapes=_reference_lines(levels),
        annotations=labels,
        margin={"l": 52, "r": 72, "t": 44, "b": 44},
    )
