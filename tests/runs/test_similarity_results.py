"""What a study of diversity says: means, paired differences, verdict. Results are written by the tests."""

from __future__ import annotations

import json
import math
from statistics import fmean, stdev

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.study import Study
from mlae_lab.runs import presets, similarity_results, studies
from mlae_lab.runs.similarity_results import SimilarityResults
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

BASE = RunConfig("digits", epochs=2, evaluations=1, device="cpu")
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def measured(store: RunStore, run: Run, accuracy: float, cosine: float, rank: float) -> None:
    """Write the final results of a run: two layers with almost the same numbers."""
    rows = run.config.plan.rows
    spread = [0.01 * (-1) ** i for i in range(rows)]
    store.append(run.id, [
        ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
        ev.SimilarityStats(2, tuple(cosine / 2 for _ in spread), tuple(cosine + s for s in spread),
                           tuple(() for _ in spread), tuple(rank + s for s in spread), tuple(rank / 2 for _ in spread)),
        ev.Evaluation(2, 26, "val", accuracy, 1.0, 1.0),
    ])  # fmt: skip
    store.move(run.id, Status.FINISHED)


def filled(
    store: RunStore, table: dict[tuple[str, float], list[tuple[float, float, float]]], study: Study
) -> SimilarityResults:
    """Start a study, write the results of some arms and return what it says."""
    name = presets.launch(store, study).id
    kinds = {arm.name: kind for kind, arm in (study_presets.dropout_arms(study) or {}).items()}
    for cell in studies.state(store, name).cells:
        if cell.run is not None and kinds[cell.arm] in table:
            measured(store, cell.run, *table[kinds[cell.arm]][study.seeds.index(cell.seed)])
    results = similarity_results.similarity_results(store, studies.state(store, name))
    assert results is not None
    return results


TABLE = {
    ("dense", 0.0): [(70.0, 0.20, 4.0), (72.0, 0.22, 4.4), (74.0, 0.21, 4.2)],
    ("expert", 0.5): [(75.0, 0.10, 5.0), (76.0, 0.13, 5.3), (78.0, 0.11, 5.2)],
    ("token", 0.5): [(71.0, 0.30, 4.1), (71.0, 0.31, 4.2), (75.0, 0.32, 4.3)],
    ("lora", 0.0): [(69.0, 0.20, 4.0), (71.0, 0.21, 4.1), (73.0, 0.22, 4.2)],
    ("lora", 0.5): [(68.0, 0.25, 3.0), (70.0, 0.16, 3.1), (72.5, 0.24, 3.2)],
}


def test_means_intervals_and_paired_differences(store: RunStore) -> None:
    study = study_presets.diversity(BASE, (0.5,), 3)
    result = filled(store, TABLE, study)
    assert not result.missing
    point = next(p for p in result.points if (p.dropout, p.rate) == ("expert", 0.5))
    gaps = [e[1] - d[1] for e, d in zip(TABLE["expert", 0.5], TABLE["dense", 0.0], strict=False)]
    gap = point.differences["absolute"]
    reach = 4.30265273 * stdev(gaps) / math.sqrt(3)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((fmean(gaps), fmean(gaps) - reach, fmean(gaps) + reach))
    assert point.values["accuracy"].mean == pytest.approx(fmean([75, 76, 78]))
    assert point.values["effective_rank"].mean == pytest.approx(fmean([5.0, 5.3, 5.2]))
    assert point.values["signed"].mean == pytest.approx(fmean([0.05, 0.065, 0.055]))
    lora = {p.rate: p for p in result.curve("lora")}
    assert (lora[0.0].reference, lora[0.5].reference) == ("dense", "LoRA without dropout")
    assert lora[0.5].differences["accuracy"].mean == pytest.approx(-2.5 / 3)
    assert lora[0.0].differences["accuracy"].mean == pytest.approx(-1)
    assert [p.rate for p in result.curve("token")] == [0.0, 0.5]
    assert not result.curve("token")[0].differences
    assert result.baseline.mean == pytest.approx(0.00288, abs=1e-5)


