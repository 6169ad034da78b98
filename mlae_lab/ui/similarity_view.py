"""What a study of diversity says: does masking make experts less similar? On the study's page and on Experts."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core.seed_statistics import mean_text
from mlae_lab.core.study_presets import DROPOUTS, diversity_command
from mlae_lab.runs.similarity_results import MEASURES, SimilarityResults, similarity_results
from mlae_lab.ui import page, queries
from mlae_lab.ui.figures.diversity import diversity_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.study_queries import LoadedStudy
from mlae_lab.ui.tables import large, table

_SHOWN = ("absolute", "effective_rank", "accuracy", "stable_rank")
_CACHE_SECONDS = 5.0


def draw_similarity(loaded: LoadedStudy) -> None:
    """Draw the similarity of experts over p; nothing for a study of something else."""
    key = ("similarity", loaded.stored.id, loaded.stored.version, loaded.state.done)
    results = queries.shared(
        key, lambda: similarity_results(queries.store(), loaded.state, queries.curve), _CACHE_SECONDS
    )
    if results is not None:
        _draw(results)


def _draw(results: SimilarityResults) -> None:
    page.section("Similarity of the experts")
    first, *rest = results.verdict
    large(first)
    page.note("<br>".join(map(escape, rest)))
    page.note(
        "The rule: supported if the 95 % interval (Student's t over seeds) of the paired difference in mean |cosine|, "
        "expert dropout minus dense, lies below 0; contradicted if above; otherwise not settled. Each p is tested "
        f"separately; rises and falls follow the same rule. Valid for this task, this backbone and "
        f"{results.study.arms[0].config.epochs} epochs. |cosine| also grows during training, and masks slow "
        "training down: compare it together with accuracy."
    )
    if results.points:
        with st.container(key="pair_diversity"):
            left, right = st.columns(2, gap="large")
        for number, measure in enumerate(_SHOWN):
            with (left, right)[number % 2]:
                live_plot(diversity_figure(results, measure), key=f"diversity_{measure}")
        page.computed(
            "Each line is a kind of dropout, each band the 95 % interval of its mean over seeds.",
            "Mean over seeds of each run's last epoch and over layers, all experts on; bands: 95 % interval of the "
            "mean, cut at 100 % accuracy. |cosine|: paper, A.4, without the diagonal. "
            "Effective rank of ΔW: exp(−Σ p ln p) with p = σ / Σσ; "
            "stable rank: ‖ΔW‖²<sub>F</sub> / σ₁². At p = 0 the arms expert and token are the dense run, and the "
            "arm LoRA is LoRA without dropout, with λ fixed at 1.",
        )
        with st.expander("Table of values"):
            _numbers(results)
    if command := diversity_command(results.study):
        with st.expander("Equivalent command"):
            page.command(command)


def _numbers(results: SimilarityResults) -> None:
    header = ("Arm", "p", "seeds", *MEASURES.values(), "|cosine| relative to p = 0")
    rows = []
    for point in results.points:
        cells = [DROPOUTS[point.dropout], f"{point.rate:g}", str(len(point.seeds))]
        for name in MEASURES:
            statistics = point.values.get(name)
            digits = {"accuracy": 1, "effective_rank": 2, "stable_rank": 2}.get(name, 4)
            cells.append("–" if statistics is None else mean_text(statistics, digits))
        gap = point.differences.get("absolute")
        cells.append(
            "–"
            if gap is None
            else f"{gap.mean:+.4f}" + ("" if gap.low is None else f" ({gap.low:+.4f} to {gap.high:+.4f})")
        )
        rows.append([*map(escape, cells)])
    table(header, rows)
