"""Tables of the paper as studies of a store: what starts, what is shared, results compared with the printed numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.config import ConfigError
from mlae_lab.core.events import SimilarityStats
from mlae_lab.core.paper import Tuned
from mlae_lab.core.paper_arms import PAPER_BACKBONE, RUNNABLE
from mlae_lab.core.paper_tables import MEAN
from mlae_lab.core.study import Study
from mlae_lab.runs import paper_results, paper_studies, studies
from mlae_lab.runs.paper_studies import TableStudy, table_study
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.study_table import StoredStudy
from tests.data.trees import make_vtab
from tests.lab import measured

pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


@pytest.fixture(autouse=True)
def no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))


def through(store: RunStore, stored: StoredStudy, accuracies: dict[str, float]) -> None:
    """Finish the queued runs: each arm reaches its number plus its seed after its only evaluation."""
    for cell in studies.state(store, stored.id).cells:
        if cell.arm in accuracies and cell.accuracy is None:
            assert cell.run is not None
            measured(store, cell.run, accuracies[cell.arm] + cell.seed)


def small(key: str, **more: object) -> TableStudy:
    """A table after two epochs, as `measured` evaluates them."""
    return table_study(key, **{"tasks": ["digits"], "epochs": 2, **more})  # pyright: ignore[reportArgumentType]


def test_without_images_a_table_is_trained_on_the_bundled_tasks() -> None:
    planned = table_study("table4")
    study = planned.study
    assert planned.is_stand_in
    assert study.title == "Bundled stand-in of Table 4: Masking strategies"
    assert (len(study.arms), study.seeds, len(planned.missing)) == (60, (0, 1, 2), 19)
    assert study.reference == "uniform (Ours), dSprites-Loc, rendered"
    assert len(set(study.references.values())) == 4
    assert "p = 0.5 are assumed" in study.notes
    assert study.question
    (arm,) = table_study("fig5", rows=["mlae"], seeds=[7]).study.arms
    assert dict(arm.values) == {"table": "fig5", "row": "MLAE", "task": "dsprites_loc_rendered"}
    assert (arm.config.seed, arm.config.protocol, arm.config.plan.row_rates()[0]) == (7, "test", 0.5)


def test_images_of_the_paper_are_preferred_and_the_rest_is_missing(tmp_path: Path) -> None:
    make_vtab(tmp_path / "data" / "vtab-1k", "svhn", classes=10)
    planned = table_study("table15", rows=["p = 0", "p = 0.5"])
    assert planned.study.title == "Table 15 of the MLAE paper: Drop probability"
    assert (planned.tasks, len(planned.missing), planned.backbone) == (("svhn",), 18, "lab_vit_12x128")
    assert planned.wants_weights
    assert not planned.is_stand_in
    first = planned.study.arms[0].config
    assert (first.epochs, first.learning_rate, first.normalisation) == (500, 5e-4, "half")
    assert first.data_label.startswith("not VTAB-1k")
    assert any(f"other images ({first.data_label})" in note for note in planned.notes)
    unread = table_study("table15", complete=lambda config: config)
    assert unread.study.arms[0].config.data_label == ""
    weights = tmp_path / "data" / "weights" / PAPER_BACKBONE / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert paper_studies.table_backbone(("svhn",)) == PAPER_BACKBONE
    assert paper_studies.table_backbone(("digits",)) == "lab_vit_12x128"


def test_a_study_with_rows_of_another_version_is_no_table(store: RunStore) -> None:
    study = small("fig5").study
    values = (("table", "fig5"), ("row", "a row that this version does not have"), ("task", "digits"))
    store.add_study(replace(study, arms=(replace(study.arms[0], values=values), *study.arms[1:])))
    assert paper_studies.stored_tables(store.studies()) == {}


def test_the_tables_share_their_equal_arms() -> None:
    shared = paper_studies.shared(small("table12", tasks=()))
    assert shared["table4"] == 4
    assert "table10" not in shared  # on val, where nothing else is evaluated
    everything = set()
    for key in RUNNABLE:
        tasks, _ = paper_studies.table_tasks(key)
        everything |= paper_studies.trainings(key, tasks, catalog.backbone("lab_vit_12x128"))
    assert len(everything) == 236


def test_a_second_table_reuses_the_runs_of_the_first_and_a_second_start_starts_nothing(store: RunStore) -> None:
    first = paper_studies.start(store, small("table12"))
    through(store, first, {"Rank 1": 90.0, "Rank 2": 91.0, "Rank 4": 92.0})
    other = small("table13")
    plan = studies.plan(store, other.study)
    assert (other.study.runs, plan.reused, plan.to_run) == (9, 3, 6)
    paper_studies.start(store, other)
    assert len(store.runs()) == 15
    assert paper_studies.start(store, other).id != first.id
    assert len(store.runs()) == 15
    stored = paper_studies.stored_tables(store.studies())
    assert {key: len(entries) for key, entries in stored.items()} == {"table12": 1, "table13": 1}


def test_results_are_compared_with_the_paper_without_a_claim_where_task_and_weights_differ(store: RunStore) -> None:
    stored = paper_studies.start(store, small("table14", tasks=["dsprites_loc_rendered", "digits"], seeds=[0, 1]))
    values = {arm.name: 80.0 for arm in stored.study.arms}
    through(store, stored, {**values, "λ = 2, dSprites-Loc, rendered": 90.0, "λ = 4, Digits": 70.0})
    results = paper_results.table_results(store, studies.state(store, stored.id))
    assert results.columns == ("dsprites_loc_rendered", "digits", MEAN)
    cell = results.cells["λ = 2", "dsprites_loc_rendered"]
    assert cell.result is not None
    assert cell.paper is not None
    assert (cell.result.mean, cell.paper.value, cell.paper.table) == (90.5, 87.7, "Table 14")
    assert cell.difference == pytest.approx(2.8)
    assert results.cells["λ = 2", "digits"].paper is None
    mean = results.cells["λ = 2", MEAN]
    assert mean.result is not None
    assert mean.paper is not None
    assert (mean.result.mean, mean.result.n, mean.paper.value, mean.paper.note) == (85.5, 2, 78.1, "over 19 tasks")
    assert results.to_reference("λ = 2") == pytest.approx((5.0, -0.2))
    assert {entry.claim for entry in results.cells.values()} == {""}
    assert results.differs == ("another task", "other weights (lab_vit_12x128)")
    data = paper_results.results_data(results)
    assert (data["done"], data["runs"], data["rows"][0]["row"]) == (24, 24, "λ = 0.125")
    assert data["rows"][4]["cells"]["dsprites_loc_rendered"]["difference"] == pytest.approx(2.8)
    assert data["badges"][0]["protocol"] == "train1000 → test"


def test_under_the_conditions_of_the_paper_a_cell_says_where_the_printed_number_lies(store: RunStore) -> None:
    planned = small("table15", rows=["p = 0", "p = 0.1"])
    arms = []
    for arm, rate in zip(planned.study.arms, ("0", "0.1"), strict=True):
        row = planned.arms.row(f"p = {rate}")
        base = paper_studies.table_base("svhn", PAPER_BACKBONE, "test")
        config = paper_studies.table_config(base, row.training("svhn", catalog.backbone(PAPER_BACKBONE)), None)
        config = replace(config, data_label="VTAB-1k", device="cpu")
        arms.append(replace(arm, config=config, values=(("table", "table15"), ("row", row.name), ("task", "svhn"))))
    stored = store.add_study(Study("Table 15", tuple(arms), (0, 1, 2)))
    studies.start(store, stored.id)
    for cell in studies.state(store, stored.id).cells:
        assert cell.run is not None
        end = {"p = 0": 88.0, "p = 0.1": 95.0}[cell.arm] + (cell.seed - 1) / 10
        measured(store, cell.run, *[50.0] * 249, end)  # the last after epoch 500
    results = paper_results.table_results(store, studies.state(store, stored.id))
    assert results.differs == ()
    assert [results.cells[f"p = {rate}", "svhn"].claim for rate in ("0", "0.1")] == [
        "the paper's number is within the interval of our seeds",
        "the paper's number is below the interval of our seeds",
    ]
    mean = results.cells["p = 0", MEAN]
    assert mean.paper is not None
    assert (mean.paper.value, mean.paper.note, mean.claim) == (88.0, "over 1 task", "")


def test_rows_that_are_one_training_on_a_task_have_one_arm(store: RunStore) -> None:
    planned = small("table10", seeds=[0])
    assert len(planned.study.arms) == 11  # p = 0.5 and λ = 1 are one
    stored = paper_studies.start(store, planned)
    accuracies = {arm.name: 80.0 for arm in planned.study.arms}
    through(store, stored, accuracies | {"p = 0.3": 85.0})
    results = paper_results.table_results(store, studies.state(store, stored.id))
    assert len(results.rows) == 12
    (choice,) = results.choices
    assert choice.result == Tuned(0.3, 0.125)
    assert choice.paper is None


def test_figures_compare_the_similarity_of_experts(store: RunStore) -> None:
    stored = paper_studies.start(store, small("fig5", seeds=[0]))
    for cell, value in zip(studies.state(store, stored.id).cells, (0.5, 0.25), strict=True):
        assert cell.run is not None
        store.append(
            cell.run.id, [SimilarityStats(2, (0.1,), (value,), (((1.0, value), (value, 1.0)),), (1.0,), (1.0,))]
        )
        measured(store, cell.run, 90.0)
    results = paper_results.table_results(store, studies.state(store, stored.id))
    means = {row: known.mean for row in results.rows if (known := results.cells[row, "digits"].result)}
    assert means == {"LoRA": 0.5, "MLAE": 0.25}
    assert results.to_reference("MLAE", "digits") == (-0.25, None)


def test_parameters_at_inference_are_counted() -> None:
    rows = {row.row: row.added for row in paper_results.added_parameters()}
    assert rows["MLAE (Ours)"] == rows["LoRA"] == 0
    assert rows["Adapter"] == pytest.approx(0.157, abs=1e-3)


@pytest.mark.parametrize(
    ("key", "choice", "why"),
    [
        ("table4", {"tasks": ["cub"]}, "cub is no task of Table 4"),
        ("table4", {"tasks": ["cifar", "digits"]}, "choose only one kind"),
        ("table4", {"tasks": ["digits"], "rows": ["dense"]}, "'dense' is no row of Table 4: choose from fixed"),
    ],
)
def test_a_choice_that_the_table_does_not_have(key: str, choice: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        table_study(key, **choice)


def test_what_cannot_be_trained_is_refused() -> None:
    assert [paper_studies.resolved(text) for text in ("table6", "Figure 4", "TABLE15")] == [
        "table12",
        "fig4",
        "table15",
    ]
    with pytest.raises(ConfigError, match="Table 3 cannot be trained: it reports inference on an RTX 3090"):
        paper_studies.resolved("table3")
    with pytest.raises(ConfigError, match="'table16' is no table of the paper"):
        paper_studies.resolved("table16")
