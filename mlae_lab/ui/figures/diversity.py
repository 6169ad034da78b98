"""A study of diversity: one measure against the drop rate p, a line with its band for each arm."""

from __future__ import annotations

from mlae_lab.core.study_presets import DROPOUTS
from mlae_lab.data.listing import counted
from mlae_lab.runs.similarity_results import MEASURES, SimilarityResults
from mlae_lab.ui.figures.base import FRAME, Figure, apart, axis, band, figure, room

_LOOKS = {"expert": ("@accent", "solid", 3.0), "token": ("@low", "dash", 2.0), "lora": ("@high", "dot", 2.0)}
_ENDS = {"expert": "expert", "token": "token", "lora": "LoRA", "dense": "dense"}
_NAMES = {
    "absolute": "mean |cosine|", "effective_rank": "effective rank of ΔW",
    "stable_rank": "stable rank of ΔW", "accuracy": "accuracy", "signed": "mean cosine",
}  # fmt: skip
_HEIGHT = 320


def diversity_figure(results: SimilarityResults, measure: str) -> Figure:
    """A measure over p: mean over seeds with its 95 % interval for each arm, with the dense run as a level.

    Args:
        results: Of a study of diversity.
        measure: A key of `runs.similarity_results.MEASURES`; "absolute" also shows the random baseline.
    """
    data: list[dict] = []
    lines: list[dict] = []
    ends: list[tuple[float, float, str, str]] = []
    top = max(results.rates)
    for arm, (colour, dash, width) in _LOOKS.items():
        points = [(p.rate, p.values[measure], len(p.seeds)) for p in results.curve(arm) if measure in p.values]
        if not points:
            continue
        banded = [(rate, *s.interval[1:]) for rate, s, _ in points if s.interval is not None]
        data += band(f"{DROPOUTS[arm]}, 95 % interval", [rate for rate, _, _ in banded], [low for _, low, _ in banded],
                     [high for _, _, high in banded], colour, opacity=0.13)  # fmt: skip
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": DROPOUTS[arm],
                "x": [r for r, *_ in points],
                "y": [round(s.mean, 5) for _, s, _ in points],
                "text": [counted(n, "seed") for *_, n in points],
                "line": {"color": colour, "width": width, "dash": dash},
                "marker": {"size": 6, "color": colour},
                "hovertemplate": "p = %{x}: %{y:.4~f}, %{text}<extra>" + DROPOUTS[arm] + "</extra>",
            }
        )
        ends.append((top, points[-1][1].mean, _ENDS[arm], colour))
    levels = [("dense", p.values[measure].mean) for p in results.curve("dense") if measure in p.values]
    if measure == "absolute" and results.baseline is not None:
        levels.append(("random", results.baseline.mean))
    for name, level in levels:
        lines.append(
            {
                "type": "scatter", "mode": "lines", "name": name, "x": [0, top], "y": [round(level, 5)] * 2,
                "line": {"color": "@quiet", "width": 1.5, "dash": "dash" if name == "dense" else "dot"},
                "hovertemplate": f"{name}: %{{y:.4~f}}<extra></extra>",
            }
        )  # fmt: skip
        ends.append((top, level, name, "@quiet"))
    data += lines  # drawn over all bands
    values = [value for trace in data for value in trace["y"]]
    least = {"accuracy": 4.0, "absolute": 0.01, "signed": 0.01}.get(measure, 0.2)
    low, high = room(min(values, default=0.0), max(values, default=1.0), least=least)
    if measure == "accuracy":
        high = min(high, 102.0)
    title = _title(results, measure)
    return figure(
        data,
        title,
        f"Line chart over the drop rate p. {title}.",
        f"diversity-{measure}",
        height=_HEIGHT,
        xaxis=axis("drop rate p", range=[-0.02, top + 0.02], tickvals=list(results.rates)),
        yaxis=axis(MEASURES[measure].replace("Accuracy, %", "top-1 accuracy in %"), range=[low, high]),
        annotations=apart(ends, (_HEIGHT - FRAME) / (high - low)),
        margin={"l": 58, "r": 62, "t": 44, "b": 44},
    )


def _title(results: SimilarityResults, measure: str) -> str:
    """The finding: the means of the dense run and of the largest evaluated rate of expert dropout, as drawn."""
    masked = [p for p in results.curve("expert") if p.rate and measure in p.values]
    dense = [p.values[measure].mean for p in results.curve("dense") if measure in p.values]
    name = _NAMES[measure]
    if not masked or not dense:
        return f"{name[:1].upper()}{name[1:]} against p"
    last = masked[-1]
    digits = {"accuracy": 1, "absolute": 3, "signed": 3}.get(measure, 2)
    means = f"{dense[0]:.{digits}f} dense, {last.values[measure].mean:.{digits}f} at p = {last.rate:g}"
    return f"{name[:1].upper()}{name[1:]}: {means}"
