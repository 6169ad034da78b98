"""Images that change while a run is queued or interrupted: the run is labelled by those it was trained on."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.core import image_labels
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Started
from mlae_lab.core.patterns import allocation
from mlae_lab.data import tasks
from mlae_lab.data.image_record import packed, read_record
from mlae_lab.data.own import read_own
from mlae_lab.model.adapter_file import read_adapter
from mlae_lab.runs import commands, outcomes
from mlae_lab.runs.archive_file import export, import_run
from mlae_lab.runs.report import report, state
from mlae_lab.runs.run_location import RunLocation, keep_location
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.training.checkpoint import read_checkpoint, save_checkpoint
from mlae_lab.training.loaded_run import QueryError, load_run
from mlae_lab.training.queries import queries
from tests.data.trees import make_own, make_vtab, write_image
from tests.lab import to_schema_5, train_queued

SHORT = RunConfig(
    "dtd", allocation((0,) * 11 + (1,)), backbone="lab_vit_12x128.random", epochs=1, device="cpu", precision="float32"
)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def train(store: RunStore, run_id: str) -> Run:
    """Train the queued run; nine processes would load torch."""
    train_queued(store)
    run = store.run(run_id)
    assert run.status is Status.FINISHED, run.reason
    return run


def remove_last_line(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))


def test_a_dataset_that_shrinks_in_the_queue_loses_its_vtab_label(
    data: Path, tmp_path: Path, lab_store: RunStore
) -> None:
    folder = make_vtab(data / "vtab-1k", "dtd", train=800, val=200, test=1880)
    config = tasks.located(SHORT)
    queued = lab_store.enqueue(config, "cpu")
    assert queued.config.badge.data == "VTAB-1k"
    remove_last_line(folder / "test.txt")
    run = train(lab_store, queued.id)

    label = "not VTAB-1k: its layout with 800/200/1,878 images"
    note = f"The images changed after the launch: they were “VTAB-1k” and are “{label}” now."
    assert (run.config.badge.data, run.config.data_notes[0]) == (label, note)
    assert run.config_hash == config.hash, "the config stays as it was enqueued"
    assert run.config.hash != config.hash
    assert outcomes.candidates(lab_store, [config]) == [[]], "not reused for the images of before"
    assert report(lab_store, run)["badge"]["data"] == label
    assert note in report(lab_store, run)["data_notes"]
    assert note in state(lab_store, run)["config"]["data_notes"]
    assert state(lab_store, run)["dataset_changed"]

    export(lab_store, run.id, tmp_path / "run.mlae")
    imported = import_run(RunStore(tmp_path / "other"), tmp_path / "run.mlae")
    assert (imported.config.badge.data, imported.config.data_notes[0]) == (label, note)
    assert imported.config_hash == config.hash


def test_unchanged_images_keep_label_and_notes_without_a_second_census(
    data: Path, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_own(data / "own" / "birds", {"wren": 12, "owl": 12, "crow": 2})
    calls = []
    real = tasks.census
    monkeypatch.setattr(tasks, "census", lambda *args: calls.append(args) or real(*args))
    config = tasks.located(replace(SHORT, task="own:birds"))
    assert len(calls) == 1
    assert config.data_notes, "crow is too small for three splits"
    tasks.load_protocol(config)
    assert len(calls) == 1
    run = train(lab_store, lab_store.enqueue(config, "cpu").id)
    assert run.config == config
    assert run.config.data_notes == config.data_notes
    assert run.config.hash == run.config_hash
    assert run.dataset == ""
    assert not state(lab_store, run)["dataset_changed"]


def test_a_queued_run_of_0_5_1_on_unchanged_images_has_no_note_of_a_change(
    data: Path, tmp_path: Path, lab_store: RunStore
) -> None:
    """0.5.1 recorded another label and no fingerprint."""
    make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    config = tasks.located(replace(SHORT, task="own:birds"))
    queued = lab_store.enqueue(config, "cpu")
    old = config.to_dict() | {"data_label": config.data_label.replace("images", "pictures")}
    old = {name: value for name, value in old.items() if name not in ("data_notes", "data_fingerprint")}
    with lab_store._connection(write=True) as db:
        to_schema_5(db)
        db.execute("UPDATE runs SET config = ?, config_hash = ?", (json.dumps(old), RunConfig.from_dict(old).hash))
        db.execute("PRAGMA user_version = 5")
    run = train(RunStore(lab_store.folder), queued.id)
    assert (run.config.data_label, run.config.data_notes) == (config.data_label, config.data_notes)
    assert run.config_hash == RunConfig.from_dict(old).hash != config.hash
    assert not state(lab_store, run)["dataset_changed"]
    assert outcomes.candidates(lab_store, [config]) == [[run]]


def test_other_images_in_equal_numbers_are_noted(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    queued = lab_store.enqueue(tasks.located(replace(SHORT, task="own:birds")), "cpu")
    write_image(sorted((folder / "owl").iterdir())[0], 99)
    run = train(lab_store, queued.id)
    assert run.config.data_label == queued.config.data_label
    assert run.config.data_notes[0] == (
        "The image files were written again after the launch (sizes or times differ); their label is still "
        f"“{run.config.data_label}”."
    )


def stopped_after(store: RunStore, config: RunConfig) -> Run:
    """A run that was trained to its end and is marked as stopped, so that it can be resumed."""
    run = train(store, store.enqueue(config, "cpu").id)
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET status = 'stopped' WHERE id = ?", (run.id,))
    return run


def test_a_resumed_run_goes_on_with_its_own_images(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    record = read_record(lab_store.paths(first.id).images)
    write_image(folder / "owl" / "new.jpg", 77)
    (folder / "wren").rename(folder / "robin")
    assert lab_store.requeue(first.id)
    run = train(lab_store, first.id)
    assert run.config.data_label == first.config.data_label
    note = "The folder has 1 image more than at the launch, which the run does not use."
    assert note in run.config.data_notes, "the images of test are not new"
    assert record is not None
    assert packed(record) == lab_store.paths(run.id).images.read_bytes()
    assert read_adapter(lab_store.paths(run.id).adapter).input.class_names == ("owl", "wren")


def test_a_run_resumes_where_its_images_have_moved(data: Path, tmp_path: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    keep_location(lab_store.paths(first.id), RunLocation(str(folder.rename(tmp_path / "moved"))))
    assert lab_store.requeue(first.id)
    run = train(lab_store, first.id)
    assert (run.config.data, run.config_hash) == (first.config.data, first.config_hash)
    assert run.config.data_notes == first.config.data_notes


def test_a_run_does_not_resume_on_other_frozen_weights(data: Path, lab_store: RunStore) -> None:
    make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    started = lab_store.last(first.id, Started)
    assert started is not None
    lab_store.append(first.id, [replace(started, weights="0123456789ab")])
    assert lab_store.requeue(first.id)
    with pytest.raises(AssertionError, match="frozen weights with fingerprint 0123456789ab and the file here has"):
        train(lab_store, first.id)


def test_a_run_whose_images_are_gone_cannot_be_resumed(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    record = read_record(lab_store.paths(first.id).images)
    assert record is not None
    (folder / record.train.paths[0]).unlink()
    assert lab_store.requeue(first.id)
    with pytest.raises(AssertionError, match=r"lacks 1 of the run's \d+ training images \(.*rerun on the images"):
        train(lab_store, first.id)


def test_a_run_of_version_0_5_that_resumes_on_other_images_is_labelled_as_mixed(
    data: Path, lab_store: RunStore
) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    lab_store.paths(first.id).images.unlink()  # that version kept no list
    write_image(folder / "owl" / "new.jpg", 7)
    assert lab_store.requeue(first.id)
    run = train(lab_store, first.id)
    assert run.config.data_label.startswith(f"mixed images: {first.config.data_label}, then own images, ")
    assert run.config.badge.data == run.config.data_label


def test_a_run_of_version_0_5_killed_before_its_first_checkpoint_keeps_its_split(
    data: Path, lab_store: RunStore
) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 20, "owl": 20})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    files = lab_store.paths(first.id)
    for file in (files.images, files.checkpoint, *files.checkpoint_after(1).parent.iterdir()):
        file.unlink()
    assert lab_store.requeue(first.id)
    train(lab_store, first.id)
    record = read_record(files.images)
    assert record is not None
    by_the_old_rule, by_the_new = (read_own(folder, as_0_5=old).splits["train"] for old in (True, False))
    assert set(record.train.paths) == {path for path, _ in by_the_old_rule} != {path for path, _ in by_the_new}


def test_a_run_killed_before_its_label_was_recorded_records_it_at_the_next_start(
    data: Path, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    queued = lab_store.enqueue(tasks.located(replace(SHORT, task="own:birds")), "cpu")
    sorted((folder / "owl").iterdir())[0].unlink()

    def killed(*_: object) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "record_dataset", killed)
        with pytest.raises((SystemExit, AssertionError)):
            train(lab_store, queued.id)
    with lab_store._connection(write=True) as db:
        db.execute("UPDATE runs SET status = 'stopped' WHERE id = ?", (queued.id,))
    assert lab_store.requeue(queued.id)
    run = train(lab_store, queued.id)
    assert run.config.data_notes != queued.config.data_notes, "the notes say that the images changed after the launch"


def test_mixed_images_are_labelled_also_if_the_last_checkpoint_does_not_fit(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    first = stopped_after(lab_store, replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2))
    files = lab_store.paths(first.id)
    files.images.unlink()  # as in version 0.5
    whole = read_checkpoint(files.checkpoint)
    files.checkpoint_after(1).parent.mkdir(exist_ok=True)
    save_checkpoint(files.checkpoint_after(1), whole)
    save_checkpoint(files.checkpoint, replace(whole, config=replace(whole.config, batch_size=16)))
    write_image(folder / "owl" / "new.jpg", 7)
    assert lab_store.requeue(first.id)
    run = train(lab_store, first.id)
    assert run.config.data_label.startswith("mixed images: ")
    assert read_checkpoint(files.checkpoint).config.data_label == run.config.data_label


def test_a_query_gets_the_runs_own_images_or_a_sentence(data: Path, lab_store: RunStore) -> None:
    """Version 0.5 reported 88.0 % on "200 validation images" of which 136 had been trained on."""
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    run = train(lab_store, lab_store.enqueue(tasks.located(replace(SHORT, task="own:birds")), "cpu").id)
    files = lab_store.paths(run.id)
    record = read_record(files.images)
    assert record is not None

    def ask(name: str, config: RunConfig = run.config, **arguments: object) -> dict:
        loaded = load_run(config, files.adapter, run.id, "cpu", record=record)
        return queries()[name](loaded, arguments, lambda done, total: None)

    before = ask("about")
    for number in range(200, 240):
        write_image(folder / "owl" / f"new {number}.jpg", number)
    (folder / "owl").rename(folder / "zowl")
    assert ask("about") == before
    assert ask("about")["classes"] == ["owl", "wren"]
    moved = folder.rename(data / "moved")
    content = base64.b64encode((moved / "wren" / "image 0.jpg").read_bytes()).decode()
    prediction = ask("predict", image={"file": content})  # needs none of the images
    assert (prediction["classes"], prediction["nearest"]) == (["owl", "wren"], [])
    with pytest.raises(QueryError, match=r"holds none of the run's images: restore them or name the folder"):
        ask("about")
    config = replace(run.config, data=str(moved))
    assert ask("about", config) == before
    lost = moved / "wren" / Path(record.evaluation.paths[0]).name
    lost = lost if record.evaluation.paths[0].startswith("wren") else moved / "zowl" / lost.name
    lost.unlink()
    with pytest.raises(QueryError, match=rf"lacks 1 of the run's {len(record.evaluation)} evaluation images"):
        ask("about", config)
    assert len(ask("predict", config, image={"file": content})["nearest"]) > 0


def test_a_branched_run_inherits_its_parents_images(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    parent = train(lab_store, lab_store.enqueue(tasks.located(replace(SHORT, task="own:birds")), "cpu").id)
    write_image(folder / "owl" / "new.jpg", 77)
    child = commands.branch(lab_store, parent.id, allocation((0,) * 11 + (2,)), epochs=2)
    assert lab_store.paths(child.id).images.read_bytes() == lab_store.paths(parent.id).images.read_bytes()
    commands.stop(lab_store, child.id, now=True)


def test_a_rerun_is_labelled_by_what_the_folder_holds_now(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    config = tasks.located(replace(SHORT, task="own:birds"))
    first = lab_store.enqueue(config, "cpu")
    lab_store.move(first.id, Status.FINISHED)
    write_image(folder / "owl" / "new.jpg", 7)
    second = commands.rerun(lab_store, first.id)
    end = time.monotonic() + 120
    while not lab_store.run(second.id).status.is_over:
        assert time.monotonic() < end
        time.sleep(0.1)
    run = lab_store.run(second.id)
    assert (run.status, run.config.data_label) == (
        Status.FINISHED,
        tasks.located(replace(SHORT, task="own:birds")).data_label,
    )
    assert run.config.data_label != config.data_label


@pytest.mark.parametrize(
    ("old", "new", "label"),
    [
        ("", "B", "B"),
        ("A", "A", "A"),
        ("A", "B", "mixed images: A, then B"),
        ("mixed images: A, then B", "B", "mixed images: A, then B"),
        ("mixed images: A, then B", "A", "mixed images: A, then B, then A"),
    ],
)
def test_mixed_label(old: str, new: str, label: str) -> None:
    assert image_labels.mixed(old, new) == label