def test_the_verdict_follows_the_rule(store: RunStore) -> None:
    study = study_presets.diversity(BASE, (0.5,), 3)
    first, expert, token, lora = filled(store, TABLE, study).verdict
    assert (
        first
        == "On Digits, the claim that masking makes experts less similar is supported at p = 0.5 (3 seeds, 2 epochs)."
    )
    assert (
        expert
        == "Expert dropout, compared with dense: the effective rank of ΔW rises at p = 0.5; accuracy rises at p = 0.5."
    )
    assert "mean |cosine| rises at p = 0.5; the effective rank of ΔW is not settled at p = 0.5" in token
    assert lora == (
        "Dropout in LoRA, compared with LoRA without dropout: mean |cosine| is not settled at p = 0.5; "
        "the effective rank of ΔW falls at p = 0.5; accuracy falls at p = 0.5."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cosines", "claim"),
    [
        ([0.30, 0.33, 0.31], "contradicted"),
        ([0.10, 0.13, 0.11], "supported"),
        ([0.10, 0.40, 0.11], "not settled"),
        ([0.10], "open until there are two seeds"),
    ],
)
def test_the_claim_at_one_rate(store: RunStore, cosines: list[float], claim: str) -> None:
    study = study_presets.diversity(BASE, (0.5,), len(cosines))
    table = {("dense", 0.0): TABLE["dense", 0.0], ("expert", 0.5): [(70.0, c, 4.0) for c in cosines]}
    result = filled(store, table, study)
    assert similarity_results.claim(result.curve("expert")[-1]) == claim
    assert f" {claim} at p = 0.5 ({len(cosines)} seed" in result.verdict[0]
    assert result.verdict[-1] == f"{3 * len(cosines)} of {5 * len(cosines)} runs are not evaluated yet."


def test_without_results_the_verdict_says_so(store: RunStore) -> None:
    study = study_presets.diversity(BASE, (0.5,), 1)
    result = similarity_results.similarity_results(store, presets.as_found(store, study))
    assert result is not None
    assert not result.points
    assert (result.missing, result.runs) == (5, 0)
    assert result.verdict[0].startswith("There is no result for Digits yet")


def test_equal_results_of_several_rates_are_joined() -> None:
    words = {0.1: "rises", 0.3: "falls", 0.5: "rises", 0.9: "rises"}
    assert similarity_results._by_rate(words) == "rises at p = 0.1, 0.5 and 0.9, falls at p = 0.3"
    assert similarity_results._by_rate({0.1: "falls", 0.9: "falls"}) == "falls at every p"
    assert similarity_results._by_rate({0.9: "falls"}) == "falls at p = 0.9"


def test_the_report_is_json(store: RunStore) -> None:
    study = study_presets.diversity(BASE, (0.5,), 3)
    report = json.loads(json.dumps(similarity_results.as_data(filled(store, TABLE, study))))
    assert report["missing"] == 0
    assert report["rates"] == [0, 0.5]
    assert len(report["points"]) == 7
    masked = next(p for p in report["points"] if (p["arm"], p["p"]) == ("expert", 0.5))
    assert masked["claim"] == "supported"
    assert masked["difference"]["absolute"]["n"] == 3


def test_a_run_of_an_earlier_version_without_ranks_counts(store: RunStore) -> None:
    study = study_presets.diversity(BASE, (0.5,), 1)
    run = presets.runs_of(store, presets.launch(store, study).id, study)[0]
    rows = run.config.plan.rows
    store.append(run.id, [
        ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
        ev.SimilarityStats(2, (0.1,) * rows, (0.2,) * rows, ((),) * rows),
        ev.Evaluation(2, 26, "val", 50.0, 1.0, 1.0),
    ])  # fmt: skip
    store.move(run.id, Status.FINISHED)
    assert similarity_results.measures(store, store.run(run.id)) == pytest.approx(
        {"accuracy": 50.0, "absolute": 0.2, "signed": 0.1}
    )
