"""The central experiment: does masking make experts less alike? Reads its finished runs from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.runs import diversity
from mlae_lab.runs.diversity import ARMS, MEASURES, RATES, SEEDS, Experiment, Found
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, reads, visitor
from mlae_lab.ui.figures.diversity import diversity_figure
from mlae_lab.ui.live_plot import live_plot

_SHOWN = ("absolute", "effective_rank", "accuracy", "stable_rank")
_READ_SECONDS = 5.0
MOST_EPOCHS = 8  # of the experiment that is proposed where there is none


def draw(run: Run) -> None:
    """Draw the experiments of the store, the newest first; that of this run's settings where there is none."""
    _question()
    found = diversity.experiments(reads.runs())
    if not found:
        _none_yet(run)
        return
    picked = found[0]
    if len(found) > 1:
        number = st.selectbox(
            "Experiment", range(len(found)), format_func=lambda i: _title(found[i]), key="diversity_experiment"
        )
        picked = found[number]
    now = reads.shared(("diversity", picked), lambda: diversity.found(reads.store(), picked), _READ_SECONDS)
    _draw(now)


def _question() -> None:
    page.note(
        "The paper says that masking makes experts less alike (section 4.3, A.4). Dropout on factors should do the "
        "opposite for squared loss: its penalty p/(1−p) · Σ ‖λᵢ bᵢ aᵢᵀx‖² is least when all experts share the work equally "
        "(Cavazza et al. 2017; Mianjy et al. 2018). Four ways to train the same network on equal terms settle it, task by "
        "task: every expert always there; experts dropped for a whole step (the paper's mask); experts dropped for "
        "single tokens, the same noise without the structure; and LoRA with dropout of its inputs."
    )


def _title(asked: Experiment) -> str:
    config = asked.config
    seeds = len(asked.seeds)
    return f"{catalog.task(config.task).title}, {config.epochs} epochs, {seeds} seed{'s' * (seeds != 1)}, {catalog.backbone(config.backbone).title}"


def _none_yet(run: Run) -> None:
    page.section("Nobody has tried it here yet")
    try:
        asked = diversity.experiment(_short(run), RATES, SEEDS)
    except (ConfigError, CatalogError) as error:
        page.note(escape(f"{str(error)[:1].upper()}{str(error)[1:]}."))
        return
    runs = len(asked.cells())
    page.note(
        f"{runs} short runs, {len(asked.seeds)} seeds at {len(asked.rates)} drop rates, fill this view: accuracy, |cosine| and effective "
        "rank against p, each with its interval over seeds, and a verdict by a stated rule. They wait in the queue like "
        "any others, and what is finished shows at once."
    )
    _start(asked, f"Start the {runs} runs")
    _command(asked)


def _short(run: Run) -> RunConfig:
    """This run's task and settings, short and without any dropout."""
    config = run.config
    return replace(
        config, plan=dense(), method="mlae", epochs=min(config.epochs, MOST_EPOCHS), evaluations=1, seed=0, max_seconds=None,
        mask_per="step", input_dropout=0.0,
    )  # fmt: skip


def _start(asked: Experiment, words: str) -> None:
    if st.button(words, key="diversity_start"):
        diversity.launch(reads.store(), asked, visitor.current())
        reads.look_again()
        st.rerun()


def _command(asked: Experiment) -> None:
    st.code(asked.command(), language="bash", wrap_lines=True)


def _draw(now: Found) -> None:
    asked = now.experiment
    first, *rest = now.verdict
    st.html(
        f'<p role="status" style="font-size:1.35rem;font-weight:620;line-height:1.35;margin:.6rem 0 .2rem;max-width:66ch;'
        f'letter-spacing:-0.01em">{escape(first)}</p>'
    )
    page.note("<br>".join(map(escape, rest)))
    page.note(
        "The rule: supported if the 95 % interval (Student's t over seeds) of the paired difference in mean |cosine|, expert "
        "dropout minus dense, lies below 0; contradicted if above; else not settled. Each p is judged alone. Rises and "
        f"falls are told by the same rule. True of this task, this backbone and {asked.config.epochs} epochs."
    )
    if now.points:
        with st.container(key="pair_diversity"):
            left, right = st.columns(2, gap="large")
        for number, measure in enumerate(_SHOWN):
            with (left, right)[number % 2]:
                live_plot(diversity_figure(now, measure), key=f"diversity_{measure}")
        page.note(
            "Mean over seeds of each run's last epoch and over layers, all experts on; bands: 95 % interval of the mean. "
            "|cosine|: paper, A.4, without the diagonal. Effective rank of ΔW: exp(−Σ p ln p) with p = σ / Σσ; stable rank: ‖ΔW‖²<sub>F</sub> / "
            "σ₁². Expert and token begin at the dense run, LoRA at LoRA without dropout (λ stays 1)."
        )
        with st.expander("The numbers"):
            _numbers(now)
    if now.missing:
        waiting = [cell for cell in now.missing if cell in now.runs]
        page.note(f"{len(waiting)} of the {len(now.missing)} runs without a measurement wait or are under way.")
        if len(waiting) < len(now.missing):
            _start(asked, f"Start the {len(now.missing) - len(waiting)} that are missing")
    page.note("The command that runs what is missing and tells the result:")
    _command(asked)


def _numbers(now: Found) -> None:
    head = ("", "p", "seeds", *MEASURES.values(), "|cosine| against p = 0")
    rows = []
    for point in now.points:
        cells = [ARMS[point.arm], f"{point.rate:g}", str(len(point.seeds))]
        for name in MEASURES:
            found = point.values.get(name)
            digits = {"accuracy": 1, "effective_rank": 2, "stable_rank": 2}.get(name, 4)
            reach = "" if found is None or found.low is None else f" ± {(found.high - found.low) / 2:.{digits}f}"
            cells.append("–" if found is None else f"{found.mean:.{digits}f}{reach}")
        gap = point.against.get("absolute")
        cells.append("–" if gap is None else f"{gap.mean:+.4f}" + ("" if gap.low is None else f" ({gap.low:+.4f} to {gap.high:+.4f})"))
        rows.append(cells)
    _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    line = "border:0;border-bottom:1px solid color-mix(in srgb, currentColor 14%, transparent)"
    cell = f"padding:.3rem 1.2rem .3rem 0;text-align:left;vertical-align:top;font-size:.86rem;white-space:nowrap;{line}"
    top = "".join(f'<th scope="col" style="{cell};font-weight:500;opacity:.7">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f'<td style="{cell}">{escape(value)}</td>' for value in row) + "</tr>" for row in rows)
    st.html(
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.3rem 0">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
