"""A store and an exported run of version 0.5.1, opened by this version (README.md says how they were made)."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from mlae_lab import locks
from mlae_lab.cli import main
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import (
    Evaluation,
    Event,
    ExpertStats,
    Predictions,
    SampleImages,
    SimilarityStats,
    Started,
    TrainStep,
)
from mlae_lab.core.plan import MaskPlan
from mlae_lab.doctor import examine
from mlae_lab.runs import archive_file, commands, paths, pending_events, probe, studies
from mlae_lab.runs.liveness import heartbeat, read_exit_record
from mlae_lab.runs.schema import OLD_FILES, SCHEMA
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import clear, end_probe, processes

HERE = Path(__file__).parent
EXPORTED = HERE / "run_0_5_1.mlae"
VISITOR = "Zq3vTn8_visitor-0_5_1x"
# Status, hash of the config, last step and last accuracy, as `runs --json` of 0.5.1 printed them; of o7s6q4pp without
# what its pending events hold.
RUNS = {
    "pi533uee": ("finished", "fc071d1e21c1", 39, 99.0),
    "t6kux2yp": ("finished", "60d314fd34dd", 39, 98.5),
    "uxm32ceq": ("finished", "b55368350eae", 52, 99.0),
    "l2n54egz": ("finished", "1e6438c6a1e3", 26, 98.0),
    "yiuubjlu": ("finished", "006ccaab32a4", 26, 97.5),
    "axjiegsf": ("stopped", "9ea5f585838d", 35, 99.0),
    "o7s6q4pp": ("stopped", "df1b523f9742", 26, 97.0),
    "iwvfnnej": ("finished", "879917bb18e2", 26, 97.5),
}
# Accuracy and loss of every evaluation after 0.5.1 itself resumed the stopped run and repeated the branched one.
ENDS = {
    "axjiegsf": [
        (96.5, 0.500114), (98.5, 0.078573), (99.0, 0.055819), (99.5, 0.049927),
        (99.5, 0.041953), (99.5, 0.038027), (99.5, 0.035983), (99.5, 0.034043),
        (99.5, 0.033298), (99.5, 0.031885), (99.5, 0.031738), (99.5, 0.031854),
        (99.5, 0.031819),
    ],
    "uxm32ceq": [(99.0, 0.062583), (99.0, 0.060661)],
}  # fmt: skip
AnEvent = TypeVar("AnEvent", bound=Event)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The store as 0.5.1 wrote it."""
    with zipfile.ZipFile(HERE / "store_0_5_1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[RunStore]:
    """The same, opened by this version; its queued run is cancelled, so that only the runs of a test start."""
    opened = RunStore(folder)
    assert commands.cancel(opened, "wrogwdww")
    yield opened
    clear(opened)


def events_of(store: RunStore, run: str, kind: type[AnEvent]) -> list[AnEvent]:
    return [stored.event for stored in store.events(run) if isinstance(stored.event, kind)]


def version(folder: Path) -> int:
    db = sqlite3.connect(paths.database(folder))
    try:
        return db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        db.close()


def files_of(folder: Path) -> set[str]:
    """The files of the runs, by their paths in the store."""
    return {str(path.relative_to(folder)) for path in folder.glob("runs/**/*") if path.is_file()}


# ---------------------------------------------------------------- content


def test_every_run_has_its_status_config_and_accuracy(folder: Path) -> None:
    assert version(folder) == 5
    store = RunStore(folder)
    assert version(folder) == SCHEMA
    assert store.unread() == []
    runs = {run.id: run for run in store.runs()}
    assert runs.pop("wrogwdww").status is Status.QUEUED
    assert [run.id for run in store.queue()] == ["wrogwdww"]
    assert set(runs) == set(RUNS)
    for name, (status, config_hash, step, accuracy) in RUNS.items():
        run = runs[name]
        assert (run.status.value, run.config_hash, run.config.hash) == (status, config_hash, config_hash)
        assert events_of(store, name, TrainStep)[-1].step == step
        assert events_of(store, name, Evaluation)[-1].accuracy == accuracy
    assert (runs["uxm32ceq"].parent, runs["uxm32ceq"].relation, runs["uxm32ceq"].source) == (
        "pi533uee",
        "branched",
        "2",
    )
    assert runs["iwvfnnej"].owner == VISITOR
    assert (runs["iwvfnnej"].config.mask_per, runs["iwvfnnej"].config.input_dropout) == ("token", 0.1)


def test_the_race_is_a_study_with_its_numbers(folder: Path) -> None:
    store = RunStore(folder)
    (race,) = store.studies()
    state = studies.state(store, race.id)
    assert (race.study.title, race.owner, race.halted) == ("Race of 2 masks on Digits", "cli:root", False)
    assert [arm.name for arm in race.study.arms] == ["Fixed, 8 experts", "Mixed, 4 experts, p = 0.5"]
    assert [(cell.run and cell.run.id, cell.accuracy) for cell in state.cells] == [
        ("l2n54egz", RUNS["l2n54egz"][3]),
        ("yiuubjlu", RUNS["yiuubjlu"][3]),
    ]
    assert {(store.run(name).relation, store.run(name).source) for name in ("l2n54egz", "yiuubjlu")} == {
        ("study", race.id)
    }
    assert studies.start(store, race.id) == [], "nothing starts"


OLD_LABELS = {
    "own pictures, 1,004/5/5": "own images, 1,004/5/5",
    "not VTAB-1k: its layout with 14/5/5 pictures": "not VTAB-1k: its layout with 14/5/5 images",
    "VTAB-1k, 6,085 test pictures for 6,084": "VTAB-1k, 6,085 test images for 6,084",
    "VTAB-1k": "VTAB-1k",
    "": "",
}
OLD_FILE = "own pictures é.npz"


@pytest.mark.parametrize(("old", "new"), OLD_LABELS.items())
def test_labels_of_images_have_current_words(folder: Path, old: str, new: str) -> None:
    db = sqlite3.connect(paths.database(folder))
    (text,) = db.execute("SELECT config FROM runs WHERE id = 'pi533uee'").fetchone()
    config = json.loads(text) | {"data_label": old, "weights": OLD_FILE, "learning_rate": 1e-05}
    db.execute("UPDATE runs SET config = ? WHERE id = 'pi533uee'", (json.dumps(config),))
    db.execute("UPDATE runs SET config = '{' WHERE id = 'iwvfnnej'")
    db.commit()
    db.close()
    store = RunStore(folder)
    run = store.run("pi533uee")
    assert run.config == RunConfig.from_dict(config | {"data_label": new})
    assert run.config_hash == RUNS["pi533uee"][1]
    assert len(store.unread()) == 1


def test_events_have_current_names_and_their_values(store: RunStore) -> None:
    (started,) = events_of(store, "pi533uee", Started)
    assert (started.train_images, started.evaluation_images) == (800, 200)
    steps = events_of(store, "pi533uee", TrainStep)
    assert [step.step for step in steps] == list(range(1, 40))
    assert {step.active for step in steps} <= set(range(8))  # of 7 experts
    assert len({step.active for step in steps}) > 2
    assert all(sum(map(int, f"{int(step.mask, 16):b}")) == step.active for step in steps)
    (sample,) = events_of(store, "pi533uee", SampleImages)
    assert len(sample.images) == len(sample.labels) == 12
    assert set(sample.labels) <= {str(digit) for digit in range(10)}
    predictions = events_of(store, "pi533uee", Predictions)
    assert [event.epoch for event in predictions] == [1, 2, 3]
    assert all(len(event.predicted) == len(event.confidence) == 12 for event in predictions)
    for stats in events_of(store, "pi533uee", ExpertStats):
        shares = [share for row in stats.active_share for share in row if share is not None]
        assert len(shares) == 7
        assert all(0.4 < share < 1 for share in shares)  # p = 0.3
    assert len(events_of(store, "pi533uee", SimilarityStats)) == 3


def test_files_of_the_runs_have_current_names(folder: Path) -> None:
    before = files_of(folder)
    store = RunStore(folder)
    names = {old: [file for file in before if file.endswith(f"/{old}")] for old in OLD_FILES}
    assert {old: len(files) for old, files in names.items()} == {"pulse": 8, "end.json": 8, "untold.json": 1}
    renamed = {file.replace(f"/{old}", f"/{OLD_FILES[old]}") for old, files in names.items() for file in files}
    assert files_of(folder) == {file for file in before if file.rsplit("/", 1)[1] not in OLD_FILES} | renamed
    for name, (status, *_) in RUNS.items():
        record, beat = read_exit_record(store.paths(name)), heartbeat(store.paths(name))
        assert record is not None
        assert record.status.value == status
        assert beat is not None
        assert beat.step == (39 if name == "o7s6q4pp" else RUNS[name][2])


def test_library_and_draft(store: RunStore) -> None:
    (entry,) = store.plans()
    assert (entry.name, entry.plan.code, entry.owner) == (
        "Top four, half awake", "m1_12x2_0*8-3*4_0*8-.5*4", "cli:root",
    )  # fmt: skip
    visitor = store.visitor(VISITOR)
    assert visitor.nickname == "Ada"
    draft = RunConfig.from_dict(json.loads(visitor.draft))
    assert (draft.task, draft.epochs, draft.seed, draft.mask_per, draft.input_dropout) == (
        "digits",
        5,
        3,
        "token",
        0.05,
    )
    assert draft.plan == MaskPlan.from_code("m1_12x8_ff*6-3f*6_.2*12")


def test_the_archived_run_is_restored(store: RunStore) -> None:
    (entry,) = archive_file.archived(store)
    assert (entry.id, entry.owner, entry.task, entry.status, entry.trouble) == (
        "pahlvwg3", "cli:root", "digits", Status.FINISHED, "",
    )  # fmt: skip
    run = archive_file.restore(store, "pahlvwg3")
    assert (run.status, run.config.seed, run.config.hash) == (Status.FINISHED, 7, run.config_hash)
    assert [event.accuracy for event in events_of(store, "pahlvwg3", Evaluation)] == [95.5]
    assert [event.epoch for event in events_of(store, "pahlvwg3", Predictions)] == [1]
    assert list(store.paths("pahlvwg3").checkpoints()) == ["last", "1"]
    assert archive_file.archived(store) == []


def test_pending_events_are_delivered(store: RunStore) -> None:
    pending_events.deliver(store, "o7s6q4pp")
    assert [step.step for step in events_of(store, "o7s6q4pp", TrainStep)] == list(range(1, 40))
    assert [event.accuracy for event in events_of(store, "o7s6q4pp", Evaluation)] == [96.0, 97.0, 99.5]
    assert [event.epoch for event in events_of(store, "o7s6q4pp", Predictions)] == [1, 2, 3]
    assert [event.epoch for event in events_of(store, "o7s6q4pp", ExpertStats)] == [1, 2, 3]
    assert not store.paths("o7s6q4pp").pending_events.exists()


# ---------------------------------------------------------------- commands


def test_the_stopped_run_resumes_and_the_branched_one_is_rerun_to_the_numbers_of_0_5_1(store: RunStore) -> None:
    """On the processor that made the files every digit of the losses is equal; on another one rounding differs."""
    assert commands.resume(store, "axjiegsf").status is Status.QUEUED
    assert main(["rerun", "uxm32ceq", "--store", str(store.folder), "--json"]) == 0
    repeated = store.runs()[0]
    assert (repeated.parent, repeated.relation, repeated.source) == ("pi533uee", "branched", "2")
    ids = {"axjiegsf": "axjiegsf", "uxm32ceq": repeated.id}
    deadline = time.monotonic() + 120
    while store.open_runs():
        assert time.monotonic() < deadline, [commands.log_tail(store, name) for name in ids.values()]
        time.sleep(0.1)
    for name, expected in ENDS.items():
        run = store.run(ids[name])
        assert run.status is Status.FINISHED, run.reason
        measured = events_of(store, run.id, Evaluation)
        assert [event.accuracy for event in measured] == pytest.approx([accuracy for accuracy, _ in expected], abs=0.5)
        assert [event.loss for event in measured] == pytest.approx([loss for _, loss in expected], rel=0.01)
        first = 27 if name == "uxm32ceq" else 1
        assert [step.step for step in events_of(store, run.id, TrainStep)] == list(
            range(first, 13 * run.config.epochs + 1)
        )


def test_a_run_answers_queries(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    try:
        for words in (["whatif", "pi533uee", "--off", "L12E1"], ["importance", "pi533uee", "--image", "3"]):
            assert main([*words, "--store", str(store.folder), "--json"]) == 0
            answers.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    finally:
        end_probe(store, "pi533uee")
    assert answers[0]["before"]["accuracy"] == 99.0
    assert answers[0]["off"] == "L12"  # its only expert
    assert answers[1]["index"] == 3


def test_a_cached_answer_of_0_5_1_is_computed_again(store: RunStore) -> None:
    """0.5.1 wrote format 2, in which fields have other names."""
    files = store.paths("pi533uee")
    probe.keep(files, "errors", {}, probe.signature(files), {"images": 200})
    assert probe._cached(files, "errors", {}) == {"images": 200}
    (path,) = files.answers.glob("errors-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    assert probe._cached(files, "errors", {}) is None


def test_runs_and_doctor(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--store", str(store.folder), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]}
    assert set(rows) == {*RUNS, "wrogwdww"}
    for name, (status, config_hash, step, accuracy) in RUNS.items():
        row = rows[name]
        assert (row["status"], row["config_hash"], row["step"], row["val_accuracy"]) == (
            status,
            config_hash,
            step,
            accuracy,
        )
    sections = {section.title: section.findings for section in examine(store.folder).sections}
    for title in ("Store", "Runs"):
        assert [finding for finding in sections[title] if finding.state == "trouble"] == []


# ---------------------------------------------------------------- opening


def test_two_processes_open_it_at_once(folder: Path, root: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mlae_lab.runs.store import RunStore\n"
        "print(len(RunStore(Path(sys.argv[1])).runs()))"
    )
    assert processes(root, script, [[str(folder)]] * 2) == [f"{len(RUNS) + 1}\n"] * 2
    assert version(folder) == SCHEMA
    assert not [file for file in files_of(folder) if file.rsplit("/", 1)[1] in OLD_FILES]


@pytest.mark.parametrize("holder", ["run axjiegsf", "the supervisor"])
def test_a_store_in_use_by_0_5_1_is_refused_and_left_unchanged(
    folder: Path, holder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    db = sqlite3.connect(paths.database(folder))
    if holder == "run axjiegsf":
        db.execute("UPDATE runs SET status = 'running' WHERE id = 'axjiegsf'")
        db.commit()
        file = paths.RunPaths(folder, "axjiegsf").lock
    else:
        file = paths.supervisor_lock(folder)
    before = files_of(folder) | ({"runs/axjiegsf/lock"} if holder == "run axjiegsf" else set())
    content = list(db.iterdump())
    lock = locks.take(file)
    assert lock is not None
    try:
        with pytest.raises(StoreError, match=f"is in use by {holder} of an older version: wait until"):
            RunStore(folder)
        assert main(["runs", "--store", str(folder)]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert version(folder) == 5
        assert files_of(folder) == before
        assert list(db.iterdump()) == content
    finally:
        os.close(lock)
        db.close()
    assert len(RunStore(folder).runs()) == len(RUNS) + 1


def test_a_failed_statement_leaves_the_files_as_0_5_1_knows_them(folder: Path) -> None:
    db = sqlite3.connect(paths.database(folder))
    db.execute("ALTER TABLE runs ADD COLUMN position REAL")  # makes the first statement fail
    db.commit()
    db.close()
    before = files_of(folder)
    with pytest.raises(StoreError, match="cannot be used as a store"):
        RunStore(folder)
    assert version(folder) == 5
    assert files_of(folder) == before


def test_a_crash_between_the_files_and_the_tables_leaves_a_store_that_opens(folder: Path) -> None:
    obstacle = folder / "runs" / "o7s6q4pp" / "pending_events.json" / "file"
    obstacle.parent.mkdir()  # makes the last renaming fail, as a crash would
    obstacle.touch()
    with pytest.raises(StoreError, match="cannot be used as a store"):
        RunStore(folder)
    assert version(folder) == 5
    assert any(file.endswith("/heartbeat") for file in files_of(folder))
    obstacle.unlink()
    obstacle.parent.rmdir()
    store = RunStore(folder)
    pending_events.deliver(store, "o7s6q4pp")
    assert events_of(store, "o7s6q4pp", TrainStep)[-1].step == 39
    assert not [file for file in files_of(folder) if file.rsplit("/", 1)[1] in OLD_FILES]


# ---------------------------------------------------------------- an exported run


def test_an_exported_run_is_imported_under_current_names_and_exported_again(store: RunStore, tmp_path: Path) -> None:
    inspected = archive_file.inspect(EXPORTED)
    assert (inspected.run.id, inspected.skipped) == ("pi533uee", 0)
    first, second = RunStore(tmp_path / "first"), RunStore(tmp_path / "second")
    run = archive_file.import_run(first, EXPORTED)
    assert (run.status, run.config_hash, run.config.hash) == (Status.FINISHED, "fc071d1e21c1", "fc071d1e21c1")
    imported = [(stored.time, stored.event) for stored in first.events(run.id)]
    assert imported == [(stored.time, stored.event) for stored in store.events(run.id)]
    file = tmp_path / "again.mlae"
    archive_file.export(first, run.id, file)
    assert archive_file.import_run(second, file).config == run.config
    assert [(stored.time, stored.event) for stored in second.events(run.id)] == imported
    assert second.paths(run.id).adapter.read_bytes() == store.paths(run.id).adapter.read_bytes()
    assert second.paths(run.id).checkpoint.read_bytes() == store.paths(run.id).checkpoint.read_bytes()
