"""How alike the experts of a run are: cosines as tiles and over time, and what no cut of ΔW can change. Alone or beside
another run (`?other=`), as the paper's figures 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import SimilarityStats, mean_of
from mlae_lab.core.plan import Kind
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_experts
from mlae_lab.runs import probe
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.figures.similarity import Line, by_layer_figure, overlap_figure, rank_curve, spectrum_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence

_NOBODY = ""
MAX_OFFERED = 40


def draw(run: Run) -> None:
    """Draw the view. What the run told while it learned is there at once; the rest is asked of the run."""
    beside = _other(run)
    mine, its = queries.tail(run.id).similarity, queries.tail(beside.id).similarity if beside else []
    _in_words(mine[-1], its[-1] if its else None)
    _cosines(run, mine, beside, its)
    _invariants(run, mine, beside, its)


# ---------------------------------------------------------------- the other run


def _other(run: Run) -> Run | None:
    """The run that stands beside this one: of the address, else the dense one with the same settings."""
    offered = {entry.id: entry for entry in _offered(run)}
    named = st.query_params.get("other")
    if named is None and (dense := queries.references(run).get("dense")) is not None and dense.run in offered:
        named = dense.run
    if named and named not in offered:
        try:
            found = queries.run(named)
            if found.id == run.id or not queries.tail(found.id).similarity:
                raise StoreError(f"run {found.id} cannot stand beside run {run.id}: choose another one with experts")
            offered[found.id] = found
        except StoreError as error:
            st.warning(plain(sentence(error)))
            named = _NOBODY
    if len(offered) == 0:
        page.note("Once a second run with experts is over, the two can stand side by side here.")
        return None
    names = [_NOBODY, *offered]
    with st.container(key="four_similarity"):
        left, _ = st.columns([1, 1])
    picked = left.selectbox(
        "Beside it",
        names,
        index=names.index(named or _NOBODY),
        format_func=lambda name: _label(offered[name]) if name else "No other run",
        key=f"similarity_other_{run.id}_{named or _NOBODY}",
        help="The paper's figures 4 and 5 set a masked run beside LoRA's rank-1 parts: here, any run with experts.",
    )
    if picked != (named or _NOBODY):
        st.query_params["other"] = picked
        st.rerun()
    return offered[picked] if picked else None


def _offered(run: Run) -> list[Run]:
    """Runs with experts that have been measured; those of the same task first."""
    there = [
        entry
        for entry in queries.runs()
        if entry.id != run.id and entry.config.method == "mlae" and entry.status.is_over
    ]
    there.sort(key=lambda entry: entry.config.task != run.config.task)
    return [entry for entry in there[: 2 * MAX_OFFERED] if queries.store().last(entry.id, SimilarityStats)][
        :MAX_OFFERED
    ]


def _label(run: Run) -> str:
    config = run.config
    rates = {p for row in config.plan.drop_rate for p in row} - {0.0}
    rate = f", p = {rates.pop():g}" if len(rates) == 1 else ""
    extra = " per token" if config.mask_per == "token" else ""
    extra += f", inputs dropped at {config.input_dropout:g}" if config.input_dropout else ""
    kind = "LoRA" if config.plan.kind is Kind.DENSE and not config.plan.train_coefficients else config.plan.kind.value
    return f"{run.id}: {catalog.task(config.task).title}, {kind}{rate}{extra}, seed {config.seed}"


# ---------------------------------------------------------------- cosines


def _baseline(run: Run) -> list[RandomBaseline | None]:
    """By layer, what random experts would show. Experts of a higher rank have no closed form: theirs is drawn by the
    process that looks into the run, and there are none until it has answered."""
    plan = run.config.plan
    if plan.expert_rank != 1:
        found = probe.ask(queries.store(), run.id, "similarity", {"file": "", "other": ""}, 0.1)
        drawn = found.value["baseline"] if found.value is not None else [None] * plan.rows
        return [RandomBaseline(**each) if each else None for each in drawn]
    shapes = catalog.backbone(run.config.backbone).shapes(plan.targets)
    return [random_experts(*shapes[target], count) for target, count in zip(plan.targets, plan.kept, strict=False)]


def _cosines(run: Run, mine: Sequence[SimilarityStats], beside: Run | None, its: Sequence[SimilarityStats]) -> None:
    baseline = _baseline(run)
    level = over_layers(baseline)
    page.section("Cosine between the experts of a layer")
    with st.container(key="pair_similarity_tiles"):
        left, right = st.columns(2, gap="large")
    with left:
        page.note(f"Run {run.id}, epoch {mine[-1].epoch}")
        live_plot(figures.similarity_tiles(mine[-1], run.config.plan), key="similarity_tiles")
    with right:
        if beside is not None and its:
            page.note(f"Run {beside.id}, epoch {its[-1].epoch}")
            live_plot(figures.similarity_tiles(its[-1], beside.config.plan), key="similarity_tiles_other")
        else:
            _by_layer(run, mine[-1], None, baseline)
    page.note(
        "One tile a layer, its number and mean |cosine| above it; blue: against each other, orange: together. cos(bᵢ "
        "aᵢᵀ, bⱼ aⱼᵀ) = cos(bᵢ, bⱼ) · cos(aᵢ, aⱼ), with the sign of λᵢ λⱼ (paper, A.4; figures 4 and 5); the diagonal "
        "is left out."
    )
    several = len(mine) > 1 or len(its) > 1
    with st.container(key="pair_similarity_curves"):
        columns = st.columns(1 + bool(its and several), gap="large")
    if several:
        with columns[0]:
            live_plot(
                figures.similarity_curve(mine, its, "other", level.mean if level else None), key="similarity_curve"
            )
    if its:
        with columns[-1]:
            _by_layer(run, mine[-1], its[-1], baseline)
    random = (
        "rank-1 experts of these shapes with nothing in common show E|cos| = E|cos(a, a′)| · E|cos(b, b′)|, each "
        "Γ(d/2) / (√π Γ((d+1)/2))"
        if run.config.plan.expert_rank == 1
        else f"the mean of 24 draws of rank-{run.config.plan.expert_rank} experts of these shapes with Gaussian factors"
    )
    page.note(
        f"Mean over the pairs of a layer, and over layers. Random: {random}; the band is two standard deviations."
    )


def _by_layer(
    run: Run, mine: SimilarityStats, its: SimilarityStats | None, baseline: Sequence[RandomBaseline | None]
) -> None:
    labels, level = run.config.plan.row_labels, over_layers(baseline)
    lines = [Line("this run", mine.absolute)]
    if its is not None and len(its.absolute) == len(labels):
        lines.append(Line("other", its.absolute, strong=False))
    mean = mean_of(mine.absolute)
    title = "Mean |cosine| by layer" + (
        f": {mean / level.mean:.0f} times that of random experts" if mean and level else ""
    )
    live_plot(
        by_layer_figure("similarity-layers", labels, lines, title, "mean |cosine|", baseline), key="similarity_layers"
    )


def _in_words(mine: SimilarityStats, its: SimilarityStats | None) -> None:
    """The same in numbers."""
    pairs = []
    for name, stats in (("", mine), (" of the other", its)):
        if stats is not None and (mean := mean_of(stats.absolute)) is not None:
            pairs.append((f"Mean |cosine|{name}", f"{mean:.3f}"))
            pairs.append((f"signed{name}", f"{mean_of(stats.signed):+.3f}"))
    if pairs:
        page.facts(*pairs)


# ---------------------------------------------------------------- what no cut can change


def _invariants(run: Run, mine: Sequence[SimilarityStats], beside: Run | None, its: Sequence[SimilarityStats]) -> None:
    page.section("What does not depend on how ΔW is cut into experts")
    page.note(
        "BA = (BR)(R⁻¹A) for any R: the rank-1 parts of one ΔW, and their cosines, can be chosen at will. Its singular "
        "values and the spaces that it reads from and writes into cannot. They come from the factors: Aᵀ = "
        "Q<sub>a</sub> R<sub>a</sub>, "
        "Bλ = Q<sub>b</sub> R<sub>b</sub>, and R<sub>b</sub> R<sub>a</sub>ᵀ is as small as the number of experts."
    )
    _over_epochs(run, mine, beside, its)
    _asked(run, beside)


def _most(experts: Sequence[int], rank: int) -> float:
    """The largest rank that ΔW can have, in the mean over the layers with experts."""
    there = [count * rank for count in experts if count]
    return sum(there) / len(there) if there else 0.0


def _over_epochs(run: Run, mine: Sequence[SimilarityStats], beside: Run | None, its: Sequence[SimilarityStats]) -> None:
    """The ranks as the run told them while it learned; runs of an older lab told none."""
    kinds = [
        (what, [_mean_ranks(history, f"{what}_rank") for history in (mine, its)]) for what in ("effective", "stable")
    ]
    if max(len(own) for _, (own, _) in kinds) < 2:
        return
    most, its_most = (_most(one.config.plan.kept, one.config.plan.expert_rank) if one else 0.0 for one in (run, beside))
    with st.container(key="pair_similarity_over_epochs"):
        columns = st.columns(2, gap="large")
    for column, (what, (own, other)) in zip(columns, kinds, strict=False):
        with column:
            live_plot(
                rank_curve(f"{what}-rank-over-epochs", what, own, other, most, its_most), key=f"similarity_rank_{what}"
            )
    page.note(
        "Mean over the layers whose ΔW is not 0, all experts on, at each measured epoch. It cannot be more than the "
        "number of experts, in the mean over the layers that have some."
    )


def _mean_ranks(history: Sequence[SimilarityStats], name: str) -> list[tuple[int, float]]:
    return [(told.epoch, mean) for told in history if (mean := mean_of(getattr(told, name))) is not None]


def _asked(run: Run, beside: Run | None) -> None:
    if run.config.method != "mlae" or not queries.store().paths(run.id).adapter.is_file():
        page.note("This run has left no adapter, so there is nothing to compute it from.")
        return
    ends = (LAST, str(run.config.epochs))
    kept = {name: path for name, path in queries.store().paths(run.id).checkpoints().items() if name not in ends}
    at = _NOBODY
    if kept:
        at = st.select_slider(
            "At", [*kept, _NOBODY], value=_NOBODY, format_func=lambda name: f"epoch {name}" if name else "the end",
            key=f"similarity_at_{run.id}",
        )  # fmt: skip
    files = queries.store().paths(beside.id).adapter if beside else None
    arguments = {
        "file": str(kept[at]) if at else "",
        "other": str(files) if files is not None and files.is_file() else "",
    }
    found = answer(run, "similarity", arguments, "similarity_question", "the spectrum of its ΔW")
    if found is None:
        return
    other = found.get("other")
    _spectra(found, other)
    _spaces(found, other, beside is not None and beside.config.seed == run.config.seed)


def _spectra(found: Mapping, other: Mapping | None) -> None:
    with st.container(key="pair_similarity_spectrum"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(
            spectrum_figure(found["values"], other["values"] if other else (), "this run", "other"),
            key="similarity_spectrum",
        )
        page.note("σᵢ / Σσ, mean over layers; the band goes from the lowest to the highest layer.")
    lines = [Line("effective", found["effective_rank"]), Line("stable", found["stable_rank"])]
    if other and other["targets"] == found["targets"]:
        lines += [
            Line("effective, other", other["effective_rank"], False),
            Line("stable, other", other["stable_rank"], False),
        ]
    there = [value for value in found["effective_rank"] if value is not None]
    title = (
        f"ΔW has effective rank {sum(there) / len(there):.1f}, of at most {_most(found['experts'], found['rank']):.3g}"
        if there
        else "ΔW is 0 so far"
    )
    with right:
        live_plot(by_layer_figure("ranks", found["labels"], lines, title, "rank"), key="similarity_ranks")
        page.note(
            "Effective rank: exp(−Σ p ln p) with p = σ / Σσ. Stable rank: ‖ΔW‖²<sub>F</sub> / σ₁², in which small σ "
            "hardly count."
        )


def _spaces(found: Mapping, other: Mapping | None, same_seed: bool) -> None:
    with st.container(key="pair_similarity_spaces"):
        left, right = st.columns(2, gap="large")
    for column, name, what in ((left, "reads", "reads from"), (right, "writes", "writes into")):
        with column:
            figure = overlap_figure(found[name], found["labels"], what, found[f"random_{name}"])
            live_plot(figure, key=f"similarity_overlap_{name}")
    page.note(
        "Overlap of two layers: ‖UᵀV‖²<sub>F</sub> / min(r, s), the mean squared cosine of the principal angles "
        "between the spaces of their ΔW; 1: the same space. Random spaces show max(r, s) / d."
    )
    if not other:
        page.note("With a run of another seed beside it, here stands whether both found the same spaces.")
        return
    rows = {target: row for row, target in enumerate(other["targets"])}
    lines = [
        Line(words, [other[name][rows[target]] if target in rows else None for target in found["targets"]], strong)
        for words, name, strong in (("reads", "same_reads", True), ("writes", "same_writes", False))
    ]
    values = [value for line in lines for value in line.values if value is not None]
    if not values:
        page.note("The two runs have no layer in common whose spaces can be compared.")
        return
    title = f"The spaces of both runs overlap by {sum(values) / len(values):.2f}"
    if other["same_random_reads"] is not None and other["same_random_writes"] is not None:
        title += f" (random {other['same_random_reads']:.2f} and {other['same_random_writes']:.2f})"
    live_plot(by_layer_figure("overlap-runs", found["labels"], lines, title, "overlap"), key="similarity_overlap_runs")
    note = "The same overlap between this run's ΔW and the other's in the same layer."
    if same_seed:
        note += (
            " Both have one seed, so they began with the same a and read from much the same space from the first step: "
            "a run of another seed tells what both found."
        )
    page.note(note)
