"""Similarity of the experts of a run: cosines as tiles and over epochs, and measures that do not depend on how ΔW is
decomposed. Alone or next to another run (`?other=`), as in the paper's figures 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import SimilarityStats, mean_of
from mlae_lab.core.plan import Kind
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_experts
from mlae_lab.runs import probe
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views.other_run import OTHER, other_run
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.figures.similarity import Line, by_layer_figure, overlap_figure, rank_curve, spectrum_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence

_NO_RUN = ""
MAX_OFFERED = 40


def draw(run: Run) -> None:
    """Draw the view: first what the run recorded during training, then the results of a query."""
    other = _other(run)
    if not run.config.has_mask:
        _components(run, other)
        return
    own, others = queries.tail(run.id).similarity, queries.tail(other.id).similarity if other else []
    _facts(own[-1], others[-1] if others else None)
    _cosines(run, own, other, others)
    _invariants(run, own, other, others)


# ---------------------------------------------------------------- the other run


def _other(run: Run) -> Run | None:
    """Return the run to compare with: of the URL, else the dense one with the same settings."""
    candidates = {entry.id: entry for entry in _candidates(run)}
    dense = queries.references(run).get("dense")
    default = dense.run if dense is not None and dense.run in candidates else _NO_RUN
    requested = st.query_params.get(OTHER)
    if requested and requested not in candidates:
        try:
            candidate = queries.run(requested)
            if candidate.id == run.id or not queries.tail(candidate.id).similarity:
                raise StoreError(
                    f"run {candidate.id} cannot be compared with run {run.id}: choose another run with experts"
                )
            candidates[candidate.id] = candidate
        except StoreError as error:
            st.warning(plain(sentence(error)))
    if not candidates:
        page.note("Once a second run with experts is over, the two can be compared here.")
        return None
    explanation = (
        "The paper's figures 4 and 5 compare a masked run with LoRA's rank-1 components. Any run with experts can be "
        "chosen."
    )
    with st.container(key="four_similarity"):
        left, _ = st.columns([1, 1])
    with left:
        return other_run([*candidates.values()], "Compare with", _label, "none", default, explanation)


def _candidates(run: Run) -> list[Run]:
    """Return runs with recorded similarity; those of the same task first."""
    candidates = [
        entry for entry in queries.runs() if entry.id != run.id and entry.config.has_mask and entry.status.is_over
    ]
    candidates.sort(key=lambda entry: entry.config.task != run.config.task)
    return [entry for entry in candidates[: 2 * MAX_OFFERED] if queries.store().last(entry.id, SimilarityStats)][
        :MAX_OFFERED
    ]


def _label(run: Run) -> str:
    config = run.config
    rates = {p for row in config.plan.drop_rate for p in row} - {0.0}
    rate = f", p = {rates.pop():g}" if len(rates) == 1 else ""
    if config.learned_drop_rates != "off":
        rate = ", learned p"
    extra = " per token" if config.mask_per == "token" else ""
    extra += f", inputs dropped at {config.input_dropout:g}" if config.input_dropout else ""
    kind = (
        "LoRA"
        if config.plan.kind is Kind.DENSE and not config.plan.train_coefficients and not rate
        else config.plan.kind.value
    )
    return f"{run.id}: {catalog.task(config.task).title}, {kind}{rate}{extra}, seed {config.seed}"


# ---------------------------------------------------------------- cosines


def _baseline(run: Run) -> list[RandomBaseline | None]:
    """Return the random baseline of each layer.

    Experts of a rank above 1 have no closed form: the probe process samples their baseline, and it is None until then.
    """
    plan = run.config.plan
    if plan.expert_rank != 1:
        reply = probe.ask(queries.store(), run.id, "similarity", {"file": "", "other": ""}, 0.1)
        layers = reply.value["baseline"] if reply.value is not None else [None] * plan.rows
        return [RandomBaseline(**layer) if layer else None for layer in layers]
    shapes = catalog.backbone(run.config.backbone).shapes(plan.targets)
    return [random_experts(*shapes[target], count) for target, count in zip(plan.targets, plan.kept, strict=False)]


def _cosines(run: Run, own: Sequence[SimilarityStats], other: Run | None, others: Sequence[SimilarityStats]) -> None:
    baseline = _baseline(run)
    level = over_layers(baseline)
    random_mean = level.mean if level else None
    reach = figures.cosine_reach(own[-1], *others[-1:])  # both runs on one scale
    page.section("Cosine between the experts of a layer")
    with st.container(key="pair_similarity_tiles"):
        left, right = st.columns(2, gap="large")
    with left:
        page.note(f"Run {run.id}, epoch {own[-1].epoch}")
        live_plot(
            figures.similarity_tiles(own[-1], run.config.plan.row_labels, baseline=random_mean, reach=reach),
            key="similarity_tiles",
        )
    with right:
        if other is not None and others:
            page.note(f"Run {other.id}, epoch {others[-1].epoch}")
            live_plot(
                figures.similarity_tiles(others[-1], other.config.plan.row_labels, baseline=random_mean, reach=reach),
                key="similarity_tiles_other",
            )
        else:
            _by_layer(run, own[-1], None, None, baseline)
    page.computed(
        "One tile per layer, with its label and mean |cosine|; blue: opposite, orange: the same direction. The scale "
        "ends where 95 % of the pairs do; the others have its full colour. Random experts of these shapes have the "
        "mean |cosine| at its middle.",
        "cos(bᵢ aᵢᵀ, bⱼ aⱼᵀ) = cos(bᵢ, bⱼ) · cos(aᵢ, aⱼ), with the sign of λᵢ λⱼ (paper, A.4; figures 4 and 5); the "
        "diagonal is left out.",
    )
    several = len(own) > 1 or len(others) > 1
    with st.container(key="pair_similarity_curves"):
        columns = st.columns(1 + bool(others and several), gap="large")
    if several:
        with columns[0]:
            live_plot(figures.similarity_curve(own, others, "other", random_mean), key="similarity_curve")
    if others:
        with columns[-1]:
            _by_layer(run, own[-1], other, others[-1], baseline)
    random_text = (
        "for independent rank-1 experts of these shapes, E|cos| = E|cos(a, a′)| · E|cos(b, b′)|, each "
        "Γ(d/2) / (√π Γ((d+1)/2))"
        if run.config.plan.expert_rank == 1
        else f"the mean over 24 layers of rank-{run.config.plan.expert_rank} experts of these shapes, sampled with "
        "Gaussian factors"
    )
    page.note(
        f"Mean over the pairs of a layer, and over layers. Random baseline: {random_text}; the band is two standard "
        "deviations."
    )


def _by_layer(
    run: Run,
    own: SimilarityStats,
    other: Run | None,
    other_stats: SimilarityStats | None,
    baseline: Sequence[RandomBaseline | None],
) -> None:
    """Draw the mean |cosine| of each layer; of the other run only if its layers are the same ones."""
    plan, level = run.config.plan, over_layers(baseline)
    lines = [Line("this run", own.absolute)]
    if other is not None and other_stats is not None and other.config.plan.targets == plan.targets:
        lines.append(Line("other", other_stats.absolute, strong=False))
    title = _mean_title(mean_of(own.absolute), level)
    live_plot(
        by_layer_figure("similarity-layers", plan.row_labels, lines, title, "mean |cosine|", baseline),
        key="similarity_layers",
    )


def _mean_title(mean: float | None, level: RandomBaseline | None) -> str:
    return "Mean |cosine| by layer" + (
        f": {mean / level.mean:.0f} times that of random experts" if mean and level else ""
    )


def _facts(own: SimilarityStats, others: SimilarityStats | None) -> None:
    """Show the mean cosines as numbers."""
    pairs = []
    for name, stats in (("", own), (", other run", others)):
        if stats is not None and (mean := mean_of(stats.absolute)) is not None:
            pairs.append((f"Mean |cosine|{name}", f"{mean:.3f}"))
            pairs.append((f"Mean cosine{name}", f"{mean_of(stats.signed):+.3f}"))
    if pairs:
        page.facts(*pairs)


def _components(run: Run, other: Run | None) -> None:
    """Draw the view of a low-rank method: its components are the experts, and all comes from one query."""
    result = _answer(run, other, "")
    if result is None:
        return
    is_of_rank_1 = result["rank"] == 1
    of = ("component", "components") if is_of_rank_1 else ("expert", "experts")
    last = SimilarityStats(run.config.epochs, *(tuple(result[name]) for name in ("signed", "absolute", "matrices")))
    _facts(last, None)
    page.section(f"Cosine between the {of[1]} of a layer")
    with st.container(key="pair_similarity_tiles"):
        left, right = st.columns(2, gap="large")
    baseline = [RandomBaseline(**layer) if layer else None for layer in result["baseline"]]
    level = over_layers(baseline)
    with left:
        if None in result["matrices"]:
            page.note("The layers have too many components to show each pair.")
        else:
            live_plot(
                figures.similarity_tiles(last, result["labels"], of=of, baseline=level.mean if level else None),
                key="similarity_tiles",
            )
    with right:
        lines, level = [Line("this run", last.absolute)], over_layers(baseline)
        if other is not None and "other" in result and result["other"]["targets"] == result["targets"]:
            lines.append(Line("other", result["other"]["absolute"], strong=False))
        mean = mean_of(last.absolute)
        live_plot(
            by_layer_figure("similarity-layers", result["labels"], lines, _mean_title(mean, level), "mean |cosine|",
                            baseline),
            key="similarity_layers",
        )  # fmt: skip
    what = f"rank-1 components b aᵀ of {run.config.what}" if is_of_rank_1 else f"experts of {run.config.what}"
    page.note(
        f"The {escape(what)} at the end of the run stand for the experts of a mask; another factorization of the same "
        "ΔW has other components."
    )
    _invariants_note()
    _spectra(result, result.get("other"))
    _spaces(result, result.get("other"), other is not None and other.config.seed == run.config.seed)


# ---------------------------------------------------------------- invariants of ΔW


def _invariants(run: Run, own: Sequence[SimilarityStats], other: Run | None, others: Sequence[SimilarityStats]) -> None:
    _invariants_note()
    _over_epochs(run, own, other, others)
    _computed(run, other)


def _invariants_note() -> None:
    page.section("Invariant measures of ΔW")
    page.computed(
        "The split of an update into experts is not unique, so their similarity depends on it. What follows does not.",
        "BA = (BR)(R⁻¹A) for any invertible R: the rank-1 components of ΔW, and so their cosines, are not unique. Its "
        "singular values and its row and column spaces are. They are computed from the factors: Aᵀ = "
        "Q<sub>a</sub> R<sub>a</sub>, "
        "Bλ = Q<sub>b</sub> R<sub>b</sub>; the number of rows of R<sub>b</sub> R<sub>a</sub>ᵀ is the number of experts "
        "times their rank.",
    )


def _max_rank(experts: Sequence[int], rank: int) -> float:
    """Return the largest possible rank of ΔW, mean over the layers with experts."""
    present = [count * rank for count in experts if count]
    return sum(present) / len(present) if present else 0.0


def _over_epochs(
    run: Run, own: Sequence[SimilarityStats], other: Run | None, others: Sequence[SimilarityStats]
) -> None:
    """Draw the ranks that the run recorded during training; runs of older versions have none."""
    kinds = [
        (what, [_mean_ranks(history, f"{what}_rank") for history in (own, others)]) for what in ("effective", "stable")
    ]
    if max(len(ranks) for _, (ranks, _) in kinds) < 2:
        return
    max_rank, other_max_rank = (
        _max_rank(entry.config.plan.kept, entry.config.plan.expert_rank) if entry else 0.0 for entry in (run, other)
    )
    with st.container(key="pair_similarity_over_epochs"):
        columns = st.columns(2, gap="large")
    for column, (what, (own_ranks, other_ranks)) in zip(columns, kinds, strict=False):
        with column:
            live_plot(
                rank_curve(f"{what}-rank-over-epochs", what, own_ranks, other_ranks, max_rank, other_max_rank),
                key=f"similarity_rank_{what}",
            )
    page.note(
        "Mean over the layers whose ΔW is not 0, all experts on, at each evaluation. The upper limit is the "
        "number of experts times their rank, mean over the layers that have some."
    )


def _mean_ranks(history: Sequence[SimilarityStats], name: str) -> list[tuple[int, float]]:
    return [(stats.epoch, mean) for stats in history if (mean := mean_of(getattr(stats, name))) is not None]


def _computed(run: Run, other: Run | None) -> None:
    if not run.config.has_mask or not queries.store().paths(run.id).adapter.is_file():
        page.note("This run saved no adapter, so these measures cannot be computed.")
        return
    last_names = (LAST, str(run.config.epochs))
    checkpoints = {
        name: path for name, path in queries.store().paths(run.id).checkpoints().items() if name not in last_names
    }
    epoch = _NO_RUN
    if checkpoints:
        epoch = st.select_slider(
            "Checkpoint", [*checkpoints, _NO_RUN], value=_NO_RUN,
            format_func=lambda name: f"epoch {name}" if name else "last epoch",
            key=f"similarity_at_{run.id}",
        )  # fmt: skip
    result = _answer(run, other, str(checkpoints[epoch]) if epoch else "")
    if result is None:
        return
    _spectra(result, result.get("other"))
    _spaces(result, result.get("other"), other is not None and other.config.seed == run.config.seed)


def _answer(run: Run, other: Run | None, file: str) -> Mapping | None:
    """The answer of the query, None until it is there. file: a checkpoint, "" for the end."""
    files = queries.store().paths(other.id).adapter if other else None
    arguments = {"file": file, "other": str(files) if files is not None and files.is_file() else ""}
    return answer(run, "similarity", arguments, "similarity_answer", "Computing the spectrum of ΔW")


def _spectra(result: Mapping, other: Mapping | None) -> None:
    with st.container(key="pair_similarity_spectrum"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(
            spectrum_figure(result["values"], other["values"] if other else (), "this run", "other"),
            key="similarity_spectrum",
        )
        page.computed(
            "How the strength of ΔW spreads over its directions, strongest first. A flat line uses all of them "
            "equally.",
            "σᵢ / Σσ, mean over layers; the band spans the lowest to the highest layer.",
        )
    lines = [Line("effective", result["effective_rank"]), Line("stable", result["stable_rank"], dash="dashdot")]
    if other and other["targets"] == result["targets"]:
        lines += [
            Line("effective, other", other["effective_rank"], False),
            Line("stable, other", other["stable_rank"], False, "dashdot"),
        ]
    ranks = [value for value in result["effective_rank"] if value is not None]
    title = (
        f"Effective rank of ΔW: {sum(ranks) / len(ranks):.1f} "
        f"of at most {_max_rank(result['experts'], result['rank']):.3g}"
        if ranks
        else "ΔW is 0"
    )
    with right:
        live_plot(by_layer_figure("ranks", result["labels"], lines, title, "rank"), key="similarity_ranks")
        page.computed(
            "How many directions ΔW uses in each layer. The stable rank counts weak directions less.",
            "Effective rank: exp(−Σ p ln p) with p = σ / Σσ. Stable rank: ‖ΔW‖²<sub>F</sub> / σ₁², which is less "
            "sensitive to small σ.",
        )


def _spaces(result: Mapping, other: Mapping | None, same_seed: bool) -> None:
    with st.container(key="pair_similarity_spaces"):
        left, right = st.columns(2, gap="large")
    for column, name, what in ((left, "reads", "row"), (right, "writes", "column")):
        with column:
            figure = overlap_figure(result[name], result["labels"], what, result[f"random_{name}"])
            live_plot(figure, key=f"similarity_overlap_{what}")
    page.computed(
        "Whether two layers look for the same patterns (row space) or add the same directions (column space). 1: the "
        "same space.",
        "Overlap of two layers: ‖UᵀV‖²<sub>F</sub> / min(r, s), the mean squared cosine of the principal angles "
        "between the spaces of their ΔW. Random baseline: max(r, s) / d.",
    )
    if not other:
        page.note("Compare with a run of another seed to see whether both learned the same spaces.")
        return
    rows = {target: row for row, target in enumerate(other["targets"])}
    lines = [
        Line(label, [other[name][rows[target]] if target in rows else None for target in result["targets"]], strong)
        for label, name, strong in (("row space", "same_reads", True), ("column space", "same_writes", False))
    ]
    values = [value for line in lines for value in line.values if value is not None]
    if not values:
        page.note("The two runs share no layer whose spaces can be compared.")
        return
    title = f"The spaces of both runs overlap by {sum(values) / len(values):.2f}"
    if other["same_random_reads"] is not None and other["same_random_writes"] is not None:
        title += f" (random {other['same_random_reads']:.2f} and {other['same_random_writes']:.2f})"
    live_plot(by_layer_figure("overlap-runs", result["labels"], lines, title, "overlap"), key="similarity_overlap_runs")
    note = "The same overlap between this run's ΔW and the other's in the same layer."
    if same_seed:
        note += (
            " Both runs have the same seed, so their initial a is the same and their row spaces overlap from the first "
            "step. Compare with a run of another seed instead."
        )
    page.note(note)
